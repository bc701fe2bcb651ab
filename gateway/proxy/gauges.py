"""What a worker holds at this moment, as gauges; set once a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.proxy.counts import Counts
from gateway.proxy.lanes import Lane
from gateway.states import States, gauge


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One look at a worker."""

    ready: bool
    under_way: int  # calls
    unattended: int  # calls that are open in the journal though nobody handles them
    memory_bytes: int  # of calls
    pending_bytes: int  # waiting for the disk
    space_ratio: float  # of the reserved journal space


class Gauges:
    """The gauges of one worker."""

    def __init__(self, shard: str, counts: Counts, lanes: Sequence[Lane], *, deployment: str, config: str) -> None:
        """`config` is the digest of the configuration."""
        registry = counts.registry
        self._shard = shard
        self._lanes = lanes
        self._states = States(shard, registry)
        self._states.configured(deployment, config)
        self._under_way = gauge("calls_under_way", "Calls that a worker handles.", ["shard"], registry)
        self._unattended = gauge(
            "calls_unattended", "Calls open in the journal for 3 s and not under way.", ["shard"], registry
        )
        self._memory = gauge("calls_memory_bytes", "Bodies and answers held for calls.", ["shard"], registry)
        self._pending = gauge("journal_pending_bytes", "Entries and parts that wait for the disk.", ["shard"], registry)
        self._space = gauge(
            "journal_space_used_ratio",
            "Used share of the reserved journal space, or of its file system's headroom; calls are refused at 0.95.",
            ["shard"],
            registry,
        )
        self._available = gauge(
            "upstream_available",
            "1 while a worker finds nothing wrong with a replica; 0 while its breaker is open or its checks fail.",
            ["route", "replica", "shard"],
            registry,
        )

    def set(self, held: Held) -> None:
        """Say so; called each second."""
        shard = self._shard
        self._states.ready(ready=held.ready)
        self._under_way.labels(shard).set(held.under_way)
        self._unattended.labels(shard).set(held.unattended)
        self._memory.labels(shard).set(held.memory_bytes)
        self._pending.labels(shard).set(held.pending_bytes)
        self._space.labels(shard).set(held.space_ratio)
        for lane in self._lanes:
            if lane.steering is None:
                continue
            for replica in lane.steering.replicas:
                self._available.labels(lane.route.name, replica.name, shard).set(float(replica.sound))
