"""The journal as its callers meet it: real files, a real writer thread."""

from __future__ import annotations

import asyncio
import errno
import time
from dataclasses import replace
from pathlib import Path

import pytest

from storage import receipts, watermark
from storage.entries import Part
from storage.errors import EntryTooLarge, JournalFull, JournalHeld, JournalStopped
from storage.frames import PAYLOAD_BYTES_MAX
from storage.journal import Appended, Journal
from storage.keys import JournalKeys, Keyring
from storage.reading import Position, SegmentTail, read_header, shards
from storage.seal import open_part
from storage.segment import StoredPart, segment_name
from tests.support.journals import (
    SMALL,
    Failing,
    call,
    check_whole,
    draft,
    entries_of,
    journal_keys,
    open_journal,
    read_all,
    sealed_decision,
    until,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "gateway-0"


@pytest.fixture
def keys(tmp_path: Path) -> JournalKeys:
    return journal_keys(tmp_path)


async def test_what_was_awaited_is_in_the_journal_with_a_receipt_that_verifies(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    appended = await call(journal)
    [batch] = [batch for batch in read_all(directory) if batch.first == appended.seq]
    assert batch.records[0].entry == appended.entry
    assert batch.origin == appended.origin == "test/gateway-0/1"
    receipt = receipts.parse(appended.receipt)
    receipt.verify(read_header(directory / segment_name(0)).process_key)
    assert (receipt.seq, receipt.leaf) == (appended.seq, appended.leaf)
    await journal.close()


async def test_sequence_numbers_are_contiguous_and_each_scope_counts_its_own(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    for number in range(30):
        await journal.append(draft(tenant=f"t{number % 3}", route="r" if number % 2 else None))
    await journal.close()
    entries = entries_of(read_all(directory))
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    counts: dict[tuple[str, str | None], int] = {}
    for entry in entries:
        scope = (entry["tenant"], entry["route"])
        assert entry["scope_seq"] == counts.get(scope, 0)
        counts[scope] = entry["scope_seq"] + 1


async def test_appends_that_wait_together_share_a_batch(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    await asyncio.gather(*(call(journal) for _ in range(200)))
    await journal.close()
    batches = read_all(directory)
    assert sum(batch.count for batch in batches) == 202
    assert len(batches) < 20
    assert max(batch.count for batch in batches) > 50


async def test_calls_that_end_in_successive_turns_of_the_loop_share_batches(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    before = len(read_all(directory))
    for _ in range(32):
        journal.admit("acme", "credit")

    async def end(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await journal.append(draft(), closes=True)

    await asyncio.gather(*(end(turns) for turns in range(32)))
    assert len(read_all(directory)) - before < 8
    await journal.close()


async def test_counters_can_be_asked_for_after_the_end(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    await call(journal)
    closing = asyncio.create_task(journal.close())
    while not closing.done():  # at every moment of it
        assert journal.counters.accepted == 1
        await asyncio.sleep(0)
    assert (journal.counters.closed, journal.counters.open) == (1, 0)


async def test_a_batch_ends_at_its_limits(directory: Path, keys: JournalKeys) -> None:
    limits = replace(SMALL, batch_records_max=16, batch_bytes_max=8192)
    journal = await open_journal(directory, keys, limits=limits)
    await asyncio.gather(*(call(journal, 10) for _ in range(50)), *(call(journal, 3000) for _ in range(20)))
    await journal.close()
    batches = read_all(directory)
    assert max(batch.count for batch in batches) <= 16
    assert max(batch.end - batch.begin for batch in batches) < 8192 + 4096


async def test_parts_and_their_key_stand_in_the_batch_of_their_entry_and_open_for_the_keeper(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys)
    made, stored, key = sealed_decision(journal, b'{"income":1}' * 100, b"approved")
    appended = await journal.append(made, parts=stored, key=key)
    await journal.close()
    [batch] = [batch for batch in read_all(directory) if batch.first == appended.seq]
    assert [(part.key_id, part.index, part.at) for part in batch.parts] == [(key.key_id, 0, 1), (key.key_id, 1, 1)]
    [wrapped] = batch.keys
    dek = Keyring.open(tmp_path).part_key(read_header(directory / segment_name(wrapped.segment)), wrapped)
    entry = entries_of([batch])[0]
    opened = [
        open_part(Part.from_json(part), [batch.parts[part["index"]].data], dek, journal.origin)
        for part in entry["parts"]
    ]
    assert opened == [b'{"income":1}' * 100, b"approved"]


async def test_chunks_of_a_stream_go_ahead_of_their_entry_under_one_key_frame(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    key = journal.new_key()
    stream = key.sealer.open_stream_part("response", "text/event-stream", 1)
    for number in range(3):
        await journal.append_parts(key, [stream.chunk(b"data: %d\n\n" % number)], ts_ns=number)
    appended = await journal.append(draft(parts=(stream.finish(),)), key=key)
    await journal.close()
    batches = read_all(directory)
    with_parts = [batch for batch in batches if batch.parts]
    assert [batch.count for batch in with_parts] == [0, 0, 0]
    assert {batch.first for batch in with_parts} == {appended.seq}
    assert [part.chunk for batch in with_parts for part in batch.parts] == [0, 1, 2]
    assert [len(batch.keys) for batch in batches].count(1) == 1


async def test_a_full_segment_is_cut_to_its_end_and_the_next_begins_with_the_counters(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    for _ in range(12):
        await until(lambda: journal.disk_share < 0.6)  # the next segment is reserved
        await asyncio.gather(*(call(journal, 2000) for _ in range(40)))
    await journal.close()
    names = sorted(path.name for path in directory.glob("*.jrn"))
    assert len(names) > 2
    batches = read_all(directory)
    for name in names:
        segment = int(name[:20])
        own = [batch for batch in batches if batch.segment == segment]
        assert (directory / name).stat().st_size == own[-1].end
        assert own[0].first == segment
        first = entries_of(own)[0]
        assert first["kind"] == "heartbeat"
        assert first["at"] == segment
        counted = {(tenant, route): count for tenant, route, count in first["scopes"]}
        assert counted.get(("acme", "credit"), 0) == first["counters"]["closed"]
    assert [entry["seq"] for entry in entries_of(batches)] == list(range(sum(batch.count for batch in batches)))


async def test_a_tail_goes_on_where_it_stopped_in_this_process_and_in_the_next(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    tail, seen = SegmentTail(directory, host_keys={keys.host_public}), []
    for size in (10, 3000, 10, 3000, 3000, 3000):
        await until(lambda: journal.disk_share < 0.6)  # the next segment is reserved
        await asyncio.gather(*(call(journal, size) for _ in range(50)))
        seen += list(tail.batches())
        assert list(tail.batches()) == []
        place = tail.position
        assert place is not None
        tail.close()
        tail = SegmentTail(directory, Position.from_json(place.as_json()))
    await journal.close()
    seen += list(tail.batches())
    tail.close()
    assert seen == read_all(directory)


async def test_a_tail_never_reads_behind_the_watermark(directory: Path, keys: JournalKeys) -> None:
    """The bytes are there and whole, but nobody said yet that they are durable."""
    journal = await open_journal(directory, keys)
    await call(journal)
    before = (directory / watermark.NAME).read_bytes()
    await call(journal)
    assert len(read_all(directory)) == 3
    held = directory.parent / "held"
    held.mkdir()
    (held / watermark.NAME).write_bytes(before)
    (held / segment_name(0)).write_bytes((directory / segment_name(0)).read_bytes())
    assert len(read_all(held)) == 2
    assert len(read_all(held, to_end=True)) == 3
    await journal.close()


async def test_a_clean_close_states_the_counters_writes_close_and_gives_the_space_back(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    await call(journal)
    await journal.close()
    await journal.close()
    assert (journal.counters.accepted, journal.counters.open) == (1, 0)
    batches = read_all(directory)
    assert batches[-1].closes
    last = entries_of(batches)[-1]
    assert last["counters"] == {"accepted": 1, "closed": 1, "open": 0, "lost": 0, "shed": 0, "refused": 0}
    assert not (directory / "ahead").exists()
    assert (directory / segment_name(0)).stat().st_size == batches[-1].end
    with pytest.raises(JournalStopped):
        await journal.append(draft())
    with pytest.raises(JournalStopped):
        journal.admit("acme", "credit")


async def test_one_shard_has_one_writer(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    with pytest.raises(JournalHeld, match="held by process"):
        await open_journal(directory, keys)
    await journal.close()
    await (await open_journal(directory, keys)).close()


async def test_an_entry_that_is_too_large_fails_alone(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    results = await asyncio.gather(
        call(journal),
        journal.append(draft(pad="x" * 70_000)),
        journal.append(draft(pad="\ud800")),
        journal.append(draft(), parts=[StoredPart(journal.new_id(), 0, 0, bytes(300 * 1024))], key=None),
        journal.append(draft(), parts=[StoredPart(journal.new_id(), 0, 0, bytes(PAYLOAD_BYTES_MAX))], key=None),
        call(journal),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == ["Appended", *["EntryTooLarge"] * 4, "Appended"]
    assert isinstance(results[2], EntryTooLarge)
    assert results[2].status == 400
    with pytest.raises(ValueError, match="unknown kind"):
        journal.append(draft(kind="opinion"))
    await journal.close()
    assert [entry["seq"] for entry in entries_of(read_all(directory))] == [0, 1, 2, 3]


async def test_a_cancelled_waiter_leaves_its_entry_on_its_way(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    future = journal.append(draft(), closes=False)
    future.cancel()
    await journal.close()
    assert [entry["kind"] for entry in entries_of(read_all(directory))] == ["heartbeat", "decision", "heartbeat"]


async def test_a_full_disk_refuses_calls_before_the_model_is_asked_and_not_those_admitted(
    directory: Path, keys: JournalKeys
) -> None:
    is_full = False
    disk = Failing("fallocate", lambda *_: errno.ENOSPC if is_full else None)
    journal = await open_journal(directory, keys, syscalls=disk)
    await reserved(journal)  # the one segment ahead; no other will be
    is_full = True
    admitted, full = 0, None
    while full is None:
        try:
            journal.admit("acme", "credit")
        except JournalFull as error:
            full = error
        else:
            admitted += 1
            await journal.append(draft(pad="x" * 4000), closes=True)
    assert (full.status, full.retry_after_s) == (503, 5)
    assert 0.9 < journal.disk_share <= 1
    assert admitted > 200
    assert journal.counters.refused == 1
    assert (journal.counters.accepted, journal.counters.open) == (admitted, 0)
    is_full = False
    await until(lambda: journal.disk_share < 0.7)
    await call(journal, 4000)
    await journal.close()


async def test_what_finds_no_room_after_the_call_is_refused_after_a_wait_and_counted_as_lost(
    directory: Path, keys: JournalKeys
) -> None:
    is_full = False
    disk = Failing("fallocate", lambda *_: errno.ENOSPC if is_full else None)
    journal = await open_journal(directory, keys, syscalls=disk)
    await reserved(journal)  # the one segment ahead; no other will be
    is_full = True
    journal.admit("acme", "credit")
    key = journal.new_key()
    big = [StoredPart(key.key_id, 0, number, bytes(60_000)) for number in range(4)]
    for _ in range(4):
        await journal.append(draft(), parts=big, key=key)
    started = time.monotonic()
    with pytest.raises(JournalFull):
        await journal.append(draft(), parts=big, key=key)
    assert time.monotonic() - started >= SMALL.space_wait_s
    journal.lose()
    is_full = False
    await until(lambda: journal.disk_share < 0.7)
    await journal.append(draft(), parts=big, key=key)
    await journal.close()
    entries = entries_of(read_all(directory))
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    [gap] = [entry for entry in entries if entry["kind"] == "gap"]
    assert (gap["lost"], gap["why"], gap["count"]) == (1, "running", "known")
    assert entries[-1]["counters"] == {"accepted": 1, "closed": 0, "open": 0, "lost": 1, "shed": 0, "refused": 0}


async def _full(directory: Path, keys: JournalKeys, disk: Failing) -> Journal:
    """A journal whose segment is full to the last byte while no other can be reserved."""
    journal = await open_journal(directory, keys, syscalls=disk)
    await until(lambda: journal.disk_share < 0.6)
    disk.fails = lambda *_: errno.ENOSPC
    size = 60_000
    while size:
        try:
            await journal.append(draft("metric", pad="x" * size))
        except JournalFull:
            size //= 8
    return journal


async def test_a_journal_closes_on_a_full_disk_and_the_next_start_states_what_it_could_not(
    directory: Path, keys: JournalKeys
) -> None:
    disk = Failing("fallocate", lambda *_: None)
    journal = await open_journal(directory, keys, syscalls=disk)
    journal.admit("acme", "credit")
    journal.lose()
    await journal.close()
    journal = await _full(directory, keys, disk)
    with pytest.raises(JournalFull):
        journal.admit("acme", "credit")
    assert not journal.admit("acme", "credit", may_pass=True)
    async with asyncio.timeout(10):
        await journal.close()
    again = await open_journal(directory, keys)
    assert again.counters.as_json() == {"accepted": 2, "closed": 0, "open": 0, "lost": 2, "shed": 0, "refused": 1}
    await again.close()
    gaps = [entry for entry in check_whole(directory, []) if entry["kind"] == "gap"]
    assert [(gap["why"], gap["lost"], gap["count"]) for gap in gaps] == [
        ("running", 1, "known"),
        ("restart", 1, "known"),
    ]


async def test_losses_on_a_full_disk_are_stated_once_there_is_room(directory: Path, keys: JournalKeys) -> None:
    disk = Failing("fallocate", lambda *_: None)
    journal = await open_journal(directory, keys, syscalls=disk)
    for _ in range(5):
        journal.admit("acme", "credit")
    await journal.close()
    journal = await _full(directory, keys, disk)  # the next start has counted those
    for _ in range(3):
        assert not journal.admit("acme", "credit", may_pass=True)
    assert not journal.admit("acme", "scoring", may_pass=True)
    tried = disk.count
    await until(lambda: disk.count > tried + 5)  # 1.25 s: the gap entries have been due
    assert journal.counters.as_json() == {"accepted": 9, "closed": 0, "open": 4, "lost": 5, "shed": 0, "refused": 0}
    disk.fails = lambda *_: None
    await until(lambda: journal.counters.lost == 9)
    assert journal.counters.as_json() == {"accepted": 9, "closed": 0, "open": 0, "lost": 9, "shed": 4, "refused": 0}
    await journal.close()
    gaps = [entry for entry in check_whole(directory, []) if entry["kind"] == "gap"]
    assert [(gap["tenant"], gap["route"], gap["why"], gap["lost"], gap["shed"]) for gap in gaps] == [
        ("*", None, "restart", 5, 0),
        ("acme", "credit", "disk_full", 3, 3),
        ("acme", "scoring", "disk_full", 1, 1),
    ]
    assert {gap["count"] for gap in gaps} == {"known"}


async def test_a_gap_entry_that_finds_no_room_is_tried_again(directory: Path, keys: JournalKeys) -> None:
    disk = Failing("fallocate", lambda *_: None)
    journal = await open_journal(directory, keys, syscalls=disk)
    journal.admit("acme", "credit")
    await until(lambda: journal.disk_share < 0.6)
    disk.fails = lambda *_: errno.ENOSPC
    journal.lose()
    filling = [journal.append(draft("metric", pad="x" * 60_000)) for _ in range(30)]
    journal._losses.state()  # just now, behind what takes the last room
    results = await asyncio.gather(*filling, return_exceptions=True)
    assert JournalFull in {type(result) for result in results}
    disk.fails = lambda *_: None
    await until(lambda: journal.counters.lost == 1)
    assert journal.counters.open == 0
    await journal.close()
    check_whole(directory, [])


async def test_calls_that_were_given_up_reserve_no_space(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys, limits=replace(SMALL, call_bytes_reserved=100_000))
    for _ in range(4):
        journal.admit("acme", "credit")
    await until(lambda: journal.disk_share < 0.6)
    while journal.admit("acme", "credit", may_pass=True):
        pass
    with pytest.raises(JournalFull):
        journal.admit("acme", "credit")
    for _ in range(4):
        journal.lose()
    for _ in range(4):
        journal.admit("acme", "credit")
    assert journal.counters.lost == 0, "no gap entry has said so yet"
    await journal.close()


async def test_losses_of_one_second_share_a_gap_entry(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    for number in range(5):
        journal.admit("acme", "credit")
        journal.lose(shed=number > 2)
    journal.refuse()
    await until(lambda: journal.counters.lost == 5)
    assert journal.counters.as_json() == {"accepted": 5, "closed": 0, "open": 0, "lost": 5, "shed": 2, "refused": 1}
    await journal.close()
    gaps = [entry for entry in entries_of(read_all(directory)) if entry["kind"] == "gap"]
    assert [(gap["lost"], gap["shed"]) for gap in gaps] == [(5, 2)]


async def test_calls_are_refused_while_too_much_waits_for_the_disk(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys, limits=replace(SMALL, pending_bytes_max=10_000))
    waiting = [journal.append(draft()) for _ in range(10)]
    with pytest.raises(JournalFull, match="wait for the disk"):
        journal.admit("acme", "credit")
    await asyncio.gather(*waiting)
    assert journal.pending_bytes == 0
    journal.admit("acme", "credit")
    await journal.close()


async def test_room_for_the_parts_that_a_call_announces_is_asked_for(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    with pytest.raises(JournalFull):
        journal.admit("acme", "credit", bytes_expected=2 * SMALL.segment_bytes)
    journal.admit("acme", "credit", bytes_expected=1000)
    await journal.close()


@pytest.mark.parametrize(("name", "code"), [("datasync", errno.EIO), ("pwrite", errno.EIO), ("pwrite", errno.ENOSPC)])
async def test_a_failed_write_or_sync_stops_the_shard_and_is_never_tried_again(
    directory: Path, keys: JournalKeys, name: str, code: int
) -> None:
    disk = Failing(name, lambda number, *_: code if number >= 4 else None)
    journal = await open_journal(directory, keys, syscalls=disk)
    journal.admit("acme", "credit")
    first = await asyncio.gather(*(journal.append(draft()) for _ in range(3000)), return_exceptions=True)
    assert {type(result).__name__ for result in first} == {"Appended", "JournalStopped"}
    tried = disk.count
    results = await asyncio.gather(*(journal.append(draft()) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {JournalStopped}
    with pytest.raises(JournalStopped):
        journal.admit("acme", "credit")
    assert (await journal.stopped).status == 503
    assert disk.count == tried == 4
    mark = watermark.read(directory / watermark.NAME)
    assert mark is not None
    assert mark.state == watermark.FAILED
    await journal.close()


async def test_everything_that_waits_hears_of_the_stop(directory: Path, keys: JournalKeys) -> None:
    disk = Failing("datasync", lambda number, *_: errno.EIO if number >= 2 else None)
    journal = await open_journal(directory, keys, syscalls=disk)
    async with asyncio.timeout(5):
        results = await asyncio.gather(*(journal.append(draft()) for _ in range(3000)), return_exceptions=True)
    assert {type(result) for result in results} == {JournalStopped}
    assert journal.pending_bytes == 0
    await journal.close()


async def test_a_journal_that_finds_no_room_does_not_open_and_lets_go_of_its_lock(
    directory: Path, keys: JournalKeys
) -> None:
    with pytest.raises(JournalFull):
        await open_journal(directory, keys, syscalls=Failing("fallocate", lambda *_: errno.ENOSPC))
    await (await open_journal(directory, keys)).close()


async def test_heartbeats_state_every_scope_however_many_there_are(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys, limits=replace(SMALL, segment_bytes=4 * 1024 * 1024))
    await asyncio.gather(*(journal.append(draft(tenant=f"tenant-{number:04d}-{'x' * 60}")) for number in range(700)))
    journal.heartbeat()
    await journal.close()
    beats = [entry for entry in entries_of(read_all(directory)) if entry["kind"] == "heartbeat"]
    series = [beat for beat in beats if beat["at"] == 701]
    assert [(beat["sheet"], beat["sheets"]) for beat in series] == [(n, len(series)) for n in range(len(series))]
    assert len(series) > 1
    scopes = [row for beat in series for row in beat["scopes"]]
    assert len(scopes) == 701
    assert sum(count for _, _, count in scopes) == 701


async def test_the_journals_of_a_host_are_found(directory: Path, keys: JournalKeys, tmp_path: Path) -> None:
    await (await open_journal(directory, keys)).close()
    await (await open_journal(directory.parent / "keeper", keys)).close()
    assert shards(tmp_path) == [directory, directory.parent / "keeper"]
    assert shards(tmp_path / "nowhere") == []


async def test_a_segment_is_closed_when_asked_behind_what_was_appended_before(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    await reserved(journal)
    waiting = asyncio.gather(*(call(journal) for _ in range(20)))
    await asyncio.sleep(0)
    journal.roll(0)
    journal.roll(0)  # asked twice: closed once
    await waiting
    after = await call(journal)
    assert len(list(directory.glob("*.jrn"))) == 2
    first = max(int(path.stem) for path in directory.glob("*.jrn"))
    assert max(done.seq for done in await waiting) < first <= after.seq
    journal.roll(0)  # which is no longer written
    journal.roll(first + 1_000)
    await call(journal)
    await journal.close()
    assert len(list(directory.glob("*.jrn"))) == 2
    check_whole(directory, [*(await waiting), after])


async def test_segments_are_closed_under_load_and_nothing_is_lost_or_out_of_order(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)

    async def work() -> list[Appended]:
        return [await call(journal) for _ in range(40)]

    async def roll() -> None:
        for _ in range(15):
            await reserved(journal)
            journal.roll(written(directory))
            await asyncio.sleep(0.01)

    rolling = asyncio.create_task(roll())
    done = await asyncio.gather(*(work() for _ in range(8)))
    await rolling
    await journal.close()
    assert len(list(directory.glob("*.jrn"))) > 5
    check_whole(directory, [one for each in done for one in each])


async def test_an_idle_journal_closes_its_segment_too(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    await reserved(journal)
    done = await call(journal)
    journal.roll(0)
    await until(lambda: written(directory) == done.seq + 1)
    await journal.close()
    journal.roll(done.seq + 1)  # nothing, and nobody waits
    check_whole(directory, [done])


async def test_where_there_is_no_room_for_another_segment_it_goes_on_in_the_one_it_has(
    directory: Path, keys: JournalKeys
) -> None:
    is_full = False
    disk = Failing("fallocate", lambda *_: errno.ENOSPC if is_full else None)
    journal = await open_journal(directory, keys, syscalls=disk)
    await reserved(journal)
    done = [await call(journal)]
    is_full = True
    journal.roll(0)  # takes the spare one …
    done.append(await call(journal))
    first = written(directory)
    assert first > 0
    began_s = time.monotonic()
    journal.roll(first)  # … and now there is none, which nobody waits for
    done += [await call(journal) for _ in range(3)]
    assert time.monotonic() - began_s < SMALL.space_wait_s
    assert written(directory) == first
    await journal.close()
    check_whole(directory, done)


async def reserved(journal: Journal) -> None:
    """Wait until there is room for the segment after the one that is being written."""
    await until(lambda: journal._space.is_ready)


def written(directory: Path) -> int:
    """The first sequence number of the segment that is being written."""
    mark = watermark.read(directory / watermark.NAME)
    assert mark is not None
    return mark.slot.segment
