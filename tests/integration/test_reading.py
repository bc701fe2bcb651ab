"""A tail against somebody who can write the disk, checksums included, but holds no key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage import frames
from storage.errors import JournalCorrupt, JournalError
from storage.frames import FrameReader, encode_frame, salt_crc
from storage.keys import JournalKeys
from storage.reading import Position, SegmentTail
from storage.segment import HEADER_BYTES, Commit, SegmentHeader, segment_name
from tests.support.journals import QUICK, call, journal_keys, open_journal, read_all

Change = Callable[[int, int, bytes], tuple[int, bytes]]  # type, seq, payload → seq, payload


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> JournalKeys:
    return journal_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
async def directory(tmp_path: Path, keys: JournalKeys) -> Path:
    directory = tmp_path / "journal" / "gateway-0"
    journal = await open_journal(directory, keys, syscalls=QUICK)
    for _ in range(3):
        await call(journal)
    await journal.close()
    return directory


def _rewrite(path: Path, change: Change) -> None:
    """Every frame as ``change`` says, with checksums that match again."""
    raw = path.read_bytes()
    header = SegmentHeader.from_bytes(raw)
    reader, made = FrameReader(header.salt, HEADER_BYTES), []
    reader.feed(raw[HEADER_BYTES:])
    while (frame := reader.next_frame()) is not None:
        seq, payload = change(frame.type, frame.seq, frame.payload)
        assert len(payload) == len(frame.payload)
        made.append(encode_frame(salt_crc(header.salt), frame.type, seq, frame.ts_ns, payload))
    path.write_bytes(raw[:HEADER_BYTES] + b"".join(made))


def _on(kind: int, at: int, change: Callable[[int, bytes], tuple[int, bytes]]) -> Change:
    """Change only the frame of this type whose sequence number is ``at``."""
    return lambda found, seq, payload: change(seq, payload) if (found, seq) == (kind, at) else (seq, payload)


def _commit(change: Callable[[Commit], Commit]) -> Change:
    return _on(frames.COMMIT, 2, lambda seq, payload: (seq, change(Commit.from_payload(payload)).to_payload()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_on(frames.RECORD, 1, lambda seq, payload: (seq, payload.replace(b"acme", b"evil"))), "roots"),
        (_on(frames.RECORD, 1, lambda seq, payload: (seq + 1, payload)), "stands in the place of"),
        (_commit(lambda commit: replace(commit, count=2)), "states"),
        (_commit(lambda commit: replace(commit, begin=commit.begin + 8)), "states"),
        (_commit(lambda commit: replace(commit, root=bytes(32))), "roots"),
        (_commit(lambda commit: replace(commit, key_id=bytes(8))), "another key"),
        (_commit(lambda commit: replace(commit, signature=bytes(64))), "signature"),
    ],
)
async def test_a_rewritten_batch_is_noticed_though_its_checksums_match(
    directory: Path, change: Change, message: str
) -> None:
    path = directory / segment_name(0)
    before = read_all(directory)
    _rewrite(path, lambda _kind, seq, payload: (seq, payload))
    assert read_all(directory) == before
    _rewrite(path, change)
    tail = SegmentTail(directory)
    with pytest.raises(JournalCorrupt, match=message):
        list(tail.batches())
    assert tail.position == Position(0, before[0].end)
    tail.close()


async def test_a_process_key_that_no_host_vouches_for_is_noticed(directory: Path) -> None:
    path = directory / segment_name(0)
    raw = path.read_bytes()
    forged = replace(SegmentHeader.from_bytes(raw), process_key=bytes(32))
    path.write_bytes(forged.to_bytes() + raw[HEADER_BYTES:])
    with pytest.raises(JournalCorrupt, match="vouches"):
        read_all(directory)


async def test_a_host_that_is_not_trusted_is_refused(directory: Path, keys: JournalKeys) -> None:
    assert read_all(directory, host_keys={keys.host_public})
    with pytest.raises(JournalCorrupt, match="not trusted"):
        read_all(directory, host_keys={bytes(32)})


async def test_a_journal_that_is_shorter_than_its_watermark_is_noticed(directory: Path) -> None:
    path = directory / segment_name(0)
    batches = read_all(directory)
    raw = path.read_bytes()
    for end in (batches[-1].begin, batches[-1].begin + 10, batches[-1].end - 8):
        path.write_bytes(raw[:end])
        with pytest.raises(JournalCorrupt, match="in the middle"):
            read_all(directory)
    assert len(read_all(directory, to_end=True)) == len(batches) - 1


async def test_a_position_that_is_gone_or_never_was_is_an_error(directory: Path) -> None:
    for position, code in ((Position(0, 5000), "position_invalid"), (Position(1, HEADER_BYTES), "segment_gone")):
        tail = SegmentTail(directory, position)
        path = directory / segment_name(0)
        if code == "segment_gone":
            path = path.rename(directory / segment_name(9))
        with pytest.raises(JournalError) as wrong:
            list(SegmentTail(directory, position, to_end=True).batches())
        assert wrong.value.code == code
        tail.close()


async def test_there_is_nothing_to_read_before_the_first_batch(tmp_path: Path) -> None:
    tail = SegmentTail(tmp_path)
    assert list(tail.batches()) == []
    assert (tail.origin, tail.header(), tail.position) == (None, None, None)
    assert list(SegmentTail(tmp_path, to_end=True).batches()) == []
    assert tail.directory == tmp_path


async def test_a_tail_that_is_ahead_of_the_watermark_waits(directory: Path) -> None:
    tail = SegmentTail(directory, Position(10_000, HEADER_BYTES))
    assert list(tail.batches()) == []


async def test_reading_may_stop_between_two_batches_and_go_on(directory: Path) -> None:
    tail = SegmentTail(directory)
    first = next(iter(tail.batches()))
    assert [first, *tail.batches()] == read_all(directory)
    header = tail.header()
    assert header is not None
    assert header.origin == tail.origin == "test/gateway-0/1"
    tail.close()
