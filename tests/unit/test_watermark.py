from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from storage import watermark
from storage.watermark import CLOSED, RUNNING, Mark, Slot, Watermark

SLOT = Slot(generation=1, segment=0, end=4096, next_seq=0, closed=0, lost=0, shed=0)
MARK = Mark(incarnation=b"i" * 16, boot_id=b"b" * 16, epoch=1, state=RUNNING, slot=SLOT, accepted=5, refused=2)


def test_what_a_writer_stores_a_reader_finds(tmp_path: Path) -> None:
    path = tmp_path / watermark.NAME
    mark = Watermark(path, MARK)
    assert watermark.read(path) == MARK
    mark.accept()
    mark.refuse()
    mark.refuse()
    for step in range(1, 5):
        mark.advance(segment=7, end=4096 + step, next_seq=step, closed=step, lost=1, shed=1)
        read = watermark.read(path)
        assert read is not None
        assert (read.slot.generation, read.slot.end, read.slot.closed) == (1 + step, 4096 + step, step)
    mark.set_state(CLOSED)
    read = watermark.read(path)
    assert read is not None
    assert (read.state, read.accepted, read.refused) == (CLOSED, 6, 4)
    assert read.counters.as_json() == {"accepted": 6, "closed": 4, "open": 1, "lost": 1, "shed": 1, "refused": 4}
    mark.close()
    assert watermark.read(path) == read


def test_a_slot_that_was_torn_leaves_the_one_before_it_valid(tmp_path: Path) -> None:
    path = tmp_path / watermark.NAME
    mark = Watermark(path, MARK)
    mark.advance(segment=0, end=5000, next_seq=3, closed=3, lost=0, shed=0)
    mark.close()
    whole = path.read_bytes()
    for at in range(256, 256 + 60):  # the slot of generation 2
        torn = bytearray(whole)
        torn[at] ^= 0x55
        read = watermark.from_bytes(bytes(torn))
        assert read is not None
        assert read.slot == SLOT


def test_a_damaged_watermark_says_nothing() -> None:
    raw = watermark.to_bytes(MARK)
    for at in (0, 8, 12, 16, 32, 48, 384, 400):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        assert watermark.from_bytes(bytes(damaged)) is None
    assert watermark.from_bytes(raw[:-1]) is None
    assert watermark.from_bytes(bytes(4096)) is None
    assert watermark.from_bytes(watermark.to_bytes(replace(MARK, epoch=9))) == replace(MARK, epoch=9)


def test_a_missing_watermark_says_nothing(tmp_path: Path) -> None:
    assert watermark.read(tmp_path / "none") is None
