"""Plain integers that a hot path adds to and somebody else takes once a second: a histogram between two looks. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple


class Taken(NamedTuple):
    """What fell into each bucket since the last look (one more than bounds: the last has none), and the sum of it."""

    counts: list[int]
    total: float


class Buckets:
    """Values sorted into buckets; for one thread. `bounds` are inclusive upper ones, rising, in the values' unit."""

    __slots__ = ("_counts", "_total", "bounds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """One value more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._total += value

    def take(self) -> Taken:
        """What was added since this was last asked."""
        taken = Taken(self._counts, self._total)
        self._counts, self._total = [0] * len(self._counts), 0.0
        return taken


# fdatasync takes 20 µs on a disk that lies and a second on one that is busy
COMMIT_BOUNDS_NS = tuple(
    round(seconds * 1e9)
    for seconds in (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
)
ENTRIES_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # a batch has 1,024 at most
BYTES_BOUNDS = tuple(1024 * 4**power for power in range(7))  # 1 KiB to 4 MiB, of which a batch has about one at most


class Pace:
    """How a journal's batches go: what each append waited (ns), what each sync took (ns), how large batches were."""

    __slots__ = ("batch_bytes", "batch_entries", "commit_ns", "sync_ns")

    def __init__(self) -> None:
        self.commit_ns = Buckets(COMMIT_BOUNDS_NS)
        self.sync_ns = Buckets(COMMIT_BOUNDS_NS)
        self.batch_entries = Buckets(ENTRIES_BOUNDS)
        self.batch_bytes = Buckets(BYTES_BOUNDS)

    def batch(self, items: Sequence[Any], *, size_bytes: int, sync_ns: int | None, now_ns: int) -> None:
        """A batch is durable, or written and synced soon (``sync_ns`` None).

        `items` are its appends, each stating when its entry was made (`ts_ns`) and how many `more` came with it.
        """
        entries = 0
        for item in items:
            if item.made is not None:
                entries += 1 + len(item.more)
                self.commit_ns.add(max(0, now_ns - item.ts_ns))  # the clock may have jumped back
        if sync_ns is not None:
            self.sync_ns.add(sync_ns)
        self.batch_entries.add(entries)
        self.batch_bytes.add(size_bytes)
