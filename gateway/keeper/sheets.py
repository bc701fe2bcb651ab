"""Extraction entries in the making: rows of decisions, gathered until an entry is full or old enough.

One *sheet* gathers the rows of one scope (source origin, tenant, route, extractor); each becomes one entry
``{extractor, cols, rows, source: {origin, first, last}}``. Rows come in the order of their sequence numbers.

Pure: no clock, no file, no network; times are handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

COLUMNS = ("decision", "leaf", "label", "favourable", "score", "case", "subject", "error")
ROWS_MAX = 256
ROWS_BYTES_MAX = 60_000  # leaves room for the other fields below the 65,535 bytes of an entry
SHEETS_MAX = 1_024  # open sheets; beyond, all are closed at once: smaller entries, not more memory
ERROR_BYTES_MAX = 200

Row = tuple[str, str, str | None, int | None, float | None, str | None, str | None, str | None]


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """What the rows of one extraction entry have in common."""

    origin: str
    tenant: str
    route: str
    extractor: str


@dataclass(slots=True)
class Sheet:
    """The rows of one scope that wait to become an entry."""

    scope: Scope
    first: int
    last: int
    since_ns: int  # when the first row came
    rows: list[Row] = field(default_factory=list)
    size_bytes: int = 0

    def fields(self) -> dict[str, Any]:
        """The entry's own fields."""
        source = {"origin": self.scope.origin, "first": self.first, "last": self.last}
        return {"extractor": self.scope.extractor, "cols": list(COLUMNS), "rows": self.rows, "source": source}


class Sheets:
    """All open sheets; bounded by `SHEETS_MAX` sheets of at most `ROWS_BYTES_MAX` bytes."""

    def __init__(self) -> None:
        self._open: dict[Scope, Sheet] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, scope: Scope, seq: int, row: Row, now_ns: int) -> list[Sheet]:
        """Put one row on its scope's sheet; returns the sheets that are full thereby, to be written in this order."""
        size_bytes = len(orjson.dumps(row)) + 1
        full: list[Sheet] = []
        sheet = self._open.get(scope)
        if sheet is not None and sheet.size_bytes + size_bytes > ROWS_BYTES_MAX:
            full.append(self._open.pop(scope))
            sheet = None
        if sheet is None:
            if len(self._open) >= SHEETS_MAX:
                full.extend(self.take_all())
            sheet = self._open[scope] = Sheet(scope, first=seq, last=seq, since_ns=now_ns)
        sheet.rows.append(row)
        sheet.last = seq
        sheet.size_bytes += size_bytes
        if len(sheet.rows) >= ROWS_MAX:
            full.append(self._open.pop(scope))
        return full

    def take_due(self, before_ns: int) -> list[Sheet]:
        """The sheets whose first row came before `before_ns`, closed."""
        return [self._open.pop(scope) for scope, sheet in list(self._open.items()) if sheet.since_ns < before_ns]

    def take_all(self) -> list[Sheet]:
        """Every open sheet, closed."""
        taken = list(self._open.values())
        self._open.clear()
        return taken

    def first_open(self) -> Iterator[tuple[str, int]]:
        """Origin and lowest sequence number of each open sheet."""
        for sheet in self._open.values():
            yield sheet.scope.origin, sheet.first


def clipped(text: str, bytes_max: int) -> str:
    """`text` cut to at most `bytes_max` bytes of UTF-8, between characters."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= bytes_max else raw[:bytes_max].decode("utf-8", "ignore")
