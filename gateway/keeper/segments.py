"""Which segments may go: the one place that deletes journal files, and only what nobody needs any more.

A segment goes when it is not the last of its shard, all of its entries were read back from ClickHouse, a published
checkpoint covers them, no loop of the keeper reads in it again, and it is older than the lag or the shard keeps more
than the lag in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from storage.durable import remove
from storage.errors import JournalCorrupt
from storage.reading import read_header
from storage.recovery import segments_of
from storage.segment import segment_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file: its first sequence number, that of the next file, its size, and how old its last write is."""

    first: int
    end: int | None  # None: the last one
    bytes: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Up to where each of those who need a segment has come: sequence numbers below which nothing is needed."""

    shipped: int
    checkpoint: int
    read: int  # by every loop, restarts included

    @property
    def below(self) -> int:
        """Nobody needs an entry below this."""
        return min(self.shipped, self.checkpoint, self.read)


def may_go(segments: Sequence[Segment], released: Released, *, lag_s: float, lag_bytes: int) -> list[Segment]:
    """The segments, oldest first, that may be deleted; none behind the first that may not. Pure."""
    kept_bytes = sum(segment.bytes for segment in segments)
    going: list[Segment] = []
    for segment in segments:
        if segment.end is None or segment.end > released.below:
            break
        if segment.age_s < lag_s and kept_bytes <= lag_bytes:
            break
        going.append(segment)
        kept_bytes -= segment.bytes
    return going


def listed(directory: Path, *, now_s: float) -> list[Segment]:
    """The segments of a shard, oldest first; none while their writer is setting them aside. Blocking."""
    firsts = sorted(segments_of(directory))
    found = []
    try:
        for first, end in zip_longest(firsts, firsts[1:]):
            state = (directory / segment_name(first)).stat()
            found.append(Segment(first=first, end=end, bytes=state.st_blocks * 512, age_s=now_s - state.st_mtime))
    except FileNotFoundError:
        return []
    return found


def delete(directory: Path, segments: Sequence[Segment], *, origin: str) -> None:
    """Delete these files of `origin`, oldest first; durable on return. Blocking.

    A new epoch uses the same names for other entries, so each file is asked whose it is before it goes.
    """
    for segment in segments:
        path = directory / segment_name(segment.first)
        try:
            if read_header(path).origin != origin:
                return
        except (FileNotFoundError, JournalCorrupt):
            return
        remove(path)
