"""The journal of one writer process: admit, append, await, and what you awaited is durable.

``admit`` counts a call before the model is asked and refuses it where its entry might find no room. ``append`` gives a
future that is done once the entry is durable (group commit, writer.py). Invariants 1, 3 and 9 are held here:
whoever awaits ``append`` before the end of an answer leaves is strict; accepted = closed + open + lost.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from storage import durable, pressure, quarantine, receipts, recovery, shard, watermark
from storage.batch import Committed
from storage.buckets import Pace
from storage.entries import Draft, Line, document
from storage.errors import EntryTooLarge, JournalFull, JournalStopped, StorageError
from storage.frames import PAYLOAD_BYTES_MAX
from storage.ids import Ids, RandomPool
from storage.items import Roll
from storage.keys import JournalKeys
from storage.losses import RUNNING as WHILE_RUNNING
from storage.losses import SHED, Losses
from storage.opening import Opening
from storage.pressure import Level, Load
from storage.seal import DEK_BYTES, Sealer
from storage.segment import COMMIT_BYTES, HEADER_BYTES, PART_HEAD_BYTES, Counters, StoredPart
from storage.segmentfile import SegmentFile
from storage.shard import Start
from storage.space import SegmentSpace
from storage.watermark import RUNNING, Watermark
from storage.writer import Heartbeat, Item, JournalLimits, PartKey, Writer, WriterState

__all__ = ["Appended", "Journal", "JournalLimits", "PartKey", "Row", "Waiter"]

_ITEM_BYTES = 2048  # what an entry weighs beside its parts while it waits


class Appended:
    """An entry that is durable, and where."""

    __slots__ = ("batch", "entry", "leaf", "origin", "seq")

    def __init__(self, origin: str, seq: int, leaf: bytes, entry: bytes, batch: Committed) -> None:
        self.origin = origin
        self.seq = seq
        self.leaf = leaf
        self.entry = entry
        self.batch = batch

    @property
    def receipt(self) -> str:
        """What the caller is handed (README.md, "Receipts"); made when it is asked for."""
        return receipts.write(self.batch, self.seq)

    @property
    def receipt_bytes(self) -> bytes:
        """The same as it goes onto the wire."""
        return receipts.spell(self.batch, self.seq)


class Waiter(Protocol):
    """Who waits for one append: a future, or whoever can do without one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, appended: Appended, /) -> None:
        """It is durable, or as far as it was to be."""

    def set_exception(self, error: Exception, /) -> None:
        """It never will be."""


class Row(NamedTuple):
    """One of the closing entries of a call, with the parts and the key that are its own."""

    draft: Draft | Line
    parts: Sequence[StoredPart] = ()
    key: PartKey | None = None


class Journal:
    """One shard: opened by one process, used from one event loop. Made by :meth:`open`."""

    def __init__(
        self,
        directory: Path,
        *,
        origin: str,
        start: Start,
        keys: JournalKeys,
        config: str,
        clock_ns: Callable[[], int],
        limits: JournalLimits,
        calls: durable.Syscalls,
        boot_id: bytes,
    ) -> None:
        self.origin = origin
        self._loop = asyncio.get_running_loop()
        self.stopped: asyncio.Future[JournalStopped] = self._loop.create_future()
        self._directory, self._limits, self._calls, self._start = directory, limits, calls, start
        self._random = RandomPool(os.urandom)
        self._ids = Ids(clock_ns, self._random.take)
        self._own = Opening(origin=origin, config=config, new_id=self._ids.new, now_ns=clock_ns)
        self._pending_bytes = 0
        self._reserved_bytes = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopped: JournalStopped | None = None
        self._level = Level.CALM
        self._lock_fd = -1
        found = start.recovered
        self._found = found.frontier.size
        self._watermark = Watermark(directory / watermark.NAME, shard.first_mark(start, boot_id), calls)
        self._space = SegmentSpace(directory, limits.segment_bytes, calls)
        self._writer = Writer(
            loop=self._loop,
            origin=origin,
            config=config,
            clock_ns=clock_ns,
            limits=limits,
            watermark=self._watermark,
            file=SegmentFile(
                directory=directory,
                origin=origin,
                keys=keys,
                clock_ns=clock_ns,
                limits=limits,
                calls=calls,
                space=self._space,
            ),
            state=WriterState(
                frontier=found.frontier,
                scopes=found.scopes,
                closed=found.counters.closed,
                lost=found.counters.lost,
                shed=found.counters.shed,
            ),
            deliver=self._settle,
            failed=self._fail,
        )
        self._losses = Losses(
            own=self._own,
            put=self._writer.put,
            room_bytes=self._room_bytes,
        )

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        origin_base: str,
        keys: JournalKeys,
        config: str = "",
        clock_ns: Callable[[], int] = time.time_ns,
        limits: JournalLimits | None = None,
        syscalls: durable.Syscalls = durable.KERNEL,
        boot_id: bytes | None = None,
    ) -> Journal:
        """Take the shard's lock, recover, begin a segment.

        ``origin_base`` is ``<deployment>/<shard>``, ``config`` the digest that the shard's own entries name. On return
        heartbeats, gap, recovery and closing entries are durable. Raises JournalHeld, JournalFull, OSError.
        """
        limits = limits or JournalLimits()
        lock_fd = await asyncio.to_thread(shard.lock, directory, syscalls)
        try:
            boot_id = boot_id or shard.boot_id()
            start = await asyncio.to_thread(shard.start, directory, boot_id, syscalls)
            journal = cls(
                directory,
                origin=f"{origin_base}/{start.epoch}",
                start=start,
                keys=keys,
                config=config,
                clock_ns=clock_ns,
                limits=limits,
                calls=syscalls,
                boot_id=boot_id,
            )
            await asyncio.to_thread(journal._begin)
        except BaseException:
            os.close(lock_fd)
            raise
        journal._lock_fd = lock_fd
        journal._after(limits.heartbeat_s, "heartbeat", journal.heartbeat)
        return journal

    # --- before the model is called -------------------------------------------------------------------------

    def admit(
        self,
        tenant: str,
        route: str | None,
        *,
        bytes_expected: int = 0,
        bytes_reserved: int = 0,
        may_pass: bool = False,
        best_effort: bool = False,
    ) -> bool:
        """Count a call as accepted, and open until an append ``closes`` it or :meth:`lose` or `shed` gives it up.

        ``bytes_reserved`` of room are kept besides, for the entries of its further rows, until :meth:`unreserve`.
        Where its entry, or ``bytes_expected`` of parts, might find no room, the call ``may_pass`` without one: then it
        counts as shed, a gap entry will say so, and the answer is False; else JournalFull is raised and the call counts
        as refused. A ``best_effort`` call passes likewise, and already under pressure. Raises JournalStopped.
        """
        if self._stopped is not None:
            raise _again(self._stopped)
        mark = self._watermark
        if best_effort and self._load()[1] >= Level.SHED:
            mark.accept()
            self.shed(tenant, route)
            return False
        room = self._room_bytes()
        needed = (self.unclosed + 1) * self._limits.call_bytes_reserved + self._reserved_bytes
        needed += bytes_expected + bytes_reserved
        if self._pending_bytes > self._limits.pending_bytes_max:
            fault = f"{self._pending_bytes} bytes wait for the disk"
        elif room < needed or self._share(room) >= pressure.REFUSE_SHARE:
            fault = f"{room} bytes of journal are left, {needed} may be needed"
        elif self._space.disk_share >= pressure.REFUSE_SHARE:
            fault = f"{self._space.disk_share:.0%} of the file system's headroom is used"
        else:
            mark.accept()
            self._reserved_bytes += bytes_reserved
            return True
        if not (may_pass or best_effort):
            mark.refuse()
            raise JournalFull(f"{fault}; {tenant} {route} is refused")
        mark.accept()
        if best_effort:
            self.shed(tenant, route)
        else:
            self._losses.add((tenant, route, "disk_full"), shed=True)
        return False

    def unreserve(self, bytes_reserved: int) -> None:
        """The rows of a call that was admitted are appended, or will not come."""
        self._reserved_bytes -= bytes_reserved

    @property
    def rows_max(self) -> int:
        """How many entries :meth:`append_rows` takes at once."""
        return self._limits.batch_records_max

    @property
    def rows_bytes_max(self) -> int:
        """How many bytes these may have with their parts: they share one batch, which is written at once."""
        return min(self._limits.batch_bytes_max, self._limits.segment_bytes // 2 - COMMIT_BYTES)

    def shed(self, tenant: str, route: str | None) -> None:
        """Give up an admitted `best_effort` call on purpose; a gap entry of its tenant and route says so."""
        if self._stopped is None:
            self._losses.add((tenant, route, SHED), shed=True)

    @property
    def pressure(self) -> Level:
        """How full disk and memory are now, with hysteresis."""
        return self._load()[1]

    @property
    def pressure_text(self) -> str:
        """The same in a sentence; empty where nothing presses."""
        return pressure.sentence(*self._load())

    @property
    def found(self) -> int:
        """How many entries the ledger held before this process wrote its first."""
        return self._found

    @property
    def unclosed(self) -> int:
        """Admitted calls that no entry closes which is written or being written, and that nobody gave up."""
        return self._writer.unclosed - self._losses.unstated

    def refuse(self) -> None:
        """Count a call that was turned away before admission for another reason than the journal's."""
        if self._stopped is None:
            self._watermark.refuse()

    def lose(self, *, shed: bool = False, begun: str | None = None) -> None:
        """Give up an admitted call whose entry could not be written; a gap entry says so within a second.

        ``begun`` is its decision where a begin entry was appended: the gap entry names it, and no restart closes it.
        """
        if self._stopped is not None:
            return  # it stays open in the watermark, and the next start counts it
        self._losses.add(WHILE_RUNNING, shed=shed, begun=begun)

    @property
    def counters(self) -> Counters:
        """The calls of this epoch."""
        mark = self._watermark
        slot = mark.slot
        return Counters(
            accepted=mark.accepted, closed=slot.closed, lost=slot.lost, shed=slot.shed, refused=mark.refused
        )

    @property
    def pace(self) -> Pace:
        """How its batches go, since whoever takes this last took it."""
        return self._writer.pace

    @property
    def disk_share(self) -> float:
        """How much of the reserved space is used: 0.5 is usual at most, 0.7 a warning, at 0.95 calls are refused."""
        return self._share(self._room_bytes())

    @property
    def used_share(self) -> float:
        """The greater of `disk_share` and what is used of the file system's headroom (pressure.py)."""
        return max(self.disk_share, self._space.disk_share)

    @property
    def pending_bytes(self) -> int:
        """What waits in memory for the disk."""
        return self._pending_bytes

    # --- appending ------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A fresh UUIDv7, greater than those before it."""
        return self._ids.new()

    def new_key(self, key_id: str | None = None) -> PartKey:
        """A fresh key for the parts of one entry; hand it to the appends that carry them.

        ``key_id`` is an id of this journal's that names no other key; without it the key gets one of its own.
        """
        if key_id is None:
            key_id = self._ids.new()
        return PartKey(key_id, Sealer(self._random.take(DEK_BYTES), key_id, self.origin))

    def append(
        self,
        draft: Draft | Line,
        *,
        parts: Sequence[StoredPart] = (),
        key: PartKey | None = None,
        closes: bool = False,
        awaits_sync: bool = True,
    ) -> asyncio.Future[Appended]:
        """Append an entry with its parts, all in one batch; the future is done once it is durable (`append_for`).

        ``closes``: this entry ends an admitted call. With ``awaits_sync`` False the future is done once it is written,
        which survives the end of this process but no power cut; a sync follows within 50 ms.
        The future fails with EntryTooLarge (nothing was written, append less), JournalFull (the disk stayed full for
        ``space_wait_s``) or JournalStopped. A cancelled future leaves the entry on its way. Raises ValueError or
        TypeError for a draft that is no entry.
        """
        future: asyncio.Future[Appended] = self._loop.create_future()
        self.append_for(future, draft, parts=parts, key=key, closes=closes, awaits_sync=awaits_sync)
        return future

    def append_for(
        self,
        waiter: Waiter,
        draft: Draft | Line,
        *,
        parts: Sequence[StoredPart] = (),
        key: PartKey | None = None,
        closes: bool = False,
        awaits_sync: bool = True,
    ) -> None:
        """As :meth:`append`, for a waiter that is told on the loop as a future would be, and must not raise then."""
        made = draft if isinstance(draft, Line) else document(draft, self.origin)
        self._put(Item(made, draft.ts_ns, parts=parts, key=key, closes=closes, awaits_sync=awaits_sync, waiter=waiter))

    def append_rows(self, rows: Sequence[Row], *, awaits_sync: bool = True) -> asyncio.Future[Appended]:
        """Append the closing entries of one call, in this order, all in one batch or none; done as :meth:`append`.

        The first closes the call, and it is the one that the future gives. All are of one tenant and route; at most
        :attr:`rows_max` of them, and `rows_bytes_max` bytes with their parts. Raises and fails as :meth:`append`.
        """
        future: asyncio.Future[Appended] = self._loop.create_future()
        first, *others = [
            Item(
                row.draft if isinstance(row.draft, Line) else document(row.draft, self.origin),
                row.draft.ts_ns,
                parts=row.parts,
                key=row.key,
                awaits_sync=awaits_sync,
            )
            for row in rows
        ]
        first.more, first.closes, first.waiter = others, True, future
        self._put(first)
        return future

    def append_parts(
        self, key: PartKey, parts: Sequence[StoredPart], *, ts_ns: int, awaits_sync: bool = True
    ) -> asyncio.Future[None]:
        """Append chunks of a part that streams, without an entry; the future is done as that of :meth:`append`."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._put(Item(None, ts_ns, parts=parts, key=key, awaits_sync=awaits_sync, waiter=future))
        return future

    def configured(self, config: str) -> None:
        """The shard's own entries name this digest from now on."""
        self._own.config = self._writer.config = config

    def heartbeat(self) -> None:
        """State the counters in entries, now and again after ``heartbeat_s``."""
        self._writer.put(Heartbeat())
        self._after(self._limits.heartbeat_s, "heartbeat", self.heartbeat)

    def roll(self, first_seq: int) -> None:
        """Close the segment that begins at ``first_seq`` and go on in a new one, behind what was appended before.

        Nothing happens where another one is being written by then, or where there is no room for a new one.
        """
        if self._stopped is None:
            self._writer.put(Roll(first_seq))

    async def close(self) -> None:
        """Write what waits, state the counters, write CLOSE, give reserved space back, let the lock go."""
        if self._lock_fd < 0:
            return
        for timer in self._timers.values():
            timer.cancel()
        self._losses.end()
        if self._stopped is None:
            self._losses.state()
            self._stopped = JournalStopped(f"shard {self.origin} is closed")
            self._writer.put(Heartbeat(closes=True))
        await asyncio.to_thread(self._release)
        self._watermark.close()
        os.close(self._lock_fd)
        self._lock_fd = -1

    # --- inside ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """In a thread: write the opening entries, start the writer."""
        start = self._start
        try:
            self._space.start()
            self._writer.open(self._own.items(start.recovered, start.quarantined))
            self._watermark.set_state(RUNNING)
            recovery.mark_recorded(start.recovered.cuts, self._calls)
            if start.quarantined is not None:
                quarantine.recorded(self._directory, self._calls)
        except BaseException as error:
            if not isinstance(error, JournalFull):  # which leaves nothing in doubt
                self._watermark.fail()
            self._space.close()
            self._watermark.close()
            raise
        self._writer.start()

    def _release(self) -> None:
        """In a thread: wait for the writer, then let go of files."""
        self._writer.join()
        self._space.close()
        self._watermark.flush()

    def _put(self, item: Item) -> None:
        size = 0
        for each in (item, *item.more):
            size += _ITEM_BYTES
            for part in each.parts:
                if len(part.data) > PAYLOAD_BYTES_MAX - PART_HEAD_BYTES:
                    item.waiter.set_exception(EntryTooLarge(f"a part of {len(part.data)} bytes in one piece"))
                    return
                size += len(part.data)
        if self._stopped is not None:
            item.waiter.set_exception(_again(self._stopped))
            return
        item.size_bytes = size
        self._pending_bytes += size
        self._writer.put(item)

    def _settle(self, items: list[Item], committed: Committed | None) -> None:
        """On the loop: tell those who wait."""
        origin = self.origin
        for item in items:
            self._pending_bytes -= item.size_bytes
            waiter = item.waiter
            if waiter is None or waiter.done():
                continue
            if item.error is not None:
                waiter.set_exception(_again(item.error))
            elif item.made is None or committed is None:
                waiter.set_result(None)
            else:
                waiter.set_result(Appended(origin, item.seq, item.leaf, item.entry, committed))

    def _fail(self, error: JournalStopped, items: list[Item]) -> None:
        """On the loop: the shard has stopped, and with it everything that waits or comes later."""
        self._stopped = error
        self._losses.end()
        for item in items:
            item.error = error
        self._settle(items, None)
        if not self.stopped.done():
            self.stopped.set_result(error)

    def _after(self, delay_s: float, name: str, callback: Callable[[], None]) -> None:
        self._timers[name] = self._loop.call_later(delay_s, callback)

    def _room_bytes(self) -> int:
        """Reserved space that nothing has claimed yet."""
        limit = self._limits.segment_bytes
        ahead = limit - HEADER_BYTES if self._space.is_ready else 0
        return limit - self._writer.offset + ahead - self._pending_bytes

    def _load(self) -> tuple[Load, Level]:
        load = Load(
            space_share=self.disk_share,
            disk_share=self._space.disk_share,
            memory_share=self._pending_bytes / self._limits.pending_bytes_max,
            wait_s=self._writer.waits_s(self._loop.time()),
        )
        self._level = pressure.level(load, self._level)
        return load, self._level

    def _share(self, room: int) -> float:
        return 1 - room / (2 * self._limits.segment_bytes)


def _again(error: StorageError) -> StorageError:
    """A fresh exception for each who waits: one that is raised in many tasks would collect all their tracebacks."""
    return type(error)(error.message, code=error.code, status=error.status, advice=error.advice)
