"""What was written and is not yet synced: batches of `spool` appends, whose sync follows within 50 ms.

The writer's thread owns it. A batch that somebody awaits as durable is synced at once, and with it all that was written
before; else the sync waits for `SYNC_AFTER_S`, so that a disk with slow syncs is asked for few of them. The watermark
moves with the sync, never with the write (invariant 2). There is no timer on the loop: a loop that is stuck delays no
sync.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from storage.segmentfile import SegmentFile
from storage.watermark import Watermark

Job = TypeVar("Job")
SYNC_AFTER_S = 0.025  # from the first write: half of the 50 ms that `spool` promises are left for the sync itself
UNSYNCED_BYTES_MAX = 4 * 1024 * 1024  # then the sync is not put off any longer: one takes tens of milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The end of a batch, and what the shard has counted with it."""

    next_seq: int
    closed: int
    lost: int
    shed: int


class Unsynced:
    """Writes batches to one shard's segment, syncs them now or soon, and moves the watermark."""

    def __init__(self, file: SegmentFile, watermark: Watermark, *, synced: Callable[[int], None]) -> None:
        """``synced(took_ns)`` is called, in the thread, after each sync that was put off."""
        self._file, self._watermark, self._synced = file, watermark, synced
        self._last: Written | None = None  # of what was written and not synced
        self._since_s = 0.0
        self._bytes = 0

    def write(self, data: bytes, written: Written, *, may_wait: bool) -> None:
        """The batch stands in the file on return, and is durable unless it ``may_wait``; raises OSError."""
        self._file.write(data)
        if self._last is None:
            self._since_s, self._bytes = time.monotonic(), 0
        self._last = written
        self._bytes += len(data)
        if not may_wait:
            self._sync()
        elif self._bytes >= UNSYNCED_BYTES_MAX:
            self.settle()

    def settle(self) -> None:
        """Whatever was written is durable on return, and readers may have it; raises OSError."""
        if self._last is not None:
            self._sync()
            self._synced(self._file.sync_ns)

    def next_job(self, jobs: queue.SimpleQueue[Job]) -> Job:
        """The next job; what is due for its sync is synced meanwhile. Raises OSError."""
        while self._last is not None:
            left_s = self._since_s + SYNC_AFTER_S - time.monotonic()
            if left_s <= 0:  # also where jobs never cease to come
                self.settle()
                break
            try:
                return jobs.get(timeout=left_s)
            except queue.Empty:
                continue
        return jobs.get()

    def _sync(self) -> None:
        file, last = self._file, self._last
        assert last is not None
        file.sync()
        self._watermark.advance(
            segment=file.header.first_seq,
            end=file.offset,
            next_seq=last.next_seq,
            closed=last.closed,
            lost=last.lost,
            shed=last.shed,
        )
        self._last = None
