"""Typed rows: what entries say, as rows of the tables that people's questions are answered from (pure).

Every row names the entry that it was made from (origin, seq, leaf), and is a function of stored entries alone: the same
entries give the same rows, so the tables can be dropped and made again (projections.py), and checked (audit.py).
What an entry does not say is an empty string, a zero id, or null for `favourable`, `score` and `rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from storage.freight import NO_DECISION
from storage.ids import is_uuid7

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as it stands in the database: where, what it says, and its leaf hash."""

    origin: str
    seq: int
    said: Mapping[str, Any]
    leaf: bytes


_SOURCE = ("origin", "seq", "leaf")
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "decisions": (
        *("decision", "ts", "tenant", "route", "app", "case", "subject", "purpose", "corrects"),
        *("label", "favourable", "score", "extraction_error", "extractor"),
        *("model_name", "model_version", "model_digest", "model_source"),
        *("status", "error", "mode", "stream", "upstream_us", "total_us", "config", "retention"),
        *(*_SOURCE, "extraction_origin", "extraction_seq", "call", "row", "rows"),
    ),
    "explanations": (
        *("id", "decision", "ts", "tenant", "route", "key", "state", "error"),
        *("method", "verdict", "binding", "notice", "codes", "model_digest", *_SOURCE),
    ),
    "accesses": (
        *("id", "decision", "ts", "tenant", "route", "actor", "role", "action", "purpose", "ticket"),
        *("case", "subject", "outcome", "reason", "rows", "matter", *_SOURCE),
    ),
    "lifecycle": (*("id", "ts", "tenant", "route", "actor", "event", "object", "name", "version", "digest", *_SOURCE),),
}
TABLES: Final = tuple(COLUMNS)
TABLE_OF_KIND: Final = {"explanation": "explanations", "access": "accesses", "lifecycle": "lifecycle"}


def decision_row(decision: Stored, extraction: Stored, extracted: Mapping[str, Any]) -> Row:
    """The row of one decision: its entry, and the row that `extraction` holds for it."""
    said = decision.said
    model, timing, stream = said.get("model") or {}, said.get("timing") or {}, said.get("stream") or {}
    call = said.get("call") or {}
    return (
        UUID(said["id"]),
        int(said["ts"]),
        said["tenant"],
        said["route"] or "",
        _text(said, "app"),
        _text(said, "case") or _text(extracted, "case"),
        _text(said, "subject") or _text(extracted, "subject"),
        _text(said, "purpose"),
        _text(said, "corrects"),
        _text(extracted, "label"),
        extracted.get("favourable"),
        _number(extracted.get("score")),
        _text(extracted, "error"),
        _text(extraction.said, "extractor"),
        _text(model, "name"),
        _text(model, "version"),
        _text(model, "digest"),
        _text(model, "source"),
        _count(said.get("status")),
        _text(said, "error"),
        _text(said, "mode"),
        _text(stream, "state"),
        _count(timing.get("upstream_us")),
        _count(timing.get("total_us")),
        _text(said, "config"),
        _text(said, "retention"),
        decision.origin,
        decision.seq,
        decision.leaf,
        extraction.origin,
        extraction.seq,
        _call(said, call),
        _count(call.get("row")),
        None if call.get("rows", 1) is None else _count(call.get("rows", 1)),
    )


def explanation_row(entry: Stored) -> Row:
    """The row of one explanation, ready or failed."""
    said = entry.said
    return (
        UUID(said["id"]),
        _decision(said),
        int(said["ts"]),
        said["tenant"],
        said["route"] or "",
        *(_text(said, name) for name in ("key", "state", "error", "method", "verdict", "binding", "notice")),
        [str(code) for code in said.get("codes") or ()],
        _text(said, "model"),
        entry.origin,
        entry.seq,
        entry.leaf,
    )


def access_row(entry: Stored) -> Row:
    """The row of one look at records, or of an attempt that was refused."""
    said = entry.said
    return (
        UUID(said["id"]),
        _decision(said),
        int(said["ts"]),
        said["tenant"],
        said["route"] or "",
        said["actor"],
        *(
            _text(said, name)
            for name in ("role", "action", "purpose", "ticket", "case", "subject", "outcome", "reason")
        ),
        _count(said.get("rows")),
        _text(said, "matter"),
        entry.origin,
        entry.seq,
        entry.leaf,
    )


def lifecycle_row(entry: Stored) -> Row:
    """The row of one change: a configuration activated, a model registered."""
    said = entry.said
    return (
        UUID(said["id"]),
        int(said["ts"]),
        said["tenant"],
        said["route"] or "",
        said["actor"],
        *(_text(said, name) for name in ("event", "object", "name", "version", "digest")),
        entry.origin,
        entry.seq,
        entry.leaf,
    )


BUILDERS: Final[Mapping[str, Callable[[Stored], Row]]] = {
    "explanation": explanation_row,
    "access": access_row,
    "lifecycle": lifecycle_row,
}


def extracted_rows(extraction: Stored) -> list[dict[str, Any]]:
    """The rows of an extraction entry, by column name, in their order."""
    columns: Sequence[str] = extraction.said["cols"]
    return [dict(zip(columns, row, strict=True)) for row in extraction.said["rows"]]


def line_of(table: str, row: Row) -> str:
    """What `SQL_LINE` gives for the row in the database."""
    said = dict(zip(COLUMNS[table], row, strict=True))
    leaf = said["leaf"].hex().upper()  # type: ignore[attr-defined]  # the column holds bytes
    if table == "decisions":
        return f"{said['extraction_seq']} {said['decision']} {leaf}"
    return f"{said['seq']} {said['id']} {leaf}"


SQL_LINE: Final[Mapping[str, str]] = {
    table: "concat(toString(extraction_seq), ' ', toString(decision), ' ', hex(leaf))"
    if table == "decisions"
    else "concat(toString(seq), ' ', toString(id), ' ', hex(leaf))"
    for table in TABLES
}


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return "" if value is None else str(value)


def _decision(said: Mapping[str, Any]) -> UUID:
    return UUID(said["decision"]) if said.get("decision") else NO_DECISION


def _call(said: Mapping[str, Any], call: Mapping[str, Any]) -> UUID:
    """The call's id; that of the decision itself where its entry names none of ours."""
    named = call.get("request_id")
    return UUID(named if isinstance(named, str) and is_uuid7(named) else said["id"])


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _number(value: object) -> float | None:
    """A score; entries carry what JSON cannot as text ("NaN", "Infinity", integers above 2^53)."""
    return None if value is None or isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # numbers or such text
