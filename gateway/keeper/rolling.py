"""Closing the segments that are being written, so that what they hold can be released once it is shipped."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from gateway.keeper.tail import Library, Shelf
from gateway.keeper.upkeep import Upkeep
from gateway.keeper.writing import Writer
from storage.quarantine import DIRECTORY as QUARANTINE
from storage.watermark import CLOSED

ROLL_TIMEOUT_S: Final = 15.0  # a worker looks each second; one that is killed never answers
LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """What became of each ledger: closed now, or before, or not in time (nobody writes it, or there is no room)."""

    closed: tuple[str, ...]
    before: tuple[str, ...]
    open: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As the command returns it."""
        return {"closed": list(self.closed), "before": list(self.before), "open": list(self.open)}


async def roll_all(library: Library, upkeep: Upkeep, writer: Writer, *, timeout_s: float = ROLL_TIMEOUT_S) -> Rolled:
    """Close every segment that was being written when this was called; each shard goes on in a new one."""
    await library.look(discover=True)
    shelves = [shelf for shelf in library.shelves if shelf.directory.parent.name != QUARANTINE]
    before = tuple(shelf.origin for shelf in shelves if _is_over(shelf))
    asked = {shelf.origin: shelf.mark.slot.segment for shelf in shelves if not _is_over(shelf)}
    if writer.origin in asked:
        writer.roll(asked[writer.origin])
    upkeep.roll({origin: first for origin, first in asked.items() if origin != writer.origin})
    deadline_s = time.monotonic() + timeout_s
    while True:
        await library.look()
        marks = {shelf.origin: shelf for shelf in library.shelves}
        waiting = tuple(
            origin
            for origin, first in asked.items()
            if origin in marks and marks[origin].mark.slot.segment == first and not _is_over(marks[origin])
        )
        if not waiting or time.monotonic() > deadline_s:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return Rolled(closed=tuple(sorted(set(asked) - set(waiting))), before=before, open=waiting)


def _is_over(shelf: Shelf) -> bool:
    """Whether its writer ended it, or it is damaged: nothing is written there any more."""
    return shelf.mark.state == CLOSED or shelf.damage is not None
