"""The writer thread of a journal: swaps in what waits, writes one batch, syncs it, moves the watermark, wakes all.

It alone owns the sequence numbers, the tree and the open segment. No timer: the next batch forms while the last one
syncs. It shares the interpreter's lock with the event loop, so per batch it makes few calls and lets go of the lock
only in the write and the sync.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import durable, frames, seal
from storage.batch import BatchWriter, Committed, key_id
from storage.entries import CLOSING, SYSTEM_TENANT, Draft, document, finish
from storage.errors import EntryTooLarge, JournalFull, JournalStopped, StorageError
from storage.frames import frame_bytes, salt_crc
from storage.ids import Ids
from storage.keys import JournalKeys
from storage.merkle import Frontier
from storage.segment import (
    COMMIT_BYTES,
    HEADER_BYTES,
    KEY_PAYLOAD_BYTES,
    PART_HEAD_BYTES,
    SALT_BYTES,
    Counters,
    SegmentHeader,
    StoredPart,
    WrappedKey,
    segment_name,
)
from storage.space import SegmentSpace
from storage.watermark import CLOSED, FAILED, Watermark

Scope = tuple[str, str | None]  # tenant, route
SCOPES_BYTES_MAX = 48_000  # of one heartbeat entry: leaves room under the 65,535 bytes of an entry


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLimits:
    """The sizes and times of a journal."""

    segment_bytes: int = 64 * 1024 * 1024
    batch_bytes_max: int = 4 * 1024 * 1024  # one write and sync of this size takes tens of milliseconds
    batch_records_max: int = 1024
    pending_bytes_max: int = 64 * 1024 * 1024  # beyond it memory, not the disk, would hold the evidence
    call_bytes_reserved: int = 16 * 1024  # room kept for the entry of each open call
    space_wait_s: float = 5.0  # how long an answer waits for the disk after the model was called
    heartbeat_s: float = 60.0


class PartKey:
    """A fresh key for the parts of one entry; its KEY frame goes out with the first append that names it."""

    __slots__ = ("key_id", "sealer", "written")

    def __init__(self, key_id: str, sealer: seal.Sealer) -> None:
        self.key_id = key_id
        self.sealer = sealer
        self.written = False


@dataclass(slots=True, eq=False, kw_only=True)
class Item:
    """One append on its way: all of it stands in one batch."""

    made: dict[str, Any] | None = None  # the entry but for its place; None: parts alone
    ts_ns: int
    parts: Sequence[StoredPart] = ()
    key: PartKey | None = None
    closes: bool = False
    lost: int = 0
    shed: int = 0
    notes: Sequence[tuple[int, bytes]] = ()  # RECOVERY and CLOSE frames
    waiter: Any = None  # the future, for the one who delivers
    size_bytes: int = 0
    # set when it is placed
    seq: int = -1
    leaf: bytes = b""
    entry: bytes = b""
    error: StorageError | None = None


class Heartbeat:
    """Asks the writer for heartbeat entries; with ``closes`` it ends the journal after them."""

    __slots__ = ("closes",)

    def __init__(self, *, closes: bool = False) -> None:
        self.closes = closes


@dataclass(slots=True, kw_only=True)
class WriterState:
    """Where a writer begins: what recovery found, or nothing."""

    frontier: Frontier = field(default_factory=Frontier)
    scopes: dict[Scope, int] = field(default_factory=dict)
    closed: int = 0
    lost: int = 0
    shed: int = 0


class Writer:
    """Owns the open segment; ``deliver(items, committed)`` and ``failed(error, items)`` are called in its thread."""

    def __init__(
        self,
        *,
        directory: Path,
        origin: str,
        config: str,
        keys: JournalKeys,
        clock_ns: Callable[[], int],
        limits: JournalLimits,
        calls: durable.Syscalls,
        watermark: Watermark,
        space: SegmentSpace,
        state: WriterState,
        deliver: Callable[[list[Item], Committed | None], None],
        failed: Callable[[JournalStopped, list[Item]], None],
    ) -> None:
        self.queue: queue.SimpleQueue[Item | Heartbeat] = queue.SimpleQueue()
        self._directory, self._origin, self._config = directory, origin, config
        self._keys, self._clock_ns, self._limits, self._calls = keys, clock_ns, limits, calls
        self._watermark, self._space, self._state = watermark, space, state
        self._deliver, self._failed = deliver, failed
        self._ids = Ids(clock_ns, os.urandom)
        private = Ed25519PrivateKey.generate()
        self._sign = private.sign
        self._process_key = private.public_key().public_bytes_raw()
        self._key_id = key_id(self._process_key)
        self._vouch = keys.vouch(origin, self._process_key)
        self._backlog: deque[Item | Heartbeat] = deque()
        self._placed: list[Item] = []  # in the batch that is being written
        self._begun: dict[str, int] = {}  # decision → segment of its begin entry
        self._fd = -1
        self.offset = 0
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    # --- life -----------------------------------------------------------------------------------------------

    def open(self, opening: Sequence[Item]) -> None:
        """Begin a segment; ``opening`` is durable on return, behind the heartbeats. Raises JournalFull, OSError."""
        self._begin_segment()
        self._backlog.extend(opening)
        while self._backlog:
            self._write_batch()

    def start(self) -> None:
        """From here on the thread takes from ``queue``."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread, which ends after a closing heartbeat or a failure."""
        self._thread.join()

    @property
    def process_key(self) -> bytes:
        """The public half of the key that signs this process's batches."""
        return self._process_key

    def _run(self) -> None:
        try:
            while self._fd >= 0:
                self._collect()
                self._write_batch()
        except Exception as error:  # noqa: BLE001 - whatever breaks the writer, those who wait must hear of it
            self._watermark.set_state(FAILED)
            waiting = [*self._placed, *(item for item in self._backlog if isinstance(item, Item))]
            self._failed(JournalStopped(f"shard {self._origin} stopped: {error!r}"), waiting)

    def _collect(self) -> None:
        backlog = self._backlog
        if not backlog:
            backlog.append(self.queue.get())
        try:
            while len(backlog) < self._limits.batch_records_max:
                backlog.append(self.queue.get_nowait())
        except queue.Empty:
            return

    # --- batches --------------------------------------------------------------------------------------------

    def _write_batch(self) -> None:
        batch = BatchWriter(self._header, self._salted, self._state.frontier, self.offset)
        done = self._placed = []
        closes = is_full = False
        while self._backlog and not closes and not is_full and not self._is_enough(batch):
            item = self._backlog[0]
            if isinstance(item, Heartbeat):
                self._backlog.popleft()
                self._backlog.extendleft(reversed(self._heartbeats(closes=item.closes)))
                continue
            try:
                is_full = not self._place(item, batch)
            except (EntryTooLarge, TypeError) as error:  # TypeError: orjson met a string that is no Unicode
                item.error = error if isinstance(error, EntryTooLarge) else EntryTooLarge(str(error), status=400)
            if not is_full:
                self._backlog.popleft()
                done.append(item)
                closes = bool(item.notes) and any(kind == frames.CLOSE for kind, _ in item.notes)
        committed = self._commit(batch) if batch.frame_count else None
        if done:
            self._placed = []
            self._deliver(done, committed)
        if closes:
            self._end()
        elif is_full and not done:
            self._roll()

    def _is_enough(self, batch: BatchWriter) -> bool:
        return batch.count >= self._limits.batch_records_max or batch.size_bytes >= self._limits.batch_bytes_max

    def _place(self, item: Item, batch: BatchWriter) -> bool:
        """Put an item's frames into the batch; False if the segment has no room for them."""
        state, made, entry = self._state, item.made, b""
        need = COMMIT_BYTES
        for part in item.parts:
            need += frame_bytes(PART_HEAD_BYTES + len(part.data))
        if made is not None:
            scope = (made["tenant"], made["route"])
            scope_seq = state.scopes.get(scope, 0)
            entry = finish(made, seq=state.frontier.size, scope_seq=scope_seq)
            need += frame_bytes(len(entry))
        key = item.key
        if key is not None and not key.written:
            need += frame_bytes(KEY_PAYLOAD_BYTES)
        for _, payload in item.notes:
            need += frame_bytes(len(payload))
        if need > self._limits.segment_bytes // 2:  # it might not fit even an empty segment, behind its heartbeats
            raise EntryTooLarge(f"an entry with {need} bytes of parts; a segment has {self._limits.segment_bytes}")
        if self.offset + batch.size_bytes + need > self._limits.segment_bytes:
            return False
        if key is not None and not key.written:
            batch.frame(frames.KEY, item.ts_ns, self._wrapped(key))
            key.written = True
        for part in item.parts:
            batch.frame(frames.PART, item.ts_ns, part.to_payload())
        for kind, payload in item.notes:
            batch.frame(kind, item.ts_ns, payload)
        if made is not None:
            item.seq, item.entry = state.frontier.size, entry
            item.leaf = batch.record(item.ts_ns, entry)
            state.scopes[scope] = scope_seq + 1
            self._note_begun(made)
        state.closed += item.closes
        state.lost += item.lost
        state.shed += item.shed
        return True

    def _commit(self, batch: BatchWriter) -> Committed:
        """Write and sync; the batch is durable on return, and readers may have it."""
        state, watermark = self._state, self._watermark
        counters = Counters(
            accepted=watermark.accepted,
            closed=state.closed,
            lost=state.lost,
            shed=state.shed,
            refused=watermark.refused,
        )
        data, committed = batch.finish(now_ns=self._clock_ns(), counters=counters, key=self._key_id, sign=self._sign)
        durable.append_batch(self._fd, data, self.offset, self._calls)
        durable.datasync(self._fd, self._calls)
        self.offset += len(data)
        watermark.advance(
            segment=self._header.first_seq,
            end=self.offset,
            next_seq=state.frontier.size,
            closed=state.closed,
            lost=state.lost,
            shed=state.shed,
        )
        return committed

    def _wrapped(self, key: PartKey) -> bytes:
        counter = self._wraps
        self._wraps += 1
        wrapped = seal.wrap_dek(self._segment_key, counter, key.sealer.dek, seal.wrap_aad(self._origin, key.key_id))
        return WrappedKey(key.key_id, counter, wrapped, self._header.first_seq).to_payload()

    def _note_begun(self, made: dict[str, Any]) -> None:
        if made["kind"] == "begin":
            self._begun[made["decision"]] = self._header.first_seq
        elif made["kind"] in CLOSING:
            self._begun.pop(made["decision"], None)

    # --- segments -------------------------------------------------------------------------------------------

    def _begin_segment(self) -> None:
        """Open a new segment and put its heartbeats in front of all that waits."""
        spare = self._space.take(self._limits.space_wait_s)
        first_seq, salt = self._state.frontier.size, os.urandom(SALT_BYTES)
        self._segment_key, self._wraps = os.urandom(32), 0
        info = seal.segment_key_info(self._origin, first_seq, salt)
        self._header = SegmentHeader(
            origin=self._origin,
            first_seq=first_seq,
            salt=salt,
            created_ns=self._clock_ns(),
            process_key=self._process_key,
            host_key=self._keys.host_public,
            vouch=self._vouch,
            sealed_key=seal.seal_segment_key(self._keys.master_public, self._segment_key, info),
            frontier=self._state.frontier.copy(),
        )
        self._salted = salt_crc(salt)
        path = self._directory / segment_name(first_seq)
        self._fd = durable.create_segment(spare, path, self._header.to_bytes(), self._calls)
        self._space.taken()
        self.offset = HEADER_BYTES
        self._backlog.extendleft(reversed(self._heartbeats(closes=False)))

    def _roll(self) -> None:
        """Go on in a new segment; if there is no room for one, all that waits is refused and nothing is lost."""
        fd, end, path = self._fd, self.offset, self._directory / segment_name(self._header.first_seq)
        try:
            self._begin_segment()
        except JournalFull as full:
            refused = [item for item in self._backlog if isinstance(item, Item)]
            self._backlog.clear()
            for item in refused:
                item.error = full
            self._deliver(refused, None)
            return
        os.close(fd)
        durable.cut(path, end, self._calls)

    def _end(self) -> None:
        """The last batch is durable and says CLOSE: give back what was reserved."""
        os.close(self._fd)
        self._fd = -1
        durable.cut(self._directory / segment_name(self._header.first_seq), self.offset, self._calls)
        self._watermark.set_state(CLOSED)

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
        open_from = min(self._begun.values(), default=self._header.first_seq)
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
            config=self._config,
            fields=fields,
        )
        return Item(made=document(draft, self._origin), ts_ns=now_ns)
