"""What the keeper tells this worker by `control.json`: only what it signed, and never backwards. Thin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.control import FILE, FILE_BYTES_MAX, Control, ControlError, parse

_log = structlog.get_logger(__name__)


class Controlled:
    """The last good control file, and what it asks of this worker's journal."""

    def __init__(self, data: Path, *, deployment: str, public: bytes, origin: str, roll: Callable[[int], None]) -> None:
        """`public` is the control key's public half (32 bytes); `roll` closes the segment of that first number."""
        self._path = data / FILE
        self._deployment = deployment
        self._public = public
        self._origin = origin
        self._roll = roll
        self._seen: tuple[int, ...] = ()
        self._refused = ""  # as the log was told last
        self.now: Control | None = None

    def read(self) -> Control | None:
        """What the file says if it is new and better than what is known; None: all stays as it is. Blocking."""
        try:
            state = os.stat(self._path)  # noqa: PTH116 - a thread runs this each second
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
            if seen == self._seen:
                return None
            with self._path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse(f"{FILE}: {error.strerror or error}")
            return None
        self._seen = seen
        try:
            found = parse(raw, deployment=self._deployment, public=self._public)
        except ControlError as error:
            self._refuse(error.message)
            return None
        if self.now is not None and found.seq < self.now.seq:
            self._refuse(f"{FILE}: number {found.seq} after {self.now.seq}: an older file was put back")
            return None
        self._refused = ""
        return found

    def take(self, found: Control | None) -> None:
        """Do as it says; on the loop."""
        if found is None:
            return
        self.now = found
        first_seq = found.roll.get(self._origin)
        if first_seq is not None:
            self._roll(first_seq)

    def _refuse(self, why: str) -> None:
        if why != self._refused:
            self._refused = why
            _log.warning("control_refused", error=why)
