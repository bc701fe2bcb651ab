"""What the next writer makes of what a killed, torn or damaged journal left."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path

import pytest

from storage import quarantine, recovery, watermark
from storage.entries import Draft
from storage.errors import JournalCorrupt, JournalStopped, StorageError
from storage.journal import Appended, Journal
from storage.keys import JournalKeys
from storage.reading import Batch, SegmentTail, shards
from storage.segment import HEADER_BYTES, segment_name
from tests.support.journals import (
    BOOT,
    QUICK,
    Failing,
    Snapshot,
    Synced,
    begin_call,
    call,
    check_whole,
    crash_copy,
    draft,
    entries_of,
    journal_keys,
    open_journal,
    read_all,
    sealed_decision,
    until,
)

SEGMENT = segment_name(0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "gateway-0"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> JournalKeys:
    return journal_keys(tmp_path_factory.mktemp("keys"))


class Image:
    """Three batches as bytes, with the watermark as it was after each."""

    def __init__(self, raw: bytes, marks: list[bytes], batches: list[Batch]) -> None:
        self.raw, self.marks, self.batches = raw, marks, batches

    def write(self, directory: Path, raw: bytes, mark: bytes | None) -> Path:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (directory / SEGMENT).write_bytes(raw)
        if mark is not None:
            (directory / watermark.NAME).write_bytes(mark)
        return directory


@pytest.fixture
async def image(directory: Path, keys: JournalKeys) -> Image:
    journal = await open_journal(directory, keys, syscalls=QUICK)
    marks = [(directory / watermark.NAME).read_bytes()]
    for number in range(2):
        journal.admit("acme", "credit")
        made, stored, key = sealed_decision(journal, b"asked %d" % number, b"answered")
        await journal.append(made, parts=stored, key=key, closes=True)
        marks.append((directory / watermark.NAME).read_bytes())
    batches = read_all(directory)
    raw = (directory / SEGMENT).read_bytes()[: batches[-1].end + 64]  # some of the space that is reserved
    await journal.close()
    return Image(raw, marks, batches)


def _recovered(directory: Path) -> recovery.Recovered:
    found = recovery.recover(directory, BOOT, QUICK)
    assert found is not None
    return found[1]


async def test_a_torn_tail_is_cut_at_every_byte_of_the_last_batch(image: Image, tmp_path: Path) -> None:
    last = image.batches[-1]
    padding = len(image.raw[: last.end]) - len(image.raw[: last.end].rstrip(b"\0"))
    for cut in range(last.begin, last.end - padding):
        torn = image.raw[:cut] + bytes(len(image.raw) - cut)
        directory = image.write(tmp_path / "torn", torn, image.marks[-2])
        found = _recovered(directory)
        assert found.frontier.size == last.first
        assert (directory / SEGMENT).read_bytes() == image.raw[: last.begin]
        kept = image.raw[last.begin : cut].rstrip(b"\0")
        assert [path.read_bytes() for path in (directory / "torn").glob("*.bin")] == ([kept] if kept else [])
        assert (found.counters.closed, found.lost_calls) == (1, 0)


async def test_a_last_batch_that_arrived_whole_is_kept_though_the_watermark_does_not_know_it(
    image: Image, tmp_path: Path
) -> None:
    found = _recovered(image.write(tmp_path / "whole", image.raw, image.marks[-2]))
    assert found.frontier.size == image.batches[-1].commit.size
    assert found.counters.closed == 2
    assert found.cuts == []


async def test_any_damage_in_the_last_batch_above_the_watermark_is_a_torn_tail(image: Image, tmp_path: Path) -> None:
    last = image.batches[-1]
    for at in range(last.begin, last.end):
        damaged = bytearray(image.raw)
        damaged[at] ^= 0x81
        directory = image.write(tmp_path / "torn", bytes(damaged), image.marks[-2])
        found = _recovered(directory)
        assert found.frontier.size == last.first
        [cut] = found.cuts
        assert (cut.segment, cut.offset) == (0, last.begin)
        assert cut.path.read_bytes() == bytes(damaged[last.begin : last.end]).rstrip(b"\0")


async def test_any_damage_below_the_watermark_is_corruption_and_nothing_is_cut(image: Image, tmp_path: Path) -> None:
    for at in range(image.batches[-1].begin, image.batches[-1].end, 3):
        damaged = bytearray(image.raw)
        damaged[at] ^= 0x81
        directory = image.write(tmp_path / "corrupt", bytes(damaged), image.marks[-1])
        with pytest.raises(JournalCorrupt):
            recovery.recover(directory, BOOT, QUICK)
        assert (directory / SEGMENT).read_bytes() == damaged


@pytest.mark.parametrize("has_watermark", [True, False])
async def test_any_damage_in_an_earlier_batch_is_corruption_even_where_no_watermark_tells(
    image: Image, tmp_path: Path, has_watermark: bool
) -> None:
    """A power cut may leave a watermark that is older than the damaged batch, or none."""
    earlier = image.batches[1]
    for at in range(earlier.begin, earlier.end, 3):
        damaged = bytearray(image.raw)
        damaged[at] ^= 0x81
        mark = image.marks[0] if has_watermark else None
        directory = image.write(tmp_path / "corrupt", bytes(damaged), mark)
        with pytest.raises(JournalCorrupt):
            recovery.recover(directory, BOOT, QUICK)
        assert (directory / SEGMENT).read_bytes() == damaged


async def test_a_damaged_header_or_a_missing_segment_is_corruption(image: Image, tmp_path: Path) -> None:
    damaged = bytes([image.raw[0] ^ 1]) + image.raw[1:]
    with pytest.raises(JournalCorrupt):
        recovery.recover(image.write(tmp_path / "a", damaged, image.marks[-1]), BOOT, QUICK)
    directory = image.write(tmp_path / "b", image.raw, image.marks[-1])
    (directory / SEGMENT).unlink()
    with pytest.raises(JournalCorrupt, match="missing"):
        recovery.recover(directory, BOOT, QUICK)


async def test_corruption_opens_a_new_epoch_and_the_old_one_stays_readable_up_to_the_damage(
    image: Image, tmp_path: Path, keys: JournalKeys
) -> None:
    damaged = bytearray(image.raw)
    damaged[image.batches[1].begin + 40] ^= 1
    directory = image.write(tmp_path / "d" / "journal" / "gateway-0", bytes(damaged), image.marks[-1])
    journal = await open_journal(directory, keys)
    assert journal.origin == "test/gateway-0/2"
    appended = await call(journal)
    await journal.close()
    entries = check_whole(directory, [appended])
    assert [entry["kind"] for entry in entries] == ["heartbeat", "incident", "decision", "heartbeat"]
    assert entries[1]["quarantined"]["epoch"] == 1
    assert entries[1]["quarantined"]["counters"]["closed"] == 2
    old = directory / "quarantine" / "epoch-000001"
    assert (old / SEGMENT).read_bytes() == damaged
    assert shards(tmp_path / "d") == [directory, old]
    tail = SegmentTail(old)
    with pytest.raises(JournalCorrupt):
        list(tail.batches())
    assert tail.origin == "test/gateway-0/1"
    assert tail.position is not None
    assert tail.position.offset == image.batches[0].end
    tail.close()
    await (await open_journal(directory, keys)).close()
    kinds = [entry["kind"] for entry in entries_of(read_all(directory))]
    assert kinds.count("incident") == 1


@pytest.mark.parametrize("is_header_damaged", [True, False])
async def test_corruption_without_a_watermark_opens_a_new_epoch_too(
    image: Image, tmp_path: Path, keys: JournalKeys, is_header_damaged: bool
) -> None:
    damaged = bytearray(image.raw)
    damaged[100 if is_header_damaged else image.batches[1].begin + 40] ^= 1
    directory = image.write(tmp_path / "gateway-0", bytes(damaged), None)
    journal = await open_journal(directory, keys)
    assert journal.origin == "test/gateway-0/2"
    await journal.close()
    assert (directory / "quarantine" / "epoch-000001" / SEGMENT).read_bytes() == damaged
    assert "incident" in [entry["kind"] for entry in check_whole(directory, [])]


async def test_open_calls_of_an_epoch_in_quarantine_count_as_lost_there(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys)
    await call(journal)
    journal.admit("acme", "credit")
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    raw = bytearray((left / SEGMENT).read_bytes())
    raw[HEADER_BYTES + 40] ^= 1
    (left / SEGMENT).write_bytes(raw)
    await (await open_journal(left, keys)).close()
    mark = watermark.read(left / "quarantine" / "epoch-000001" / watermark.NAME)
    assert mark is not None
    assert mark.counters.as_json() == {"accepted": 2, "closed": 1, "open": 0, "lost": 1, "shed": 0, "refused": 0}


async def test_calls_without_an_entry_are_counted_as_lost_in_one_gap(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys)
    acknowledged = [await call(journal)]
    for _ in range(3):
        journal.admit("acme", "credit")
    journal.refuse()
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    journal = await open_journal(left, keys)
    assert journal.counters.as_json() == {"accepted": 4, "closed": 1, "open": 0, "lost": 3, "shed": 0, "refused": 1}
    acknowledged.append(await call(journal))
    await journal.close()
    entries = check_whole(left, acknowledged)
    [gap] = [entry for entry in entries if entry["kind"] == "gap"]
    assert (gap["lost"], gap["count"], gap["why"]) == (3, "known", "restart")
    await (await open_journal(left, keys)).close()
    assert len([entry for entry in check_whole(left, acknowledged) if entry["kind"] == "gap"]) == 1


async def test_after_a_power_cut_the_count_of_lost_calls_is_unknown_and_said_so(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys)
    acknowledged = [await call(journal) for _ in range(3)]
    journal.admit("acme", "credit")
    left = crash_copy(directory, tmp_path / "left")
    stale = crash_copy(directory, tmp_path / "stale")
    (stale / watermark.NAME).unlink()
    await journal.close()
    for cut, boot_id, lost in ((left, bytes(16), 1), (stale, BOOT, 0)):
        await (await open_journal(cut, keys, boot_id=boot_id)).close()
        entries = check_whole(cut, acknowledged)
        [gap] = [entry for entry in entries if entry["kind"] == "gap"]
        assert (gap["lost"], gap["count"]) == (lost, "unknown")


async def test_a_restart_of_the_machine_after_a_clean_close_leaves_no_gap(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    acknowledged = [await call(journal)]
    await journal.close()
    await (await open_journal(directory, keys, boot_id=bytes(16))).close()
    assert "gap" not in [entry["kind"] for entry in check_whole(directory, acknowledged)]


async def test_after_a_failed_sync_the_valid_prefix_is_copied_and_what_was_not_acknowledged_is_set_aside(
    directory: Path, keys: JournalKeys
) -> None:
    disk = Failing("datasync", lambda number, *_: errno.EIO if number == 3 else None)
    journal = await open_journal(directory, keys, syscalls=disk)
    acknowledged = [await call(journal)]
    with pytest.raises(JournalStopped):
        await call(journal)
    await journal.close()
    before = (directory / SEGMENT).stat()
    journal = await open_journal(directory, keys)
    assert (directory / SEGMENT).stat().st_ino != before.st_ino
    assert journal.counters.as_json() == {"accepted": 2, "closed": 1, "open": 0, "lost": 1, "shed": 0, "refused": 0}
    acknowledged.append(await call(journal))
    await journal.close()
    kinds = [entry["kind"] for entry in check_whole(directory, acknowledged)]
    assert kinds == ["heartbeat", "decision", "heartbeat", "recovery", "gap", "decision", "heartbeat"]
    assert [path.suffix for path in (directory / "torn").iterdir()] == [".recorded"]


async def _failed_sync(journal: Journal, disk: Failing, entry: Draft, *, closes: bool = True) -> None:
    """The shard stops: the sync of the batch with this entry fails, and its bytes are in the page cache."""
    disk.fails = lambda *_: errno.EIO
    with pytest.raises(JournalStopped):
        await journal.append(entry, closes=closes)
    await journal.close()


async def test_a_closing_entry_whose_sync_failed_leaves_its_begun_decision_to_be_closed_at_the_next_start(
    directory: Path, keys: JournalKeys
) -> None:
    disk = Failing("datasync", lambda *_: None)
    journal = await open_journal(directory, keys, syscalls=disk)
    begun = await begin_call(journal)
    acknowledged = []
    while len(recovery.segments_of(directory)) == 1:
        acknowledged.append(await call(journal, 20_000))
    await _failed_sync(journal, disk, draft(decision=begun["decision"]))
    again = await open_journal(directory, keys)
    closed = len(acknowledged) + 1
    assert again.counters.as_json() == {
        "accepted": closed,
        "closed": closed,
        "open": 0,
        "lost": 0,
        "shed": 0,
        "refused": 0,
    }
    await again.close()
    entries = check_whole(directory, acknowledged)
    [closing] = [entry for entry in entries if entry["kind"] == "decision" and entry["decision"] == begun["decision"]]
    assert closing["stream"]["state"] == "gateway_lost"
    of_the_scope = [entry["scope_seq"] for entry in entries if (entry["tenant"], entry["route"]) == ("acme", "credit")]
    assert of_the_scope == list(range(len(of_the_scope)))


async def test_a_segment_whose_first_sync_failed_is_set_aside_whole(directory: Path, keys: JournalKeys) -> None:
    disk = Failing("datasync", lambda *_: None)
    journal = await open_journal(directory, keys, syscalls=disk)
    acknowledged = []
    disk.fails = lambda *_: errno.EIO if len(recovery.segments_of(directory)) > 1 else None
    with contextlib.suppress(JournalStopped):
        while True:
            acknowledged.append(await call(journal, 20_000))
    await journal.close()
    mark = watermark.read(directory / watermark.NAME)
    assert mark is not None
    assert (mark.state, mark.slot.segment) == (watermark.FAILED, 0)
    found = _recovered(directory)
    assert found.frontier.size == mark.slot.next_seq
    assert (found.counters.closed, found.lost_calls) == (len(acknowledged), 1)
    [cut] = found.cuts
    assert (cut.segment, cut.offset) == (mark.slot.next_seq, HEADER_BYTES)
    assert recovery.segments_of(directory) == [0]
    await (await open_journal(directory, keys)).close()
    check_whole(directory, acknowledged)


async def test_a_first_batch_whose_sync_failed_is_recorded_by_the_start_that_begins_the_epoch_anew(
    directory: Path, keys: JournalKeys
) -> None:
    with pytest.raises(OSError, match="EIO"):
        await open_journal(directory, keys, syscalls=Failing("datasync", lambda *_: errno.EIO))
    await (await open_journal(directory, keys)).close()
    assert [entry["kind"] for entry in check_whole(directory, [])] == ["heartbeat", "recovery", "heartbeat"]


@pytest.mark.parametrize("is_count_known", [True, False])
async def test_a_failed_sync_of_the_opening_batch_leaves_a_shard_that_believes_only_its_watermark(
    directory: Path, keys: JournalKeys, tmp_path: Path, is_count_known: bool
) -> None:
    journal = await open_journal(directory, keys)
    acknowledged = [await call(journal)]
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    boot_id = BOOT if is_count_known else bytes(16)
    failing = Failing("datasync", lambda *_: errno.EIO)
    with pytest.raises(OSError, match="EIO"):
        await open_journal(left, keys, syscalls=failing, boot_id=boot_id)
    mark = watermark.read(left / watermark.NAME)
    assert mark is not None
    assert (mark.is_failed, mark.is_recovering) == (True, not is_count_known)
    assert _recovered(left).frontier.size == mark.slot.next_seq
    await (await open_journal(left, keys, boot_id=boot_id)).close()
    entries = check_whole(left, acknowledged)
    unknown = [entry for entry in entries if entry["kind"] == "gap" and entry["count"] == "unknown"]
    assert len(unknown) == (0 if is_count_known else 1)


@pytest.mark.parametrize("name", ["fsync", "pwrite", "write", "rename", "truncate"])
async def test_no_failure_while_recovering_makes_a_batch_above_the_watermark_count_as_durable(
    image: Image, tmp_path: Path, name: str
) -> None:
    """The killed writer had written its last batch and not yet synced it: it is on the disk once recovery returns."""
    for number in range(1, 20):
        directory = image.write(tmp_path / "left", image.raw, image.marks[-2])

        def fails(count: int, *_: object, number: int = number) -> int | None:
            return errno.EIO if count == number else None

        failing = Failing(name, fails)
        with contextlib.suppress(OSError):
            recovery.recover(directory, BOOT, failing)
        synced = Synced(directory / SEGMENT)
        found = recovery.recover(directory, BOOT, synced)
        assert found is not None
        assert found[1].frontier.size == image.batches[-1].commit.size
        assert synced.is_durable, "the second recovery asked the disk itself, in a file that no sync had failed on"
        if failing.count < number:
            return
    pytest.fail("recovery never came to its end")


async def test_a_reader_that_stood_in_a_replaced_segment_never_sees_what_was_taken_back(
    directory: Path, keys: JournalKeys
) -> None:
    disk = Failing("datasync", lambda *_: None)
    journal = await open_journal(directory, keys, syscalls=disk)
    acknowledged = [await call(journal)]
    tail = SegmentTail(directory)
    seen = list(tail.batches())
    await _failed_sync(journal, disk, draft())
    await (await open_journal(directory, keys)).close()
    seen += tail.batches()
    tail.close()
    assert [batch.commit.root for batch in seen] == [batch.commit.root for batch in read_all(directory)]
    check_whole(directory, acknowledged)


@pytest.mark.parametrize("has_watermark", [True, False])
async def test_a_recovery_entry_says_where_no_watermark_told_what_had_been_durable(
    image: Image, tmp_path: Path, keys: JournalKeys, has_watermark: bool
) -> None:
    mark = image.marks[-2] if has_watermark else None
    directory = image.write(tmp_path / "torn", image.raw[: image.batches[-1].end - 30], mark)
    _recovered(directory)  # whoever recovers first may not come to write it down
    await (await open_journal(directory, keys)).close()
    [entry] = [entry for entry in check_whole(directory, []) if entry["kind"] == "recovery"]
    assert entry["watermark"] == ("found" if has_watermark else "missing")


async def test_a_cut_is_recorded_once_as_entry_and_as_frame(image: Image, tmp_path: Path, keys: JournalKeys) -> None:
    last = image.batches[-1]
    directory = image.write(tmp_path / "torn", image.raw[: last.end - 30] + bytes(500), image.marks[-2])
    for _ in range(2):
        await (await open_journal(directory, keys)).close()
    batches = read_all(directory)
    [entry] = [entry for entry in entries_of(batches) if entry["kind"] == "recovery"]
    assert (entry["segment"], entry["offset"]) == (0, last.begin)
    [payload] = [payload for batch in batches for payload in batch.recoveries]
    assert payload == b"".join(number.to_bytes(8, "little") for number in (0, last.begin, entry["cut_bytes"]))


@pytest.mark.parametrize("persisted", [False, True])
async def test_a_crash_at_any_step_of_recovery_changes_nothing_that_a_second_recovery_finds(
    directory: Path, keys: JournalKeys, tmp_path: Path, persisted: bool
) -> None:
    journal = await open_journal(directory, keys, syscalls=QUICK)
    acknowledged = [await call(journal)]
    await begin_call(journal)
    journal.admit("acme", "credit")
    journal.admit("acme", "credit")
    left = crash_copy(directory, tmp_path / "left")
    mark = watermark.read(left / watermark.NAME)
    assert mark is not None
    await journal.close()
    raw = bytearray((left / SEGMENT).read_bytes())
    raw[mark.slot.end : mark.slot.end + 100] = b"\x01" * 100
    (left / SEGMENT).write_bytes(raw)
    for step in range(1, 200):
        at = crash_copy(left, tmp_path / f"{step}")
        snapshot = Snapshot(step, persisted=persisted, directory=at, target=tmp_path / f"{step}-killed")
        await (await open_journal(at, keys, syscalls=snapshot)).close()
        for after in (at, tmp_path / f"{step}-killed")[: 1 + snapshot.is_taken]:
            await (await open_journal(after, keys, syscalls=QUICK)).close()
            entries = check_whole(after, acknowledged)
            kinds = [entry["kind"] for entry in entries]
            assert (kinds.count("gap"), kinds.count("decision")) == (1, 2)
            assert kinds.count("recovery") in (1, 2)  # a torn tail may be told twice, never not at all
            assert entries[-1]["counters"]["accepted"] == 4
            assert entries[-1]["counters"]["open"] == 0
        if not snapshot.is_taken:
            return
    pytest.fail("recovery never came to its end")


@pytest.mark.parametrize("persisted", [False, True])
async def test_a_crash_at_any_step_of_quarantine_ends_in_one_new_epoch(
    image: Image, tmp_path: Path, keys: JournalKeys, persisted: bool
) -> None:
    damaged = bytearray(image.raw)
    damaged[image.batches[1].begin + 40] ^= 1
    for step in range(1, 200):
        at, killed = image.write(tmp_path / f"{step}", bytes(damaged), image.marks[-1]), tmp_path / f"{step}-killed"
        snapshot = Snapshot(step, persisted=persisted, directory=at, target=killed)
        await (await open_journal(at, keys, syscalls=snapshot)).close()
        if not snapshot.is_taken:
            return
        journal = await open_journal(killed, keys, syscalls=QUICK)
        assert journal.origin == "test/gateway-0/2"
        await journal.close()
        kinds = [entry["kind"] for entry in check_whole(killed, [])]
        assert kinds.count("incident") == 1
        old = killed / "quarantine" / "epoch-000001"
        assert (old / SEGMENT).read_bytes() == damaged
        assert (old / watermark.NAME).exists()
        assert quarantine.noted(killed) is None
    pytest.fail("quarantine never came to its end")


@pytest.mark.parametrize("persisted", [False, True])
async def test_a_crash_at_any_step_of_writing_rolling_and_closing_loses_nothing_acknowledged(
    keys: JournalKeys, tmp_path: Path, persisted: bool
) -> None:
    for step in range(1, 400, 3):
        at, killed = tmp_path / f"{step}", tmp_path / f"{step}-killed"
        snapshot = Snapshot(step, persisted=persisted, directory=at, target=killed)
        journal = await open_journal(at, keys, syscalls=snapshot)
        for _ in range(60):
            await until(lambda journal=journal: journal.disk_share < 0.9)  # the next segment is reserved
            journal.admit("acme", "credit")
            appended = await journal.append(draft(pad="x" * 20_000), closes=True)
            snapshot.acknowledged.append(appended)
        await journal.close()
        if not snapshot.is_taken:
            return
        again = await open_journal(killed, keys, syscalls=QUICK)
        counters = again.counters
        assert (counters.open, counters.accepted) == (0, counters.closed + counters.lost)
        assert snapshot.seen <= counters.closed <= counters.accepted <= snapshot.seen + 1
        await again.close()
        check_whole(killed, snapshot.acknowledged[: snapshot.seen])
    pytest.fail("writing never came to its end")


@pytest.mark.parametrize("name", ["pwrite", "datasync", "fsync", "rename", "truncate", "unlink", "fallocate", "open"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_a_failure_of_any_call_at_any_time_loses_nothing_acknowledged(
    keys: JournalKeys, tmp_path: Path, name: str, code: int
) -> None:
    for number in (1, 2, 3, 5, 8, 13, 40):
        at, accepted = tmp_path / f"{number}", 0
        acknowledged: list[Appended] = []
        failing = Failing(name, lambda count, *_, number=number: code if count == number else None)
        with contextlib.suppress(OSError, StorageError):
            journal = None
            journal = await open_journal(at, keys, syscalls=failing)
            for _ in range(60):
                journal.admit("acme", "credit")
                accepted += 1
                acknowledged.append(await journal.append(draft(pad="x" * 20_000), closes=True))
        if journal is not None:
            with contextlib.suppress(OSError):
                await journal.close()
        again = await open_journal(at, keys, syscalls=QUICK)
        assert again.counters.as_json()["open"] == 0
        assert again.counters.accepted == accepted
        await again.close()
        check_whole(at, acknowledged)


async def test_a_file_that_is_no_segment_by_its_name_is_left_alone(directory: Path, keys: JournalKeys) -> None:
    journal = await open_journal(directory, keys)
    await journal.append(draft())
    await journal.close()
    for name in ("²", "7", "\u0661" * 20, "0" * 19, "0" * 20 + "\n"):
        (directory / f"{name}.jrn").write_bytes(b"")
    assert recovery.segments_of(directory) == [0]
    again = await open_journal(directory, keys)
    await again.append(draft())
    await again.close()
