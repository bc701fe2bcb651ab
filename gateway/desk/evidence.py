"""What somebody asks an evidence bundle for (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.desk.errors import RequestError
from gateway.desk.roles import time_ns

DECISIONS_MAX: Final = 10_000  # named, or of the cases and persons named
PARTS: Final = ("request", "response", "target")
_NAMES: Final = frozenset({"decisions", "case", "subject", "route", "from", "to", "everything", "parts"})
_TEXT_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRequest:
    """Decisions by id, those of a case or person, a route in a period [from, to), or everything; parts to disclose."""

    decisions: tuple[str, ...] = ()
    case: str | None = None
    subject: str | None = None
    route: str | None = None
    span: tuple[int, int] = (0, 0)
    everything: bool = False
    parts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> EvidenceRequest:
        """The request in a JSON object.

        Raises:
            RequestError: a member is unknown, of another kind, or what is asked for is nothing or contradicts itself.
        """
        unknown = sorted(set(given) - _NAMES)
        if unknown:
            raise RequestError(f"no member is called {unknown[0][:40]}")
        everything = given.get("everything", False)
        if type(everything) is not bool:
            raise RequestError("`everything` is true or false")
        made = cls(
            decisions=_texts(given, "decisions", DECISIONS_MAX),
            case=_text(given, "case"),
            subject=_text(given, "subject"),
            route=_text(given, "route"),
            span=_span(given),
            everything=everything,
            parts=_texts(given, "parts", len(PARTS)),
        )
        by = (made.decisions, made.case, made.subject, made.route, made.everything)
        if not any(by):
            raise RequestError("say what for: decisions, case, subject, route with from and to, or everything")
        if made.everything and any(by[:-1]):
            raise RequestError("`everything` goes with nothing else")
        if (made.route is None) != (made.span == (0, 0)):
            raise RequestError("`route`, `from` and `to` go together")
        odd = sorted(set(made.parts) - set(PARTS))
        if odd:
            raise RequestError(f"`parts` are of {', '.join(PARTS)}")
        if made.parts and not (made.decisions or made.case or made.subject):
            raise RequestError("`parts` are disclosed of decisions, of a case or of a person, not of whole routes")
        return made

    @property
    def references(self) -> list[tuple[str, str]]:
        """Kind and the customer's own reference."""
        named = (("case", self.case), ("subject", self.subject))
        return [(kind, reference) for kind, reference in named if reference is not None]

    @property
    def told(self) -> dict[str, object]:
        """What a bundle says of it: never a customer's own number, and ids only where they are few."""
        told: dict[str, object] = {}
        if self.decisions:
            told["decisions"] = list(self.decisions) if len(self.decisions) <= 10 else len(self.decisions)
        told |= {kind: "one, by its reference" for kind, _ in self.references}
        if self.route is not None:
            told |= {"route": self.route, "from_ns": str(self.span[0]), "to_ns": str(self.span[1])}
        if self.everything:
            told["everything"] = True
        if self.parts:
            told["parts"] = list(self.parts)
        return told

    @property
    def digest(self) -> str:
        """Hex SHA-256 of it, for the access entry: it names the request without its values."""
        return hashlib.sha256(orjson.dumps(self.told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _TEXT_CHARS_MAX:
        raise RequestError(f"`{name}` has 1 to {_TEXT_CHARS_MAX} characters")
    return value.strip()


def _texts(given: Mapping[str, Any], name: str, most: int) -> tuple[str, ...]:
    value = given.get(name) or []
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, str) for each in value):
        raise RequestError(f"`{name}` is a list of at most {most} texts")
    return tuple(dict.fromkeys(value))


def _span(given: Mapping[str, Any]) -> tuple[int, int]:
    if given.get("from") is None and given.get("to") is None:
        return 0, 0
    low, high = (time_ns(value) if isinstance(value, str) else None for value in (given.get("from"), given.get("to")))
    if low is None or high is None or low >= high:
        raise RequestError("`from` and `to` are dates or times (ISO 8601), one before the other")
    return low, high
