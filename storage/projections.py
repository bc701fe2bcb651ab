"""Projections: the typed tables, made from entries that were read back from ClickHouse, and from nothing else.

Decisions come by extraction entries: each names, in `source`, the decisions that it covers, and a decision's row is
made when both are there. Explanations, accesses and lifecycle changes come by themselves. A cursor per origin says up
to where; it is written after the rows were read back, so a crash repeats a step and never skips one, and repeating a
step finds its rows. `rebuild` empties the tables and makes the same rows again.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from storage import durable, typed
from storage.clickhouse import SWEEP, Database
from storage.dialect import truncated
from storage.durable import KERNEL, Syscalls
from storage.errors import JournalCorrupt
from storage.lines import Rows
from storage.profiles import Account
from storage.readback import bring
from storage.typed import Row, Stored

FILE = "projection.json"
ENTRIES_MAX = 256  # of one step; extraction entries have up to 64 KiB each
SPARSE = 4  # numbers a decision, from which asking by id is cheaper than reading what lies between
ROWS_MAX = 5_000  # decisions of one step, about; one extraction entry has at most 256

_STEP = """
SELECT seq, entry, leaf FROM entries
WHERE origin = {origin:String} AND seq >= {first:UInt64} AND seq < {end:UInt64}
  AND kind IN ('extraction', 'explanation', 'access', 'lifecycle')
ORDER BY seq LIMIT {limit:UInt32}
"""
_DECISIONS = """
SELECT seq, entry, leaf FROM entries
WHERE origin = {origin:String} AND seq >= {first:UInt64} AND seq <= {last:UInt64} AND kind = 'decision'
"""
_BY_ID = " AND id IN {ids:Array(UUID)}"
_ORIGINS = "SELECT origin, max(seq) + 1 FROM entries GROUP BY origin ORDER BY origin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """What one step did: entries of `origin` below `end` are projected; `rows` by table; `missing` decisions."""

    origin: str
    end: int
    rows: Mapping[str, int]
    missing: int


class Projector:
    """Keeps the typed tables up with the shipped entries; one thread at a time."""

    def __init__(self, database: Database, ship: Path, calls: Syscalls = KERNEL) -> None:
        self._database = database
        self._path = ship / FILE
        self._calls = calls
        self._generation, self._cursors = read_cursors(ship)

    def cursor(self, origin: str) -> int:
        """Every entry of `origin` below this is projected."""
        return self._cursors.get(origin, 0)

    def step(self, origin: str, shipped: Mapping[str, int]) -> Projected | None:
        """Project some more entries of `origin`; None where there is nothing to do now.

        Args:
            origin: whose entries to look at.
            shipped: origin → every entry below is in the database. An extraction entry waits for its decisions.

        Raises:
            StorageUnavailable: try again later.
            Unverifiable: a typed row is there twice, or with other content.
        """
        first, end = self.cursor(origin), shipped.get(origin, 0)
        if first >= end:
            return None
        parameters = {"origin": origin, "first": first, "end": end, "limit": ENTRIES_MAX}
        found = self._database.rows(_STEP, parameters, caps=SWEEP)
        made = Derived()
        upto = end if len(found) < ENTRIES_MAX else found[-1][0] + 1
        for seq, entry, leaf in found:
            stored = Stored(origin, seq, orjson.loads(entry), leaf)
            if made.decisions >= ROWS_MAX or not _is_due(stored, shipped):
                upto = seq
                break
            made.add(self._database, stored)
        if upto == first:
            return None
        for table, rows in made.rows.items():
            self._bring(table, origin, first, upto, rows)
        self._cursors[origin] = upto
        self._write()
        counts = {table: len(rows) for table, rows in made.rows.items()}
        return Projected(origin=origin, end=upto, rows=counts, missing=made.missing)

    def rebuild(self, *, now_ns: int) -> dict[str, int]:
        """Empty the typed tables and make them again from the entries alone; rows by table."""
        self._generation, self._cursors = now_ns, {}
        self._write()  # first: a crash after it goes on with the empty cursors and finds what is there already
        for table in typed.TABLES:
            self._database.command(truncated(table, self._database.profile), account=Account.PROJECTOR)
        totals = dict.fromkeys(typed.TABLES, 0)
        shipped = {origin: int(end) for origin, end in self._database.rows(_ORIGINS, caps=SWEEP)}
        for origin in shipped:
            while (done := self.step(origin, shipped)) is not None:
                for table, count in done.rows.items():
                    totals[table] += count
        return totals

    def _bring(self, table: str, origin: str, first: int, end: int, rows: Sequence[Row]) -> None:
        for month, group in _by_month(table, rows):
            token = f"projection:{self._generation}:{table}:{origin}:{first}:{end}:{month}"
            bring(self._database, expected(table, group, origin=origin, first=first, end=end, month=month), token=token)

    def _write(self) -> None:
        durable.make_directory(self._path.parent, self._calls)
        value = {"v": 1, "generation": self._generation, "cursors": self._cursors}
        durable.replace_file(self._path, orjson.dumps(value, option=orjson.OPT_SORT_KEYS), self._calls)


def read_cursors(ship: Path) -> tuple[int, dict[str, int]]:
    """The generation of the typed rows, and per origin up to where they were made.

    Raises:
        JournalCorrupt: the file is damaged.
    """
    path = ship / FILE
    if not path.exists():
        return 0, {}
    try:
        value = orjson.loads(path.read_bytes())
        return int(value["generation"]), {str(origin): int(seq) for origin, seq in value["cursors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalCorrupt(
            f"{path} is damaged: {error}",
            advice="Remove the file and run `answerable rebuild`: the typed tables are made from entries.",
        ) from error


class Derived:
    """The typed rows that some entries make, by table."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.decisions = 0
        self.missing = 0

    def add(self, database: Database, stored: Stored) -> None:
        """Make the rows of one entry; decisions that are not in the database are counted in `missing`."""
        kind = stored.said["kind"]
        if kind != "extraction":
            self.rows[typed.TABLE_OF_KIND[kind]].append(typed.BUILDERS[kind](stored))
            return
        extracted = typed.extracted_rows(stored)
        decisions = _decisions(database, stored.said["source"], [row["decision"] for row in extracted])
        for row in extracted:
            decision = decisions.get(row["decision"])
            if decision is None:
                self.missing += 1  # verification names it; a table without it is better than no table
                continue
            self.rows["decisions"].append(typed.decision_row(decision, stored, row))
        self.decisions += len(extracted)


def _is_due(stored: Stored, shipped: Mapping[str, int]) -> bool:
    """False where an extraction entry must wait for decisions that are not shipped yet."""
    source = stored.said.get("source") if stored.said["kind"] == "extraction" else None
    return source is None or shipped.get(source["origin"], 0) > source["last"]


def _decisions(database: Database, source: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Stored]:
    """The decisions that an extraction entry covers, by id."""
    parameters = {"origin": source["origin"], "first": source["first"], "last": source["last"]}
    sql = _DECISIONS
    if source["last"] - source["first"] >= SPARSE * len(ids):  # decisions of other routes lie between
        sql, parameters = _DECISIONS + _BY_ID, {**parameters, "ids": list(ids)}
    found = database.rows(sql, parameters, caps=SWEEP)
    stored = (Stored(source["origin"], seq, orjson.loads(entry), leaf) for seq, entry, leaf in found)
    return {entry.said["id"]: entry for entry in stored}


def expected(table: str, rows: Sequence[Row], *, origin: str, first: int, end: int, month: int) -> Rows:
    """These rows, which entries [first, end) of `origin` make in one month (YYYYMM), for reading back."""
    prefix = "extraction_" if table == "decisions" else ""
    low, high = _month_ns(month)
    return Rows(
        table=table,
        columns=typed.COLUMNS[table],
        rows=rows,
        lines=[typed.line_of(table, row) for row in rows],
        where=f"{prefix}origin = {{origin:String}} AND {prefix}seq >= {{first:UInt64}} AND {prefix}seq < {{end:UInt64}}"
        " AND ts >= fromUnixTimestamp64Nano({low:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({high:Int64}, 'UTC')",
        parameters={"origin": origin, "first": first, "end": end, "low": low, "high": high},
        line=typed.SQL_LINE[table],
    )


def _by_month(table: str, rows: Iterable[Row]) -> Iterable[tuple[int, list[Row]]]:
    """The rows by month of their time: one insert fills one partition, and is there or is not."""
    where = typed.COLUMNS[table].index("ts")
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        groups[_month(int(str(row[where])))].append(row)
    return sorted(groups.items())


def _month(ts_ns: int) -> int:
    moment = datetime.fromtimestamp(ts_ns // 1_000_000_000, tz=UTC)
    return moment.year * 100 + moment.month


def _month_ns(month: int) -> tuple[int, int]:
    year, number = divmod(month, 100)
    start = calendar.timegm((year, number, 1, 0, 0, 0))
    days = calendar.monthrange(year, number)[1]
    return start * 1_000_000_000, (start + days * 86_400) * 1_000_000_000
