"""What the rows of a call mean: label, favourable, score, case, subject, features. Pure.

A value that cannot be had is absent and its fault recorded as ``<where>: <what>``, in stable words that hold nothing
of the call. Where several replies, tool calls or matches say different things, none of them is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import orjson
from pydantic import BaseModel

from config.extract import AnswerReading, FeaturesReading, MatchedText, RequestReading
from config.route import Route
from storage.protocols.exchange import Row, Side
from storage.protocols.faults import REQUEST, Fault, Unreadable
from storage.protocols.reading import adapter_for, read
from storage.protocols.readings import check_path, number_in, value_of

VERSION: Final = 2
ROWS_MAX: Final = 1_000  # of one call, where nothing else is said
LABEL_BYTES_MAX: Final = 64  # of a label in an extraction entry
REFERENCE_CHARS_MAX: Final = 512  # of a case or subject: an identifier, not a document
FEATURE_INTEGER_MAX: Final = 2**63 - 1  # what JSON carries between the processes
_ASKED: Final = ("case", "subject", "features")
_ANSWERED: Final = ("label", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What one row says; case and subject are raw and become pseudonyms before they are stored."""

    label: str | None = None
    favourable: int | None = None  # 1, 0, or None where the label is neither
    score: float | None = None
    case: str | None = None
    subject: str | None = None
    features: dict[str, Any] | None = None
    model: str | None = None  # the version that the answer itself names
    error: str | None = None  # the first of what went wrong, as ``<where>: <what>``


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSpec:
    """What a route declares under ``extract``, with the protocol and the limits that decide what can be read."""

    protocol: str = "generic"
    batch: bool = False
    label: AnswerReading | None = None
    favourable: tuple[str, ...] = ()
    adverse: tuple[str, ...] = ()
    score: AnswerReading | None = None
    case: RequestReading | None = None
    subject: RequestReading | None = None
    features: FeaturesReading | None = None
    parse_bytes_max: int = 1024 * 1024
    rows_max: int = ROWS_MAX  # told apart where `batch`

    @property
    def digest(self) -> str:
        """Hex SHA-256 that names this extractor in extraction entries."""
        stated: dict[str, Any] = {name: _stated(getattr(self, name)) for name in (*_ASKED, *_ANSWERED)}
        stated |= {
            "v": VERSION,
            "protocol": [self.protocol, adapter_for(self.protocol).version],
            "batch": self.batch,
            "favourable": sorted(self.favourable),
            "adverse": sorted(self.adverse),
            "parse_bytes_max": self.parse_bytes_max,
            "rows_max": self.rows_max,
        }
        return sha256(orjson.dumps(stated, option=orjson.OPT_SORT_KEYS)).hexdigest()


def spec_of(route: Route, *, parse_bytes_max: int, rows_max: int = ROWS_MAX) -> ExtractSpec | None:
    """What a route declares; None if nothing."""
    declared = route.extract
    if declared is None:
        return None
    return ExtractSpec(
        protocol=route.protocol,
        batch=route.batch == "rows",
        label=declared.label,
        favourable=declared.favourable,
        adverse=declared.adverse,
        score=declared.score,
        case=declared.case,
        subject=declared.subject,
        features=declared.features,
        parse_bytes_max=parse_bytes_max,
        rows_max=rows_max,
    )


@dataclass(slots=True)
class _Findings:
    faults: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        if fault not in self.faults:
            self.faults.append(fault)

    @property
    def first(self) -> str | None:
        return str(self.faults[0]) if self.faults else None


class Extractor:
    """Runs one :class:`ExtractSpec`; ValueError for an expression that does not compile."""

    def __init__(self, spec: ExtractSpec) -> None:
        self.spec = spec
        self.digest = spec.digest
        self._adapter = adapter_for(spec.protocol, batch=spec.batch)
        self._readings = {
            name: reading for name in (*_ANSWERED, *_ASKED) if (reading := getattr(spec, name)) is not None
        }
        for name, reading in self._readings.items():
            if isinstance(reading, str):
                check_path(name, reading)
        whole = self._adapter.name == "generic" and not spec.batch  # its two sides need not know of each other
        self._needs_request = not whole or not self._readings.keys().isdisjoint(_ASKED)
        self._needs_answer = not whole or not self._readings.keys().isdisjoint(_ANSWERED)

    def extract(self, request: bytes, answer: bytes, *, row: int | None = None) -> Extracted:
        """One row of a call, by its place in the request; None for a call that is of one row. Never raises."""
        rows = self.rows(request, answer)
        if row is None and len(rows) > 1:
            return Extracted(error=str(Fault(REQUEST, f"{len(rows)} rows, and none is named")))
        if row is not None and not 0 <= row < len(rows):
            return Extracted(error=str(Fault(REQUEST, "no such row")))
        return rows[row or 0]

    def rows(self, request: bytes, answer: bytes) -> tuple[Extracted, ...]:
        """Each row of a call, in the order of the request; one where they cannot be told apart. Never raises."""
        exchange = read(
            self._adapter,
            request if self._needs_request else None,
            answer if self._needs_answer else None,
            parse_bytes_max=self.spec.parse_bytes_max,
            rows_max=self.spec.rows_max if self.spec.batch else 1,
        )
        return tuple(self._row(row, exchange.model) for row in exchange.rows)

    def references(self, request: bytes) -> tuple[str | None, str | None]:
        """Case and subject of a request of one row alone."""
        found = _Findings()
        asked = read(self._adapter, request, None, parse_bytes_max=self.spec.parse_bytes_max, rows_max=1).rows[0].asked
        return self._reference("case", asked, found), self._reference("subject", asked, found)

    def _row(self, row: Row, model: str | None) -> Extracted:
        found = _Findings()
        for names, side in ((_ASKED, row.asked), (_ANSWERED, row.answered)):
            if isinstance(side, Fault) and not self._readings.keys().isdisjoint(names):
                found.add(side)
        label = self._label(row.answered, found)
        return Extracted(
            label=label,
            favourable=self._favourable(label),
            score=self._score(row.answered, found),
            case=self._reference("case", row.asked, found),
            subject=self._reference("subject", row.asked, found),
            features=self._features(row.asked, found),
            model=model,
            error=found.first,
        )

    def _value(self, name: str, side: Side | Fault, found: _Findings) -> Any:
        reading = self._readings.get(name)
        if reading is None or isinstance(side, Fault):
            return None
        try:
            value = value_of(reading, side, name)
        except Unreadable as unreadable:
            found.add(unreadable.fault)
            return None
        if name == "score" and isinstance(value, str) and isinstance(reading, MatchedText):
            number = number_in(value)
            return value if number is None else number
        return value

    def _label(self, side: Side | Fault, found: _Findings) -> str | None:
        value = self._value("label", side, found)
        if value is None:
            return None
        label = _text(value)
        if label is None:
            found.add(Fault("label", "not a single value"))
        elif not label:
            found.add(Fault("label", "empty"))
        elif len(label.encode("utf-8")) > LABEL_BYTES_MAX:
            found.add(Fault("label", f"longer than {LABEL_BYTES_MAX} bytes"))
        else:
            if (self.spec.favourable or self.spec.adverse) and self._favourable(label) is None:
                found.add(Fault("label", "neither favourable nor adverse"))
            return label
        return None

    def _favourable(self, label: str | None) -> int | None:
        if label is None:
            return None
        return 1 if label in self.spec.favourable else 0 if label in self.spec.adverse else None

    def _score(self, side: Side | Fault, found: _Findings) -> float | None:
        value = self._value("score", side, found)
        if value is None:
            return None
        try:
            score = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        except OverflowError:  # an integer beyond what a float holds
            score = math.inf
        if not math.isfinite(score):
            found.add(Fault("score", "not a finite number"))
            return None
        return score

    def _reference(self, name: str, side: Side | Fault, found: _Findings) -> str | None:
        value = self._value(name, side, found)
        if value is None:
            return None
        text = None if isinstance(value, bool) else _text(value)
        if text is None:
            found.add(Fault(name, "not a string or a number"))
        elif not text or len(text) > REFERENCE_CHARS_MAX:
            found.add(Fault(name, f"empty, or longer than {REFERENCE_CHARS_MAX} characters"))
        else:
            return text
        return None

    def _features(self, side: Side | Fault, found: _Findings) -> dict[str, Any] | None:
        value = self._value("features", side, found)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            found.add(Fault("features", "not an object"))
            return None
        if _has_long_integer(value):
            found.add(Fault("features", "an integer is too large"))
            return None
        return dict(value)


def extract(request: bytes, answer: bytes, spec: ExtractSpec) -> Extracted:
    """One call of one row; the specification is compiled when it is first met."""
    return _extractor(spec).extract(request, answer)


@lru_cache(maxsize=256)  # a deployment's routes and what the try page previews
def _extractor(spec: ExtractSpec) -> Extractor:
    return Extractor(spec)


def _stated(reading: AnswerReading | None) -> Any:
    return reading.model_dump(mode="json", by_alias=True) if isinstance(reading, BaseModel) else reading


def _text(value: object) -> str | None:
    """A scalar as JSON spells it: true, not True; 7, not 7.0 where the sender wrote 7. None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return repr(value) if isinstance(value, float) and math.isfinite(value) else None


def _has_long_integer(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, int) and abs(one) > FEATURE_INTEGER_MAX:
            return True
        if isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return False
