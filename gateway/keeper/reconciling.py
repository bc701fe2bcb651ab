"""Reconciliation: the business' own list of cases, held against the decisions on record. Blocking.

A ledger is complete for what reached the gateway. Whoever examines it starts from the other side: the loan book. So the
list is read row by row, each case is looked for under every pseudonym that it may have, and then each decision's case
is looked for in the list. References are hashed here and written nowhere but into the report of whoever asked.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from config.errors import AnswerableError
from storage import queries
from storage.bundles import spreadsheet_cell
from storage.clickhouse import Database
from storage.queries import DecisionRow, Filter, Span

ROWS_MAX: Final = 2_000_000  # of a list: 32 bytes of memory each
CASES_AT_ONCE: Final = 200
CELL_CHARS_MAX: Final = 200
SHOWN_MAX: Final = 20  # of each sort, in the result; all of them in the report's file
FIELDS: Final = ("finding", "line", "case", "disposition", "decision", "time", "route", "label")
MISSING, EXTRA, UNNAMED = "case_without_decision", "decision_without_case", "decision_names_no_case"
CONTRADICTED, UNTOLD, TWICE = "label_contradicts_disposition", "cannot_be_compared", "case_listed_twice"
DIFFERENCES: Final = (MISSING, EXTRA, CONTRADICTED)
FINDINGS: Final = (*DIFFERENCES, UNNAMED, UNTOLD, TWICE)

Tell = Callable[[Mapping[str, Any]], None]


class ListError(AnswerableError):
    """The list cannot be read as one."""

    code = "list_invalid"
    status = 400
    advice = "Give a CSV file in UTF-8 with a header, and name its columns as they are spelled there."


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The list, and what its columns mean; without `disposition` answers are not compared."""

    path: Path
    case: str
    disposition: str | None = None
    favourable: frozenset[str] = frozenset()
    adverse: frozenset[str] = frozenset()
    delimiter: str = ","


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of the list."""

    line: int
    case: str
    disposition: str | None


@dataclass(slots=True)
class Reconciled:
    """What was found; `report` is CSV, with the list's own references."""

    listed: int = 0
    decisions: int = 0
    matched: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINDINGS, 0))
    shown: dict[str, list[dict[str, str]]] = field(default_factory=lambda: {name: [] for name in FINDINGS})
    sha256: str = ""
    ledgers: dict[str, int] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not any(self.counts[name] for name in DIFFERENCES)

    def as_json(self) -> dict[str, Any]:
        """For commands."""
        return {
            "listed": self.listed,
            "decisions": self.decisions,
            "matched": self.matched,
            "counts": self.counts,
            "shown": {name: found for name, found in self.shown.items() if found},
            "list_sha256": self.sha256,
            "ledgers": self.ledgers,
        }


class Reconciliation:
    """One run over one tenant's decisions of some routes in a span."""

    def __init__(
        self,
        database: Database,
        *,
        tenant: str,
        pseudonyms: Callable[[str], Sequence[str]],
        span: Span,
        routes: Sequence[str] = (),
    ) -> None:
        """`pseudonyms` gives all that a case may have, newest first."""
        self._database = database
        self._tenant = tenant
        self._pseudonyms = pseudonyms
        self._span = span
        self._routes = routes
        self._seen: set[bytes] = set()
        self.found = Reconciled()

    def run(self, books: Books, report: TextIO | None, tell: Tell) -> Reconciled:
        """Compare both ways; findings go to `report` as they are made.

        Raises:
            ListError: the list is none; names file, line and column.
            StorageUnavailable, QueryError: the database does not answer, or will not.
        """
        out = None if report is None else csv.DictWriter(report, FIELDS, lineterminator="\r\n")
        if out is not None:
            out.writeheader()
        self.found.ledgers = {origin: end for origin, (_, _, end) in queries.origins(self._database).items()}
        waiting: list[Listed] = []
        for row in self._listed(books):
            waiting.append(row)
            if len(waiting) >= CASES_AT_ONCE:
                self._compare(waiting, books, out)
                waiting = []
                tell({"listed": self.found.listed})
        self._compare(waiting, books, out)
        for decision in self._decisions():
            self.found.decisions += 1
            if decision.case is None:
                self._say(out, UNNAMED, None, decision)
            elif _short(decision.case) not in self._seen:
                self._say(out, EXTRA, None, decision)
            if self.found.decisions % queries.PAGE_ROWS_MAX == 0:
                tell({"listed": self.found.listed, "decisions": self.found.decisions})
        return self.found

    # --- the list -------------------------------------------------------------------------------------------------

    def _listed(self, books: Books) -> Iterator[Listed]:
        digest = hashlib.sha256()
        try:
            with books.path.open("rb") as raw:
                text = io.TextIOWrapper(io.BufferedReader(_Hashed(raw, digest)), encoding="utf-8-sig", newline="")
                yield from self._rows(csv.reader(text, delimiter=books.delimiter, strict=True), books)
        except OSError as error:
            raise ListError(f"{books.path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ListError(f"{books.path}: not UTF-8 after row {self.found.listed + 1}") from error
        except csv.Error as error:
            raise ListError(f"{books.path}, after row {self.found.listed + 1}: {error}") from error
        self.found.sha256 = digest.hexdigest()

    def _rows(self, reader: Any, books: Books) -> Iterator[Listed]:
        header = next(reader, None)
        if header is None:
            raise ListError(f"{books.path}: empty")
        at = _column(header, books.case, books.path)
        other = None if books.disposition is None else _column(header, books.disposition, books.path)
        for cells in reader:
            if not any(cells):
                continue
            line = reader.line_num
            if len(cells) != len(header):
                raise ListError(f"{books.path}, line {line}: {len(cells)} cells under {len(header)} columns")
            case = cells[at].strip()
            if not 0 < len(case) <= CELL_CHARS_MAX:
                raise ListError(
                    f"{books.path}, line {line}, column {books.case}: expected 1 to {CELL_CHARS_MAX} characters"
                )
            self.found.listed += 1
            if self.found.listed > ROWS_MAX:
                raise ListError(f"{books.path}: more than {ROWS_MAX} rows; split it")
            yield Listed(line, case, None if other is None else cells[other].strip())

    def _compare(self, rows: Sequence[Listed], books: Books, out: Any) -> None:
        """Look for the decisions of these cases: of several the newest counts, and says what the others came to."""
        by_pseudonym: dict[str, Listed] = {}
        fresh: list[Listed] = []
        for row in rows:
            pseudonyms = self._pseudonyms(row.case)
            if any(_short(each) in self._seen for each in pseudonyms):
                self._say(out, TWICE, row, None)
                continue
            fresh.append(row)
            self._seen.update(_short(each) for each in pseudonyms)
            by_pseudonym.update(dict.fromkeys(pseudonyms, row))
        if not fresh:  # a filter that names no case would mean every one
            return
        newest: dict[int, DecisionRow] = {}
        for decision in self._decisions(cases=tuple(by_pseudonym)):
            row = by_pseudonym[decision.case or ""]
            newest.setdefault(row.line, decision)  # newest first
        for row in fresh:
            decided = newest.get(row.line)
            if decided is None:
                self._say(out, MISSING, row, None)
                continue
            self.found.matched += 1
            if books.disposition is None:
                continue
            told = _direction(row.disposition, books)
            if told is None or decided.favourable is None:
                self._say(out, UNTOLD, row, decided)
            elif told != decided.favourable:
                self._say(out, CONTRADICTED, row, decided)

    def _decisions(self, *, cases: Sequence[str] = ()) -> Iterator[DecisionRow]:
        wanted = Filter(tenant=self._tenant, span=self._span, routes=self._routes, cases=cases)
        cursor: str | None = None
        while True:
            page = queries.page(self._database, wanted, limit=queries.PAGE_ROWS_MAX, cursor=cursor)
            yield from page.rows
            cursor = page.cursor
            if cursor is None:
                return

    def _say(self, out: Any, finding: str, row: Listed | None, decision: DecisionRow | None) -> None:
        said = {"finding": finding, "line": "", "case": "", "disposition": "", "decision": "", "time": ""}
        said |= {"route": "", "label": ""}
        if row is not None:
            said |= {"line": str(row.line), "case": row.case, "disposition": row.disposition or ""}
        if decision is not None:
            said |= {"decision": decision.id, "time": str(decision.ts_ns), "route": decision.route or ""}
            said["label"] = decision.label or ""
        self.found.counts[finding] += 1
        if len(self.found.shown[finding]) < SHOWN_MAX:
            self.found.shown[finding].append({name: value for name, value in said.items() if value})
        if out is not None:
            out.writerow({name: spreadsheet_cell(value) for name, value in said.items()})


class _Hashed(io.RawIOBase):
    """Reads on, and takes the digest of what was read."""

    def __init__(self, raw: Any, digest: Any) -> None:
        self._raw, self._digest = raw, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)


def _column(header: Sequence[str], name: str, path: Path) -> int:
    places = [at for at, cell in enumerate(header) if cell.strip() == name]
    if len(places) != 1:
        found = ", ".join(cell.strip()[:40] for cell in header[:20])
        how = "no column" if not places else "more than one column"
        raise ListError(f"{path}: {how} is called {name}; there are {found}")
    return places[0]


def _direction(disposition: str | None, books: Books) -> bool | None:
    if disposition in books.favourable:
        return True
    return False if disposition in books.adverse else None


def _short(pseudonym: str) -> bytes:
    """Sixteen bytes in the place of sixty characters; by chance two are the same once in 2^64."""
    return hashlib.sha256(pseudonym.encode()).digest()[:16]
