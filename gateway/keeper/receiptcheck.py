"""`answerable receipt check`: a receipt against ClickHouse, and against this host's journals beyond that. Blocking."""

from __future__ import annotations

from gateway.keeper.feed import start_of
from gateway.keeper.parts import Parts
from gateway.keeper.tail import Shelf
from storage import receiptcheck
from storage.merkle import leaf_hash
from storage.reading import SegmentTail
from storage.receiptcheck import Judged


def check_receipt(parts: Parts, text: str) -> Judged:
    """The verdict on a receipt.

    Raises:
        Unverifiable: it is none.
        StorageUnavailable: ClickHouse does not answer.
        JournalError: the journal that should have it is damaged.
    """
    shelves = {shelf.origin: shelf for shelf in parts.library.shelves}

    def recorded(origin: str, seq: int) -> tuple[bytes | None, int] | None:
        shelf = shelves.get(origin)
        return None if shelf is None else (_leaf(shelf, seq), shelf.next_seq)

    public = parts.keyring.log.public_key().public_bytes_raw()
    return receiptcheck.judge(parts.database, text, public=public, recorded=recorded)


def _leaf(shelf: Shelf, seq: int) -> bytes | None:
    """The leaf of an entry that the journal still has."""
    if seq >= shelf.next_seq:
        return None
    tail = SegmentTail(shelf.directory, start_of(shelf.directory, seq))
    try:
        for batch in tail.batches():
            if batch.first <= seq < batch.first + batch.count:
                return leaf_hash(batch.records[seq - batch.first].entry)
            if batch.first > seq:
                return None
    finally:
        tail.close()
    return None
