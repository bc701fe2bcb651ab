"""Reading journals for several consumers at once: each batch is read and checked once while they are in step.

A *shelf* is one epoch of one shard. It has a head, which reads on for whoever stands there, and keeps the last batches
for those a little behind. Who is further behind (a restart, a database that was away) reads with a tail of their own
until they find themselves on the shelf again. Nobody reads past the watermark.

A *library* is all shelves of the host: it looks for news and wakes those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from storage import watermark
from storage.errors import JournalCorrupt, JournalError, StorageError
from storage.reading import Batch, Position, SegmentTail, read_header, shards
from storage.recovery import segments_of
from storage.segment import HEADER_BYTES, SegmentHeader, segment_name
from storage.watermark import Mark

POLL_S = 0.05  # how old news may get; a twentieth of the second in which a label shall be there
DISCOVER_EVERY = 20  # polls; a new shard waits a second at most
KEPT_BYTES_MAX = 8 * 1024 * 1024  # of the last batches, per shelf: some seconds of traffic
READ_BYTES_MAX = 4 * 1024 * 1024  # at once; a single larger batch is read whole
HEADERS_MAX = 64  # of segments; 4 KiB each

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a shelf is read no further."""

    directory: Path
    origin: str
    position: Position | None
    message: str


class Shelf:
    """One epoch of one shard; methods block and may be called from several threads."""

    def __init__(self, directory: Path, mark: Mark, origin: str) -> None:
        self.directory = directory
        self.origin = origin
        self.mark = mark
        self.damage: Damage | None = None
        self._lock = threading.Lock()
        self._head: SegmentTail | None = None
        self._kept: OrderedDict[Position, Batch] = OrderedDict()  # by where they begin
        self._kept_bytes = 0
        self._headers: OrderedDict[int, bytes] = OrderedDict()

    @property
    def end(self) -> Position:
        """Up to where the journal was durable at the last look."""
        return Position(self.mark.slot.segment, self.mark.slot.end)

    @property
    def next_seq(self) -> int:
        """Every entry below this was durable at the last look."""
        return self.mark.slot.next_seq

    def header(self, first_seq: int) -> bytes:
        """The header of the segment with this first sequence number (4,096 bytes)."""
        with self._lock:
            if first_seq not in self._headers:
                path = self.directory / segment_name(first_seq)
                with path.open("rb") as file:
                    self._headers[first_seq] = file.read(HEADER_BYTES)
                while len(self._headers) > HEADERS_MAX:
                    self._headers.popitem(last=False)
            return self._headers[first_seq]

    def at_head(self, position: Position | None, bytes_max: int) -> list[Batch] | None:
        """Batches from `position` on, if it is the head or on the shelf; None where a tail of one's own is needed."""
        with self._lock:
            if self._head is None:
                self._head = SegmentTail(self.directory, position)
            found = list(self._on_shelf(position, bytes_max))
            if found:
                return found
            if position != self._head.position:
                return None
            for batch in _sound(self._head, bytes_max):
                self._keep(position, batch)
                position = Position(batch.segment, batch.end)
                found.append(batch)
            return found

    def close(self) -> None:
        """Let files go."""
        with self._lock:
            if self._head is not None:
                self._head.close()

    def _on_shelf(self, position: Position | None, bytes_max: int) -> Iterator[Batch]:
        size = 0
        while position is not None and (batch := self._kept.get(position)) is not None:
            yield batch
            size += batch.end - batch.begin
            if size >= bytes_max:
                return
            position = Position(batch.segment, batch.end)

    def _keep(self, position: Position | None, batch: Batch) -> None:
        self._kept[position or Position(batch.segment, batch.begin)] = batch
        self._kept_bytes += batch.end - batch.begin
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.end - oldest.begin


class Reader:
    """One consumer's place on a shelf."""

    def __init__(self, shelf: Shelf, position: Position | None) -> None:
        """Reads from `position` on; None is the first batch that is there."""
        self.shelf = shelf
        self.position = position
        self._own: SegmentTail | None = None

    def read(self, bytes_max: int = READ_BYTES_MAX) -> list[Batch]:
        """The next batches, about `bytes_max` of them; none at the watermark. The position moves behind them.

        Raises:
            JournalCorrupt: what should be there does not decode or does not verify.
            JournalError: the position's segment is gone.
        """
        found = self.shelf.at_head(self.position, bytes_max)
        if found is None:
            if self._own is None or self._own.position != self.position:
                self._leave()
                self._own = SegmentTail(self.shelf.directory, self.position)
            found = list(_sound(self._own, bytes_max))
        elif self._own is not None:
            self._leave()
        if found:
            self.position = Position(found[-1].segment, found[-1].end)
        return found

    def go_back(self, position: Position | None) -> None:
        """Read from `position` again next time."""
        self.position = position

    def close(self) -> None:
        """Let files go."""
        self._leave()

    def _leave(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None


class Library:
    """All shelves of one data directory; used on the loop, looks in a thread."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._directories: list[Path] = []
        self._shelves: dict[Path, Shelf] = {}
        self._polls = 0
        self._news = asyncio.Event()  # of the next news; a fresh one follows each
        self.version = 0

    @property
    def shelves(self) -> list[Shelf]:
        """Those that can be read, in order of their directories."""
        return [shelf for _, shelf in sorted(list(self._shelves.items()))]  # noqa: C414 (copied at once: a thread may ask)

    async def look(self, *, discover: bool = False) -> None:
        """Read all watermarks once, those of new shards too with `discover`; wake those who wait if any has moved."""
        discover = discover or self._polls % DISCOVER_EVERY == 0
        self._polls += 1
        marks = await asyncio.to_thread(self._marks, discover=discover)
        moved = False
        for directory, (mark, origin) in marks.items():
            shelf = self._shelves.get(directory)
            if shelf is None or shelf.origin != origin:
                # a new shard, or a new epoch: the damaged one is now found in quarantine
                if shelf is not None:
                    shelf.close()
                self._shelves[directory] = Shelf(directory, mark, origin)
                moved = True
            elif shelf.mark != mark:
                moved = moved or shelf.mark.slot != mark.slot
                shelf.mark = mark
        if moved:
            self.version += 1
            self._news.set()
            self._news = asyncio.Event()

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_S)

    async def news(self, version: int, *, within_s: float) -> None:
        """Return once something moved after `version`, or after `within_s`."""
        if self.version == version:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._news.wait()

    def report(self, shelf: Shelf, error: StorageError, position: Position | None) -> Damage | None:
        """Take a shelf out of reading; the damage, if this is news.

        An epoch that its writer has just set aside is no damage: its files are found again in quarantine.
        """
        if shelf.damage is not None or _was_moved(shelf):
            return None
        shelf.damage = Damage(shelf.directory, shelf.origin, position, error.message)
        _log.error("shard_damaged", directory=str(shelf.directory), origin=shelf.origin, error=error.message)
        return shelf.damage

    def close(self) -> None:
        """Let files go."""
        for shelf in self._shelves.values():
            shelf.close()

    def _marks(self, *, discover: bool) -> dict[Path, tuple[Mark, str]]:
        if discover:
            self._directories = shards(self._data)
        found = {}
        for directory in self._directories:
            mark = watermark.read(directory / watermark.NAME)
            if mark is None or not mark.slot.end:
                continue
            known = self._shelves.get(directory)
            if known is not None and known.origin.rpartition("/")[2] == str(mark.epoch):
                found[directory] = (mark, known.origin)
            elif (origin := _origin_of(directory, mark)) is not None:
                found[directory] = (mark, origin)
        return found


def header_of(shelf: Shelf, first_seq: int) -> SegmentHeader:
    """The parsed header of one segment."""
    return SegmentHeader.from_bytes(shelf.header(first_seq))


def _sound(tail: SegmentTail, bytes_max: int) -> Iterator[Batch]:
    """The next batches of a tail, about `bytes_max`; damage is told only where nothing sound comes before it."""
    size = 0
    batches = tail.batches()
    with contextlib.closing(batches):  # type: ignore[type-var]  # a generator, declared as an iterator
        while size < bytes_max:
            try:
                batch = next(batches, None)
            except JournalError:
                if size:
                    return  # the next call meets it again
                raise
            if batch is None:
                return
            size += batch.end - batch.begin
            yield batch


def _origin_of(directory: Path, mark: Mark) -> str | None:
    """The origin that the directory's segments name; None while the first one is being made."""
    try:
        first = min(segments_of(directory), default=None)
        if first is None:
            return None
        origin = read_header(directory / segment_name(first)).origin
    except (FileNotFoundError, JournalCorrupt):
        # being moved, or damaged in its first bytes: recovery of the writer tells the two apart
        return None
    return origin if origin.rpartition("/")[2] == str(mark.epoch) else None


def _was_moved(shelf: Shelf) -> bool:
    """Whether the directory no longer holds the shelf's epoch."""
    first = min(segments_of(shelf.directory), default=None)
    try:
        return first is None or read_header(shelf.directory / segment_name(first)).origin != shelf.origin
    except FileNotFoundError:
        return True
    except JournalCorrupt:
        return False
