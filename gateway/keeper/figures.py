"""The keeper's gauges, set once a second: how far behind each shard is, and what waits for an explanation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.keeper import metrics
from gateway.keeper.backlog import Backlog
from gateway.keeper.parts import SHARD, Parts
from gateway.keeper.schedule import Schedule
from gateway.keeper.tail import Shelf
from storage.journal import Journal
from storage.reading import Position
from storage.recovery import segments_of
from storage.segment import HEADER_BYTES, segment_name


class Figures:
    """One per keeper; `set` blocks for a moment (it asks for the sizes of files)."""

    def __init__(
        self, parts: Parts, *, journal: Journal, schedule: Schedule, problems: Callable[[], Sequence[str]]
    ) -> None:
        configuration = parts.configuration
        self._parts = parts
        self._journal = journal
        self._schedule = schedule
        self._problems = problems
        metrics.STATES.configured(configuration.settings.deployment, configuration.digest)
        self._unshipped: dict[str, Backlog] = {}
        self._unsigned: dict[str, Backlog] = {}

    def set(self) -> None:
        """Say how everything is now."""
        now_s = time.monotonic()
        for shelf in self._parts.library.shelves:
            self._shard(shelf, now_s)
        metrics.PACE.feed(SHARD, self._journal.pace)
        metrics.STATES.ready(ready=not self._problems())
        oldest_ns = self._schedule.oldest_ns
        metrics.EXPLANATIONS_OLDEST.set(0 if oldest_ns is None else max(0.0, time.time() - oldest_ns / 1e9))

    def _shard(self, shelf: Shelf, now_s: float) -> None:
        shipping, shard = self._parts.shipping, shelf.directory.name
        shipped, signed = shipping.shipped_below(shelf.origin), shipping.signed_below(shelf.origin)
        metrics.UNSHIPPED.labels(shard).set(max(0, shelf.next_seq - shipped))
        line = shipping.lines.get(shelf.origin)
        metrics.UNSHIPPED_BYTES.labels(shard).set(
            _bytes_behind(shelf.directory, None if line is None else line.shipper.position, shelf.end)
        )
        unshipped = self._unshipped.setdefault(shelf.origin, Backlog())
        unsigned = self._unsigned.setdefault(shelf.origin, Backlog())
        metrics.UNSHIPPED_AGE.labels(shard).set(unshipped.age_s(known=shelf.next_seq, done=shipped, now_s=now_s))
        metrics.CHECKPOINT_AGE.labels(shard).set(unsigned.age_s(known=shelf.next_seq, done=signed, now_s=now_s))
        metrics.BROKEN.labels(shard).inc(0)  # stands at 0 before the first damage: an alert sees it rise


def _bytes_behind(directory: Path, position: Position | None, end: Position) -> int:
    """The bytes of journal between two places; of what was never read, all that is there."""
    behind = 0
    for first in segments_of(directory):
        if first > end.segment or (position is not None and first < position.segment):
            continue
        begin = position.offset if position is not None and first == position.segment else HEADER_BYTES
        try:
            last = end.offset if first == end.segment else (directory / segment_name(first)).stat().st_size
        except FileNotFoundError:  # set aside or deleted meanwhile
            continue
        behind += max(0, last - begin)
    return behind
