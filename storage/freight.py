"""Freight: what a range of journal batches is as rows of ClickHouse (pure).

Every row has a line for reading back (readback.py): its key, and a digest that ClickHouse recomputes from the bytes it
stores. An entry's line holds the stored leaf beside the leaf over the stored entry, so that both must be right. Month
and retention class are in the lines too: they say in which partition a row lies, and so when it is deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
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

_FILED = "toString(month), ':', hex(retention), ':'"
_ENTRY_LINE = f"concat(toString(seq), ' ', {_FILED}, hex(leaf), hex(SHA256(concat(char(0), entry))))"
_PART_LINE = (
    "concat(toString(at), ' ', toString(key_id), ' ', toString(part), ' ', toString(chunk), ' ',"
    f" {_FILED}, hex(sha256), hex(SHA256(bytes)))"
)
_KEY_LINE = (
    "concat(toString(at), ' ', toString(key_id), ' ', toString(segment), ' ', toString(counter), ' ',"
    " hex(SHA256(wrapped)))"
)
_SEGMENT_LINE = "concat(toString(first_seq), ' ', hex(SHA256(header)))"


_Made = Iterator[tuple[tuple[object, ...], str]]  # a row, its line


@dataclass(frozen=True, slots=True, kw_only=True)
class Freight:
    """The rows of one range; inserted in this order, entries last.

    `unclassed`: keys of chunks that no entry up to here has named; they are filed under `UNCLASSED`.
    """

    keys: Rows
    parts: Rows
    entries: Rows
    unclassed: frozenset[str]

    def tables(self) -> tuple[Rows, Rows, Rows]:
        """All three, in the order of inserting."""
        return self.keys, self.parts, self.entries

    def digests(self) -> dict[str, str]:
        """Table → digest of what belongs there: what a seal fixes."""
        return {rows.table: rows.digest for rows in self.tables()}


class Packer:
    """Makes freight of batches; remembers the retention class of keys that an entry named.

    Args:
        older: key ids and a sequence number → the classes that begin entries below that number gave them; asked for
            chunks whose begin entry this packer has not seen, or not kept in mind.
    """

    def __init__(
        self, origin: str, older: Callable[[Collection[str], int], Mapping[str, str]] = lambda _keys, _below: {}
    ) -> None:
        self.origin = origin
        self._older = older
        self._classes: OrderedDict[str, str] = OrderedDict()
        self._uuids: dict[str, UUID] = {}  # of one range: an entry, its parts and its key mostly share one id

    def pack(self, batches: Sequence[Batch], *, month: int, early: Mapping[str, str] | None = None) -> Freight:
        """The rows of `batches`, filed under `month`; the same arguments make the same lines.

        `early`: classes of keys that only a later entry names.
        """
        self._uuids.clear()
        low = batches[0].first
        high = max(low + 1, batches[-1].first + batches[-1].count)
        entries = self._rows("entries", self._entries(batches, month), low, high)
        self._learn(early or {})
        unclassed = self._recall(batches, low)
        return Freight(
            keys=self._rows("keys", self._keys(batches), low, high),
            parts=self._rows("parts", self._parts(batches, month), low, high),
            entries=entries,
            unclassed=unclassed,
        )

    def _rows(self, table: str, made: _Made, low: int, high: int) -> Rows:
        columns, place, line = _TABLES[table]
        pairs = list(made)
        return Rows(
            table=table,
            columns=columns,
            rows=[row for row, _ in pairs],
            lines=[line for _, line in pairs],
            where=f"origin = {{origin:String}} AND {place} >= {{low:UInt64}} AND {place} < {{high:UInt64}}",
            parameters={"origin": self.origin, "low": low, "high": high},
            line=line,
            alone=place == "seq",
        )

    def _entries(self, batches: Sequence[Batch], month: int) -> _Made:
        for batch in batches:
            for record in batch.records:
                leaf = leaf_hash(record.entry)
                row = self._entry(record.seq, record.entry, leaf, month)
                yield row, f"{record.seq} {_filed(month, str(row[7]))}{leaf.hex().upper() * 2}"

    def _entry(self, seq: int, entry: bytes, leaf: bytes, month: int) -> tuple[object, ...]:
        said = orjson.loads(entry)
        self._learn(classes(said))
        decision = said["decision"]
        return (
            self.origin,
            seq,
            self._uuid(said["id"]),
            said["kind"],
            said["tenant"],
            said["route"] or "",
            int(said["ts"]),
            said.get("retention") or UNCLASSED,
            month,
            self._uuid(decision) if decision else NO_DECISION,
            entry,
            leaf,
        )

    def _parts(self, batches: Sequence[Batch], month: int) -> _Made:
        for batch in batches:
            for part in batch.parts:
                digest = sha256(part.data).digest()
                retention = self._classes.get(part.key_id, UNCLASSED)
                key = (batch.first, self._uuid(part.key_id), part.index, part.chunk)
                place = f"{batch.first} {part.key_id} {part.index} {part.chunk}"
                line = f"{place} {_filed(month, retention)}{digest.hex().upper() * 2}"
                yield (self.origin, *key, retention, month, part.data, digest), line

    def _keys(self, batches: Sequence[Batch]) -> _Made:
        for batch in batches:
            for key in batch.keys:
                row = (self.origin, batch.first, self._uuid(key.key_id), key.counter, key.wrapped, key.segment)
                digest = sha256(key.wrapped).hexdigest().upper()
                yield row, f"{batch.first} {key.key_id} {key.segment} {key.counter} {digest}"

    def _uuid(self, text: str) -> UUID:
        made = self._uuids.get(text)
        if made is None:
            made = self._uuids[text] = UUID(text)
        return made

    def _learn(self, found: Mapping[str, str]) -> None:
        self._classes.update(found)
        while len(self._classes) > CLASSES_MAX:
            self._classes.popitem(last=False)

    def _recall(self, batches: Sequence[Batch], low: int) -> frozenset[str]:
        """Ask for the classes of chunks whose key no entry named here; the keys for which there is none."""
        wanted = {part.key_id for batch in batches for part in batch.parts} - self._classes.keys()
        # a key is written before the entry that names it: what came with its key was named by nothing before
        before = wanted - {key.key_id for batch in batches for key in batch.keys}
        if before:
            self._learn(self._older(before, low))
        return frozenset(wanted - self._classes.keys())


def classes(said: Mapping[str, Any]) -> dict[str, str]:
    """Key id → retention class, of the keys that an entry names; a begin entry may name that of its coming parts."""
    keys = {part["key"] for part in said["parts"]}
    if said["kind"] == "begin" and said.get("key"):
        keys.add(said["key"])
    return dict.fromkeys(keys, said.get("retention") or UNCLASSED)


def named(batches: Iterable[Batch], keys: Collection[str]) -> dict[str, str]:
    """The classes that the entries of `batches` give to `keys`."""
    found: dict[str, str] = {}
    for batch in batches:
        for record in batch.records:
            found |= classes(orjson.loads(record.entry))
    return {key: found[key] for key in sorted(keys) if key in found}


def _filed(month: int, retention: str) -> str:
    return f"{month}:{retention.encode().hex().upper()}:"


# Table → its columns, the column that a range is found by, its line. Chunks of a long stream may have been shipped
# before, by ranges without entries that share their `at` with this one: of parts and keys, others may be there.
_TABLES = {
    "entries": (ENTRY_COLUMNS, "seq", _ENTRY_LINE),
    "parts": (PART_COLUMNS, "at", _PART_LINE),
    "keys": (KEY_COLUMNS, "at", _KEY_LINE),
}


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
