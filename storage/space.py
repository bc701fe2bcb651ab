"""Space: the next segment's file, reserved before it is needed, so that a full disk is known before it hurts.

The same thread looks at the file system's free space each second, since statvfs may block where a disk is far away.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from storage import durable
from storage.errors import JournalFull
from storage.pressure import used_share

NAME = "ahead"
_RETRY_S = 0.25  # how often a full disk is asked again
_LOOK_S = 1.0  # how old the known free space may be


class SegmentSpace:
    """Keeps one reserved file ahead in a thread of its own; the writer takes it when it needs a segment."""

    def __init__(self, directory: Path, segment_bytes: int, calls: durable.Syscalls) -> None:
        self._path = directory / NAME
        self._segment_bytes = segment_bytes
        self._calls = calls
        self._changed = threading.Condition()
        self._ready = False
        self._closing = False
        self._error: OSError | None = None
        self.disk_share = 0.0  # of the file system's headroom that is used (pressure.used_share); a second old at most
        self._thread = threading.Thread(target=self._run, name="journal-space", daemon=True)

    def start(self) -> None:
        """Remove what an earlier process reserved and begin to reserve."""
        durable.remove(self._path, self._calls)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """True if a file is there to be taken."""
        return self._ready

    def take(self, timeout_s: float) -> Path:
        """The reserved file, which is now the caller's to rename; raises JournalFull after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready, timeout_s)
            if not self._ready:
                raise JournalFull(f"no room for a segment of {self._segment_bytes} bytes: {self._error}")
            return self._path

    def taken(self) -> None:
        """The caller renamed the file: reserve the next one."""
        with self._changed:
            self._ready = False
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and give the reserved file back."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # a leftover is removed at the next start
            durable.remove(self._path, self._calls)

    def _look(self) -> None:
        try:
            free, total = durable.free_bytes(self._path.parent, self._calls)
        except OSError:
            return  # what it was: reserving the next segment tells whether the disk is gone
        self.disk_share = used_share(free_bytes=free, total_bytes=total, segment_bytes=self._segment_bytes)

    def _run(self) -> None:
        while True:
            self._look()
            with self._changed:
                if self._ready:
                    self._changed.wait_for(lambda: self._closing or not self._ready, _LOOK_S)
                elif self._error is not None:
                    self._changed.wait_for(lambda: self._closing, _RETRY_S)
                if self._closing:
                    return
                if self._ready:
                    continue
            try:
                durable.reserve(self._path, self._segment_bytes, self._calls)
            except OSError as error:
                self._error = error
                continue
            with self._changed:
                self._error, self._ready = None, True
                self._changed.notify_all()
