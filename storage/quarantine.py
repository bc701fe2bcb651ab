"""Quarantine: a corrupt epoch is set aside whole, as evidence, and the shard goes on in a new epoch.

The steps can be cut short anywhere: the note is written first and goes last, after the new epoch says in an entry
what happened to the old one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from storage import durable, watermark
from storage.errors import JournalCorrupt
from storage.segment import SegmentHeader

DIRECTORY = "quarantine"
_NOTE = "corrupt"


def begin(directory: Path, damage: JournalCorrupt, calls: durable.Syscalls) -> dict[str, Any]:
    """Note the damage and move the epoch away; the note, which the new epoch records."""
    mark = watermark.read(directory / watermark.NAME)
    counters = mark.counters if mark is not None else None
    note = {
        "epoch": _damaged_epoch(directory, mark),
        "message": damage.message,
        "counters": counters.as_json() if counters is not None else None,
    }
    durable.replace_file(directory / _NOTE, orjson.dumps(note), calls)
    return finish(directory, note, calls)


def noted(directory: Path) -> dict[str, Any] | None:
    """The note of a quarantine that is not yet recorded."""
    try:
        note: dict[str, Any] = orjson.loads((directory / _NOTE).read_bytes())
    except FileNotFoundError:
        return None
    return note


def finish(directory: Path, note: dict[str, Any], calls: durable.Syscalls) -> dict[str, Any]:
    """All files of the noted epoch are in quarantine on return; its open calls count as lost there."""
    target = directory / DIRECTORY / f"epoch-{note['epoch']:06d}"
    durable.make_directory(target, calls)
    for path in sorted(directory.glob("*.jrn")):
        if _epoch_in(path) in (None, note["epoch"]):
            durable.move(path, target / path.name, calls)
    mark = watermark.read(directory / watermark.NAME)
    if mark is not None and mark.epoch == note["epoch"]:
        slot = replace(mark.slot, lost=mark.slot.lost + mark.counters.open)
        settled = watermark.to_bytes(replace(mark, slot=slot, state=watermark.CLOSED))
        durable.replace_file(directory / watermark.NAME, settled, calls)
        durable.move(directory / watermark.NAME, target / watermark.NAME, calls)
    return note


def recorded(directory: Path, calls: durable.Syscalls) -> None:
    """The new epoch's entry about it is durable: the note has done its work."""
    durable.remove(directory / _NOTE, calls)


def next_epoch(directory: Path) -> int:
    """The epoch that follows all that are in quarantine; 1 where none is."""
    found = [int(path.name.removeprefix("epoch-")) for path in (directory / DIRECTORY).glob("epoch-*")]
    return max(found, default=0) + 1


def _damaged_epoch(directory: Path, mark: watermark.Mark | None) -> int:
    if mark is not None:
        return mark.epoch
    known = [epoch for path in sorted(directory.glob("*.jrn")) if (epoch := _epoch_in(path)) is not None]
    return max(known, default=next_epoch(directory))


def _epoch_in(path: Path) -> int | None:
    """The epoch that a segment's header names; None where the header itself is damaged."""
    try:
        with path.open("rb") as file:
            origin = SegmentHeader.from_bytes(file.read(4096)).origin
    except JournalCorrupt:
        return None
    return int(origin.rpartition("/")[2])
