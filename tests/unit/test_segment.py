from __future__ import annotations

import contextlib

import pytest

from storage import frames, segment
from storage.errors import FrameDamaged, JournalCorrupt
from storage.frames import FrameReader, encode_frame
from storage.merkle import EMPTY_ROOT, Frontier, leaf_hash
from storage.segment import Commit, Counters, OpenPart, SegmentHeader, StoredPart, WrappedKey

SALT = b"0123456789abcdef"
KEY_ID = "017f22e2-79b0-7000-98c4-dc0c0c07398f"


def _header(**changed: object) -> SegmentHeader:
    frontier = Frontier()
    for number in range(5):
        frontier.append(leaf_hash(bytes([number])))
    known: dict = {
        "origin": "dep/gateway-0/1",
        "first_seq": 5,
        "salt": SALT,
        "created_ns": 1,
        "process_key": b"p" * 32,
        "host_key": b"h" * 32,
        "vouch": b"v" * 64,
        "sealed_key": b"s" * 80,
        "frontier": frontier,
    }
    return SegmentHeader(**{**known, **changed})


def test_a_header_comes_back_as_it_was_written() -> None:
    raw = _header().to_bytes()
    assert len(raw) == segment.HEADER_BYTES
    read = SegmentHeader.from_bytes(raw)
    assert read.to_bytes() == raw
    assert (read.origin, read.first_seq, read.frontier.root()) == ("dep/gateway-0/1", 5, _header().frontier.root())


def test_every_flipped_byte_of_a_header_is_noticed() -> None:
    raw = _header().to_bytes()
    for at in range(0, len(raw), 7):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        with pytest.raises(JournalCorrupt):
            SegmentHeader.from_bytes(bytes(damaged))
    with pytest.raises(JournalCorrupt):
        SegmentHeader.from_bytes(raw[:-1])


def test_a_header_that_contradicts_its_tree_or_is_of_another_version_is_refused() -> None:
    with pytest.raises(JournalCorrupt, match="contradicts"):
        SegmentHeader.from_bytes(_header(first_seq=6).to_bytes())
    raw = bytearray(_header().to_bytes())
    raw[8] = 9
    raw[-4:] = segment.header_crc(bytes(raw))
    with pytest.raises(JournalCorrupt, match="version 9"):
        SegmentHeader.from_bytes(bytes(raw))
    with pytest.raises(ValueError, match="origin"):
        _header(origin="o" * 513).to_bytes()


def test_a_frame_has_the_bytes_that_the_specification_says() -> None:
    frame = encode_frame(frames.salt_crc(SALT), frames.RECORD, 7, 9, b"{}")
    assert len(frame) == 32
    assert frame[:4] == (2).to_bytes(4, "little")
    assert frame[8] == 1
    assert frame[9:17] == (7).to_bytes(8, "little")
    assert frame[17:25] == (9).to_bytes(8, "little")
    assert frame[25:27] == b"{}"
    assert frame[27:] == bytes(5)
    assert int.from_bytes(frame[4:8], "little") == _crc32c(SALT + frame[:4] + frame[8:27])


def _crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (Castagnoli, reflected 0x82F63B78): a second opinion on the library."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_every_flipped_bit_of_a_frame_is_noticed_or_leaves_it_incomplete() -> None:
    frame = encode_frame(frames.salt_crc(SALT), frames.PART, 7, 9, b"payload!")
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        reader = FrameReader(SALT, 4096)
        reader.feed(bytes(damaged))
        with contextlib.suppress(FrameDamaged):
            assert reader.next_frame() is None
        assert reader.offset == 4096


def test_a_frame_of_another_segment_is_damage_here() -> None:
    reader = FrameReader(SALT, 4096)
    reader.feed(encode_frame(frames.salt_crc(b"another segment!"), frames.RECORD, 0, 0, b"{}"))
    with pytest.raises(FrameDamaged):
        reader.next_frame()


def test_reserved_space_ends_the_frames() -> None:
    reader = FrameReader(SALT, 4096)
    reader.feed(encode_frame(frames.salt_crc(SALT), frames.RECORD, 0, 0, b"{}") + bytes(64))
    first = reader.next_frame()
    assert first is not None
    assert (first.payload, first.offset, first.end) == (b"{}", 4096, 4128)
    assert reader.next_frame() is None
    assert reader.ended


def test_frames_behind_a_damaged_place_are_found_again() -> None:
    salted = frames.salt_crc(SALT)
    made = [encode_frame(salted, frames.RECORD, number, 0, b"x" * (number * 5)) for number in range(6)]
    whole = bytearray(b"".join(made))
    whole[len(made[0]) + 3] ^= 0xFF
    found = list(frames.find_frames(salted, bytes(whole), 0))
    assert [frame.seq for frame in found] == [0, 2, 3, 4, 5]


def test_payloads_come_back_as_they_were_written() -> None:
    part = StoredPart(KEY_ID, 1, 70_000, b"sealed", 9)
    assert StoredPart.from_payload(part.to_payload(), 9) == part
    key = WrappedKey(KEY_ID, 3, b"w" * 48, 100, 9)
    assert WrappedKey.from_payload(key.to_payload(), 100, 9) == key
    opened = OpenPart(key_id=KEY_ID, index=1, name="r", media='a/b; c="d"', encoding="zstd", dek_commit=b"d" * 32)
    assert OpenPart.from_payload(opened.to_payload()) == opened
    commit = Commit(
        begin=4096,
        first=5,
        count=2,
        batch_root=b"b" * 32,
        size=7,
        root=b"r" * 32,
        counters=Counters(accepted=9, closed=4, lost=2, shed=1, refused=3),
        key_id=b"k" * 8,
        signature=b"s" * 64,
    )
    assert Commit.from_payload(commit.to_payload()) == commit
    assert commit.counters.open == 3
    assert segment.COMMIT_BYTES % 8 == 0
    for read in (lambda: StoredPart.from_payload(b"", 0), lambda: WrappedKey.from_payload(b"", 0, 0)):
        with pytest.raises(JournalCorrupt):
            read()
    with pytest.raises(JournalCorrupt):
        Commit.from_payload(commit.to_payload() + b"\0")
    for damaged in (b"", opened.to_payload()[:-1], bytes(17) + b"{}", bytes(17) + b"[]"):
        with pytest.raises(JournalCorrupt, match="OPEN"):
            OpenPart.from_payload(damaged)


def test_the_signed_texts_are_as_specified() -> None:
    text = segment.batch_text(origin="d/s/1", first=1, count=2, batch_root=EMPTY_ROOT, size=3, root=EMPTY_ROOT)
    empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    assert text == f"answerable/batch/v1\nd/s/1\n1\n2\n{empty}\n3\n{empty}\n".encode()
    assert segment.vouch_text("d/s/1", EMPTY_ROOT) == f"answerable/vouch/v1\nd/s/1\n{empty}\n".encode()
    assert segment.segment_name(42) == "00000000000000000042.jrn"
