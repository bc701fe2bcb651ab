"""The keys that kept answers are sealed with: one a day (UTC), a file each, deleted when its answers have expired.

Every worker of the host may make and delete them: making is a hard link that only one of them wins, deleting is an
unlink that finds the file or does not. What a disk keeps of a deleted 32-byte file is beyond us; what it protected is
overwritten besides (`repeats.py`).
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage import durable
from storage.errors import StorageError
from storage.firsts import NS

KEY_BYTES = 32
NONCE_BYTES = 12
KEEP_DAYS = 1  # besides its own: an answer that was kept at a day's end has 24 h to go
SECRET = "secret.key"  # noqa: S105 - a file's name


class DayKeys:
    """The day keys in one directory, and the secret behind the hashes that stand beside the answers."""

    def __init__(self, directory: Path) -> None:
        """Make the secret if there is none; it stays, since repeats are found by it.

        Raises:
            StorageError: it is open to others than its owner, or no key.
            OSError: it cannot be made or read.
        """
        durable.make_directory(directory)
        self._directory = directory
        self._known: dict[str, AESGCM] = {}
        self.secret = _read_or_make(directory / SECRET)

    def seal(self, plaintext: bytes, about: bytes, *, now_ns: int) -> tuple[str, bytes]:
        """The day whose key it is sealed with, and nonce and AES-256-GCM ciphertext; `about` is bound to it."""
        day = _day(now_ns)
        key = self._known.get(day)
        if key is None:
            key = self._known[day] = AESGCM(_read_or_make(self._directory / f"{day}.key"))
        nonce = os.urandom(NONCE_BYTES)
        return day, nonce + key.encrypt(nonce, plaintext, about)

    def open(self, day: str, sealed: bytes, about: bytes) -> bytes | None:
        """What was sealed; None where its key is gone, or is another."""
        key = self._known.get(day)
        if key is None:
            try:
                key = self._known[day] = AESGCM(_read(self._directory / f"{day}.key"))
            except FileNotFoundError:
                return None
        try:
            return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
        except InvalidTag:
            return None

    def expire(self, *, now_ns: int) -> list[str]:
        """Delete the keys of days that have passed by more than `KEEP_DAYS`, durably; returns these days."""
        oldest = _day(now_ns - KEEP_DAYS * 24 * 3600 * NS)
        gone = [path for path in self._directory.glob("????-??-??.key") if path.stem < oldest]
        for path in gone:
            durable.remove(path)
        self._known = {day: key for day, key in self._known.items() if day >= oldest}
        return sorted(path.stem for path in gone)


def _day(now_ns: int) -> str:
    return dt.datetime.fromtimestamp(now_ns / NS, dt.UTC).date().isoformat()


def _read_or_make(path: Path) -> bytes:
    if not path.exists():
        durable.create_file(path, os.urandom(KEY_BYTES))  # which the first of several makes
    return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise StorageError(
                f"{path} is open to others than its owner",
                code="keys_exposed",
                advice=f"Run `chmod 600 {path}`; if others may have read it, stop the gateway and delete it.",
            )
        key = file.read()
    if len(key) != KEY_BYTES:
        raise StorageError(f"{path} is not a key of {KEY_BYTES} bytes", code="keys_invalid")
    return key
