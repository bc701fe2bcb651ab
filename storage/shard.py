"""A shard's directory as its next writer finds it: locked, then recovered or put into quarantine."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from storage import durable, quarantine, recovery
from storage.errors import JournalCorrupt, JournalHeld
from storage.recovery import Recovered
from storage.watermark import RECOVERING, RUNNING, Mark, Slot

LOCK = "lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The epoch that goes on or begins, what was recovered, and the note of a quarantine that is yet to be recorded."""

    epoch: int
    recovered: Recovered
    quarantined: dict[str, Any] | None


def lock(directory: Path, calls: durable.Syscalls) -> int:
    """Make the directory and take its lock, which the descriptor holds; raises JournalHeld."""
    durable.make_directory(directory, calls)
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise JournalHeld(f"{directory.name} is held by process {holder or '?'}") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def start(directory: Path, boot_id: bytes, calls: durable.Syscalls) -> Start:
    """Recover; corruption opens a new epoch, and the old one stays whole in quarantine."""
    note = quarantine.noted(directory)
    if note is not None:  # an earlier start did not get to the end of it
        quarantine.finish(directory, note, calls)
    try:
        found = recovery.recover(directory, boot_id, calls)
    except JournalCorrupt as damage:
        _log.critical("journal_corrupt", shard=directory.name, message=damage.message, advice=damage.advice)
        note = quarantine.begin(directory, damage, calls)
        found = None
    if found is None:
        cuts = recovery.cuts_of(directory)  # a first batch that tore leaves nothing else
        return Start(epoch=quarantine.next_epoch(directory), recovered=Recovered(cuts=cuts), quarantined=note)
    epoch, recovered = found
    if note is not None and epoch > note["epoch"] and recovered.frontier.size:
        quarantine.recorded(directory, calls)  # the entry became durable, the note was not yet removed
        note = None
    return Start(epoch=epoch, recovered=recovered, quarantined=note)


def boot_id() -> bytes:
    """16 bytes that name this run of the kernel; zeros where it does not say."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except FileNotFoundError:  # pragma: no cover - not Linux: every restart counts as the same run
        return bytes(16)


def first_mark(start: Start, boot_id: bytes) -> Mark:
    """The watermark that a writer begins with: durable is what recovery found."""
    found = start.recovered
    segment, end = found.durable_end
    slot = Slot(
        generation=1,
        segment=segment,
        end=end,
        next_seq=found.frontier.size,
        closed=found.counters.closed,
        lost=found.counters.lost,
        shed=found.counters.shed,
    )
    return Mark(
        incarnation=os.urandom(16),
        boot_id=boot_id,
        epoch=start.epoch,
        state=RUNNING if found.is_count_known else RECOVERING,
        slot=slot,
        accepted=found.counters.accepted,
        refused=found.counters.refused,
    )
