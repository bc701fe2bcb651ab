"""JSON of which no two readers think differently: RFC 8259 and no more, each member once (pure)."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from storage.errors import Unverifiable

DEPTH_MAX: Final = 100
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_DIGITS: Final = 18  # some more than 2^53 has
_BRACKETS: Final = re.compile(r"[\[\]{}]")


def parse(raw: bytes) -> Any:
    """The document. An integer of many digits comes as a float, so that it is none.

    Raises:
        Unverifiable: not UTF-8 without a byte order mark, not JSON, a member that stands twice, a lone surrogate, or
            nesting deeper than `DEPTH_MAX`.
    """
    try:
        text = raw.decode("utf-8")
        _check_depth(text)
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_none, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise Unverifiable(f"not JSON as it must be: {str(error)[:120]}") from error
    _check_texts(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member stands twice")
    return made


def _whole(digits: str) -> int | float:
    """No integer where it is beyond what an integer may be, however long (Python would refuse 4,301 digits)."""
    return int(digits) if len(digits) < _DIGITS else float(digits)


def _none(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return
    depth = 0
    for bracket in _BRACKETS.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MAX:
            raise ValueError("nested too deeply")


def _check_texts(value: Any) -> None:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            try:
                one.encode("utf-8")
            except UnicodeEncodeError as error:
                raise Unverifiable("a lone surrogate") from error
        elif isinstance(one, dict):
            waiting.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
