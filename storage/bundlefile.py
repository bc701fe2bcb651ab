"""The container of an evidence bundle: names, members, manifest (see "Evidence bundles" in README.md).

Written once, from front to back; read as a hostile file is read.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any, Final

import orjson

from storage import durable
from storage.errors import Unverifiable

FORMAT: Final = "answerable/bundle/v1"
MANIFEST: Final = "manifest.json"
FILES_MAX: Final = 20_000
CONTENT_BYTES_MAX: Final = 2 << 30
MANIFEST_BYTES_MAX: Final = 64 << 20
LINE_BYTES_MAX: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 18
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # ZIP's own beginning: the same evidence makes the same bytes
_ENCRYPTED: Final = 0x1
_END: Final = Struct("<4sHHHHIIH")  # the end of the central directory (APPNOTE 4.3.16)
_END_BYTES_MAX: Final = 22 + 65_535


class BundleWriter:
    """Writes a new file; the manifest last."""

    def __init__(self, path: Path) -> None:
        """The file must not be there yet (FileExistsError)."""
        self._file = os.fdopen(durable.new_private(path), "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, allowZip64=False)
        self._files: dict[str, dict[str, object]] = {}

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """One member."""
        digest, size = hashlib.sha256(), 0
        with self._zip.open(_info(name), "w") as member:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                member.write(piece)
        self._files[name] = {"size": size, "sha256": digest.hexdigest()}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, `files` included, and close; true on return: the file is whole and durable."""
        raw = orjson.dumps({**manifest, "format": FORMAT, "files": self._files}, option=orjson.OPT_SORT_KEYS)
        self._zip.writestr(_info(MANIFEST), raw + b"\n")
        self._zip.close()
        self._file.flush()
        self._file.close()

    def abandon(self) -> None:
        """Close what is not whole."""
        self._file.close()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info


class BundleReader:
    """The members of a bundle whose container is sound.

    Raises:
        Unverifiable: it is no ZIP file of the form that a bundle has.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise Unverifiable(f"not a ZIP file: {error}") from error
        self.members: dict[str, zipfile.ZipInfo] = {}
        try:
            self._check_all(path)
        except Unverifiable:
            self._zip.close()
            raise

    def _check_all(self, path: Path) -> None:
        members = self._zip.infolist()
        _check_end(path, len(members))
        if len(members) > FILES_MAX:
            raise Unverifiable(f"{len(members)} files, more than {FILES_MAX}")
        for member in members:
            self._check(member)
            self.members[member.filename] = member
        if sum(member.file_size for member in members) > CONTENT_BYTES_MAX:
            raise Unverifiable(f"more than {CONTENT_BYTES_MAX} bytes of content")

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a member, CRC-32 checked at its end.

        Raises:
            Unverifiable: it is not there, or not what its header says.
        """
        if name not in self.members:
            raise Unverifiable(f"{name} is missing")
        try:
            with self._zip.open(self.members[name]) as member:
                while piece := member.read(_PIECE_BYTES):
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise Unverifiable(f"{name}: {error}") from error

    def read(self, name: str, *, bytes_max: int) -> bytes:
        """A whole member of at most `bytes_max`."""
        if name in self.members and self.members[name].file_size > bytes_max:
            raise Unverifiable(f"{name} has more than {bytes_max} bytes")
        return b"".join(self.pieces(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a member, without their newlines."""
        rest = b""
        for piece in self.pieces(name):
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                raise Unverifiable(f"{name} has a line of more than {LINE_BYTES_MAX} bytes")
            yield from whole
        if rest:
            raise Unverifiable(f"{name} does not end in a newline")

    def digest(self, name: str) -> tuple[int, str]:
        """Size and lower-case hex SHA-256 of a member."""
        digest, size = hashlib.sha256(), 0
        for piece in self.pieces(name):
            digest.update(piece)
            size += len(piece)
        return size, digest.hexdigest()

    def _check(self, member: zipfile.ZipInfo) -> None:
        name = member.orig_filename
        if not _NAME.fullmatch(name) or any(step in (".", "..") for step in name.split("/")):
            raise Unverifiable(f"a file named {name[:80]!r}")
        if name in self.members:
            raise Unverifiable(f"{name} is there twice")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unverifiable(f"{name} is packed by method {member.compress_type}")
        if member.flag_bits & _ENCRYPTED:
            raise Unverifiable(f"{name} is encrypted")
        if member.extra and b"\x01\x00" in (member.extra[at : at + 2] for at in range(0, len(member.extra), 2)):
            raise Unverifiable(f"{name} uses ZIP64")


def _check_end(path: Path, count: int) -> None:
    """The directory lies right before its end record, that one ends the file, and both say the same."""
    with path.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(max(0, length - _END_BYTES_MAX))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise Unverifiable("not a ZIP file")
    _, disk, start_disk, here, entries, size, start, comment = _END.unpack_from(tail, at)
    end = length - len(tail) + at
    if disk or start_disk or here != entries or entries == 0xFFFF or 0xFFFFFFFF in (size, start):
        raise Unverifiable("a ZIP file of several parts, or ZIP64")
    if end + _END.size + comment != length or start + size != end or entries != count:
        raise Unverifiable("bytes that belong to no part of the ZIP file")
