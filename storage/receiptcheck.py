"""A receipt against the ledger: is what was acknowledged to a caller still there, in its place?

A receipt that holds proves that this entry was durable at this place. So whatever says otherwise about that place
contradicts it, and a receipt outlives what an operator could cut off together with every other trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from storage import logproofs, proofs, receipts, tiles
from storage.batch import check_vouch, key_id
from storage.clickhouse import SWEEP, Database
from storage.errors import JournalCorrupt, Unverifiable
from storage.ids import unb64
from storage.logleaves import log_name, parse
from storage.merkle import leaf_hash
from storage.proofs import Tiles
from storage.queries import entry
from storage.receipts import Receipt
from storage.segment import SegmentHeader

_OPENED: Final = """
SELECT entry FROM log WHERE origin = {log:String} AND shard = {origin:String} AND kind = 'open' ORDER BY seq LIMIT 10000
"""
_HEADERS: Final = "SELECT header FROM segment_keys WHERE origin = {origin:String} ORDER BY first_seq LIMIT 10000"
_STORED: Final = "SELECT count(), max(seq) FROM entries WHERE origin = {origin:String}"
_LOGGED: Final = """
SELECT max(size) FROM log WHERE origin = {log:String} AND shard = {origin:String} AND kind IN ('checkpoint', 'close')
"""


class Standing(StrEnum):
    """What became of a receipt."""

    INCLUDED = "included"  # the entry is there, under a signed checkpoint
    PENDING = "pending"  # it is there, and no checkpoint covers it yet
    CONTRADICTED = "contradicted"  # another entry, or none, is in its place
    UNPROVABLE = "unprovable"  # nothing here can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdict on one receipt, in words; `second` is True where the log of logs holds it too."""

    standing: Standing
    detail: str
    receipt: Receipt
    second: bool = False

    def as_json(self) -> dict[str, Any]:
        """For commands."""
        return {
            "verdict": self.standing.value,
            "detail": self.detail,
            "origin": self.receipt.origin,
            "seq": self.receipt.seq,
            "in_log_of_logs": self.second,
        }


Recorded = Callable[[str, int], tuple[bytes | None, int] | None]
"""Leaf of an entry by the journal (None: it has none there), and how many entries it has; None: no journal here."""


def judge(database: Database, text: str, *, public: bytes, recorded: Recorded) -> Judged:
    """What the ledger says to a receipt.

    Raises:
        Unverifiable: `text` is no receipt at all.
        StorageUnavailable: the database does not answer.
    """
    receipt = receipts.parse(text)

    def judged(standing: Standing, detail: str, *, second: bool = False) -> Judged:
        return Judged(standing=standing, detail=detail, receipt=receipt, second=second)

    process_key = _process_key(database, receipt)
    if process_key is None:
        return judged(Standing.UNPROVABLE, "nothing here knows the process key that signed it")
    try:
        receipt.verify(process_key)
    except Unverifiable as error:
        return judged(Standing.UNPROVABLE, f"it does not hold by itself: {error.message}")
    stored = entry(database, receipt.origin, receipt.seq)
    leaf = None if stored is None else leaf_hash(stored.entry)
    journal = recorded(receipt.origin, receipt.seq)
    if leaf is None and journal is not None:
        leaf = journal[0]
    if leaf is not None and leaf != receipt.leaf:
        return judged(Standing.CONTRADICTED, f"another entry is number {receipt.seq} of {receipt.origin}")
    if leaf is None:
        return judged(*_missing(database, receipt, journal))
    if stored is None:
        return judged(Standing.PENDING, "recorded in the journal; ClickHouse does not have it yet")
    return _proven(database, receipt, judged, public=public)


def _proven(database: Database, receipt: Receipt, judged: Callable[..., Judged], *, public: bytes) -> Judged:
    """The entry is stored: is it under what was signed, and was the tree then the one that the receipt states?"""
    origin, seq = receipt.origin, receipt.seq
    try:
        doubly = logproofs.prove_twice(database, origin, seq, public=public)
        single = proofs.prove(database, origin, seq, public=public) if doubly is None else doubly.entry
        if single is None:
            return judged(Standing.PENDING, "recorded; no signed checkpoint covers it yet")
        ((_, last),) = database.rows(_STORED, {"origin": origin}, caps=SWEEP)
        if last + 1 >= receipt.size:
            tree = tiles.subtree_root(0, receipt.size, last + 1, Tiles(database, origin).read)
            if tree != receipt.root:
                detail = f"the tree of {receipt.size} entries is not the one that it states"
                return judged(Standing.CONTRADICTED, detail)
    except Unverifiable as error:
        return judged(Standing.CONTRADICTED, f"its entry is there, and cannot be proven: {error.message}")
    words = f"number {seq} of {single.size} entries under a signed checkpoint"
    if doubly is None:
        return judged(Standing.INCLUDED, f"{words}; the log of logs does not hold that yet")
    return judged(
        Standing.INCLUDED, f"{words}, leaf {doubly.index} of {doubly.log_size} of the log of logs", second=True
    )


def _missing(database: Database, receipt: Receipt, journal: tuple[bytes | None, int] | None) -> tuple[Standing, str]:
    """No entry stands in its place: who says that there should be one?"""
    origin, seq = receipt.origin, receipt.seq
    ((count, last),) = database.rows(_STORED, {"origin": origin}, caps=SWEEP)
    ((logged,),) = database.rows(_LOGGED, {"log": log_name(origin.partition("/")[0]), "origin": origin}, caps=SWEEP)
    if journal is not None and journal[1] <= seq:
        return Standing.CONTRADICTED, f"it was acknowledged, and the journal ends before it, at {journal[1]}"
    if (count and last > seq) or logged > seq:
        return Standing.CONTRADICTED, "it was acknowledged, later entries are known, and it is gone"
    if journal is not None:
        return Standing.CONTRADICTED, "it was acknowledged, and neither journal nor ClickHouse has it any more"
    return Standing.UNPROVABLE, f"ClickHouse does not have it, and the journal of {origin} is not on this host"


def _process_key(database: Database, receipt: Receipt) -> bytes | None:
    """The key that the receipt names, by the log of logs or else by a segment's header that a host vouches for."""
    log = log_name(receipt.origin.partition("/")[0])
    for (raw,) in database.rows(_OPENED, {"log": log, "origin": receipt.origin}, caps=SWEEP):
        try:
            key = unb64(parse(raw, log=log).said["process_key"] or "")
        except (Unverifiable, ValueError, KeyError, AttributeError):
            continue
        if key_id(key) == receipt.key_id:
            return key
    for (raw,) in database.rows(_HEADERS, {"origin": receipt.origin}, caps=SWEEP):
        try:
            header = SegmentHeader.from_bytes(raw)
            check_vouch(header)
        except JournalCorrupt:
            continue
        if key_id(header.process_key) == receipt.key_id:
            return header.process_key
    return None
