"""Recorded bodies as a page shows them: their text, or only their shape where the viewer may not see values (pure)."""

import re
from typing import Any

import orjson

SHOWN_BYTES_MAX = 64 * 1024  # a page; the whole body is in the evidence
DEPTH_MAX = 24
NODES_MAX = 2_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]{0,63}")  # a map keyed by numbers or addresses is keyed by people
MASK = "\u2022\u2022\u2022"


def parsed(body: bytes) -> Any:
    """The JSON value in `body`, or None where it is none or too large to show."""
    if len(body) > SHOWN_BYTES_MAX:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def text(body: bytes) -> str:
    """The body as people read it: JSON indented, other text as it is, cut at SHOWN_BYTES_MAX; binary as its length."""
    value = parsed(body)
    if value is not None:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    cut = body[:SHOWN_BYTES_MAX]
    try:
        shown = cut.decode("utf-8", "strict" if len(cut) == len(body) else "ignore")
    except UnicodeDecodeError:
        return f"{len(body):,} bytes that are not text"
    more = len(body) - len(cut)
    return f"{shown}\n\u2026 and {more:,} bytes more" if more else shown


def shape(body: bytes) -> str:
    """The body without its values: the names of JSON members and the kind of each value; else only its length."""
    value = parsed(body)
    if value is None:
        return f"{len(body):,} bytes, masked"
    budget = [NODES_MAX]
    return orjson.dumps(_shape(value, 0, budget), option=orjson.OPT_INDENT_2).decode()


def _shape(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth >= DEPTH_MAX or budget[0] <= 0:
        return "\u2026"
    if isinstance(value, dict):
        names = (name if _NAME.fullmatch(name) else f"{MASK} {number}" for number, name in enumerate(value, 1))
        return {name: _shape(inner, depth + 1, budget) for name, inner in zip(names, value.values(), strict=True)}
    if isinstance(value, list):
        return [_shape(inner, depth + 1, budget) for inner in value]
    kinds = {str: "text", bool: "yes or no", int: "number", float: "number", type(None): "nothing"}
    return f"{MASK} {kinds[type(value)]}"
