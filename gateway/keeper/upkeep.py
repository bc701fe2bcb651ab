"""Upkeep: what must be done every few seconds whatever else happens.

Publishes ``control.json``, saves the snapshot of the progress, deletes the segments that may go, looks at models.json,
writes an incident for each damage, states figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from gateway import control
from gateway.keeper import metrics
from gateway.keeper.feed import Feeds
from gateway.keeper.figures import Figures
from gateway.keeper.parts import SHARD, Parts
from gateway.keeper.recollection import Recollection
from gateway.keeper.segments import Released, delete, listed, may_go
from gateway.keeper.tail import Damage, Shelf
from gateway.keeper.writing import Writer
from storage.durable import replace_file

EVERY_S = 1.0
SAVE_EVERY_S = 5.0

_log = structlog.get_logger(__name__)


class Upkeep:
    """One per keeper."""

    def __init__(
        self, parts: Parts, *, writer: Writer, recollection: Recollection, feeds: Sequence[Feeds], figures: Figures
    ) -> None:
        """`feeds` are those of all loops that read decisions."""
        self._figures = figures
        self._parts = parts
        self._writer = writer
        self._recollection = recollection
        self._feeds = feeds
        self._control = parts.configuration.data / control.FILE
        self._incidents: set[tuple[Path, str]] = set()
        self._roll: dict[str, int] = {}  # segments that are to be closed, until they are
        self._published_s = self._saved_s = float("-inf")

    async def run(self) -> None:
        """Keep up for ever."""
        while True:
            await self.round()
            await asyncio.sleep(EVERY_S)

    async def round(self) -> None:
        """Whatever is due now."""
        now_s = time.monotonic()
        await asyncio.to_thread(self._parts.models.refresh)
        if now_s - self._published_s >= control.PUBLISH_S:
            self._published_s = now_s
            await asyncio.to_thread(self._publish, self._to_roll())
        await asyncio.to_thread(self._figures.set)
        for shelf in self._parts.library.shelves:
            if shelf.damage is not None:
                await self._state(shelf.damage)
        if now_s - self._saved_s >= SAVE_EVERY_S:
            self._saved_s = now_s
            await self.save()
            await asyncio.to_thread(self._release)

    def roll(self, segments: Mapping[str, int]) -> None:
        """Have these segments (origin → first sequence number) closed; `control.json` says so within a second."""
        self._roll |= segments
        self._published_s = float("-inf")

    async def save(self) -> None:
        """Save the progress; durable on return."""
        kept = {
            shelf.origin: min(begin)
            for shelf in self._parts.library.shelves
            if (begin := [at for feeds in self._feeds if (at := feeds.resume(shelf.origin)) is not None])
        }
        await self._recollection.save(kept)

    def _to_roll(self) -> dict[str, int]:
        """The segments that are still to be closed; what was, is forgotten. On the loop, as `roll`."""
        writing = {shelf.origin: shelf.mark.slot.segment for shelf in self._parts.library.shelves}
        self._roll = {origin: first for origin, first in self._roll.items() if writing.get(origin) == first}
        return dict(self._roll)

    def _publish(self, roll: Mapping[str, int]) -> None:
        configuration = self._parts.configuration
        content = control.render(
            deployment=configuration.settings.deployment,
            seq=control.next_seq(self._control, int(time.time())),
            ts_ns=time.time_ns(),
            config=configuration.digest,
            sign=self._parts.keyring.control.sign,
            roll=roll,
        )
        replace_file(self._control, content)

    async def _state(self, damage: Damage) -> None:
        """One incident entry for each damage that this process has met."""
        key = (damage.directory, damage.message)
        if key in self._incidents:
            return
        self._incidents.add(key)
        metrics.BROKEN.labels(shard=damage.directory.name).inc()
        fields = {
            "event": "shard_damaged",
            "source": {"origin": damage.origin},
            "position": None if damage.position is None else damage.position.as_json(),
            "detail": damage.message,
        }
        await self._writer.append(self._writer.draft("incident", fields=fields))

    def _release(self) -> None:
        keeper = self._parts.configuration.settings.keeper
        for shelf in self._parts.library.shelves:
            line = self._parts.shipping.lines.get(shelf.origin)
            if line is None or shelf.damage is not None or shelf.directory.parent.name == "quarantine":
                continue  # what is damaged or set aside is evidence
            segments = listed(shelf.directory, now_s=time.time())
            released = Released(shipped=line.passed, checkpoint=line.checkpoint, read=self._read_below(shelf))
            going = may_go(segments, released, lag_s=keeper.lag_hours * 3600, lag_bytes=keeper.lag_bytes)
            if going:
                _log.info("segments_deleted", origin=shelf.origin, count=len(going), below=going[-1].end)
                delete(shelf.directory, going, origin=shelf.origin)

    def _read_below(self, shelf: Shelf) -> int:
        """Every loop, and every restart from the snapshot that is on disk, has done with what is below."""
        if shelf.origin.split("/")[-2] == SHARD:
            return self._recollection.saved_upto if shelf.origin == self._recollection.saved_own else 0
        return self._recollection.saved_from.get(shelf.origin, 0)
