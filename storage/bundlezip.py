"""The ZIP directory of a bundle, by the rules of README.md ("The container"): no two readers see different content.

Python's `zipfile` is not used to read: it takes more than those rules allow (ZIP64 locators, overlaps, junk behind
content), and what it takes differs from one of its versions to the next.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import IO, Final

from storage.errors import Unverifiable

FILES_MAX: Final = 20_000
CONTENT_BYTES_MAX: Final = 2 << 30
STORED: Final = 0
DEFLATED: Final = 8
_END: Final = Struct("<4s4H2IH")  # APPNOTE 4.3.16
_RECORD: Final = Struct("<4s6H3I5H2I")  # 4.3.12
_LOCAL: Final = Struct("<4s5H3I2H")  # 4.3.7
_FLAGS: Final = 0x0806  # bits 1 and 2 say how hard deflate tried, bit 11 that names are UTF-8
_SHORT_MAX, _LONG_MAX = 0xFFFF, 0xFFFFFFFF  # these say ZIP64
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_PIECE_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file in the bundle: where its packed bytes lie, and what they are said to be."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    local: int  # where its local header begins

    @property
    def begin(self) -> int:
        """Where its packed bytes begin; local headers have no extra field."""
        return self.local + _LOCAL.size + len(self.name)


def directory(file: IO[bytes]) -> dict[str, Member]:
    """The members of the ZIP file, by name.

    Raises:
        Unverifiable: it is not of the form that a bundle has.
        OSError: it cannot be read.
    """
    end = file.seek(0, 2) - _END.size
    count, size, start = _end(_read(file, end, _END.size))
    if start + size != end or count > FILES_MAX:
        raise Unverifiable("the directory is not where its end says, or has too many files")
    raw, at = _read(file, start, size), 0
    members: dict[str, Member] = {}
    for _ in range(count):
        member, at = _record(raw, at)
        if member.name in members:
            raise Unverifiable(f"{member.name} is there twice")
        members[member.name] = member
    if at != size or sum(member.size for member in members.values()) > CONTENT_BYTES_MAX:
        raise Unverifiable("the directory is longer than it says, or the content too large")
    _check_places(file, list(members.values()), start)
    return members


def content(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """What was packed, piece by piece; it is what the directory says once the last piece has come.

    Raises:
        Unverifiable: it is something else.
    """
    crc = length = 0
    for piece in _unpacked(file, member):
        crc, length = zlib.crc32(piece, crc), length + len(piece)
        if length > member.size:
            break
        yield piece
    if (crc, length) != (member.crc, member.size):
        raise Unverifiable(f"{member.name} is not what the directory says")


def _end(raw: bytes) -> tuple[int, int, int]:
    """Of the directory: how many records, how many bytes, where it begins."""
    magic, disk, first_disk, here, count, size, start, comment = _END.unpack(raw)
    if magic != b"PK\x05\x06" or comment:
        raise Unverifiable("not a ZIP file, or one with a comment or something else behind it")
    if disk or first_disk or here != count or count == _SHORT_MAX or _LONG_MAX in (size, start):
        raise Unverifiable("a ZIP file of several parts, or ZIP64")
    return count, size, start


def _record(raw: bytes, at: int) -> tuple[Member, int]:
    """The record of the directory that begins `at`, and where the next one begins."""
    if at + _RECORD.size > len(raw):
        raise Unverifiable("the directory is cut short")
    magic, _, _, flags, method, _, _, crc, packed, size, *rest = _RECORD.unpack_from(raw, at)
    name_bytes, extra, comment, disk, _, _, local = rest
    after = at + _RECORD.size + name_bytes
    if magic != b"PK\x01\x02" or after > len(raw):
        raise Unverifiable("the directory is damaged")
    name = raw[after - name_bytes : after].decode("latin-1")
    if not _NAME.fullmatch(name) or any(step in (".", "..") for step in name.split("/")):
        raise Unverifiable(f"a file named {name[:80]!r}")
    if extra or comment or disk:
        raise Unverifiable(f"{name} has an extra field or a comment: another program packed it anew")
    if method not in (STORED, DEFLATED) or flags & ~_FLAGS or _LONG_MAX in (packed, size, local):
        raise Unverifiable(f"{name} is packed in a way that bundles are not: method {method}, flags {flags:#x}")
    return Member(name=name, flags=flags, method=method, crc=crc, packed=packed, size=size, local=local), after


def _check_places(file: IO[bytes], members: list[Member], start: int) -> None:
    """Members fill the file up to its directory, and their own headers say what the directory says."""
    at = 0
    for member in sorted(members, key=lambda each: each.local):
        if member.local != at:
            raise Unverifiable(f"{member.name} does not begin where the one before it ends")
        at = member.begin + member.packed
        if at > start:
            raise Unverifiable(f"{member.name} is longer than the file has room for")
        raw = _read(file, member.local, member.begin - member.local)
        magic, _, flags, method, _, _, crc, packed, size, name_bytes, extra = _LOCAL.unpack_from(raw)
        stated = (member.flags, member.method, member.crc, member.packed, member.size, len(member.name), 0)
        if magic != b"PK\x03\x04" or (flags, method, crc, packed, size, name_bytes, extra) != stated:
            raise Unverifiable(f"the header of {member.name} says something else than the directory")
        if raw[_LOCAL.size :] != member.name.encode():
            raise Unverifiable(f"{member.name} has another name in its own header")
    if at != start:
        raise Unverifiable("bytes that belong to no file")


def _unpacked(file: IO[bytes], member: Member) -> Iterator[bytes]:
    if member.method == STORED:
        if member.packed != member.size:
            raise Unverifiable(f"{member.name} has two sizes, and is stored as it is")
        yield from _packed(file, member)
        return
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in _packed(file, member):
            rest = piece
            while rest and not stream.eof:
                made = stream.decompress(rest, _PIECE_BYTES)
                rest = stream.unconsumed_tail
                yield made
            if stream.unused_data or (rest and stream.eof):
                raise Unverifiable(f"{member.name}: something follows its content")
        while not stream.eof and (made := stream.decompress(b"", _PIECE_BYTES)):
            yield made
    except zlib.error as error:
        raise Unverifiable(f"{member.name}: {error}") from error
    if not stream.eof:
        raise Unverifiable(f"{member.name} does not end")


def _packed(file: IO[bytes], member: Member) -> Iterator[bytes]:
    at, end = member.begin, member.begin + member.packed
    while at < end:
        piece = _read(file, at, min(_PIECE_BYTES, end - at))
        at += len(piece)
        yield piece


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    if at < 0:
        raise Unverifiable("not a ZIP file")
    file.seek(at)
    raw = file.read(size)
    if len(raw) != size:
        raise Unverifiable("the ZIP file is cut short")
    return raw
