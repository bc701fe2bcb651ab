"""The rows of one call in the journal: all of them or none, and one call all the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import BATCH_ROWS_MAX
from storage import receipts
from storage.entries import closes_call, decode
from storage.errors import EntryTooLarge, JournalFull
from storage.journal import JournalLimits
from storage.keys import JournalKeys
from storage.reading import read_header
from storage.recovery import recover
from storage.segment import segment_name
from storage.watermark import NAME
from tests.support.journals import (
    BOOT,
    QUICK,
    SMALL,
    call,
    check_whole,
    crash_copy,
    entries_of,
    journal_keys,
    open_journal,
    read_all,
    rows_of,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "gateway-0"


@pytest.fixture
def keys(tmp_path: Path) -> JournalKeys:
    return journal_keys(tmp_path)


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        ({"kind": "decision"}, True),
        ({"kind": "call", "call": {}}, True),
        ({"kind": "decision", "call": {"row": 0, "rows": 7}}, True),
        ({"kind": "decision", "call": {"row": 0, "rows": None}}, True),
        ({"kind": "decision", "call": {"row": 1, "rows": 7}}, False),
        ({"kind": "call", "call": {"row": 6, "rows": 7}}, False),
        ({"kind": "begin", "call": {"row": 0, "rows": None}}, False),
        ({"kind": "extraction"}, False),
    ],
)
def test_only_the_first_row_of_a_call_closes_it(said: dict[str, object], closes: bool) -> None:
    assert closes_call(said) is closes


async def test_the_rows_of_a_call_stand_in_one_batch_and_count_as_one_call(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    await call(journal)
    journal.admit("acme", "credit")
    appended = await journal.append_rows(rows_of(journal, 7))
    assert journal.counters.as_json() == {"accepted": 2, "closed": 2, "lost": 0, "open": 0, "refused": 0, "shed": 0}
    [batch] = [batch for batch in read_all(directory) if batch.first <= appended.seq < batch.first + batch.count]
    entries = entries_of([batch])
    assert [entry["call"]["row"] for entry in entries] == list(range(7))
    assert [entry["scope_seq"] for entry in entries] == list(range(1, 8))
    assert decode(appended.entry) == entries[0]
    assert len({part.key_id for part in batch.parts}) == len(batch.keys) == 7
    receipt = receipts.parse(appended.receipt)
    receipt.verify(read_header(directory / segment_name(0)).process_key)
    assert (receipt.seq, receipt.count) == (batch.first, 7)
    await journal.close()
    check_whole(directory, [appended])


async def test_rows_that_do_not_fit_beside_others_begin_a_batch(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys, limits=replace(SMALL, batch_records_max=8), syscalls=QUICK)
    waiting = []
    for count in (5, 1, 6, 8, 2):
        journal.admit("acme", "credit")
        waiting.append(journal.append_rows(rows_of(journal, count)))
    await asyncio.gather(*waiting)
    counts = [batch.count for batch in read_all(directory)]
    assert [count for count in counts if count > 1] in ([6, 6, 8, 2], [5, 7, 8, 2]), counts
    await journal.close()
    check_whole(directory, [])


async def test_rows_that_no_batch_can_hold_are_refused_whole(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys, limits=replace(SMALL, batch_records_max=8))
    journal.admit("acme", "credit")
    with pytest.raises(EntryTooLarge):
        await journal.append_rows(rows_of(journal, 9))
    with pytest.raises(EntryTooLarge):
        await journal.append_rows(rows_of(journal, 3, size=SMALL.segment_bytes // 5))
    assert all(entry["kind"] == "heartbeat" for entry in entries_of(read_all(directory)))
    assert journal.counters.open == 1
    await journal.append_rows(rows_of(journal, 8))
    assert journal.counters.open == 0
    await journal.close()


def test_a_batch_holds_as_many_rows_as_a_route_may_split() -> None:
    assert JournalLimits().batch_records_max >= BATCH_ROWS_MAX


async def test_room_for_rows_is_kept_from_admission_on(directory: Path, keys: JournalKeys) -> None:
    limits = JournalLimits(segment_bytes=512 * 1024, call_bytes_reserved=256, space_wait_s=0.2)
    journal = await open_journal(directory, keys, limits=limits)
    assert journal.admit("acme", "credit", bytes_reserved=300_000)
    with pytest.raises(JournalFull):
        journal.admit("acme", "credit", bytes_reserved=800_000)  # the next segment is there, or not yet
    journal.unreserve(300_000)
    assert journal.admit("acme", "credit", bytes_reserved=250_000)
    await journal.close()


async def test_rows_torn_at_any_byte_are_all_there_or_none(tmp_path: Path, directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys, syscalls=QUICK)
    await call(journal)
    before = crash_copy(directory, tmp_path / "before")
    journal.admit("acme", "credit")
    await journal.append_rows(rows_of(journal, 3))
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    path = left / segment_name(0)
    raw = path.read_bytes()
    begin, end = (max(batch.end for batch in read_all(one)) for one in (before, left))
    mark = (before / NAME).read_bytes()
    found = set()
    for cut in range(begin, end + 1):
        torn = raw[:cut] + bytes(end - cut)
        path.write_bytes(torn)
        (left / NAME).write_bytes(mark)
        recovered = recover(left, BOOT, QUICK)
        assert recovered is not None
        state = recovered[1]
        found.add((torn == raw[:end], state.frontier.size - 2, state.counters.closed))
    assert found == {(False, 0, 1), (True, 3, 2)}
