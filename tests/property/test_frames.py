from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage import frames
from storage.errors import FrameDamaged
from storage.frames import Frame, FrameReader, encode_frame

SALT = b"0123456789abcdef"
FRAMES = st.lists(
    st.tuples(st.sampled_from(sorted(frames.FRAME_NAMES)), st.integers(0, 2**64 - 1), st.binary(max_size=60)),
    max_size=8,
)


def _read(pieces: list[bytes]) -> tuple[list[Frame], int | None, bool]:
    """What a reader says: the frames, the offset of damage, if the written space ended."""
    reader, seen = FrameReader(SALT, 4096), []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (frame := reader.next_frame()) is not None:
                seen.append(frame)
        except FrameDamaged as error:
            return seen, error.offset, False
    return seen, None, reader.ended


def _bytes(made: list[tuple[int, int, bytes]]) -> bytes:
    salted = frames.salt_crc(SALT)
    return b"".join(encode_frame(salted, kind, seq, seq ^ 1, payload) for kind, seq, payload in made)


@given(FRAMES, st.integers(0, 64))
def test_one_byte_at_a_time_gives_what_all_at_once_gives(made: list[tuple[int, int, bytes]], zeros: int) -> None:
    data = _bytes(made) + bytes(zeros)
    whole = _read([data])
    assert whole == _read([data[at : at + 1] for at in range(len(data))])
    assert [(frame.type, frame.seq, frame.payload) for frame in whole[0]] == made


@given(FRAMES.filter(bool), st.data())
def test_damage_is_reported_at_the_same_place_however_the_bytes_arrive(
    made: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    raw = bytearray(_bytes(made))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(raw)))
    whole = _read([bytes(raw)])
    assert whole == _read([bytes(raw[:cut]), bytes(raw[cut:])])
    assert whole == _read([bytes(raw[at : at + 1]) for at in range(len(raw))])
    assert len(whole[0]) < len(made)
