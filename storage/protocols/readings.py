"""The four ways to read a value from one side of a row (pure): path, JSON in a text, tool argument, matched text.

Time is linear in the side: JMESPath has no recursion over data, and texts are searched by RE2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from config.extract import AnswerReading, JsonText, MatchedText, ToolArgument, linear_pattern
from storage.protocols.documents import parsed_text
from storage.protocols.exchange import Side
from storage.protocols.faults import Unreadable

MATCHES_MAX: Final = 16  # in one text, all alike; each search is linear, many of them are not
_NUMBER = re.compile(r"[+-]?(?:\d{1,300}(?:\.\d{0,300})?|\.\d{1,300})(?:[eE][+-]?\d{1,4})?", re.ASCII)
# what JMESPath's functions raise on values that they do not take, beside its own errors
_REFUSALS: Final = (JMESPathError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


def value_of(reading: AnswerReading, side: Side, name: str) -> Any:
    """The value that `reading` finds in `side`, never None; `name` is the field that it is for.

    Raises:
        Unreadable: it is not there, or not one.
    """
    if isinstance(reading, str):
        return _found(_at(reading, side.value, name), side, name)
    if isinstance(reading, ToolArgument):
        return _from_tool(reading, side, name)
    texts = _texts(reading, side, name)
    if isinstance(reading, JsonText):
        values = [_at(reading.json_path, parsed_text(text, name), name) for text in texts]
    else:
        values = [_match(reading, text, name) for text in texts]
    return _found(_agreed(values, name), side, name)


def number_in(text: str) -> float | None:
    """The number that a matched text spells, or None."""
    return float(text) if _NUMBER.fullmatch(text) else None


def check_path(name: str, expression: str) -> None:
    """True on return: it is JMESPath; else ValueError that names the field."""
    try:
        _path(expression)
    except JMESPathError as error:
        raise ValueError(f"{name}: {expression!r} is no JMESPath: {error}") from error


def _found(value: Any, side: Side, name: str) -> Any:
    if value is None:
        raise Unreadable(name, side.unread or "not found")
    return value


def _from_tool(reading: ToolArgument, side: Side, name: str) -> Any:
    _check_replies(side, name)
    values = []
    for reply in side.replies:
        called = [call for call in reply.tools if call.name == reading.tool]
        if not called:
            raise Unreadable(name, "the tool is not called")
        for call in called:
            arguments = call.arguments
            document = parsed_text(arguments, name) if isinstance(arguments, str) else arguments
            values.append(_at(reading.argument, document, name))
    return _found(_agreed(values, name), side, name)


def _texts(reading: JsonText | MatchedText, side: Side, name: str) -> list[str]:
    if reading.at is not None:
        text = _found(_at(reading.at, side.value, name), side, name)
        if not isinstance(text, str):
            raise Unreadable(name, "not a text")
        return [text]
    _check_replies(side, name)
    texts = [reply.text for reply in side.replies if reply.text is not None]
    if len(texts) < len(side.replies):
        raise Unreadable(name, "the answer has no text")
    return texts


def _check_replies(side: Side, name: str) -> None:
    if not side.replies:
        raise Unreadable(name, "the answer has no text")
    if any(reply.refused for reply in side.replies):
        raise Unreadable(name, "the model refused")


def _match(reading: MatchedText, text: str, name: str) -> str | None:
    pattern = _pattern(reading.match)
    found = set()
    for count, match in enumerate(pattern.finditer(text)):
        if count == MATCHES_MAX:
            raise Unreadable(name, f"more than {MATCHES_MAX} matches")
        value = match.group(pattern.groups)
        if value is not None:
            found.add(value)
    if len(found) > 1:
        raise Unreadable(name, "ambiguous")
    return found.pop() if found else None


def _agreed(values: Sequence[Any], name: str) -> Any:
    """The one value that all of `values` are.

    Raises:
        Unreadable: they differ.
    """
    if len(values) > 1 and len({_spelled(value) for value in values}) > 1:
        raise Unreadable(name, "ambiguous")
    return values[0]


def _spelled(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits
        return repr(value).encode("utf-8")


def _at(expression: str, document: Any, name: str) -> Any:
    try:
        return _path(expression).search(document)
    except _REFUSALS as error:
        raise Unreadable(name, "the expression does not take what it found") from error


@lru_cache(maxsize=1024)  # those of all routes, and what the try page previews
def _path(expression: str) -> Any:
    return jmespath.compile(expression)


@lru_cache(maxsize=256)
def _pattern(expression: str) -> Any:
    return linear_pattern(expression)
