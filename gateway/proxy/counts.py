"""What a worker counts: plain integers on the hot path, moved to prometheus-client once a second.

Counters of calls (accepted, closed, open, lost, refused) live in the journals' watermarks, which survive SIGKILL; these
here say why and how fast.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
REASONS_MAX = 100  # codes are ours and few; a bound all the same


class Counts:
    """One worker's counts since its start, and their exposition."""

    def __init__(self) -> None:
        """All at zero, in a registry of its own (shared by all processes of a host where the supervisor says where)."""
        self._registry = CollectorRegistry()
        self._refused: Tally[str] = Tally()
        self._refused_total: Tally[str] = Tally()
        self._answers: Tally[tuple[str, int]] = Tally()
        self._failures: Tally[tuple[str, str]] = Tally()
        self._unrecorded: Tally[tuple[str, str]] = Tally()
        self._upstream: Tally[tuple[str, str, str]] = Tally()
        self._seconds: dict[str, _Durations] = {}
        registry = self._registry
        self._p_refused = Counter(
            "answerable_refused", "Requests refused before admission.", ["code"], registry=registry
        )
        self._p_answers = Counter("answerable_answers", "Answers of models.", ["route", "status"], registry=registry)
        self._p_failures = Counter(
            "answerable_failures", "Calls without an answer.", ["route", "code"], registry=registry
        )
        self._p_unrecorded = Counter(
            "answerable_unrecorded", "Calls that no entry states.", ["route"], registry=registry
        )
        self._p_upstream = Counter(
            "answerable_upstream",
            "Outcomes of attempts at one replica, and what became of it: opened, closed, unhealthy, healthy.",
            ["route", "replica", "reason"],
            registry=registry,
        )
        self._p_seconds = Histogram(
            "answerable_call_seconds", "From request to closing entry.", ["route"], buckets=BUCKETS_S, registry=registry
        )

    def refused(self, code: str) -> None:
        """One request was refused before admission."""
        if len(self._refused) < REASONS_MAX or code in self._refused:
            self._refused[code] += 1

    def answered(self, route: str, status: int) -> None:
        """A model answered."""
        self._answers[route, status] += 1

    def failed(self, route: str, code: str) -> None:
        """A model gave no answer, or not a whole one."""
        self._failures[route, code] += 1

    def upstream(self, route: str, replica: str, reason: str) -> None:
        """An attempt at a replica had this outcome, or the replica changed its state."""
        self._upstream[route, replica, reason] += 1

    def unrecorded(self, tenant: str, route: str) -> None:
        """A call was let through that no entry will state."""
        self._unrecorded[tenant, route] += 1

    def took(self, route: str, seconds: float) -> None:
        """How long a call took from its arrival to its durable closing entry."""
        durations = self._seconds.get(route)
        if durations is None:
            durations = self._seconds[route] = _Durations(self._p_seconds.labels(route))
        durations.add(seconds)

    def publish(self) -> None:
        """Move what was counted to prometheus-client; called each second, off the hot path."""
        for code, count in self._refused.items():
            self._p_refused.labels(code).inc(count)
        self._refused_total.update(self._refused)
        self._refused.clear()
        for (route, status), count in self._answers.items():
            self._p_answers.labels(route, str(status)).inc(count)
        self._answers.clear()
        for (route, code), count in self._failures.items():
            self._p_failures.labels(route, code).inc(count)
        self._failures.clear()
        for labels, count in self._upstream.items():
            self._p_upstream.labels(*labels).inc(count)
        self._upstream.clear()
        for (_, route), count in self._unrecorded.items():
            self._p_unrecorded.labels(route).inc(count)
        self._unrecorded.clear()
        for durations in self._seconds.values():
            durations.publish()

    def refusals(self) -> dict[str, int]:
        """Refusals by code since this was last asked: for the one aggregate entry a minute."""
        self.publish()
        taken = dict(self._refused_total)
        self._refused_total.clear()
        return taken

    def exposition(self, shards: Iterable[tuple[str, dict[str, int]]]) -> bytes:
        """All counts of this host as text, with the watermark counters of each `(shard, {name: value})`."""
        self.publish()
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
        lines = [generate_latest(registry).decode()]
        watermarks = list(shards)
        names = sorted({name for _, counters in watermarks for name in counters})
        for name in names:
            kind = "gauge" if name == "open" else "counter"
            lines.append(f"# TYPE answerable_journal_{name} {kind}\n")
            lines += [f'answerable_journal_{name}{{shard="{s}"}} {c[name]}\n' for s, c in watermarks if name in c]
        return "".join(lines).encode()


class _Durations:
    """What calls of one route took since the last time they were published, already sorted into buckets."""

    __slots__ = ("_child", "_counts", "_sum")

    def __init__(self, child: Any) -> None:
        self._child = child
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def publish(self) -> None:
        """By private names of the library's histogram: its `observe` takes one value at a time."""
        counts, self._counts = self._counts, [0] * len(self._counts)
        total, self._sum = self._sum, 0.0
        if total:
            self._child._sum.inc(total)  # noqa: SLF001
        for bucket, count in zip(self._child._buckets, counts, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)


def shard_directories(data: Path) -> list[Path]:
    """The journals of this host."""
    journal = data / "journal"
    return sorted(path for path in journal.iterdir() if path.is_dir()) if journal.is_dir() else []
