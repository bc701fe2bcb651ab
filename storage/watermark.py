"""The watermark: up to where a journal is durable, and how many calls it owes an entry.

One file of 4 KiB a shard, mapped by its writer; README.md ("Watermark") is the specification. Stores go to shared
memory without a system call: they survive SIGKILL, not a power cut, after which recovery counts from the journal.
Invariant 2: readers go no further, since bytes behind the watermark can be seen before they are durable.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import google_crc32c

from storage import durable
from storage.segment import Counters

NAME = "watermark"
FILE_BYTES = 4096
MAGIC = b"ANSWMARK"
VERSION = 1
RUNNING, CLOSED = 1, 2
FAILED = 3  # a write or fsync failed: what the page cache shows may be on no disk
RECOVERING = 4  # the gap entry that says "count unknown" is not yet durable
FAILED_RECOVERING = 5  # both

_HEAD = Struct("<8sHHI16s16sQ")  # magic, version, zero, crc32c of origin.., incarnation, boot id, epoch
_STATE_AT, _ACCEPTED_AT, _REFUSED_AT = 64, 72, 80
_SLOTS_AT = (256, 384)
_SLOT = Struct("<QQQQQQQ")  # generation, segment, end, next seq, closed, lost, shed
_SLOT_CRC = Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The durable end: offset ``end`` in the segment whose first entry is ``segment``; what it closed moves with it."""

    generation: int
    segment: int
    end: int
    next_seq: int
    closed: int
    lost: int
    shed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A watermark file as a reader finds it."""

    incarnation: bytes  # random, new for each opening
    boot_id: bytes  # of the kernel that the writer ran under
    epoch: int
    state: int
    slot: Slot
    accepted: int
    refused: int

    @property
    def is_failed(self) -> bool:
        """True where only what the slot names is durable for certain."""
        return self.state in (FAILED, FAILED_RECOVERING)

    @property
    def is_recovering(self) -> bool:
        """True where the number of admitted calls is a lower bound, and no entry says so yet."""
        return self.state in (RECOVERING, FAILED_RECOVERING)

    @property
    def counters(self) -> Counters:
        """Calls so far: accepted is stored at admission, closed and lost with the batch that says so."""
        return Counters(
            accepted=self.accepted,
            closed=self.slot.closed,
            lost=self.slot.lost,
            shed=self.slot.shed,
            refused=self.refused,
        )


class Watermark:
    """The writer's side: the event loop stores admissions, the writer thread the durable end."""

    def __init__(self, path: Path, mark: Mark, calls: durable.Syscalls = durable.KERNEL) -> None:
        """Replace the file by ``mark``, durably, and map it."""
        durable.replace_file(path, to_bytes(mark), calls)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, FILE_BYTES)
        finally:
            os.close(fd)
        # a memoryview stores an aligned u64 in one move: SIGKILL cannot leave half of a number
        self._words = memoryview(self._map).cast("Q")
        self._incarnation = mark.incarnation
        self.slot = mark.slot

    @property
    def accepted(self) -> int:
        """Calls admitted, over all incarnations of this epoch."""
        return self._words[_ACCEPTED_AT // 8]

    @property
    def refused(self) -> int:
        """Calls refused before admission."""
        return self._words[_REFUSED_AT // 8]

    def accept(self) -> None:
        """One call more is admitted."""
        self._words[_ACCEPTED_AT // 8] += 1

    def refuse(self) -> None:
        """One call more is refused."""
        self._words[_REFUSED_AT // 8] += 1

    def advance(self, *, segment: int, end: int, next_seq: int, closed: int, lost: int, shed: int) -> None:
        """Everything before ``end`` is durable: say so in the slot that is not the valid one."""
        slot = Slot(
            generation=self.slot.generation + 1,
            segment=segment,
            end=end,
            next_seq=next_seq,
            closed=closed,
            lost=lost,
            shed=shed,
        )
        at = _SLOTS_AT[slot.generation & 1]
        self._map[at : at + _SLOT.size + _SLOT_CRC.size] = _slot_bytes(slot, self._incarnation)
        self.slot = slot

    def set_state(self, state: int) -> None:
        """RUNNING or CLOSED, stored in one move."""
        self._words[_STATE_AT // 8] = state

    def fail(self) -> None:
        """A write or sync failed: nothing behind the valid slot is to be believed."""
        is_recovering = self._words[_STATE_AT // 8] in (RECOVERING, FAILED_RECOVERING)
        self.set_state(FAILED_RECOVERING if is_recovering else FAILED)

    def close(self) -> None:
        """Write the pages back (msync) and unmap; the file stays, and so do the last numbers for who still asks.

        To be called in the thread that asks: else it might be reading what goes away.
        """
        self.flush()
        mapped, self._words = self._words, memoryview(bytes(self._map)).cast("Q")
        mapped.release()
        self._map.close()

    def flush(self) -> None:
        """Write the pages back (msync), which may take as long as the disk likes."""
        self._map.flush()


def read(path: Path) -> Mark | None:
    """The watermark at ``path``; None where it is missing or damaged (then only the journal itself tells)."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    return from_bytes(raw)


def to_bytes(mark: Mark) -> bytes:
    """A whole file: the slot stands in the place of its generation, the other one is invalid."""
    raw = bytearray(FILE_BYTES)
    identity = Struct("<16s16sQ").pack(mark.incarnation, mark.boot_id, mark.epoch)
    crc = google_crc32c.value(identity)
    _HEAD.pack_into(raw, 0, MAGIC, VERSION, 0, crc, mark.incarnation, mark.boot_id, mark.epoch)
    for at, value in ((_STATE_AT, mark.state), (_ACCEPTED_AT, mark.accepted), (_REFUSED_AT, mark.refused)):
        raw[at : at + 8] = value.to_bytes(8, "little")
    at = _SLOTS_AT[mark.slot.generation & 1]
    raw[at : at + _SLOT.size + _SLOT_CRC.size] = _slot_bytes(mark.slot, mark.incarnation)
    return bytes(raw)


def from_bytes(raw: bytes) -> Mark | None:
    """The inverse; None unless magic, version and checksums hold and one slot is valid."""
    if len(raw) != FILE_BYTES:
        return None
    magic, version, _, crc, incarnation, boot_id, epoch = _HEAD.unpack_from(raw)
    if (magic, version) != (MAGIC, VERSION) or crc != google_crc32c.value(raw[16 : _HEAD.size]):
        return None
    slots = [slot for at in _SLOTS_AT if (slot := _slot_from(raw, at, incarnation)) is not None]
    if not slots:
        return None
    state, accepted, refused = (
        int.from_bytes(raw[at : at + 8], "little") for at in (_STATE_AT, _ACCEPTED_AT, _REFUSED_AT)
    )
    return Mark(
        incarnation=incarnation,
        boot_id=boot_id,
        epoch=epoch,
        state=state,
        slot=max(slots, key=lambda slot: slot.generation),
        accepted=accepted,
        refused=refused,
    )


def _slot_bytes(slot: Slot, incarnation: bytes) -> bytes:
    body = _SLOT.pack(slot.generation, slot.segment, slot.end, slot.next_seq, slot.closed, slot.lost, slot.shed)
    return body + _SLOT_CRC.pack(google_crc32c.value(incarnation + body))


def _slot_from(raw: bytes, at: int, incarnation: bytes) -> Slot | None:
    body = raw[at : at + _SLOT.size]
    (crc,) = _SLOT_CRC.unpack_from(raw, at + _SLOT.size)
    if crc != google_crc32c.value(incarnation + body):
        return None
    generation, segment, end, next_seq, closed, lost, shed = _SLOT.unpack(body)
    return Slot(generation=generation, segment=segment, end=end, next_seq=next_seq, closed=closed, lost=lost, shed=shed)
