"""Recorded bodies as a page shows them: their text, or only their shape where the viewer may not see values (pure)."""

import re
from typing import Any

import orjson

SHOWN_BYTES_MAX = 64 * 1024  # a page; the whole body is in the evidence
DEPTH_MAX = 24
NODES_MAX = 2_000
KEYS_MAX = 200  # of one object: more are no record's fields but a map, perhaps one keyed by people
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")  # as programs name fields: a person's full name, number or address
# is none. One word alone may still be either; what is keyed by first names shows them.
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
    """The body without its values: the names of JSON members that look like fields' and the kind of each value.

    What is no JSON, or too large, is told by its length alone.
    """
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
        kept = list(value.items())[:KEYS_MAX]
        shown = {
            name if _NAME.fullmatch(name) else f"{MASK} {number}": _shape(inner, depth + 1, budget)
            for number, (name, inner) in enumerate(kept, 1)
        }
        more = len(value) - len(kept)
        return shown | {f"\u2026 and {more:,} more": "\u2026"} if more else shown
    if isinstance(value, list):
        return [_shape(inner, depth + 1, budget) for inner in value]
    kinds = {str: "text", bool: "yes or no", int: "number", float: "number", type(None): "nothing"}
    return f"{MASK} {kinds[type(value)]}"
