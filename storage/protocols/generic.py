"""Any JSON by JMESPath: label, score, case, subject and features of one call. Pure.

What cannot be extracted is an ``error`` or absent, never a guess: a label outside ``favourable`` and ``adverse`` leaves
``favourable`` open, a score that is no finite number is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from storage.protocols import Extracted

VERSION = 1
LABEL_BYTES_MAX = 64  # of a label in an extraction entry
REFERENCE_CHARS_MAX = 512  # of a case or subject: an identifier, not a document


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSpec:
    """What a route declares under ``extract``; every expression is JMESPath."""

    label: str | None = None  # over the answer
    favourable: tuple[str, ...] = ()
    adverse: tuple[str, ...] = ()
    score: str | None = None  # over the answer
    case: str | None = None  # over the request
    subject: str | None = None  # over the request
    features: str | None = None  # over the request, an object {feature: value}
    parse_bytes_max: int = 1024 * 1024

    @property
    def digest(self) -> str:
        """Hex SHA-256 that names this extractor in extraction entries."""
        stated = {
            "protocol": "generic",
            "v": VERSION,
            "label": self.label,
            "favourable": sorted(self.favourable),
            "adverse": sorted(self.adverse),
            "score": self.score,
            "case": self.case,
            "subject": self.subject,
            "features": self.features,
            "parse_bytes_max": self.parse_bytes_max,
        }
        return sha256(orjson.dumps(stated, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(slots=True)
class _Findings:
    errors: list[str] = field(default_factory=list)

    def failed(self, name: str, what: str) -> None:
        self.errors.append(f"{name}: {what}")


class Extractor:
    """A compiled :class:`ExtractSpec`; ValueError for an expression that does not compile."""

    def __init__(self, spec: ExtractSpec) -> None:
        self.spec = spec
        self.digest = spec.digest
        self._compiled = {
            name: _compiled(name, expression)
            for name in ("label", "score", "case", "subject", "features")
            if (expression := getattr(spec, name)) is not None
        }

    def extract(self, request: bytes, answer: bytes) -> Extracted:
        """Label and score from the answer, case, subject and features from the request."""
        found = _Findings()
        asked = self._parsed("request", request, found, ("case", "subject", "features"))
        answered = self._parsed("answer", answer, found, ("label", "score"))
        label = self._label(answered, found)
        return Extracted(
            label=label,
            favourable=self._favourable(label),
            score=self._score(answered, found),
            case=self._reference("case", asked, found),
            subject=self._reference("subject", asked, found),
            features=self._features(asked, found),
            error=found.errors[0] if found.errors else None,
        )

    def references(self, request: bytes) -> tuple[str | None, str | None]:
        """Case and subject of a request alone."""
        asked = self._parsed("request", request, _Findings(), ("case", "subject"))
        return self._reference("case", asked, _Findings()), self._reference("subject", asked, _Findings())

    def _parsed(self, name: str, raw: bytes, found: _Findings, wanted: Sequence[str]) -> Any:
        if self._compiled.keys().isdisjoint(wanted):
            return None
        if len(raw) > self.spec.parse_bytes_max:
            found.failed(name, f"{len(raw)} bytes, at most {self.spec.parse_bytes_max} are parsed")
            return None
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            found.failed(name, "not JSON")
            return None

    def _value(self, name: str, document: Any, found: _Findings) -> Any:
        compiled = self._compiled.get(name)
        if compiled is None or document is None:
            return None
        try:
            value = compiled.search(document)
        except JMESPathError as error:  # a function met a type that it does not take
            found.failed(name, str(error).splitlines()[0][:200])
            return None
        if value is None:
            found.failed(name, "not found")
        return value

    def _label(self, answered: Any, found: _Findings) -> str | None:
        value = self._value("label", answered, found)
        if value is None:
            return None
        if isinstance(value, dict | list):
            found.failed("label", "not a single value")
            return None
        label = _text(value)
        if len(label.encode()) > LABEL_BYTES_MAX:
            found.failed("label", f"longer than {LABEL_BYTES_MAX} bytes")
            return None
        if (self.spec.favourable or self.spec.adverse) and self._favourable(label) is None:
            found.failed("label", "neither favourable nor adverse")
        return label

    def _favourable(self, label: str | None) -> int | None:
        if label is None:
            return None
        return 1 if label in self.spec.favourable else 0 if label in self.spec.adverse else None

    def _score(self, answered: Any, found: _Findings) -> float | None:
        value = self._value("score", answered, found)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            found.failed("score", "not a finite number")
            return None
        return float(value)

    def _reference(self, name: str, asked: Any, found: _Findings) -> str | None:
        value = self._value(name, asked, found)
        if value is None:
            return None
        if isinstance(value, dict | list | bool):
            found.failed(name, "not a string or a number")
            return None
        text = _text(value)
        if not text or len(text) > REFERENCE_CHARS_MAX:
            found.failed(name, f"empty, or longer than {REFERENCE_CHARS_MAX} characters")
            return None
        return text

    def _features(self, asked: Any, found: _Findings) -> dict[str, Any] | None:
        value = self._value("features", asked, found)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            found.failed("features", "not an object")
            return None
        return dict(value)


def extract(request: bytes, answer: bytes, spec: ExtractSpec) -> Extracted:
    """One call; the specification is compiled when it is first met."""
    return _extractor(spec).extract(request, answer)


@lru_cache(maxsize=256)  # a deployment's routes and what the try page previews
def _extractor(spec: ExtractSpec) -> Extractor:
    return Extractor(spec)


def _compiled(name: str, expression: str) -> Any:
    try:
        return jmespath.compile(expression)
    except JMESPathError as error:
        raise ValueError(f"{name}: {expression!r} is no JMESPath: {error}") from error


def _text(value: object) -> str:
    """A scalar as JSON spells it: true, not True; 7, not 7.0 where the sender wrote 7."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
