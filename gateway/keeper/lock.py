"""Who holds the data: ``flock(DATA/lock)``, with the holder's process id in the file, and ``keeper`` where it is one.

The lock is the kernel's, so a killed holder never leaves one behind; what stands in the file is only for people, and
for a keeper to know whether whoever holds the data will soon be done.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

from config.errors import AnswerableError


class DataHeld(AnswerableError):  # noqa: N818 (named after the state that the caller meets)
    """Another process has the data open; a command exits 2 and names it."""

    code = "data_held"
    status = 409
    advice = "Stop that process, or send the command to the keeper that it runs."

    def __init__(self, data: Path, pid: int | None, *, by_keeper: bool) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{data} is held by {who}{', a keeper' if by_keeper else ''}")
        self.pid = pid
        self.by_keeper = by_keeper


class DataLock:
    """The exclusive lock on a data directory, held from `take` to `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, data: Path, *, keeper: bool = False) -> Self:
        """Lock `data`, which is created where missing; true on return: no other process has it open.

        Raises:
            DataHeld: another process has the lock; it names the process id that stands in the file.
        """
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataHeld(data, holder(data), by_keeper=_written(data)[1:] == ["keeper"]) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}{' keeper' if keeper else ''}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Give the data back; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(data: Path) -> int | None:
    """The process id in the lock file; None where it is missing or not a number."""
    with contextlib.suppress(IndexError, ValueError):
        return int(_written(data)[0])
    return None


def _written(data: Path) -> list[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (data / "lock").read_text("ascii").split()
    return []
