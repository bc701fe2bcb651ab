"""Shipping: every shard into ClickHouse, its tree against each COMMIT, signed checkpoints, typed rows.

While ClickHouse is away this loop stands still with at most `HELD_BYTES_MAX` of each shard in memory; the backlog is
the journal. Everything that blocks runs in one thread at a time, so that shipping, projecting and rebuilding never
meet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.keeper import metrics
from gateway.keeper.logrounds import LogRounds
from gateway.keeper.tail import Library, Reader, Shelf, header_of
from storage.clickhouse import Database
from storage.errors import JournalError, QueryError, StorageError, StorageUnavailable, StorageUnfit, Unverifiable
from storage.ledger import Ledger
from storage.logoflogs import Source
from storage.migrate import migrate
from storage.preflight import Preflight, examine, refuse_old
from storage.projections import Projector
from storage.proofs import Tiles
from storage.quarantine import DIRECTORY as QUARANTINE
from storage.reading import Batch, Position
from storage.segment import SegmentHeader
from storage.shipper import BYTES_MAX, ROWS_MAX, Shipper
from storage.tiles import WIDTH

HELD_BYTES_MAX = 2 * BYTES_MAX  # of one shard: a sealed range and what was read beyond it
EVERY_S = 0.2  # between ranges of a shard: each is a few inserts, and each insert a part that must be merged
OTHERS_EVERY_S = 2.0  # between looks for rows to project in shards other than the own one
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0  # how late a database that is back may be noticed

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Line:
    """One origin on its way into the database."""

    shelf: Shelf
    reader: Reader
    shipper: Shipper
    ledger: Ledger
    tiles: int = -1  # full tiles of leaves that are stored; -1: not looked yet
    checkpoint: int = 0  # every entry below is covered by a checkpoint that was read back from ClickHouse
    signed_s: float = float("-inf")
    held: list[Batch] = field(default_factory=list)
    held_bytes: int = 0
    shipped_s: float = float("-inf")
    damage: StorageError | None = None  # what was met; everything before it is shipped first
    stopped: str | None = None  # why it is not shipped any further

    @property
    def passed(self) -> int:
        """Nothing below this sequence number, parts without an entry included, is read for shipping again."""
        position = self.shipper.position
        return 0 if position is None else min(self.shipper.next_seq, position.segment)

    @property
    def source(self) -> Source:
        """As the log of logs looks at it."""
        aside = self.shelf.directory.parent.name == QUARANTINE
        return Source(ledger=self.ledger, header=self._header, is_set_aside=aside and self._is_read)

    @property
    def _is_read(self) -> bool:
        """Whether nothing more can be signed of it: all of it was, or it is read no further."""
        signed = self.ledger.signed
        return self.stopped is not None or (signed is not None and signed.checkpoint.size == self.shelf.next_seq)

    def _header(self, first_seq: int) -> SegmentHeader | None:
        try:
            return header_of(self.shelf, first_seq)
        except FileNotFoundError:
            return None


class Shipping:
    """Ships, signs and projects; one per keeper."""

    def __init__(
        self,
        *,
        library: Library,
        database: Database,
        ship: Path,
        own: str,
        log_key: Ed25519PrivateKey,
        checkpoint_s: float,
        rounds: LogRounds,
    ) -> None:
        """`own` is the shard that the keeper writes, whose entries are projected at once."""
        self.rounds = rounds
        self._library = library
        self._database = database
        self._ship = ship
        self._log_key = log_key
        self._checkpoint_s = checkpoint_s
        self._own = own
        self._projector = Projector(database, ship)
        self._lines: dict[str, Line] = {}
        self._refused: dict[str, Shelf] = {}
        self._one = asyncio.Lock()  # one thread at a time
        self._migrated = False
        self.preflight: Preflight | None = None  # what was found once the database had answered
        self._others_s = 0.0
        self.problem: str | None = "not connected to ClickHouse yet"

    # --- what others ask ------------------------------------------------------------------------------------

    @property
    def is_migrated(self) -> bool:
        """Whether this process has brought the schema to its release; before that there may be no table."""
        return self._migrated

    @property
    def lines(self) -> Mapping[str, Line]:
        """By origin."""
        return self._lines

    def shipped_below(self, origin: str) -> int:
        """Every entry of `origin` below this was read back from ClickHouse."""
        line = self._lines.get(origin)
        return 0 if line is None else line.shipper.next_seq

    def signed_below(self, origin: str) -> int:
        """Every entry of `origin` below this is covered by a published checkpoint."""
        line = self._lines.get(origin)
        return 0 if line is None else line.checkpoint

    def projected_below(self, origin: str) -> int:
        """Every entry of `origin` below this has its typed rows."""
        return self._projector.cursor(origin)

    async def alone(self, work: Callable[[Projector], Result]) -> Result:
        """Run `work` in a thread while nothing is shipped or projected."""
        async with self._one:
            return await asyncio.to_thread(work, self._projector)

    # --- the loop -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ship for ever; a database that is away is asked again after a pause."""
        pause_s = RETRY_FIRST_S
        while True:
            version = self._library.version
            try:
                busy = await self.step()
            except (StorageUnavailable, QueryError) as error:
                if self.problem != error.message:
                    _log.warning("database_away", error=error.message, code=error.code)
                self.problem = error.message
                metrics.DATABASE_UP.set(0)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
                continue
            pause_s = RETRY_FIRST_S
            self.problem = None
            metrics.DATABASE_UP.set(1)
            if not busy:
                await self._library.news(version, within_s=EVERY_S)

    async def step(self) -> bool:
        """One round over all shards; true if there is more to do at once.

        Raises:
            StorageUnavailable, QueryError: the database is away or refuses; nothing is lost or doubled.
        """
        async with self._one:
            return await asyncio.to_thread(self._step)

    async def connect(self) -> None:
        """True on return: the database has the schema of this release and can hold evidence, or it is away.

        Raises:
            StorageUnfit: it cannot, so nothing will be shipped.

        An embedded database is opened by the loop: that takes a second, and nobody's accounts have to be asked.
        """
        if self._database.profile.kind == "chdb":
            return
        async with self._one:
            try:
                await asyncio.to_thread(self._connect)
            except StorageUnfit:
                raise
            except (StorageUnavailable, QueryError) as error:
                self.problem = error.message  # the loop asks again

    async def finish(self) -> None:
        """Sign everything that was read, and state it in the log of logs: before an end in order.

        Raises:
            StorageUnavailable, QueryError: the database is away; what was signed is published at the next start.
        """
        async with self._one:
            await asyncio.to_thread(self._finish)

    def close(self) -> None:
        """Let files go."""
        for line in self._lines.values():
            line.reader.close()
            line.shipper.close()

    # --- in a thread ----------------------------------------------------------------------------------------

    def _step(self) -> bool:
        self._connect()
        busy = False
        for shelf in self._library.shelves:
            line = self._line(shelf)
            if line is not None and line.stopped is None:
                busy = self._guarded(line) or busy
        self.rounds.step(self._sources, self._database)
        return self._project() or busy

    def _connect(self) -> None:
        """Bring the schema to this release, and look whether evidence can be kept here, once."""
        if self._migrated:
            return
        refuse_old(self._database)
        migrate(self._database, now_ns=time.time_ns())
        self.preflight = examine(self._database)
        self._migrated = True

    def _finish(self) -> None:
        for line in self._lines.values():
            if line.stopped is None:
                line.signed_s = float("-inf")
                self._guarded(line)
        self.rounds.step(self._sources, self._database, now=True)

    def _sources(self) -> list[Source]:
        return [line.source for line in self._lines.values()]

    def _line(self, shelf: Shelf) -> Line | None:
        line = self._lines.get(shelf.origin)
        if self._refused.get(shelf.origin) is shelf:
            return None
        if line is not None and line.shelf is shelf:
            return line
        if line is not None:
            # the epoch was moved into quarantine: its ship log goes on, its files are elsewhere
            line.reader.close()
            line.shipper.close()
        try:
            line = self._opened(shelf)
        except (StorageUnavailable, QueryError):
            raise
        except StorageError as error:  # rolled back, or files that contradict themselves
            self._refused[shelf.origin] = shelf
            self._library.report(shelf, error, None)
            return None
        self._lines[shelf.origin] = line
        return line

    def _opened(self, shelf: Shelf) -> Line:
        """Take up shipping and signing where they were; a journal or database older than what was signed is refused."""
        ledger = Ledger(self._ship, shelf.origin, key=self._log_key)
        ledger.refuse_rollback(journal_size=shelf.next_seq, database=self._database)
        shipper = Shipper(self._database, self._ship, shelf.origin, header=shelf.header, clock_ns=time.time_ns)
        places = [ledger.position, shipper.position]
        begin = None if None in places else min(place for place in places if place is not None)
        return Line(shelf, Reader(shelf, begin), shipper, ledger)

    def _guarded(self, line: Line) -> bool:
        try:
            busy = self._ship_some(line)
            self._sign(line)
        except (JournalError, Unverifiable) as error:
            line.stopped = error.message
            self._library.report(line.shelf, error, line.reader.position)
            return False
        return busy

    def _sign(self, line: Line) -> None:
        """Sign the tree if it grew and it is time, and bring the last checkpoint into the database."""
        now_s = time.monotonic()
        if now_s - line.signed_s >= self._checkpoint_s and line.ledger.sign(now_ns=time.time_ns()) is not None:
            line.signed_s = now_s
        if not line.ledger.is_published:
            line.ledger.publish(self._database)
        if line.ledger.signed is not None:
            line.checkpoint = line.ledger.signed.checkpoint.size
        if (full := line.shipper.next_seq // WIDTH) > line.tiles:
            Tiles(self._database, line.shelf.origin).grow(line.shipper.next_seq)
            line.tiles = full

    def _ship_some(self, line: Line) -> bool:
        """Ship one range of a shard if it is time; true if more waits."""
        now_s = time.monotonic()
        waits = line.held or line.reader.position != line.shelf.end
        if not waits or now_s - line.shipped_s < EVERY_S:
            return False
        damage = self._fill(line)
        shipped = line.shipper.ship(line.held) if line.held else None
        if shipped is None:
            if damage is not None:
                raise damage
            return False
        line.shipped_s = now_s
        line.held_bytes -= sum(_size(batch) for batch in line.held[: shipped.batches])
        del line.held[: shipped.batches]
        shard = line.shelf.directory.name
        metrics.SHIPPED.labels(shard=shard).inc(shipped.end - shipped.first)
        if shipped.repaired:
            _log.warning("range_repaired", origin=line.shelf.origin, number=shipped.number, rows=shipped.repaired)
        if line.held_bytes >= BYTES_MAX or len(line.held) >= ROWS_MAX:
            line.shipped_s = 0.0  # a backlog: no pause between ranges
            return True
        return False

    @staticmethod
    def _fill(line: Line) -> StorageError | None:
        """Read on until a range is full; damage is told only once everything before it is shipped."""
        shipped = line.shipper.position  # what the ledger alone has yet to see is not shipped again
        limit = HELD_BYTES_MAX if line.shipper.pending is not None else BYTES_MAX
        while line.held_bytes < limit and sum(batch.count for batch in line.held) < ROWS_MAX:
            if line.damage is not None:
                return line.damage
            try:
                found = line.reader.read()
            except JournalError as damage:
                line.damage = damage
                continue
            if not found:
                return None
            for batch in found:
                try:
                    line.ledger.apply([batch])
                except Unverifiable as damage:
                    line.damage = damage
                    break
                if shipped is None or Position(batch.segment, batch.end) > shipped:
                    line.held.append(batch)
                    line.held_bytes += _size(batch)
        return None

    def _project(self) -> bool:
        shipped = {origin: line.shipper.next_seq for origin, line in self._lines.items()}
        busy = False
        now_s = time.monotonic()
        all_of_them = now_s - self._others_s >= OTHERS_EVERY_S
        if all_of_them:
            self._others_s = now_s
        for origin in shipped:
            if origin.split("/")[-2] == self._own or all_of_them:
                done = self._projector.step(origin, shipped)
                if done is not None and done.missing:
                    _log.error("decisions_missing", origin=origin, missing=done.missing)
                busy = busy or done is not None
        return busy


def _size(batch: Batch) -> int:
    return batch.end - batch.begin
