"""Copies of the log of logs' checkpoints in a directory, best on another machine: written once, never overwritten.

One file a checkpoint, ``<deployment>_log/<size, 20 digits>.checkpoint``, holding the signed note. Whoever restores an
older backup of everything else finds a larger tree here.
"""

from __future__ import annotations

import re
from pathlib import Path

from storage import durable, notes
from storage.durable import KERNEL, Syscalls
from storage.errors import Unverifiable
from storage.ledger import RolledBackError, Signed
from storage.shiplog import file_name

_NAME = re.compile(r"^([0-9]{20})\.checkpoint$")


class Copies:
    """The copies of one log; blocking."""

    def __init__(self, directory: Path, name: str, *, public: bytes, calls: Syscalls = KERNEL) -> None:
        self.directory = directory / file_name(name)
        self._name = name
        self._public = public
        self._calls = calls

    def keep(self, signed: Signed) -> None:
        """This checkpoint is there, durable on return; nothing that was there is changed.

        Raises:
            RolledBackError: another root of this size is there, signed by us.
            Unverifiable: the file of this size is no checkpoint of ours.
            OSError: it cannot be written.
        """
        durable.make_directory(self.directory, self._calls)
        path = self.directory / f"{signed.checkpoint.size:020d}.checkpoint"
        if durable.create_file(path, signed.note, self._calls):
            return
        there = notes.verified_checkpoint(path.read_bytes(), origin=self._name, public=self._public)
        if there != signed.checkpoint:
            raise RolledBackError(f"{path} holds another root of the same size, signed with our key")

    def newest(self) -> notes.Checkpoint | None:
        """The largest checkpoint that is there.

        Raises:
            Unverifiable: it is none of ours.
            OSError: the directory cannot be read.
        """
        if not self.directory.exists():
            return None
        found = max((path.name for path in self.directory.iterdir() if _NAME.fullmatch(path.name)), default=None)
        if found is None:
            return None
        raw = (self.directory / found).read_bytes()
        checkpoint = notes.verified_checkpoint(raw, origin=self._name, public=self._public)
        if f"{checkpoint.size:020d}.checkpoint" != found:
            raise Unverifiable(f"{self.directory / found} holds a checkpoint of {checkpoint.size} leaves")
        return checkpoint
