"""The container of an evidence bundle: names, members, manifest (see "Evidence bundles" in README.md).

Written once, from front to back; read as a hostile file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from storage import bundlezip, durable
from storage.bundlezip import CONTENT_BYTES_MAX, FILES_MAX, Member
from storage.errors import StorageError, Unverifiable

FORMAT: Final = "answerable/bundle/v1"
MANIFEST: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 64 << 20
LINE_BYTES_MAX: Final = 1 << 20
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # ZIP's own beginning: the same evidence makes the same bytes


class BundleError(StorageError):
    """What was asked for cannot be bundled (now)."""

    code = "bundle_impossible"
    status = 409
    advice = "Narrow what you ask for, or ask again when a checkpoint covers it (`ledger.log_s`)."


class BundleWriter:
    """Writes a new file; the manifest last."""

    def __init__(self, path: Path) -> None:
        """The file must not be there yet (FileExistsError)."""
        self._path = path
        self._file = os.fdopen(durable.new_private(path), "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, allowZip64=False)
        self._files: dict[str, dict[str, object]] = {}
        self._bytes = 0

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """One member.

        Raises:
            BundleError: no verifier would take as many, or as much.
        """
        if len(self._files) + 1 >= FILES_MAX:  # and the manifest
            raise BundleError(f"a bundle has at most {FILES_MAX} files")
        digest, size = hashlib.sha256(), 0
        with self._zip.open(_info(name), "w") as member:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                if self._bytes + size > CONTENT_BYTES_MAX - MANIFEST_BYTES_MAX:
                    raise BundleError(f"a bundle has at most {CONTENT_BYTES_MAX} bytes of content")
                member.write(piece)
        self._bytes += size
        self._files[name] = {"size": size, "sha256": digest.hexdigest()}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, `files` included, and close; true on return: the file is whole and durable."""
        raw = orjson.dumps({**manifest, "format": FORMAT, "files": self._files}, option=orjson.OPT_SORT_KEYS)
        self._zip.writestr(_info(MANIFEST), raw + b"\n")
        self._zip.close()
        self._file.flush()
        durable.settle_new(self._file.fileno(), self._path)
        self._file.close()

    def abandon(self) -> None:
        """Close what is not whole."""
        with contextlib.suppress(OSError):  # a full disk, perhaps; whoever abandons it deletes it
            self._zip.close()
        with contextlib.suppress(OSError):
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
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self.members: dict[str, Member] = bundlezip.directory(self._file)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a member, whole once the last piece has come.

        Raises:
            Unverifiable: it is not there, or not what the directory says.
        """
        if name not in self.members:
            raise Unverifiable(f"{name} is missing")
        return bundlezip.content(self._file, self.members[name])

    def read(self, name: str, *, bytes_max: int) -> bytes:
        """A whole member of at most `bytes_max`."""
        if name in self.members and self.members[name].size > bytes_max:
            raise Unverifiable(f"{name} has more than {bytes_max} bytes")
        return b"".join(self.pieces(name))

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a member, without their newlines."""
        rest = b""
        for piece in self.pieces(name):
            *whole, rest = (rest + piece).split(b"\n")
            if max(map(len, (*whole, rest))) > LINE_BYTES_MAX:
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
