"""Shipping: what is durable in a journal reaches ClickHouse exactly once (README, "Exactly once").

    SEAL (ship log, durable) → INSERT keys, parts, entries → read back → SHIPPED (ship log, durable)

The seal fixes which rows belong together, so a restart makes the same rows again. An insert whose outcome is not known
is never repeated blindly: what is there is read back first, and only what is missing is sent, announced by a repair
line. Entries go last: whoever sees an entry can see its parts and keys. A shipper that begins where the database holds
more than its log tells (the log was lost, or is an older copy) reads all of that back and sends only what is missing.

Nothing is handed in here that is not below the journal's watermark; nothing may leave the journal before `position`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from storage.batch import Batch
from storage.clickhouse import Database
from storage.durable import KERNEL, Syscalls
from storage.errors import JournalCorrupt, StorageUnavailable, Unverifiable
from storage.freight import Freight, Packer, named, segment_rows
from storage.lines import Rows
from storage.readback import bring, missing
from storage.reading import Position
from storage.resumption import begun_classes, is_covered, of_one_month, stored_end
from storage.shiplog import Seal, ShipLog

ROWS_MAX = 5_000  # of one range, over all tables: read back in some 20 ms
BYTES_MAX = 8 * 1024 * 1024  # of one range and of one insert; a single larger batch or part goes alone
REPAIRS_MAX = 3  # in one call, before acknowledged rows that do not appear make the database count as unavailable


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A range that was read back complete: entries [first, end), the journal up to `stop`."""

    number: int
    first: int
    end: int
    stop: Position
    batches: int  # of those handed in
    rows: int
    repaired: int  # rows that had to be sent again


class Shipper:
    """Ships one origin; one thread at a time.

    Args:
        header: gives the header (4,096 bytes) of the segment with this first sequence number.
        clock_ns: Unix time, for the month under which rows are filed.
    """

    def __init__(
        self,
        database: Database,
        ship: Path,
        origin: str,
        *,
        header: Callable[[int], bytes],
        clock_ns: Callable[[], int],
        calls: Syscalls = KERNEL,
    ) -> None:
        self.origin = origin
        self._database = database
        self._header = header
        self._clock_ns = clock_ns
        self._log = ShipLog(ship, origin, calls)
        self._packer = Packer(origin, partial(begun_classes, database, origin))
        self._stored_end: int | None = None  # one past the highest number in the database when this shipper began
        self._unsent = 0  # the range that this shipper sealed and of which it has sent nothing yet
        self._waited: Position | None = None  # where chunks were left for an entry to come, once
        self._pool = ThreadPoolExecutor(3, "ship")  # a call for each table
        self._segments: set[int] = set()  # whose header was read back

    @property
    def position(self) -> Position | None:
        """Where the journal is not shipped from; None: from its beginning. Batches are handed in from here on."""
        return self._log.position

    @property
    def next_seq(self) -> int:
        """Every entry below this was read back from ClickHouse."""
        return self._log.next_seq

    @property
    def pending(self) -> Seal | None:
        """The range that was sealed and not yet read back."""
        return self._log.pending

    def ship(self, batches: Sequence[Batch]) -> Shipped | None:
        """Ship the longest range that begins with the first batch; None where more batches are needed to make one.

        On return the range is in ClickHouse, once, read back. `batches` follow each other from `position` on.

        Raises:
            StorageUnavailable: try again later with batches from the same `position`; nothing is lost or doubled.
            Unverifiable: the database holds something else than was sent; shipping this origin must stop.
            JournalCorrupt: the journal does not hold what was sealed.
        """
        seal = self._log.pending
        if self._stored_end is None and batches:
            self._resume(batches[0].first)
        if seal is None:
            loaded = self._load(batches)
            if loaded is None:
                return None
            chosen, freight, seal = loaded
            self._log.seal(seal)
            self._unsent = seal.number
        else:
            chosen = _until(batches, seal)
            if not chosen:
                return None
            freight = self._packer.pack(chosen, month=seal.month, early=seal.early)
            if freight.digests() != seal.digests:
                raise JournalCorrupt(
                    f"{self.origin}: other rows in the journal than were sealed as range {seal.number}"
                )
        try:
            self._bring_headers(chosen)
            repaired = self._bring(freight, seal)
        except Unverifiable as error:
            raise self._explained(error, seal) from error
        self._log.shipped()
        return Shipped(
            number=seal.number,
            first=seal.first,
            end=seal.end,
            stop=seal.stop,
            batches=len(chosen),
            rows=sum(len(rows.rows) for rows in freight.tables()),
            repaired=repaired,
        )

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()

    def _resume(self, first: int) -> None:
        """Ask the database what it holds beyond the log, before anything is sent; the journal goes on at `first`."""
        known = self._log.next_seq
        if first > known and not is_covered(self._database, self.origin, known, first):
            raise Unverifiable(
                f"{self.origin}: shipped up to {known} by the ship log, the journal begins at {first}, and the database"
                " does not hold every entry between once"
            )
        self._stored_end = stored_end(self._database, self.origin, min(first, known))

    @property
    def _is_behind(self) -> bool:
        """The database may hold rows of what the log does not know to be shipped: nothing is sent blindly."""
        return self._stored_end is None or self._log.next_seq < self._stored_end

    def _load(self, batches: Sequence[Batch]) -> tuple[Sequence[Batch], Freight, Seal] | None:
        """The next range, not sealed yet; None where more batches are needed."""
        chosen, month = choose(batches), None
        if chosen and self._is_behind:
            chosen, month = of_one_month(self._database, self.origin, chosen)
        if not chosen:
            return None
        month = self._month() if month is None else month
        freight, early = self._packer.pack(chosen, month=month), {}
        if freight.unclassed:  # chunks came before the entry that names their key
            rest = batches[len(chosen) :]
            early = named(rest, freight.unclassed)
            if not rest and self._waited != _end(chosen[0]):  # it may be about to come
                self._waited = _end(chosen[0])
                return None
            if early:
                freight = self._packer.pack(chosen, month=month, early=early)
        return chosen, freight, self._seal(chosen, freight, month, early)

    def _month(self) -> int:
        """YYYYMM of now, never before the month of the last range: the clock may jump back, partitions may not."""
        now = datetime.fromtimestamp(self._clock_ns() / 1e9, tz=UTC)
        return max(self._log.month, now.year * 100 + now.month)

    def _seal(self, chosen: Sequence[Batch], freight: Freight, month: int, early: dict[str, str]) -> Seal:
        first = max(self._log.next_seq, chosen[0].first)
        ends = (batch.first + batch.count for batch in chosen if batch.count)
        return Seal(
            number=self._log.number + 1,
            first=first,
            end=max(ends, default=first),
            stop=_end(chosen[-1]),
            month=month,
            digests=freight.digests(),
            early=early,
        )

    def _bring(self, freight: Freight, seal: Seal) -> int:
        """Bring the range into the database and read it back; returns the number of rows that were sent again."""
        if self._unsent == seal.number and not (self._is_behind and self._is_there(freight)):
            self._unsent = 0
            self._together(self._first_time(freight.keys, seal), self._first_time(freight.parts, seal))
            self._first_time(freight.entries, seal)()
        repaired = 0
        for _ in range(REPAIRS_MAX):
            found = self._missing(freight)
            if not any(found):
                return repaired
            for rows, places in zip(freight.tables(), found, strict=True):
                repaired += len(places)
                if places:
                    self._repair(rows, places)
        raise StorageUnavailable(f"{self.origin}: rows of range {seal.number} were acknowledged and are not there")

    def _is_there(self, freight: Freight) -> bool:
        """Whether any row of the range is in the database."""
        found = zip(freight.tables(), self._missing(freight), strict=True)
        return any(len(places) < len(rows.rows) for rows, places in found)

    def _missing(self, freight: Freight) -> list[list[int]]:
        return self._together(*(partial(missing, self._database, rows) for rows in freight.tables()))

    def _together(self, *calls: Callable[[], Result]) -> list[Result]:
        """Run the calls side by side: most of an insert is waiting for the disk. All have ended on return or raise."""
        running = [self._pool.submit(call) for call in calls]
        wait(running)
        return [one.result() for one in running]

    def _explained(self, error: Unverifiable, seal: Seal) -> Unverifiable:
        if self._stored_end is None or self._stored_end <= seal.first:
            return error
        return Unverifiable(
            f"{self.origin}: range {seal.number} begins at {seal.first}, the database held rows up to"
            f" {self._stored_end - 1} before it was sent, and they are not those of the journal: {error.message}"
        )

    def _first_time(self, rows: Rows, seal: Seal) -> Callable[[], None]:
        def insert() -> None:
            for name, group in _groups(rows):
                self._insert(rows, group, f"{_token(self.origin, seal)}:{name}")

        return insert

    def _repair(self, rows: Rows, places: Sequence[int]) -> None:
        """Send what is missing, announced first."""
        seal = self._log.repair(rows.table, len(places))
        token, absent = _token(self.origin, seal), set(places)
        for name, group in _groups(rows):
            again = [place for place in group if place in absent]
            # A group that is missing as a whole may be an insert that has not ended: its own token keeps it single.
            # Once that was tried, or where a part of it is there, the server must not take it for a repetition.
            whole = len(again) == len(group) and seal.repairs.count(rows.table) == 1
            if again:
                self._insert(rows, again, f"{token}:{name}" if whole else f"{token}:{name}:repair:{len(seal.repairs)}")

    def _insert(self, rows: Rows, places: Sequence[int], token: str) -> None:
        self._database.insert(rows.table, rows.columns, [rows.rows[place] for place in places], token=token)

    def _bring_headers(self, chosen: Sequence[Batch]) -> None:
        """True on return: the headers of these segments are in the database; without them no key can be unwrapped."""
        for first_seq in sorted({batch.segment for batch in chosen} - self._segments):
            rows = segment_rows(self.origin, first_seq, self._header(first_seq))
            bring(self._database, rows, token=f"v1:{self.origin}:segment:{first_seq}")
            self._segments.add(first_seq)


def choose(batches: Sequence[Batch]) -> Sequence[Batch]:
    """The longest prefix within the limits that ends with an entry; one without entries only where it is full.

    A batch without entries carries chunks of a call that is still open; its entry is yet to come.
    """
    rows = size = last = 0
    for index, batch in enumerate(batches):
        rows += batch.count + len(batch.parts) + len(batch.keys)
        size += sum(len(record.entry) for record in batch.records) + sum(len(part.data) for part in batch.parts)
        if index and (rows > ROWS_MAX or size > BYTES_MAX):
            return batches[: last or index]
        if batch.count:
            last = index + 1
    return batches[:last]


def _until(batches: Sequence[Batch], seal: Seal) -> Sequence[Batch]:
    """The batches of the sealed range; none where its last one is not among them yet."""
    for count, batch in enumerate(batches, 1):
        if _end(batch) == seal.stop:
            return batches[:count]
    return ()


def _end(batch: Batch) -> Position:
    return Position(batch.segment, batch.end)


def _token(origin: str, seal: Seal) -> str:
    """Says what is inserted: another range, or other rows, never under the same token."""
    return f"v1:{origin}:{seal.first}:{seal.end}:{seal.number}:{seal.digests['entries'][:32]}"


def _groups(rows: Rows) -> Iterator[tuple[str, list[int]]]:
    """The places of all rows, by inserts: of one retention class (one partition, so one part), within `BYTES_MAX`."""
    where = rows.columns.index("retention") if "retention" in rows.columns else None
    heavy = rows.columns.index("bytes") if "bytes" in rows.columns else None
    open_groups: dict[str, tuple[int, int, list[int]]] = {}
    for place, row in enumerate(rows.rows):
        name = "" if where is None else str(row[where])
        weight = 0 if heavy is None else len(cast("bytes", row[heavy]))
        number, size, group = open_groups.get(name, (0, 0, []))
        if group and size + weight > BYTES_MAX:
            yield f"{name}:{number}", group
            number, size, group = number + 1, 0, []
        group.append(place)
        open_groups[name] = (number, size + weight, group)
    for name, (number, _, group) in open_groups.items():
        yield f"{name}:{number}", group
