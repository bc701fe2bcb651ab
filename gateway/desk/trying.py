"""`answerable try`: from clicked JSON values to a route's extraction (pure).

A recorded body becomes a tree of values, each with the JMESPath that finds it again in the next call. What was picked
stands in the page's address as paths, never as values, so the page needs no state and no script. The preview is made
by the same extractor that the keeper runs.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson
import yaml
from pydantic import ValidationError

from config.extract import Extract
from config.route import Route
from gateway.desk.content import parsed
from gateway.desk.errors import RequestError
from storage.protocols import Extracted, Extractor, ExtractSpec

PATH_CHARS_MAX: Final = 300
LABELS_MAX: Final = 12
NODES_MAX: Final = 400  # of one body; the rest is told as one line
DEPTH_MAX: Final = 16
VALUE_CHARS_MAX: Final = 80
SIDES: Final[Mapping[str, str]] = {"case": "request", "subject": "request", "label": "answer", "score": "answer"}
TITLES: Final = {"case": "Case", "subject": "Person", "label": "Label", "score": "Score"}
HINTS: Final = {
    "label": "what the answer says, such as approved or denied",
    "score": "the number behind it",
    "case": "the application, claim or order it belongs to",
    "subject": "the person it is about",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """What was clicked so far: JMESPath expressions, and which labels speak for or against the person."""

    label: str | None = None
    score: str | None = None
    case: str | None = None
    subject: str | None = None
    favourable: tuple[str, ...] = ()
    adverse: tuple[str, ...] = ()

    def query(self) -> list[tuple[str, str]]:
        """As it stands in the page's address."""
        paths = [(name, getattr(self, name)) for name in SIDES if getattr(self, name) is not None]
        return [*paths, *(("favourable", v) for v in self.favourable), *(("adverse", v) for v in self.adverse)]

    def with_path(self, name: str, path: str | None) -> "Picks":
        """With one value picked, or given up; another label path brings other labels."""
        stated: dict[str, Any] = {**asdict(self), name: path}
        if name == "label":
            stated |= {"favourable": (), "adverse": ()}
        return Picks(**stated)

    def with_label(self, value: str, direction: str | None) -> "Picks":
        """With one label's direction told: favourable, adverse, or neither."""
        favourable = tuple(one for one in self.favourable if one != value)
        adverse = tuple(one for one in self.adverse if one != value)
        if direction == "favourable":
            favourable = (*favourable, value)
        elif direction == "adverse":
            adverse = (*adverse, value)
        return replace(self, favourable=favourable, adverse=adverse)

    def extractor(self) -> Extractor:
        """The extractor that the keeper would run."""
        return Extractor(ExtractSpec(**asdict(self)))


def picks(query: Sequence[tuple[str, str]]) -> Picks:
    """What an address says was picked.

    Raises:
        RequestError: an expression is none, or something is over its limit.
    """
    single: dict[str, Any] = {name: value for name, value in query if name in SIDES and value}
    labels: dict[str, Any] = {word: tuple(v for name, v in query if name == word) for word in ("favourable", "adverse")}
    too_long = [value for value in single.values() if len(value) > PATH_CHARS_MAX]
    if too_long or any(len(values) > LABELS_MAX for values in labels.values()):
        raise RequestError("too much was picked")
    made = Picks(**single, **labels)
    try:
        made.extractor()
    except ValueError as error:
        raise RequestError(str(error)[:200]) from None
    return made


def tree(body: bytes | None, side: str) -> dict[str, Any]:
    """A body as nodes `{name, path, value, children}`; `text` instead where it is no JSON."""
    value = parsed(body) if body is not None else None
    if value is None:
        return {"side": side, "node": None, "text": _plain(body)}
    return {"side": side, "node": _node("", "", value, 0, [NODES_MAX]), "text": None}


def preview(calls: Sequence[tuple[str, bytes, bytes]], made: Picks) -> dict[str, Any]:
    """What the extraction finds in each recorded call (id, request, answer), and the labels that occur."""
    extractor = made.extractor()
    rows = [{"id": name, **_row(extractor.extract(request, answer))} for name, request, answer in calls]
    found = Counter(row["label"] for row in rows if row["label"] is not None)
    labels = [{"value": value, "count": count, "direction": _direction(value, made)} for value, count in found.items()]
    complete = sum(1 for row in rows if row["error"] is None)
    return {"rows": rows, "labels": labels, "complete": complete}


def route_yaml(route: Route, made: Picks) -> str:
    """The route with its extraction, as the file of a configuration holds it.

    Raises:
        RequestError: no label was picked yet, or the labels contradict each other.
    """
    if made.label is None:
        raise RequestError("pick the value that is the label first", advice="Click it in the recorded answer.")
    stated = {name: value for name, value in asdict(made).items() if value}
    extract = {name: list(value) if isinstance(value, tuple) else value for name, value in stated.items()}
    try:
        Extract.model_validate(extract)
    except ValidationError as error:
        raise RequestError(error.errors()[0]["msg"]) from None
    shown = route.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"extract", "explain"})
    return yaml.safe_dump({"routes": [{**shown, "extract": extract}]}, sort_keys=False, allow_unicode=True)


def _node(name: str, path: str, value: Any, depth: int, budget: list[int]) -> dict[str, Any]:
    budget[0] -= 1
    node: dict[str, Any] = {"name": name, "path": path, "value": None, "children": None, "more": 0}
    if isinstance(value, dict | list) and depth < DEPTH_MAX:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        children = []
        for key, inner in items:
            if budget[0] <= 0:
                break
            children.append(_node(str(key), path + _step(key, first=not path), inner, depth + 1, budget))
        node |= {"children": children, "more": len(value) - len(children)}
        return node
    if isinstance(value, dict | list):
        node["more"] = len(value)
        return node
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    node["value"] = text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "\u2026"
    return node


def _step(key: str | int, *, first: bool) -> str:
    """One step of a JMESPath: `.name`, `."odd name"` or `[0]`; the first carries no dot."""
    if isinstance(key, int):
        return f"[{key}]"
    name = key if _IDENTIFIER.fullmatch(key) else orjson.dumps(key).decode()
    return name if first else f".{name}"


def _row(found: Extracted) -> dict[str, Any]:
    direction = {1: "favourable", 0: "adverse"}.get(found.favourable) if found.favourable is not None else None
    return {
        "label": found.label,
        "direction": direction,
        "score": found.score,
        "case": found.case,
        "subject": found.subject,
        "error": found.error,
    }


def _direction(value: str, made: Picks) -> str | None:
    return "favourable" if value in made.favourable else "adverse" if value in made.adverse else None


def _plain(body: bytes | None) -> str:
    if body is None:
        return "nothing recorded"
    try:
        return body[:4_096].decode("utf-8")
    except UnicodeDecodeError:
        return f"{len(body):,} bytes that are not text"
