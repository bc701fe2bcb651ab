"""One call as its protocol tells it: what each row was asked and answered.

An *exchange* has rows; most calls are of one row. Each row has two *sides*, asked and answered. A side is a JSON value
in which expressions look, and, where people or language models write, the *replies*: texts and tool calls. A side that
cannot be read is a `Fault` in its place, so that the other side still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from storage.protocols.faults import Fault
from storage.protocols.sse import Event


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool that the answer asks for; `arguments` is JSON text, or a value where the protocol has one."""

    name: str
    arguments: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One of the alternatives that a language model answered with (n > 1 gives several); a refusal has no text."""

    text: str | None
    tools: tuple[ToolCall, ...] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one row was asked, or answered. `unread` says why something may be missing from `value`."""

    value: Any
    replies: tuple[Reply, ...] = ()
    unread: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a call."""

    asked: Side | Fault
    answered: Side | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A call as parsed values: always at least one row. `model` is the version that the answer itself names."""

    rows: tuple[Row, ...]
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What one protocol knows; each function is pure and raises `Unreadable` alone.

    asked(document) gives the rows of a request, answered(document, rows asked or None) those of an answer.
    `assembled` makes of a stream the document that the same answer would have been without streaming.
    `ends` tells the terminal event of a stream, after which its reader waits for nothing more.
    """

    name: str
    version: int  # part of each extractor's digest: raised when the same bytes would be read otherwise
    asked: Callable[[Any], list[Side]]
    answered: Callable[[Any, int | None], list[Side]]
    assembled: Callable[[Iterable[Event]], Any] | None = None
    ends: Callable[[Event], bool] | None = None
    model: Callable[[Any], object] | None = None
    binary_tail: bool = False  # bytes that are no JSON may follow the document
