"""The writer of a journal: gathers what waits into a batch, has it written and synced, moves the watermark, wakes all.

Batches are made on the event loop, one at a time; a thread does nothing but write and sync them (and begin segments).
So the two hardly ever want the interpreter's lock at once: handing it to and fro for each entry would cost more than
making the entry does. While the thread has a batch, nothing on the loop touches the tree, the numbers or the segment,
and the next batch gathers. No timer: a batch waits for more only while turns of the loop bring more, and not once half
of the open calls are in it, so that a lone call is written at once and a crowd shares one sync and one signature.
A batch that nobody awaits as durable is synced within 50 ms (unsynced.py).
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from storage import frames
from storage.batch import BatchWriter, Committed
from storage.buckets import Pace
from storage.entries import SYSTEM_TENANT, Draft, Line, closes_call, document, finish
from storage.errors import EntryTooLarge, JournalFull, JournalStopped
from storage.frames import encode_frame
from storage.ids import Ids, id_bytes
from storage.items import Heartbeat, Item, JournalLimits, PartKey, Roll
from storage.merkle import Frontier
from storage.segment import COMMIT_BYTES, HEADER_BYTES, Counters
from storage.segmentfile import SegmentFile
from storage.unsynced import Unsynced, Written
from storage.watermark import CLOSED, Watermark

__all__ = ["Heartbeat", "Item", "JournalLimits", "PartKey", "Writer", "WriterState"]

Scope = tuple[str, str | None]  # tenant, route
Callback = Callable[[], None]
SCOPES_BYTES_MAX = 48_000  # of one heartbeat entry: leaves room under the 65,535 bytes of an entry
GATHER_TURNS_MAX = (
    64  # of the loop, at most, before a batch goes out; a turn takes tens of microseconds to a millisecond
)
QUIET_TURNS = 2  # a turn that sends a request on brings no entry: only the second one says that nothing is coming


@dataclass(slots=True, kw_only=True)
class WriterState:
    """Where a writer begins: what recovery found, or nothing."""

    frontier: Frontier = field(default_factory=Frontier)
    scopes: dict[Scope, int] = field(default_factory=dict)
    closed: int = 0
    lost: int = 0
    shed: int = 0


class Writer:
    """Makes batches; ``deliver(items, committed)`` and ``failed(error, items)`` are called on the loop."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        origin: str,
        config: str,
        clock_ns: Callable[[], int],
        limits: JournalLimits,
        watermark: Watermark,
        file: SegmentFile,
        state: WriterState,
        deliver: Callable[[list[Item], Committed | None], None],
        failed: Callable[[JournalStopped, list[Item]], None],
    ) -> None:
        self.pace = Pace()
        self._loop, self._origin, self.config = loop, origin, config
        self._clock_ns, self._limits, self._watermark = clock_ns, limits, watermark
        self._file, self._state = file, state
        self._deliver, self._failed = deliver, failed
        self._ids = Ids(clock_ns, os.urandom)
        self._backlog: deque[Item | Heartbeat | Roll] = deque()
        self._placed: list[Item] = []  # in the batch that is being written
        self._begun: dict[str, int] = {}  # decision → segment of its begin entry
        self._busy = False  # the thread has work …
        self._busy_since_s = 0.0  # … since then on the loop's clock
        self._ended = False  # nothing is written any more
        self._turns = self._quiet = self._seen = (
            0  # of gathering: turns so far, the last ones that brought nothing, items
        )
        self._gathering = False
        self._unsynced = Unsynced(file, watermark, synced=self._synced_later)
        self._jobs: queue.SimpleQueue[Callable[[], Callback] | None] = queue.SimpleQueue()
        self._writing = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    # --- life -----------------------------------------------------------------------------------------------

    def open(self, opening: Sequence[Item]) -> None:
        """Begin a segment; ``opening`` is durable on return, behind the heartbeats. Raises JournalFull, OSError."""
        self._file.begin(self._state.frontier)
        self._backlog.extend([*self._heartbeats(closes=False), *opening])
        while self._backlog:
            work = self._next()
            if work == self._roll:
                self._file.roll(self._state.frontier)
                self._backlog.extendleft(reversed(self._heartbeats(closes=False)))
            elif work is not None:
                work()

    def start(self) -> None:
        """From here on ``put`` may be called."""
        self._writing.start()

    def put(self, item: Item | Heartbeat | Roll) -> None:
        """Have it written; on the loop."""
        if self._ended:
            return
        self._backlog.append(item)
        if not self._busy and not self._gathering:
            self._gather()

    @property
    def unclosed(self) -> int:
        """Calls that were admitted, and that no entry closes which was placed into a batch, nor gives up."""
        return self._watermark.accepted - self._state.closed - self._state.lost

    def waits_s(self, now_s: float) -> float:
        """How long the oldest batch or append has been waiting for the disk, in seconds of the loop's clock."""
        return now_s - self._busy_since_s if self._busy else 0.0

    def join(self) -> None:
        """Wait for the thread, which ends after a closing heartbeat or a failure."""
        self._writing.join()
        self._file.close()

    @property
    def offset(self) -> int:
        """The end of what was written to the open segment."""
        return self._file.offset

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                work = self._unsynced.next_job(self._jobs)
                if work is None:
                    self._unsynced.settle()
                    return
                done = work()
            except Exception as error:  # noqa: BLE001 - whatever breaks the writer, those who wait must hear of it
                self._watermark.fail()
                self._on_loop(partial(self._break, error))
                return
            self._on_loop(done)
            if not self._file.is_open:
                return

    def _on_loop(self, callback: Callback) -> None:
        """A loop that has ended has nobody left who waits."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _store(
        self, data: bytes, placed: list[Item], committed: Committed, *, may_wait: bool, closes: bool
    ) -> Callback:
        """Write; the batch is durable on return, and readers may have it, unless it ``may_wait`` for its sync."""
        state, file = self._state, self._file
        written = Written(next_seq=state.frontier.size, closed=state.closed, lost=state.lost, shed=state.shed)
        self._unsynced.write(data, written, may_wait=may_wait)
        if closes:
            file.end()
            self._watermark.set_state(CLOSED)
        return partial(self._stored, placed, committed, len(data), None if may_wait else file.sync_ns)

    def _synced_later(self, took_ns: int) -> None:
        self._on_loop(partial(self.pace.sync_ns.add, took_ns))

    def _roll(self) -> Callback:
        """Go on in a new segment; if there is no room for one, all that waits is refused and nothing is lost."""
        self._unsynced.settle()  # damage in an older segment is never a torn tail
        try:
            self._file.roll(self._state.frontier)
        except JournalFull as full:
            return partial(self._refuse, full)
        return self._rolled

    def _roll_as_asked(self) -> Callback:
        """The same where nothing needs the room: if there is none now, all goes on in the segment as it is."""
        self._unsynced.settle()
        try:
            self._file.roll(self._state.frontier, wait_s=0.0)
        except JournalFull:
            return self._not_rolled
        return self._rolled

    # --- on the loop ----------------------------------------------------------------------------------------

    def _stored(self, placed: list[Item], committed: Committed, size_bytes: int, sync_ns: int | None) -> None:
        self._busy = False
        self._placed = []
        self._deliver(placed, committed)
        self.pace.batch(placed, size_bytes=size_bytes, sync_ns=sync_ns, now_ns=self._clock_ns())
        if self._file.is_open:
            self._gather()
        else:
            self._ended = True

    def _rolled(self) -> None:
        self._busy = False
        self._backlog.extendleft(reversed(self._heartbeats(closes=False)))
        self._go()

    def _not_rolled(self) -> None:
        self._busy = False
        self._go()

    def _refuse(self, full: JournalFull) -> None:
        self._busy = False
        refused = []
        for item in self._backlog:
            if isinstance(item, Heartbeat):
                self._ended |= item.closes
            elif isinstance(item, Item):
                self._ended |= _says_close(item)
                item.error = full
                refused.append(item)
        self._backlog.clear()
        if self._ended:  # without a CLOSE: the next start recovers, as after a kill
            self._jobs.put(None)
        self._deliver(refused, None)

    def _break(self, error: Exception) -> None:
        self._ended = True
        waiting = [*self._placed, *(item for item in self._backlog if isinstance(item, Item))]
        self._backlog.clear()
        self._failed(JournalStopped(f"shard {self._origin} stopped: {error!r}"), waiting)

    def _gather(self) -> None:
        """Wait for another turn of the loop while that brings more, else make a batch."""
        waiting = len(self._backlog)
        if not waiting or self._busy:
            return
        if not self._gathering:
            self._gathering, self._turns, self._quiet, self._seen = True, 0, 0, 0
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        waiting = len(self._backlog)
        self._turns += 1
        self._quiet = 0 if waiting > self._seen else self._quiet + 1
        self._seen = waiting
        if self._quiet < QUIET_TURNS and 4 * waiting < 3 * self.unclosed and self._turns < GATHER_TURNS_MAX:
            self._loop.call_soon(self._turn)
            return
        self._gathering = False
        self._go()

    def _go(self) -> None:
        """Give the thread the next piece of work, if there is any."""
        try:
            while self._backlog and not self._busy:
                work = self._next()
                if work is not None:
                    self._busy, self._busy_since_s = True, self._loop.time()
                    self._jobs.put(work)
        except Exception as error:  # noqa: BLE001 - whatever breaks the writer, those who wait must hear of it
            self._watermark.fail()
            self._jobs.put(None)
            self._break(error)

    # --- batches --------------------------------------------------------------------------------------------

    def _next(self) -> Callable[[], Callback] | None:
        """Make a batch of what waits; what is to be done for it off the loop, if anything is."""
        file, backlog = self._file, self._backlog
        batch = BatchWriter(file.header, file.salted, self._state.frontier, file.offset)
        done = self._placed = []
        closes = is_full = False
        while backlog and not closes and not is_full and not self._is_enough(batch):
            item = backlog[0]
            if isinstance(item, Heartbeat):
                backlog.popleft()
                backlog.extendleft(reversed(self._heartbeats(closes=item.closes)))
                continue
            if isinstance(item, Roll):
                if done:
                    break  # what came before it is written first
                backlog.popleft()
                if item.first_seq == file.header.first_seq:
                    return self._roll_as_asked
                continue
            try:
                is_full = not self._place(item, batch)
            except (EntryTooLarge, TypeError) as error:  # TypeError: orjson met a string that is no Unicode
                item.error = error if isinstance(error, EntryTooLarge) else EntryTooLarge(str(error), status=400)
            if not is_full:
                backlog.popleft()
                done.append(item)
                closes = bool(item.notes) and _says_close(item)
        if batch.frame_count:
            may_wait = not any(item.awaits_sync for item in done)
            data, committed = self._finished(batch, may_wait=may_wait)
            return partial(self._store, data, done, committed, may_wait=may_wait, closes=closes)
        if done:
            self._placed = []
            self._deliver(done, None)
            return None
        return self._roll if backlog else None

    def _is_enough(self, batch: BatchWriter) -> bool:
        return batch.count >= self._limits.batch_records_max or batch.size_bytes >= self._limits.batch_bytes_max

    def _place(self, item: Item, batch: BatchWriter) -> bool:
        """Put an item's frames into the batch; False, and nothing has changed, if batch or segment have no room."""
        if item.more:
            return self._place_several((item, *item.more), batch)
        made_frames = self._framed(item, 0)
        size_bytes = sum(map(len, made_frames))
        if not self._has_room(batch, size_bytes):
            return False
        self._put_in(item, made_frames, size_bytes, batch)
        return True

    def _place_several(self, items: tuple[Item, ...], batch: BatchWriter) -> bool:
        """The same of several entries; they rather begin a batch than overfill one."""
        limits = self._limits
        if len(items) > limits.batch_records_max:
            raise EntryTooLarge(f"{len(items)} entries at once; a batch has {limits.batch_records_max}")
        made = [self._framed(item, behind) for behind, item in enumerate(items)]
        sizes = [sum(map(len, made_frames)) for made_frames in made]
        size_bytes = sum(sizes)
        if not self._has_room(batch, size_bytes):
            return False
        overfills = batch.count + len(items) > limits.batch_records_max
        if batch.count and (overfills or batch.size_bytes + size_bytes > limits.batch_bytes_max):
            return False
        for placed in zip(items, made, sizes, strict=True):
            self._put_in(*placed, batch)
        return True

    def _has_room(self, batch: BatchWriter, size_bytes: int) -> bool:
        """Whether the segment has room for so many bytes more; EntryTooLarge where none may have."""
        need, most = size_bytes + COMMIT_BYTES, self._limits.segment_bytes
        if need > most // 2:  # it might not fit even an empty segment, behind its heartbeats
            raise EntryTooLarge(f"an entry with {need} bytes of parts; a segment has {most}")
        return self._file.offset + batch.size_bytes + need <= most

    def _framed(self, item: Item, behind: int) -> list[bytes]:
        """An item's frames, for the place that many entries behind the next one."""
        state, made, key, file = self._state, item.made, item.key, self._file
        seq, ts_ns, salted = state.frontier.size + behind, item.ts_ns, file.salted
        made_frames: list[bytes] = []
        if key is not None and not key.written:
            made_frames.append(encode_frame(salted, frames.KEY, seq, ts_ns, file.wrapped(key)))
        for part in item.parts:
            if part.opens is not None:
                made_frames.append(encode_frame(salted, frames.OPEN, seq, ts_ns, part.opens.to_payload()))
            key_id = key.raw_id if key is not None and key.key_id == part.key_id else id_bytes(part.key_id)
            made_frames.append(encode_frame(salted, frames.PART, seq, ts_ns, part.data, part.head(key_id)))
        for kind, payload in item.notes:
            made_frames.append(encode_frame(salted, kind, seq, ts_ns, payload))
        if made is not None:
            scope = made.scope if isinstance(made, Line) else (made["tenant"], made["route"])
            item.seq, item.scope = seq, scope
            item.entry = finish(made, seq=seq, scope_seq=state.scopes.get(scope, 0) + behind)
            made_frames.append(encode_frame(salted, frames.RECORD, seq, ts_ns, item.entry))
        return made_frames

    def _put_in(self, item: Item, made_frames: list[bytes], size_bytes: int, batch: BatchWriter) -> None:
        """Its place is certain: from here on the next entry stands behind it."""
        state, made = self._state, item.made
        batch.add(made_frames, size_bytes)
        if item.key is not None:
            item.key.written = True
        if made is not None:
            item.leaf = batch.leaf(item.entry)
            state.scopes[item.scope] = state.scopes.get(item.scope, 0) + 1
            self._note_begun(made)
        state.closed += item.closes
        state.lost += item.lost
        state.shed += item.shed

    def _finished(self, batch: BatchWriter, *, may_wait: bool) -> tuple[bytes, Committed]:
        state, watermark = self._state, self._watermark
        counters = Counters(
            accepted=watermark.accepted,
            closed=state.closed,
            lost=state.lost,
            shed=state.shed,
            refused=watermark.refused,
        )
        # read before the thread's next sync or after it: either way no more is said to be durable than is
        slot, first_seq = watermark.slot, self._file.header.first_seq
        return batch.finish(
            now_ns=self._clock_ns(),
            counters=counters,
            key=self._file.key_id,
            sign=self._file.sign,
            durable_end=max(slot.end if slot.segment == first_seq else 0, HEADER_BYTES),
            deferred=may_wait,
        )

    def _note_begun(self, made: dict[str, Any] | Line) -> None:
        if isinstance(made, Line):
            if self._begun:
                self._begun.pop(made.closes, None)
        elif made["kind"] == "begin":
            self._begun[made["decision"]] = self._file.header.first_seq
        elif closes_call(made):
            self._begun.pop(made["decision"], None)
        elif made["kind"] == "gap":
            for decision in made.get("decisions", ()):
                self._begun.pop(decision, None)

    def _heartbeats(self, *, closes: bool) -> list[Item]:
        """Entries that state the counters: the shard's, and for each scope how many entries precede the first one."""
        rows: list[list[object]] = [
            [tenant, route, count] for (tenant, route), count in sorted(self._state.scopes.items(), key=str)
        ]
        sheets: list[list[list[object]]] = [[]]
        size = 0
        for row in rows:
            size += 40 + 6 * sum(len(str(cell)) for cell in row)  # 6: what JSON may make of one character
            if size > SCOPES_BYTES_MAX:
                sheets.append([])
                size = 0
            sheets[-1].append(row)
        open_from = min(self._begun.values(), default=self._file.header.first_seq)
        stated = Counters(
            accepted=self._watermark.accepted,
            closed=self._state.closed,
            lost=self._state.lost,
            shed=self._state.shed,
            refused=self._watermark.refused,
        )
        common = {"at": self._state.frontier.size, "counters": stated.as_json(), "open_from": open_from}
        made = [
            self._own("heartbeat", {**common, "sheet": number, "sheets": len(sheets), "scopes": sheet})
            for number, sheet in enumerate(sheets)
        ]
        if closes:
            made[-1].notes = ((frames.CLOSE, b""),)
        return made

    def _own(self, kind: str, fields: dict[str, object]) -> Item:
        """An entry that the shard writes about itself."""
        now_ns = self._clock_ns()
        draft = Draft(
            kind=kind,
            tenant=SYSTEM_TENANT,
            actor="journal",
            id=self._ids.new(),
            ts_ns=now_ns,
            config=self.config,
            fields=fields,
        )
        return Item(document(draft, self._origin), now_ns)


def _says_close(item: Item) -> bool:
    return any(kind == frames.CLOSE for kind, _ in item.notes)
