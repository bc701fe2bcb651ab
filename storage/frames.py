"""Frames: how a segment's bytes are cut into checked pieces. Pure. README.md ("Frames") is the specification.

``u32 len | u32 crc32c(salt || len || type..payload) | u8 type | u64 seq | u64 ts_ns | payload | zeros to 8``, all
little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

import google_crc32c

from storage.errors import FrameDamaged

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024 + 4096  # a sealed body (10 MiB by default, 16 at most) in one PART frame

RECORD, PART, KEY, COMMIT, RECOVERY, CLOSE, OPEN = 1, 2, 3, 4, 5, 6, 7
FRAME_NAMES = {
    RECORD: "RECORD",
    PART: "PART",
    KEY: "KEY",
    COMMIT: "COMMIT",
    RECOVERY: "RECOVERY",
    CLOSE: "CLOSE",
    OPEN: "OPEN",
}

FRAME_HEAD = Struct("<IIBQQ")
FRAME_HEAD_BYTES = FRAME_HEAD.size  # 25; payload follows at once, then zeros up to a multiple of 8
_LENGTH = Struct("<I")
_LENGTH_AND_REST = Struct("<IBQQ")
_PADDING = tuple(bytes(count) for count in range(8))
_ZERO_HEAD = bytes(FRAME_HEAD_BYTES)
_extend = google_crc32c.extend


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its type, numbers and payload, and where it stands in its segment (bytes)."""

    type: int
    seq: int
    ts_ns: int
    payload: bytes
    offset: int
    end: int


def salt_crc(salt: bytes) -> int:
    """The CRC-32C state that every frame of a segment starts from."""
    return int(google_crc32c.value(salt))


def encode_frame(  # noqa: PLR0917 - by position: four frames a call
    salted: int, kind: int, seq: int, ts_ns: int, payload: bytes, prefix: bytes = b""
) -> bytes:
    """One frame with its padding; ``salted`` is :func:`salt_crc` of the segment, ``prefix`` begins the payload."""
    length = len(prefix) + len(payload)
    crc = _extend(_extend(salted, _LENGTH_AND_REST.pack(length, kind, seq, ts_ns) + prefix), payload)
    head = FRAME_HEAD.pack(length, crc, kind, seq, ts_ns)
    return b"".join((head, prefix, payload, _PADDING[-(FRAME_HEAD_BYTES + length) & 7]))


def frame_bytes(payload_bytes: int) -> int:
    """The space a frame takes with its padding."""
    return (FRAME_HEAD_BYTES + payload_bytes + 7) & ~7


def decode_frame(salted: int, buffer: bytes | bytearray | memoryview, at: int, offset: int) -> Frame | None:
    """The frame at ``buffer[at:]``, which is ``offset`` in its segment; None if more bytes are needed.

    Raises FrameDamaged where no continuation could make a frame of it.
    """
    have = len(buffer) - at
    if have < FRAME_HEAD_BYTES:
        return None
    length, crc, kind, seq, ts_ns = FRAME_HEAD.unpack_from(buffer, at)
    if kind not in FRAME_NAMES or length > PAYLOAD_BYTES_MAX:
        raise FrameDamaged(f"no frame of type {kind} and {length} bytes", offset=offset)
    total = frame_bytes(length)
    if have < total:
        return None
    body = bytes(buffer[at + 8 : at + FRAME_HEAD_BYTES + length])
    if _extend(_extend(salted, _LENGTH.pack(length)), body) != crc:
        raise FrameDamaged("a frame's checksum does not match", offset=offset)
    if any(buffer[at + FRAME_HEAD_BYTES + length : at + total]):
        raise FrameDamaged("a frame's padding is not zero", offset=offset)
    return Frame(kind, seq, ts_ns, body[17:], offset, offset + total)


class FrameReader:
    """Frames out of bytes that arrive in any pieces: one byte at a time gives what all at once gives."""

    __slots__ = ("_at", "_buffer", "_salted", "offset")

    def __init__(self, salt: bytes, offset: int) -> None:
        self._salted = salt_crc(salt)
        self._buffer = bytearray()
        self._at = 0
        self.offset = offset  # of the next frame in the segment

    def feed(self, data: bytes) -> None:
        """Take more bytes; :meth:`next_frame` gives what they complete."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next frame, or None if more bytes are needed or the written space has ended; raises FrameDamaged."""
        if self.ended:
            return None
        frame = decode_frame(self._salted, self._buffer, self._at, self.offset)
        if frame is not None:
            self._at += frame.end - frame.offset
            self.offset = frame.end
        return frame

    @property
    def ended(self) -> bool:
        """True where zeros stand in a frame's place: the space that is reserved, not yet written."""
        return self._buffer[self._at : self._at + FRAME_HEAD_BYTES] == _ZERO_HEAD

    @property
    def rest_bytes(self) -> int:
        """How many bytes wait for the frame that they begin."""
        return len(self._buffer) - self._at


def find_frames(salted: int, segment: bytes, start: int) -> Iterator[Frame]:
    """Every whole frame at an aligned offset from ``start``, damage or not: what is left behind a damaged place.

    The salt is random and stays in the header, so no payload can imitate a frame.
    """
    at = (start + 7) & ~7
    while at + FRAME_HEAD_BYTES <= len(segment):
        if segment[at + 8] in FRAME_NAMES:
            try:
                frame = decode_frame(salted, segment, at, at)
            except FrameDamaged:
                frame = None
            if frame is not None:
                yield frame
                at = frame.end
                continue
        at += 8
