"""Appends that are awaited until they are written, and their sync, which follows: real files, a disk that stops."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import recovery, watermark
from storage.batch import Batch, BatchReader
from storage.errors import JournalCorrupt, JournalStopped
from storage.journal import Appended, Journal
from storage.keys import JournalKeys
from storage.segment import HEADER_BYTES, SegmentHeader, segment_name
from storage.unsynced import UNSYNCED_BYTES_MAX
from tests.support.disks import Disk
from tests.support.journals import (
    BOOT,
    QUICK,
    SMALL,
    Failing,
    call,
    check_whole,
    crash_copy,
    draft,
    entries_of,
    journal_keys,
    open_journal,
    read_all,
    until,
)

SEGMENT = segment_name(0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "gateway-0"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> JournalKeys:
    return journal_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    made = Disk()
    yield made
    made.go()


async def spooled(journal: Journal, size: int = 2) -> Appended:
    """One admitted call, awaited until it is written."""
    journal.admit("acme", "credit")
    return await journal.append(draft(pad="x" * size, mode="spool"), closes=True, awaits_sync=False)


def written(directory: Path) -> list[Batch]:
    """Every whole batch of the first segment, whatever the watermark says."""
    raw = (directory / SEGMENT).read_bytes()
    reader = BatchReader(SegmentHeader.from_bytes(raw))
    reader.feed(raw[HEADER_BYTES:])
    batches = []
    while (batch := reader.next_batch()) is not None:
        batches.append(batch)
    return batches


def mark_of(directory: Path) -> watermark.Mark:
    mark = watermark.read(directory / watermark.NAME)
    assert mark is not None
    return mark


async def test_a_spooled_append_is_done_once_it_is_written_and_readers_get_it_once_it_is_synced(
    directory: Path, keys: JournalKeys, disk: Disk
) -> None:
    journal = await open_journal(directory, keys, syscalls=disk)
    disk.stop()
    first = await spooled(journal)
    assert [record.entry for record in written(directory)[-1].records] == [first.entry]
    assert journal.counters.closed == 0
    assert journal.unclosed == 0
    assert first.entry not in [record.entry for batch in read_all(directory) for record in batch.records]
    disk.go()
    await until(lambda: journal.counters.closed == 1)  # with nothing else to write
    check_whole(directory, [first])
    await journal.close()


async def test_many_spooled_batches_share_a_sync_and_an_awaited_one_syncs_all_before_it_at_once(
    directory: Path, keys: JournalKeys, disk: Disk
) -> None:
    journal = await open_journal(directory, keys, syscalls=disk)
    before = disk.syncs
    made = [await spooled(journal) for _ in range(20)]
    assert disk.syncs - before < 20
    made.append(await call(journal))
    assert journal.counters.closed == 21
    check_whole(directory, made)
    commits = [batch.commit for batch in written(directory)[1:]]
    assert [commit.deferred for commit in commits] == [True] * 20 + [False]
    assert any(commit.unsynced for commit in commits)
    made.append(await call(journal))
    last = written(directory)[-1].commit
    assert (last.unsynced, last.deferred) == (0, False)
    await journal.close()


async def test_where_each_append_is_awaited_no_commit_says_anything_of_syncs(
    directory: Path, keys: JournalKeys
) -> None:
    journal = await open_journal(directory, keys)
    for _ in range(5):
        await call(journal)
    await journal.close()
    assert {(batch.commit.unsynced, batch.commit.deferred) for batch in written(directory)} == {(0, False)}


async def test_a_sync_is_not_put_off_where_much_is_unsynced_nor_over_the_end_of_a_segment(
    directory: Path, keys: JournalKeys, disk: Disk
) -> None:
    journal = await open_journal(directory, keys, syscalls=disk)
    made: list[Appended] = []
    while len(list(directory.glob("*.jrn"))) < 3:
        await until(lambda: journal.disk_share < 0.9)
        made += await asyncio.gather(*(spooled(journal, 8_000) for _ in range(4)))
    for path in sorted(directory.glob("*.jrn"))[:-1]:
        assert path.stat().st_size < SMALL.segment_bytes  # cut to its end, which is durable
    assert SMALL.segment_bytes < UNSYNCED_BYTES_MAX
    await journal.close()
    check_whole(directory, made)


async def test_what_was_written_survives_the_end_of_the_process_though_no_sync_came(
    directory: Path, keys: JournalKeys, disk: Disk, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys, syscalls=disk)
    disk.stop()
    acknowledged = [await spooled(journal)]
    # one more is written while nothing is synced, unless the thread already waits for the disk
    async with asyncio.timeout(10):
        copy = crash_copy(directory, tmp_path / "copy")
    journal.admit("acme", "credit")  # open when it is killed, behind the copy
    disk.go()
    await journal.close()
    after = await open_journal(copy, keys)
    counters = after.counters
    assert (counters.closed, counters.lost, counters.open) == (1, 0, 0)
    await after.close()
    entries = check_whole(copy, acknowledged)
    assert not [entry for entry in entries if entry["kind"] == "gap"]


async def test_after_a_failed_sync_the_shard_stops_and_the_next_writer_believes_only_the_watermark(
    directory: Path, keys: JournalKeys
) -> None:
    is_broken = False
    broken = Failing("datasync", lambda *_: errno.EIO if is_broken else None)
    journal = await open_journal(directory, keys, syscalls=broken)
    durable = await call(journal)
    is_broken = True
    gone = await spooled(journal)
    await asyncio.wait_for(journal.stopped, 10)
    with pytest.raises(JournalStopped):
        await spooled(journal)
    await journal.close()
    after = await open_journal(directory, keys)
    counters = after.counters
    await after.close()
    entries = check_whole(directory, [durable])
    assert gone.entry not in [record.entry for batch in read_all(directory) for record in batch.records]
    assert (counters.accepted, counters.closed, counters.lost, counters.open) == (2, 1, 1, 0)
    assert [(entry["why"], entry["lost"]) for entry in entries if entry["kind"] == "gap"] == [("restart", 1)]


# --- power cuts: of what was written and not synced, any pages may be there ---------------------------------------


class Cut:
    """One awaited batch, then spooled ones of which none was synced, and the watermark as it was then."""

    def __init__(self, directory: Path, *, first: int) -> None:
        self.raw = bytearray((directory / SEGMENT).read_bytes())
        self.mark = (directory / watermark.NAME).read_bytes()
        self.batches = written(directory)
        self.first = first  # index of the first unsynced batch

    def write(self, directory: Path, lost: set[int], *, awaited_lost: bool = False) -> Path:
        """The directory where the pages of these unsynced batches never reached the disk."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        raw = bytearray(self.raw)
        for number in lost:
            batch = self.batches[self.first + number]
            raw[batch.begin : batch.end] = bytes(batch.end - batch.begin)
        if awaited_lost:
            batch = self.batches[self.first - 1]
            raw[batch.begin : batch.end] = bytes(batch.end - batch.begin)
        (directory / SEGMENT).write_bytes(raw)
        return directory


UNSYNCED = 4


@pytest.fixture
async def cut(directory: Path, keys: JournalKeys) -> Cut:
    from storage import unsynced

    journal = await open_journal(directory, keys, syscalls=QUICK)
    await call(journal)
    before, unsynced.SYNC_AFTER_S = unsynced.SYNC_AFTER_S, 60.0
    try:
        for _ in range(UNSYNCED):
            await spooled(journal)
        made = Cut(directory, first=len(written(directory)) - UNSYNCED)
        made.mark = (directory / watermark.NAME).read_bytes()
    finally:
        unsynced.SYNC_AFTER_S = before
    await journal.close()
    end = made.batches[-1].end
    made.raw = made.raw[: end + 64]
    return made


@pytest.mark.parametrize("lost", range(2**UNSYNCED))
@pytest.mark.parametrize("has_mark", [True, False])
async def test_whichever_unsynced_batches_a_power_cut_takes_the_rest_before_them_is_kept_and_nothing_is_corrupt(
    cut: Cut, tmp_path: Path, keys: JournalKeys, lost: int, has_mark: bool
) -> None:
    gone = {number for number in range(UNSYNCED) if lost >> number & 1}
    copy = cut.write(tmp_path / "copy", gone)
    if has_mark:
        (copy / watermark.NAME).write_bytes(cut.mark)
    after = await open_journal(copy, keys, syscalls=QUICK, boot_id=BOOT[::-1])
    await after.close()
    entries = entries_of(read_all(copy))
    kept = min(gone, default=UNSYNCED)
    decisions = [entry for entry in entries if entry["kind"] == "decision"]
    assert len(decisions) == 1 + kept
    assert not list((copy / "quarantine").glob("*"))
    assert [entry["count"] for entry in entries if entry["kind"] == "gap"] == ["unknown"]
    torn = bool(gone - {UNSYNCED - 1}) and kept < UNSYNCED - 1 and gone != set(range(kept, UNSYNCED))
    assert [entry["kind"] for entry in entries].count("recovery") == int(torn)


@pytest.mark.parametrize("byte", [0, 40, -100])
async def test_a_flipped_byte_in_an_unsynced_batch_is_a_torn_tail_and_in_an_awaited_one_corruption(
    cut: Cut, tmp_path: Path, byte: int
) -> None:
    for number, is_corrupt in ((cut.first - 1, True), (cut.first, False), (cut.first + UNSYNCED - 1, False)):
        copy = cut.write(tmp_path / "copy", set())
        raw = bytearray((copy / SEGMENT).read_bytes())
        batch = cut.batches[number]
        raw[(batch.begin if byte >= 0 else batch.end) + byte] ^= 1
        (copy / SEGMENT).write_bytes(raw)
        if is_corrupt:
            with pytest.raises(JournalCorrupt):
                recovery.recover(copy, BOOT, QUICK)
        else:
            found = recovery.recover(copy, BOOT, QUICK)
            assert found is not None
            assert found[1].durable_end[1] == batch.begin


async def test_damage_that_a_later_commit_knows_to_have_been_durable_is_corruption(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    """Spooled batches, synced by the clock alone; the one after the sync tells, though no watermark is left."""
    journal = await open_journal(directory, keys, syscalls=QUICK)
    first = await spooled(journal)
    await until(lambda: journal.counters.closed == 1)
    await spooled(journal)
    cut = Cut(directory, first=1)
    await journal.close()
    assert cut.batches[1].records[0].entry == first.entry
    copy = cut.write(tmp_path / "copy", {0})
    with pytest.raises(JournalCorrupt, match="a later one follows"):
        recovery.recover(copy, BOOT, QUICK)
