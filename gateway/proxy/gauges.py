"""What a worker holds at this moment, as gauges; set once a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.proxy.counts import Counts
from gateway.proxy.lanes import Lane
from gateway.proxy.replicas import Replica
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
        self._states = States(shard, registry)
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
        self._lanes: Sequence[Lane] = ()
        self.configured(deployment, config, lanes)

    def configured(self, deployment: str, config: str, lanes: Sequence[Lane]) -> None:
        """This configuration is in force from now on; of replicas that are gone nothing is known any more."""
        self._states.configured(deployment, config)
        gone, self._lanes = self._lanes, lanes
        for name, replica in _replicas(gone):
            self._available.labels(name, replica.name, self._shard).set(math.nan)

    def set(self, held: Held) -> None:
        """Say so; called each second."""
        shard = self._shard
        self._states.ready(ready=held.ready)
        self._under_way.labels(shard).set(held.under_way)
        self._unattended.labels(shard).set(held.unattended)
        self._memory.labels(shard).set(held.memory_bytes)
        self._pending.labels(shard).set(held.pending_bytes)
        self._space.labels(shard).set(held.space_ratio)
        for name, replica in _replicas(self._lanes):
            self._available.labels(name, replica.name, shard).set(float(replica.sound))


def _replicas(lanes: Sequence[Lane]) -> list[tuple[str, Replica]]:
    """With the route's name."""
    return [(lane.route.name, each) for lane in lanes if lane.steering is not None for each in lane.steering.replicas]
