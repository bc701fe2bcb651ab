"""What a ledger serves to standard readers (c2sp.org/tlog-tiles), out of ClickHouse: checkpoint, tiles, entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage import anchors
from storage.clickhouse import SWEEP, Database
from storage.logleaves import is_log
from storage.proofs import ENTRY_TABLE, LOG_TABLE, Tiles
from storage.tiles import WIDTH, Tile

ENTRY_BYTES_MAX: Final = 65_535  # its length is a uint16 in a bundle
_SERVED: Final = """
SELECT size, note FROM checkpoints
WHERE origin = {origin:String}
  AND size <= (SELECT if(count() = 0, 0, max(seq) + 1) FROM TABLE WHERE origin = {origin:String})
ORDER BY size DESC LIMIT 1
"""
_BUNDLE: Final = """
SELECT seq, entry FROM TABLE WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64} ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A published checkpoint whose leaves are all there: how many, and the note with its cosignatures."""

    size: int
    note: bytes


def checkpoint(database: Database, origin: str) -> Served | None:
    """The newest checkpoint whose tree can be read here; None where there is none.

    A checkpoint may be signed over what is not shipped yet; a reader who then asks for its tiles would not find them.
    """
    for size, note in database.rows(_SERVED.replace("TABLE", _table(origin)), {"origin": origin}, caps=SWEEP):
        return Served(size, anchors.checkpoint_note(database, origin, size) or note.encode())
    return None


def tile(database: Database, origin: str, wanted: Tile) -> bytes | None:
    """The hashes of a tile of the served tree; None where the tree has no such tile.

    Raises:
        Unverifiable: leaves below it are missing.
    """
    served = checkpoint(database, origin)
    span = WIDTH**wanted.level
    if served is None or (wanted.n * WIDTH + wanted.width) * span > served.size:
        return None
    return Tiles(database, origin, table=_table(origin)).read(wanted)


def bundle(database: Database, origin: str, wanted: Tile) -> bytes | None:
    """The entries under a tile of level 0, each after its length (uint16, big-endian); None where one is missing."""
    served = checkpoint(database, origin)
    low, high = wanted.n * WIDTH, wanted.n * WIDTH + wanted.width
    if served is None or high > served.size:
        return None
    statement = _BUNDLE.replace("TABLE", _table(origin))
    found = database.rows(statement, {"origin": origin, "low": low, "high": high}, caps=SWEEP)
    if [seq for seq, _ in found] != list(range(low, high)) or any(len(raw) > ENTRY_BYTES_MAX for _, raw in found):
        return None
    return b"".join(len(raw).to_bytes(2, "big") + raw for _, raw in found)


def _table(origin: str) -> str:
    return LOG_TABLE if is_log(origin) else ENTRY_TABLE
