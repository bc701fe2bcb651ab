"""Reading journals: up to the watermark, batch by batch, each batch checked. For the keeper and the verifier.

A *tail* stands at a *position* in one directory and goes on from there each time it is asked. It never reads what is
not durable (invariant 2). Everything here blocks: call it from a thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage import watermark
from storage.batch import Batch, BatchReader, Record
from storage.errors import FrameDamaged, JournalCorrupt, JournalError
from storage.quarantine import DIRECTORY as QUARANTINE
from storage.recovery import segments_of
from storage.segment import HEADER_BYTES, SegmentHeader, StoredPart, WrappedKey, segment_name

__all__ = ["Batch", "Position", "Record", "SegmentTail", "StoredPart", "WrappedKey", "read_header", "shards"]

_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two batches: the segment's first sequence number, the offset in it (bytes)."""

    segment: int
    offset: int

    def as_json(self) -> list[int]:
        """``[segment, offset]``."""
        return [self.segment, self.offset]

    @classmethod
    def from_json(cls, value: list[int]) -> Position:
        """The inverse; ValueError for anything else."""
        segment, offset = value
        return cls(int(segment), int(offset))


def shards(data: Path) -> list[Path]:
    """The journal directories under ``DATA``, those of epochs in quarantine included, in order of name."""
    journals = data / "journal"
    found = [path for path in journals.glob("*") if path.is_dir()]
    return sorted([*found, *(path for path in journals.glob(f"*/{QUARANTINE}/*") if path.is_dir())])


def read_header(path: Path) -> SegmentHeader:
    """A segment's header; raises JournalCorrupt."""
    with path.open("rb") as file:
        return SegmentHeader.from_bytes(file.read(HEADER_BYTES))


class SegmentTail:
    """The committed batches of one directory from a position on.

    ``host_keys``: the host keys that are trusted to vouch for process keys; None trusts the one in each header (then
    the signatures prove that batches belong together, not who wrote them). ``to_end`` reads every whole batch where
    no watermark tells what is durable: for copies of a journal, never for one that is being written.
    """

    def __init__(
        self,
        directory: Path,
        position: Position | None = None,
        *,
        host_keys: Collection[bytes] | None = None,
        to_end: bool = False,
    ) -> None:
        self._directory = directory
        self._host_keys = host_keys
        self._to_end = to_end
        self._fd = -1
        self._read_to = 0  # offset up to which the reader was fed
        self._reader: BatchReader | None = None
        self.position = position  # None: before the first segment that is there

    @property
    def directory(self) -> Path:
        """Where the segments are."""
        return self._directory

    @property
    def origin(self) -> str | None:
        """The origin of what is read; None before the first segment."""
        return self._reader.header.origin if self._reader is not None else None

    def header(self) -> SegmentHeader | None:
        """The header of the segment that is being read; None before the first."""
        return self._reader.header if self._reader is not None else None

    def batches(self) -> Iterator[Batch]:
        """Every batch from the position up to what is durable now; the position moves behind each as it is given.

        Raises JournalCorrupt at damage, JournalError if the position's segment is gone. Stop at any time: the next call
        goes on.
        """
        end = self._durable_end()
        while end is not None and self._is_open(end):
            reader = self._reader
            assert reader is not None
            first_seq = reader.header.first_seq
            limit = end.offset if first_seq == end.segment else self._size(first_seq)
            yield from self._segment(reader, limit)
            self._check_whole(reader, first_seq, limit, end)
            if first_seq >= end.segment:
                return
            self._leave()
            self.position = Position(reader.frontier.size, HEADER_BYTES)

    def close(self) -> None:
        """Let the open segment go; the position stays."""
        self._leave()

    def _segment(self, reader: BatchReader, limit: int) -> Iterator[Batch]:
        """The batches of the open segment up to ``limit``."""
        while True:
            while (batch := self._next(reader)) is not None:
                self.position = Position(batch.segment, batch.end)
                yield batch
            if self._read_to >= limit:
                return
            piece = os.pread(self._fd, min(_PIECE_BYTES, limit - self._read_to), self._read_to)
            if not piece:
                return
            self._read_to += len(piece)
            reader.feed(piece)

    def _next(self, reader: BatchReader) -> Batch | None:
        try:
            return reader.next_batch()
        except FrameDamaged as damage:
            name = self._directory / segment_name(reader.header.first_seq)
            raise JournalCorrupt(f"{name}: {damage.message}") from damage

    def _size(self, first_seq: int) -> int:
        """Where a closed segment ends now: recovery may have put a shorter copy in the place of the open file."""
        try:
            return (self._directory / segment_name(first_seq)).stat().st_size
        except FileNotFoundError:  # deleted meanwhile: what is open is all there is
            return os.fstat(self._fd).st_size

    def _check_whole(self, reader: BatchReader, first_seq: int, limit: int, end: Position) -> None:
        """What was durable must have been readable to its end."""
        short = first_seq == end.segment and not self._to_end and reader.end != limit
        if short or (first_seq < end.segment and not reader.is_between_batches):
            raise JournalCorrupt(f"segment {first_seq} ends in the middle of a batch at offset {reader.end}")

    def _durable_end(self) -> Position | None:
        if self._to_end:
            last = max(segments_of(self._directory), default=None)
            if last is None:
                return None
            return Position(last, (self._directory / segment_name(last)).stat().st_size)
        mark = watermark.read(self._directory / watermark.NAME)
        if mark is None or not mark.slot.end:
            return None
        return Position(mark.slot.segment, mark.slot.end)

    def _is_open(self, end: Position) -> bool:
        """Open the position's segment and bring its tree up to the position; False if there is nothing to read yet."""
        if self._reader is not None:
            return True
        if self.position is None:
            first = min(segments_of(self._directory), default=None)
            if first is None:
                return False
            self.position = Position(first, HEADER_BYTES)
        if self.position.segment > end.segment:
            return False
        path = self._directory / segment_name(self.position.segment)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise JournalError(f"{path} is gone", code="segment_gone") from error
        header = SegmentHeader.from_bytes(os.pread(self._fd, HEADER_BYTES, 0))
        if self._host_keys is not None and header.host_key not in self._host_keys:
            raise JournalCorrupt(f"{path} names a host key that is not trusted")
        self._reader = BatchReader(header)
        self._read_to = HEADER_BYTES
        target = self.position
        for _ in self._segment(self._reader, target.offset):
            pass  # only the tree is wanted: it cannot be continued without the leaves before the position
        if self._reader.end != target.offset:
            raise JournalError(f"{path} has no batch that ends at {target.offset}", code="position_invalid")
        self.position = target
        return True

    def _leave(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._reader, self._read_to = -1, None, 0
