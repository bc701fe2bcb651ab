"""What others said about checkpoints of the log of logs, as ClickHouse keeps it: cosignatures and time stamp tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from storage import notes
from storage.clickhouse import SWEEP, Database
from storage.cosignatures import with_cosignatures
from storage.errors import Unverifiable
from storage.lines import Rows
from storage.readback import bring

COSIGNATURE: Final = "cosignature"
TIMESTAMP: Final = "timestamp"
_COLUMNS: Final = ("origin", "size", "kind", "name", "ts", "bytes")
_LINE: Final = "concat(toString(size), '|', kind, '|', name, ' ', hex(SHA256(bytes)))"
_WHERE: Final = "origin = {origin:String} AND size = {size:UInt64} AND kind = {kind:String} AND name = {name:String}"
_OF_SIZE: Final = """
SELECT name, bytes FROM anchors
WHERE origin = {origin:String} AND size = {size:UInt64} AND kind = {kind:String} ORDER BY name LIMIT 1 BY name
"""
_NEWEST: Final = """
SELECT max(size) FROM anchors WHERE origin = {origin:String} AND kind = {kind:String} AND name = {name:String}
"""
_NOTE: Final = "SELECT note FROM checkpoints WHERE origin = {origin:String} AND size = {size:UInt64} LIMIT 1"
_COSIGNED: Final = """
SELECT size, uniqExact(name) AS names FROM anchors
WHERE origin = {origin:String} AND kind = 'cosignature' AND size > {above:UInt64}
GROUP BY size ORDER BY names DESC, size DESC LIMIT 1
"""
_LATEST: Final = """
SELECT size FROM checkpoints WHERE origin = {origin:String} AND size > {above:UInt64} ORDER BY size DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One statement about the checkpoint of `size` leaves of `origin`."""

    origin: str
    size: int
    kind: str
    name: str
    ts_ns: int
    data: bytes


def keep(database: Database, anchor: Anchor) -> bool:
    """Bring an anchor into the database unless its author said the same of this size before; true if it was new.

    Raises:
        StorageUnavailable: the database does not answer.
    """
    where = {"origin": anchor.origin, "size": anchor.size, "kind": anchor.kind, "name": anchor.name}
    if anchor.name in of_size(database, anchor.origin, anchor.size, anchor.kind):
        return False
    rows = Rows(
        table="anchors",
        columns=_COLUMNS,
        rows=[(anchor.origin, anchor.size, anchor.kind, anchor.name, anchor.ts_ns, anchor.data)],
        lines=[f"{anchor.size}|{anchor.kind}|{anchor.name} {sha256(anchor.data).hexdigest().upper()}"],
        where=_WHERE,
        parameters=where,
        line=_LINE,
    )
    bring(database, rows, token=f"anchor:{anchor.origin}:{anchor.size}:{anchor.kind}:{anchor.name}")
    return True


def of_size(database: Database, origin: str, size: int, kind: str) -> dict[str, bytes]:
    """Author → what they said of this checkpoint."""
    where = {"origin": origin, "size": size, "kind": kind}
    return {name: data for name, data in database.rows(_OF_SIZE, where, caps=SWEEP)}  # noqa: C416 (a row is a tuple)


def newest(database: Database, origin: str, kind: str, name: str) -> int:
    """The largest size of which `name` said anything; 0 where there is none."""
    ((size,),) = database.rows(_NEWEST, {"origin": origin, "kind": kind, "name": name}, caps=SWEEP)
    return int(size)


def checkpoint_note(database: Database, origin: str, size: int) -> bytes | None:
    """The published checkpoint of exactly `size` leaves with its cosignatures; None where there is none."""
    for (note,) in database.rows(_NOTE, {"origin": origin, "size": size}):
        said = of_size(database, origin, size, COSIGNATURE)
        return with_cosignatures(note.encode(), _lines(said))
    return None


def best_note(database: Database, origin: str, above: int) -> bytes | None:
    """The checkpoint over more than `above` leaves that most witnesses cosigned, the newest of equals; else None."""
    for statement in (_COSIGNED, _LATEST):
        for size, *_ in database.rows(statement, {"origin": origin, "above": above}, caps=SWEEP):
            note = checkpoint_note(database, origin, size)
            if note is not None:
                return note
    return None


def _lines(said: Mapping[str, bytes]) -> dict[str, str]:
    """Those that are signature lines at all: what somebody wrote into the database spoils no checkpoint."""
    lines = {}
    for name, data in said.items():
        try:
            notes.signature_line(data.decode().removesuffix("\n"))
        except (Unverifiable, UnicodeDecodeError):
            continue
        lines[name] = data.decode()
    return lines
