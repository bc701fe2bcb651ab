"""The questions that the desk, the commands and the audit put to ClickHouse; the statements are in queries.sql.

Times are Unix nanoseconds; a `Span` bounds them. What an entry does not say comes back as None. Every call may raise
`StorageUnavailable` (try again later) or `QueryError` (a cap was met: narrow the question).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar
from uuid import UUID

from storage.clickhouse import PAGE, Caps, Database
from storage.errors import QueryError
from storage.freight import NO_DECISION
from storage.ids import is_uuid7, uuid7_ms
from storage.rows import (
    AccessRow,
    CheckpointRow,
    DecisionRow,
    EntryRow,
    ExplanationRow,
    KeyRow,
    LifecycleRow,
    PartRow,
)

__all__ = [
    "EVER",
    "PAGE_ROWS_MAX",
    "AccessRow",
    "CheckpointRow",
    "DecisionRow",
    "EntryRow",
    "ExplanationRow",
    "Filter",
    "KeyRow",
    "LifecycleRow",
    "Page",
    "PartRow",
    "Span",
    "accesses",
    "blocks",
    "checkpoint_covering",
    "counts_by_kind",
    "counts_by_state",
    "decision",
    "decisions_of",
    "entries_about_decision",
    "entries_about_decisions",
    "entry",
    "entry_of_decision",
    "explanations",
    "latest_entries",
    "lifecycle",
    "origins",
    "page",
    "parts",
    "segment_header",
    "shipped",
    "statements",
    "wrapped_keys",
]

PAGE_ROWS_MAX: Final = 500
ROUNDS_MAX: Final = 4  # of reading candidates for one page, each of at most 501 rows
CONTENT: Final = Caps(rows_max=20_000, memory_bytes_max=512 << 20, time_s_max=30)  # sealed parts of one entry
STATEMENTS_MAX: Final = 100_000  # about 1 KiB each
_DAY_NS: Final = 86_400_000_000_000
# An entry is written after its id was chosen, at the latest when its stream ends; clocks may have jumped between.
_BEFORE_NS, _AFTER_NS = _DAY_NS, 7 * _DAY_NS
_TOP_ID = UUID(int=(1 << 128) - 1)
_TIME_NS_MAX = (1 << 63) - 1  # 2262-04-11, the end of what DateTime64(9) can hold
_LAST_NS = 2**63 - 1 - _DAY_NS

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Span:
    """From `low` up to, but without, `high`; Unix nanoseconds."""

    low: int
    high: int


EVER: Final = Span(0, _LAST_NS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which decisions; what is empty or None restricts nothing. `state`: ready, failed, or none (not explained)."""

    tenant: str
    span: Span
    routes: Sequence[str] = ()
    labels: Sequence[str] = ()
    cases: Sequence[str] = ()
    subjects: Sequence[str] = ()
    corrects: str | None = None
    call: str | None = None  # rows of this call
    ids: Sequence[str] = ()
    tail: str | None = None  # how the id ends; found by reading every id in the span
    model_version: str | None = None
    reason: str | None = None
    favourable: bool | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Decisions, newest first, and the cursor of the next page; None: there is none.

    There may be fewer than were asked for, even none, and yet a cursor: most of what was looked at is superseded.
    """

    rows: tuple[DecisionRow, ...]
    cursor: str | None


def decision(database: Database, identifier: str) -> DecisionRow | None:
    """One decision; None: unknown, or not projected yet (see `entry_of_decision`)."""
    found = _ask(database, "decision", {"decision": identifier, **_around(identifier)})
    if not found:
        return None
    ((row, _),) = _explained(database, [_made(DecisionRow, found[0])])
    return row


def page(database: Database, wanted: Filter, *, limit: int, cursor: str | None = None) -> Page:
    """Decisions whose newest row fits, newest first, at most `limit` (and 500).

    Rows that fit are found by their indexes and only then reduced to those that are the newest of their decision, so
    that a page costs what it shows and not what the span holds; `ROUNDS_MAX` bounds what superseded rows may cost.

    Raises:
        QueryError: the cursor is none of ours (status 400).
    """
    limit = max(1, min(limit, PAGE_ROWS_MAX))
    after_ts, after = (_LAST_NS, str(_TOP_ID)) if cursor is None else _parse_cursor(cursor)
    parameters: dict[str, object] = {
        "tenant": wanted.tenant,
        "low": wanted.span.low,
        "high": wanted.span.high,
        "routes": list(wanted.routes),
        "labels": list(wanted.labels),
        "cases": list(wanted.cases),
        "subjects": list(wanted.subjects),
        "corrects": wanted.corrects or "",
        "call": wanted.call or str(NO_DECISION),
        "ids": list(wanted.ids),
        "tail": wanted.tail or "",
        "model_version": wanted.model_version or "",
        "reason": wanted.reason or "",
        "favourable": -1 if wanted.favourable is None else int(wanted.favourable),
        "state": wanted.state or "",
        "after_ts": after_ts,
        "after": after,
        "limit": limit + 1,
    }
    asked = limit + 1
    rows: list[DecisionRow] = []
    last: DecisionRow | None = None  # of those looked at
    for _ in range(ROUNDS_MAX):
        found = [_made(DecisionRow, row) for row in _ask(database, "page", parameters)]
        rows += _fitting(database, wanted, found)
        if len(found) < asked:
            last = None
            break
        last = found[-1]
        if len(rows) > limit:
            break
        asked = PAGE_ROWS_MAX + 1
        parameters |= {"after_ts": last.ts_ns, "after": last.id, "limit": asked}
    shown = rows[:limit]
    if len(rows) > limit:
        last = shown[-1]
    return Page(tuple(shown), None if last is None else _cursor(last))


def explanations(database: Database, identifier: str, *, limit: int = 50) -> list[ExplanationRow]:
    """The explanations of a decision, newest first."""
    parameters = {"decision": identifier, "low": _around(identifier)["low"], "limit": limit}
    return [_made(ExplanationRow, row) for row in _ask(database, "explanations", parameters)]


def accesses(
    database: Database,
    tenant: str,
    span: Span,
    *,
    decision: str | None = None,
    cases: Sequence[str] = (),
    subjects: Sequence[str] = (),
    actor: str | None = None,
    limit: int = 200,
) -> list[AccessRow]:
    """Who looked, newest first."""
    parameters = {
        "tenant": tenant,
        "low": span.low,
        "high": span.high,
        "decision": decision or str(NO_DECISION),
        "cases": list(cases),
        "subjects": list(subjects),
        "actor": actor or "",
        "limit": limit,
    }
    return [_made(AccessRow, row) for row in _ask(database, "accesses", parameters)]


def lifecycle(
    database: Database, span: Span = EVER, *, event: str | None = None, limit: int = 200
) -> list[LifecycleRow]:
    """What was activated, registered or changed, newest first."""
    parameters = {"low": span.low, "high": span.high, "event": event or "", "limit": limit}
    return [_made(LifecycleRow, row) for row in _ask(database, "lifecycle", parameters)]


def entry(database: Database, origin: str, seq: int) -> EntryRow | None:
    """The entry at this place."""
    found = _ask(database, "entry", {"origin": origin, "seq": seq})
    return _made(EntryRow, found[0]) if found else None


def entry_of_decision(database: Database, identifier: str) -> EntryRow | None:
    """The closing entry (decision or call) with this Decision-Id, as soon as it is shipped."""
    found = _ask(database, "entry_of_decision", {"decision": identifier, **_around(identifier)})
    return _made(EntryRow, found[0]) if found else None


def entries_about_decision(database: Database, identifier: str, *, limit: int = 500) -> list[EntryRow]:
    """Every entry that names this decision, oldest first: begin, decision, explanations, accesses."""
    parameters = {"decision": identifier, "low": _around(identifier)["low"], "limit": limit}
    return [_made(EntryRow, row) for row in _ask(database, "entries_about_decision", parameters)]


def entries_about_decisions(database: Database, identifiers: Sequence[str]) -> list[EntryRow]:
    """The same of several decisions at once, by origin and number.

    Raises:
        QueryError: they are more than a page of content may be; ask for fewer.
    """
    if not identifiers:
        return []
    low = min(_around(identifier)["low"] for identifier in identifiers)
    parameters = {"decisions": list(identifiers), "low": low, "limit": CONTENT.rows_max}
    found = _ask(database, "entries_about_decisions", parameters, caps=CONTENT)
    if len(found) >= CONTENT.rows_max:
        raise QueryError(f"{len(found)} entries about {len(identifiers)} decisions", advice="Ask for fewer decisions.")
    return [_made(EntryRow, row) for row in found]


def latest_entries(
    database: Database, tenant: str, kinds: Sequence[str], span: Span, *, routes: Sequence[str] = (), limit: int = 50
) -> list[EntryRow]:
    """Entries of these kinds, newest first."""
    parameters = {
        "tenant": tenant,
        "kinds": list(kinds),
        "routes": list(routes),
        "low": span.low,
        "high": span.high,
        "limit": limit,
    }
    return [_made(EntryRow, row) for row in _ask(database, "latest_entries", parameters)]


def statements(database: Database, tenant: str, kinds: Sequence[str]) -> list[EntryRow]:
    """Every entry of these kinds, oldest first, read page by page; meant for kinds that people write by hand.

    Raises:
        QueryError: there are more than `STATEMENTS_MAX`.
    """
    found: list[EntryRow] = []
    while len(found) <= STATEMENTS_MAX:
        after = {"ts": -1, "origin": "", "seq": 0}
        if found:
            after = {"ts": found[-1].ts_ns, "origin": found[-1].origin, "seq": found[-1].seq}
        rows = _ask(database, "statements", {"tenant": tenant, "kinds": list(kinds), "limit": PAGE.rows_max, **after})
        found += (_made(EntryRow, row) for row in rows)
        if len(rows) < PAGE.rows_max:
            return found
    raise QueryError(f"more than {STATEMENTS_MAX:,} entries of {', '.join(kinds)} for one tenant")


def shipped(database: Database, origin: str) -> int:
    """The number that follows the highest sequence number of `origin` in the database; 0 where there is none."""
    return int(_ask(database, "shipped", {"origin": origin})[0][0])


def parts(database: Database, origin: str, seq: int, keys: Sequence[str]) -> list[PartRow]:
    """The stored chunks sealed under `keys`, for the entry at (origin, seq); by key, index and chunk."""
    if not keys:
        return []
    parameters = {"origin": origin, "seq": seq, "keys": list(keys), "limit": CONTENT.rows_max}
    return [PartRow(*row) for row in _ask(database, "parts", parameters, caps=CONTENT)]


def wrapped_keys(database: Database, origin: str, seq: int, keys: Sequence[str]) -> list[KeyRow]:
    """The wrapped keys of the entry at (origin, seq); one that was erased is not among them."""
    if not keys:
        return []
    parameters = {"origin": origin, "seq": seq, "keys": list(keys), "limit": len(keys) * 2}
    return [KeyRow(*row) for row in _ask(database, "keys", parameters)]


def segment_header(database: Database, origin: str, first_seq: int) -> bytes | None:
    """The header (4,096 bytes) of a journal segment: it opens the keys that name the segment."""
    found = _ask(database, "segment_header", {"origin": origin, "first_seq": first_seq})
    return found[0][0] if found else None


def checkpoint_covering(database: Database, origin: str, seq: int) -> CheckpointRow | None:
    """The newest published checkpoint whose tree holds the entry; None: there is none yet."""
    found = _ask(database, "checkpoint_covering", {"origin": origin, "seq": seq})
    return CheckpointRow(*found[0]) if found else None


def origins(database: Database) -> dict[str, tuple[int, int, int]]:
    """Origin → (entries, lowest sequence number, one past the highest)."""
    return {origin: (count, low, end) for origin, count, low, end in _ask(database, "origins", {})}


def decisions_of(database: Database, tenant: str, route: str, span: Span) -> int:
    """How many decisions of a route lie in a period."""
    parameters = {"tenant": tenant, "route": route, "low": span.low, "high": span.high}
    return int(_ask(database, "decisions_of", parameters)[0][0])


def counts_by_kind(database: Database, span: Span = EVER) -> dict[str, int]:
    """Kind → entries."""
    return dict(_ask(database, "counts_by_kind", {"low": span.low, "high": span.high}))


def counts_by_state(database: Database, span: Span = EVER) -> dict[str, int]:
    """State of an explanation → decisions that have one in it."""
    return dict(_ask(database, "counts_by_state", {"low": span.low, "high": span.high}))


@cache
def blocks(file: str) -> Mapping[str, str]:
    """The blocks of one of this package's SQL files, by name."""
    text = (resources.files("storage") / file).read_text(encoding="utf-8")
    pieces = re.split(r"^-- name: ([a-z_]+)\n", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], (piece.strip() for piece in pieces[2::2]), strict=True))


def _ask(
    database: Database, name: str, parameters: Mapping[str, object], *, caps: Caps = PAGE
) -> list[tuple[Any, ...]]:
    return database.rows(blocks("queries.sql")[name], parameters, caps=caps)


def _fitting(database: Database, wanted: Filter, rows: Sequence[DecisionRow]) -> list[DecisionRow]:
    """Those of the candidates that are the newest row of their decision, and whose newest explanation fits."""
    if not rows:
        return []
    times = [row.ts_ns for row in rows]
    where = {"decisions": [row.id for row in rows], "tenant": wanted.tenant, "low": min(times), "high": max(times)}
    newest = {str(decision): place for decision, place in _ask(database, "newest", where)}
    current = [row for row in rows if newest.get(row.id) == (_epoch(row.extraction_origin), row.extraction_seq)]
    return [
        row
        for row, codes in _explained(database, current)
        if (wanted.reason is None or wanted.reason in codes)
        and (wanted.state not in ("ready", "failed") or row.explanation == wanted.state)
    ]


def _epoch(origin: str) -> int:
    last = origin.rpartition("/")[2]
    return int(last) if last.isdecimal() else 0


def _explained(database: Database, rows: Sequence[DecisionRow]) -> list[tuple[DecisionRow, Sequence[str]]]:
    """The rows with state and verdict of their newest explanation, and its reason codes."""
    if not rows:
        return []
    low = min(row.ts_ns for row in rows) - _BEFORE_NS
    found = _ask(database, "explanation_states", {"decisions": [row.id for row in rows], "low": max(0, low)})
    states = {str(decision): (state, verdict or None, codes) for decision, state, verdict, codes in found}
    made = []
    for row in rows:
        state, verdict, codes = states.get(row.id, (None, None, ()))
        made.append((replace(row, explanation=state, verdict=verdict), codes))
    return made


def _made(kind: type[Row], row: Sequence[Any]) -> Row:
    """A row as its dataclass: UUIDs as text, empty text as None, arrays as tuples."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every Row is a dataclass
    return kind(**{name: _plain(name, value) for name, value in zip(names, row, strict=False)})


def _plain(name: str, value: object) -> object:
    if isinstance(value, UUID):
        return None if value == NO_DECISION else str(value)
    if isinstance(value, list):
        return tuple(value)
    if name == "favourable":
        return None if value is None else bool(value)
    return None if value == "" else value


def _around(identifier: str) -> dict[str, int]:
    """The times at which the entry with this id can have been written.

    Raises:
        QueryError: not one of our ids (status 404: nothing can be there).
    """
    if not is_uuid7(identifier):
        raise QueryError(f"no such decision: {identifier[:60]!r}", code="not_found", status=404, advice="Check the id.")
    ns = uuid7_ms(identifier) * 1_000_000
    return {"low": min(max(0, ns - _BEFORE_NS), _LAST_NS), "high": min(ns + _AFTER_NS, _TIME_NS_MAX)}


def _cursor(row: DecisionRow) -> str:
    return base64.urlsafe_b64encode(f"{row.ts_ns}:{row.id}".encode()).decode().rstrip("=")


def _parse_cursor(cursor: str) -> tuple[int, str]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        ts, _, identifier = raw.partition(":")
        return min(int(ts), _LAST_NS), str(UUID(identifier))
    except ValueError as error:
        raise QueryError(
            "the cursor is none that a page gave",
            code="cursor_invalid",
            status=400,
            advice="Start from the first page.",
        ) from error
