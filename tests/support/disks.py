"""Disks that tests stop and fill, in the place of the kernel's calls."""

from __future__ import annotations

import threading
from pathlib import Path

from storage.durable import Syscalls


class Disk(Syscalls):
    """The kernel; ``stop`` lets no sync end before ``go``, ``free`` (bytes free, of all) is what statvfs tells."""

    def __init__(self) -> None:
        self._goes = threading.Event()
        self._goes.set()
        self.syncs = 0
        self.told: tuple[int, int] | None = None

    def stop(self) -> None:
        """No sync ends from here on."""
        self._goes.clear()

    def go(self) -> None:
        """Syncs end as the kernel's do."""
        self._goes.set()

    def datasync(self, fd: int) -> None:
        """Sync once the disk goes."""
        self._goes.wait()
        super().datasync(fd)
        self.syncs += 1

    def free(self, path: Path) -> tuple[int, int]:
        """What the test tells, else the truth."""
        return super().free(path) if self.told is None else self.told
