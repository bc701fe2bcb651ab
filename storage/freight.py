"""Freight: what a range of journal batches is as rows of ClickHouse (pure).

Every row has a line for reading back (readback.py): its key, and a digest that ClickHouse recomputes from the bytes it
stores. An entry's line holds the stored leaf beside the leaf over the stored entry, so that both must be right.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import orjson

from storage.batch import Batch
from storage.lines import Rows
from storage.merkle import leaf_hash

NO_DECISION = UUID(int=0)
UNCLASSED = "default"  # the retention class of what no entry assigns to another
CLASSES_MAX = 10_000  # keys whose class is remembered, from a begin entry to the chunks that follow it

ENTRY_COLUMNS = (
    *("origin", "seq", "id", "kind", "tenant", "route", "ts"),
    *("retention", "month", "decision", "entry", "leaf"),
)
PART_COLUMNS = ("origin", "at", "key_id", "part", "chunk", "retention", "month", "bytes", "sha256")
KEY_COLUMNS = ("origin", "at", "key_id", "counter", "wrapped", "segment")
SEGMENT_COLUMNS = ("origin", "first_seq", "header")

_ENTRY_LINE = "concat(toString(seq), ' ', hex(leaf), hex(SHA256(concat(char(0), entry))))"
_PART_LINE = (
    "concat(toString(at), ' ', toString(key_id), ' ', toString(part), ' ', toString(chunk), ' ',"
    " hex(sha256), hex(SHA256(bytes)))"
)
_KEY_LINE = (
    "concat(toString(at), ' ', toString(key_id), ' ', toString(segment), ' ', toString(counter), ' ',"
    " hex(SHA256(wrapped)))"
)
_SEGMENT_LINE = "concat(toString(first_seq), ' ', hex(SHA256(header)))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freight:
    """The rows of one range; inserted in this order, entries last."""

    keys: Rows
    parts: Rows
    entries: Rows

    def tables(self) -> tuple[Rows, Rows, Rows]:
        """All three, in the order of inserting."""
        return self.keys, self.parts, self.entries

    def digests(self) -> dict[str, str]:
        """Table → digest of what belongs there: what a seal fixes."""
        return {rows.table: rows.digest for rows in self.tables()}


class Packer:
    """Makes freight of batches; remembers the retention class of keys that a begin entry named."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._classes: OrderedDict[str, str] = OrderedDict()
        self._uuids: dict[str, UUID] = {}  # of one range: an entry, its parts and its key mostly share one id

    def pack(self, batches: Sequence[Batch], *, month: int) -> Freight:
        """The rows of `batches`, filed under `month`; the same batches and month make the same lines."""
        self._uuids.clear()
        low = batches[0].first
        high = max(low + 1, batches[-1].first + batches[-1].count)
        entries = self._entries(batches, month, low, high)
        return Freight(
            keys=self._keys(batches, low, high), parts=self._parts(batches, month, low, high), entries=entries
        )

    def _entries(self, batches: Sequence[Batch], month: int, low: int, high: int) -> Rows:
        rows, lines = [], []
        for batch in batches:
            for record in batch.records:
                leaf = leaf_hash(record.entry)
                rows.append(self._entry(record.seq, record.entry, leaf, month))
                lines.append(f"{record.seq} {leaf.hex().upper() * 2}")
        return Rows(
            table="entries",
            columns=ENTRY_COLUMNS,
            rows=rows,
            lines=lines,
            where="origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}",
            parameters={"origin": self.origin, "low": low, "high": high},
            line=_ENTRY_LINE,
        )

    def _entry(self, seq: int, entry: bytes, leaf: bytes, month: int) -> tuple[object, ...]:
        said = orjson.loads(entry)
        retention = said.get("retention") or UNCLASSED
        for part in said["parts"]:
            self._classes[part["key"]] = retention
        while len(self._classes) > CLASSES_MAX:
            self._classes.popitem(last=False)
        decision = said["decision"]
        return (
            self.origin,
            seq,
            self._uuid(said["id"]),
            said["kind"],
            said["tenant"],
            said["route"] or "",
            int(said["ts"]),
            retention,
            month,
            self._uuid(decision) if decision else NO_DECISION,
            entry,
            leaf,
        )

    def _uuid(self, text: str) -> UUID:
        made = self._uuids.get(text)
        if made is None:
            made = self._uuids[text] = UUID(text)
        return made

    def _parts(self, batches: Sequence[Batch], month: int, low: int, high: int) -> Rows:
        rows, lines = [], []
        for batch in batches:
            for part in batch.parts:
                digest = sha256(part.data).digest()
                retention = self._classes.get(part.key_id, UNCLASSED)
                key = (batch.first, self._uuid(part.key_id), part.index, part.chunk)
                rows.append((self.origin, *key, retention, month, part.data, digest))
                lines.append(f"{batch.first} {part.key_id} {part.index} {part.chunk} {digest.hex().upper() * 2}")
        return Rows(
            table="parts",
            columns=PART_COLUMNS,
            rows=rows,
            lines=lines,
            where=_AT,
            parameters={"origin": self.origin, "low": low, "high": high},
            line=_PART_LINE,
            alone=False,
        )

    def _keys(self, batches: Sequence[Batch], low: int, high: int) -> Rows:
        rows, lines = [], []
        for batch in batches:
            for key in batch.keys:
                digest = sha256(key.wrapped).hexdigest().upper()
                rows.append((self.origin, batch.first, self._uuid(key.key_id), key.counter, key.wrapped, key.segment))
                lines.append(f"{batch.first} {key.key_id} {key.segment} {key.counter} {digest}")
        return Rows(
            table="keys",
            columns=KEY_COLUMNS,
            rows=rows,
            lines=lines,
            where=_AT,
            parameters={"origin": self.origin, "low": low, "high": high},
            line=_KEY_LINE,
            alone=False,
        )


# Chunks of a long stream may have been shipped before, by ranges without entries that share their `at` with this one.
_AT = "origin = {origin:String} AND at >= {low:UInt64} AND at < {high:UInt64}"


def segment_rows(origin: str, first_seq: int, header: bytes) -> Rows:
    """The header of one segment as a row."""
    return Rows(
        table="segment_keys",
        columns=SEGMENT_COLUMNS,
        rows=[(origin, first_seq, header)],
        lines=[f"{first_seq} {sha256(header).hexdigest().upper()}"],
        where="origin = {origin:String} AND first_seq = {first_seq:UInt64}",
        parameters={"origin": origin, "first_seq": first_seq},
        line=_SEGMENT_LINE,
    )
