"""Whether the typed tables say what the entries say: every row is made again and compared whole.

The projector's cursor excuses rows that are missing, and nothing else: what is there is compared up to the last entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from storage import typed
from storage.clickhouse import SWEEP, Database
from storage.coverage import Coverage
from storage.errors import QueryError
from storage.findings import MALFORMED, Findings
from storage.projections import ENTRIES_MAX, ROWS_MAX, Derived
from storage.queries import blocks
from storage.typed import Row, Stored

ROWS_MORE_MAX = 1_000  # that may be there beside those that are expected, before they are counted and not compared

_SOURCES = "SELECT {prefix}origin, max({prefix}seq) FROM {table} GROUP BY 1 LIMIT 10000"
_ROWS = (
    "SELECT {columns} FROM {table} WHERE {prefix}origin = {{origin:String}}"
    " AND {prefix}seq >= {{low:UInt64}} AND {prefix}seq < {{high:UInt64}} LIMIT {{limit:UInt32}}"
)

_ODD = {
    table: [at for at, column in enumerate(columns) if column in ("score", "codes")]
    for table, columns in typed.COLUMNS.items()
}


class Comparison:
    """Compares what the entries of one origin make with what is there.

    Args:
        cursor: the projector says that entries below this were projected; None: all must have been.
        coverage: is told of each extraction entry; None: only the beginning can tell, and is not looked at.
    """

    def __init__(
        self, database: Database, origin: str, findings: Findings, *, cursor: int | None, coverage: Coverage | None
    ) -> None:
        self._database = database
        self._origin = origin
        self._findings = findings
        self._cursor = cursor
        self._coverage = coverage
        self._missing = 0
        self._missing_from: int | None = None
        self._compared = 0

    def run(self, end: int, low: int = 0) -> None:
        """Compare the rows of entries [low, end)."""
        findings = self._findings
        findings.checked("projections")
        while low < end:
            parameters = {"origin": self._origin, "low": low, "high": end, "limit": ENTRIES_MAX}
            found = self._database.rows(blocks("audit.sql")["deriving"], parameters, caps=SWEEP)
            high = end if len(found) < ENTRIES_MAX else found[-1][0] + 1
            derived = Derived()
            for seq, entry, leaf, ts_ns in found:
                if derived.decisions >= ROWS_MAX:
                    high = seq
                    break
                self._derive(Stored(self._origin, seq, {}, leaf), entry, ts_ns, derived)
            for table in typed.TABLES:
                where = {"origin": self._origin, "low": low, "high": high}
                self._compare(table, where, derived.rows.get(table, ()))
            low = high
        if self._missing:
            detail = f"{self._missing} typed rows are not there; the projector says that it has not made them yet"
            findings.unknown("projections", self._missing_from, detail)
        findings.checked("projections", f"{self._compared} rows compared")

    def _derive(self, stored: Stored, entry: bytes, ts_ns: int, derived: Derived) -> None:
        findings, before = self._findings, derived.missing
        try:
            whole = replace(stored, said=orjson.loads(entry))
            if whole.said["kind"] == "extraction" and self._coverage is not None:
                findings.checked("extraction")
                self._coverage.take(whole, ts_ns, findings)
            derived.add(self._database, whole)
        except (*MALFORMED, QueryError):
            findings.broken("projections", stored.seq, "no typed row can be made of the entry")
        if derived.missing > before:
            self._note_missing(stored.seq, derived.missing - before, "decisions that it covers are not there")

    def _compare(self, table: str, where: Mapping[str, object], expected: Sequence[Row]) -> None:
        columns = ", ".join(f"`{column}`" for column in typed.COLUMNS[table])
        sql = _ROWS.format(columns=columns, table=table, prefix=_prefix(table))
        limit = len(expected) + ROWS_MORE_MAX
        found = self._database.rows(sql, {**where, "limit": limit}, caps=SWEEP)
        wanted, there = (Counter([_plain(table, row) for row in rows]) for rows in (expected, found))
        self._compared += len(found)
        for row in there - wanted:
            self._name(table, row, f"a row of {table} that no entry makes, or makes otherwise")
        if len(found) >= limit:
            low = where["low"]
            assert isinstance(low, int)
            self._findings.broken("projections", low, f"rows of {table} are there many times, too many to compare")
            return
        for row in wanted - there:
            said = dict(zip(typed.COLUMNS[table], row, strict=True))
            seq = int(said[f"{_prefix(table)}seq"])
            if self._cursor is not None and seq >= self._cursor:
                self._note_missing(seq, 1, "")
            else:
                self._name(table, row, f"its row in {table} is missing or changed")

    def _note_missing(self, seq: int, count: int, detail: str) -> None:
        """Rows that are not there: a finding, unless the projector has not come so far."""
        if self._cursor is not None and seq >= self._cursor:
            self._missing += count
            self._missing_from = seq if self._missing_from is None else self._missing_from
        else:
            self._findings.broken("projections", seq, f"{count} {detail}")

    def _name(self, table: str, row: tuple[Any, ...], detail: str) -> None:
        said = dict(zip(typed.COLUMNS[table], row, strict=True))
        self._findings.broken("projections", int(said["seq"]), detail, origin=str(said["origin"]))


def compare_sources(database: Database, stored: Mapping[str, int], findings: Callable[[str], Findings]) -> None:
    """Rows that name an entry which is not there at all; `stored`: origin → one past its highest entry."""
    sources = [
        (table, *row)
        for table in typed.TABLES
        for row in database.rows(_SOURCES.format(prefix=_prefix(table), table=table), caps=SWEEP)
    ]
    for table, source, last in sources:
        end = stored.get(source, 0)
        if last >= end:  # shipped and projected since the beginning, perhaps
            ((count, newest),) = database.rows(blocks("audit.sql")["stored"], {"origin": source}, caps=SWEEP)
            end = newest + 1 if count else 0
        if last >= end:
            findings(source).broken("projections", last, f"a row of {table} that no entry makes")


def _plain(table: str, row: Sequence[object]) -> tuple[Any, ...]:
    """Comparable and hashable: NaN equals NaN, arrays and what has no place in a row are text."""
    values = list(row)
    for at in _ODD[table]:
        values[at] = repr(values[at])
    plain = tuple(values)
    try:
        hash(plain)
    except TypeError:
        return tuple([repr(value) if isinstance(value, list | dict) else value for value in values])
    return plain


def _prefix(table: str) -> str:
    """The columns that name the entry which a row came by."""
    return "extraction_" if table == "decisions" else ""
