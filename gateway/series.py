"""Histograms of prometheus-client that are fed many values at once, as `storage.buckets` gathers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from storage.buckets import BYTES_BOUNDS, COMMIT_BOUNDS_NS, ENTRIES_BOUNDS, Buckets, Pace

_SECONDS_A_NS = 1e-9


class Series:
    """One labelled histogram; its buckets are those of the `Buckets` that feed it, times `unit`."""

    __slots__ = ("_child", "_unit")

    def __init__(self, child: Any, *, unit: float = 1.0) -> None:
        self._child = child
        self._unit = unit

    def feed(self, buckets: Buckets) -> None:
        """Take what was gathered; by private names of the library, whose `observe` takes one value at a time."""
        counts, total = buckets.take()
        if total:
            self._child._sum.inc(total * self._unit)  # noqa: SLF001
        for bucket, count in zip(self._child._buckets, counts, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)


class PaceSeries:
    """How the batches of journals go, by shard."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        bounds_s = [bound * _SECONDS_A_NS for bound in COMMIT_BOUNDS_NS]
        self._commit = _of_shards(
            "answerable_journal_commit_seconds", "From making an entry to its being durable.", bounds_s, registry
        )
        self._sync = _of_shards("answerable_journal_sync_seconds", "One fdatasync.", bounds_s, registry)
        self._entries = _of_shards("answerable_journal_batch_entries", "Entries in a batch.", ENTRIES_BOUNDS, registry)
        self._bytes = _of_shards("answerable_journal_batch_bytes", "Bytes of a batch.", BYTES_BOUNDS, registry)
        self._known: dict[str, tuple[Series, Series, Series, Series]] = {}

    def feed(self, shard: str, pace: Pace) -> None:
        """Take what the journal of `shard` gathered."""
        known = self._known.get(shard)
        if known is None:
            known = self._known[shard] = (
                Series(self._commit.labels(shard), unit=_SECONDS_A_NS),
                Series(self._sync.labels(shard), unit=_SECONDS_A_NS),
                Series(self._entries.labels(shard)),
                Series(self._bytes.labels(shard)),
            )
        gathered = (pace.commit_ns, pace.sync_ns, pace.batch_entries, pace.batch_bytes)
        for series, buckets in zip(known, gathered, strict=True):
            series.feed(buckets)


def _of_shards(name: str, says: str, bounds: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(name, says, ["shard"], buckets=bounds, registry=registry)
