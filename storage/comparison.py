"""Whether the typed tables say what the entries say: every row is made again and compared whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from storage import typed
from storage.clickhouse import SWEEP, Database
from storage.projections import ENTRIES_MAX, ROWS_MAX, Derived
from storage.queries import blocks
from storage.typed import Row, Stored
from storage.verify import Findings

_SOURCES = "SELECT {prefix}origin, max({prefix}seq) + 1 FROM {table} GROUP BY 1"
_ROWS = (
    "SELECT {columns} FROM {table} WHERE {prefix}origin = {{origin:String}}"
    " AND {prefix}seq >= {{low:UInt64}} AND {prefix}seq < {{high:UInt64}}"
)

_ODD = {
    table: [at for at, column in enumerate(columns) if column in ("score", "codes")]
    for table, columns in typed.COLUMNS.items()
}


def compare_projections(
    database: Database, origin: str, end: int, findings: Findings, stored: Mapping[str, int]
) -> None:
    """Compare the rows that entries [0, end) of `origin` make with those that are there.

    `stored` says, by origin, one past its highest entry in the database; a row of any other source was forged.
    """
    low = 0
    while low < end:
        parameters = {"origin": origin, "low": low, "high": end, "limit": ENTRIES_MAX}
        found = database.rows(blocks("audit.sql")["deriving"], parameters, caps=SWEEP)
        high = end if len(found) < ENTRIES_MAX else found[-1][0] + 1
        derived = Derived()
        for seq, entry, leaf in found:
            if derived.decisions >= ROWS_MAX:
                high = seq
                break
            _derive(database, Stored(origin, seq, {}, leaf), entry, derived, findings)
        for table in typed.TABLES:
            where = {"origin": origin, "low": low, "high": high}
            _compare(database, table, where, derived.rows.get(table, ()), findings)
        low = high
    for table in typed.TABLES:
        for source, last in database.rows(_SOURCES.format(prefix=_prefix(table), table=table), caps=SWEEP):
            if source == origin and last > stored[origin]:
                findings.broken("projections", last - 1, f"a row of {table} that no entry makes")
            if source not in stored and origin == min(stored):
                findings.broken("projections", last - 1, f"a row of {table} that no entry makes", origin=source)


def _derive(database: Database, stored: Stored, entry: bytes, derived: Derived, findings: Findings) -> None:
    findings.checked("projections")
    try:
        derived.add(database, replace(stored, said=orjson.loads(entry)))
    except (ValueError, KeyError, TypeError):
        findings.broken("projections", stored.seq, "no typed row can be made of the entry")


def _compare(
    database: Database, table: str, where: Mapping[str, object], expected: Sequence[Row], findings: Findings
) -> None:
    columns = ", ".join(f"`{column}`" for column in typed.COLUMNS[table])
    sql = _ROWS.format(columns=columns, table=table, prefix=_prefix(table))
    found = database.rows(sql, where, caps=SWEEP)
    wanted, there = Counter(_plain(table, row) for row in expected), Counter(_plain(table, row) for row in found)
    for row in wanted - there:
        _name(table, row, f"its row in {table} is missing or changed", findings)
    for row in there - wanted:
        _name(table, row, f"a row of {table} that no entry makes, or makes otherwise", findings)


def _name(table: str, row: tuple[Any, ...], detail: str, findings: Findings) -> None:
    said = dict(zip(typed.COLUMNS[table], row, strict=True))
    findings.broken("projections", int(said["seq"]), detail, origin=str(said["origin"]))


def _plain(table: str, row: Sequence[object]) -> tuple[Any, ...]:
    """Comparable and hashable: NaN equals NaN, arrays are tuples."""
    plain = list(row)
    for at in _ODD[table]:
        value = plain[at]
        plain[at] = tuple(value) if isinstance(value, list) else repr(value)
    return tuple(plain)


def _prefix(table: str) -> str:
    """The columns that name the entry which a row came by."""
    return "extraction_" if table == "decisions" else ""
