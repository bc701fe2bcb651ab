"""From the bytes of a call to its rows: the steps that all protocols share. Pure.

Content coding off, stream put together, JSON parsed, rows told apart and matched. Each side fails by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from storage.protocols import anthropic, generic, inference_v2, kserve_v1, mlflow, openai
from storage.protocols.documents import json_part, parsed, plain
from storage.protocols.exchange import Adapter, Exchange, Row, Side
from storage.protocols.faults import ANSWER, REQUEST, Fault, Unreadable
from storage.protocols.sse import Events, looks_like_events

MODEL_CHARS_MAX: Final = 128  # of a version that an answer names: an identifier, not a text
_ADAPTERS: Final = {
    adapter.name: adapter
    for adapter in (
        generic.ADAPTER,
        openai.ADAPTER,
        anthropic.ADAPTER,
        inference_v2.ADAPTER,
        kserve_v1.ADAPTER,
        mlflow.ADAPTER,
    )
}


def adapter_for(protocol: str, *, batch: bool = False) -> Adapter:
    """The adapter of a route's `protocol`; KeyError if there is none."""
    if batch and protocol == generic.ADAPTER.name:
        return generic.ROWS
    return _ADAPTERS[protocol]


def sides_asked(adapter: Adapter, request: bytes, *, parse_bytes_max: int) -> list[Side]:
    """What each row was asked; at least one.

    Raises:
        Unreadable: and nothing else, whatever the bytes.
    """
    raw = plain(request, REQUEST, parse_bytes_max)
    document = parsed(json_part(raw, REQUEST) if adapter.binary_tail else raw, REQUEST)
    sides = adapter.asked(document)
    if not sides:
        raise Unreadable(REQUEST, "no rows")
    return sides


def answer_document(adapter: Adapter, answer: bytes, *, parse_bytes_max: int) -> Any:
    """The answer as one document, put together from its events where it was streamed.

    Raises:
        Unreadable: and nothing else, whatever the bytes.
    """
    raw = plain(answer, ANSWER, parse_bytes_max)
    if adapter.assembled is not None and looks_like_events(raw):
        return adapter.assembled(Events(event_bytes_max=parse_bytes_max).feed(raw))
    return parsed(json_part(raw, ANSWER) if adapter.binary_tail else raw, ANSWER)


def read(
    adapter: Adapter, request: bytes | None, answer: bytes | None, *, parse_bytes_max: int, rows_max: int
) -> Exchange:
    """The call's rows, as many as the request has; one where that cannot be told. Never raises.

    None stands for a body that nobody asks for. `rows_max` is 1 where rows are not told apart.
    """
    asked: list[Side] | Fault = Fault(REQUEST, "not asked for")
    answered: list[Side] | Fault = Fault(ANSWER, "not asked for")
    model: object = None
    rows = None
    if request is not None:
        asked = _asked(adapter, request, parse_bytes_max, rows_max)
        rows = len(asked) if isinstance(asked, list) else None
    if answer is not None:
        try:
            document = answer_document(adapter, answer, parse_bytes_max=parse_bytes_max)
            model = adapter.model(document) if adapter.model is not None and isinstance(document, dict) else None
            answered = adapter.answered(document, rows)
        except Unreadable as unreadable:
            answered = unreadable.fault
    count = rows or 1
    pairs = zip(_spread(asked, count), _spread(answered, count), strict=True)
    named = isinstance(model, str) and 0 < len(model) <= MODEL_CHARS_MAX
    return Exchange(
        rows=tuple(Row(asked=one, answered=other) for one, other in pairs),
        model=str(model) if named else None,
    )


def count_rows(adapter: Adapter, request: bytes, *, parse_bytes_max: int, rows_max: int) -> int:
    """How many rows `read` tells apart in a request; one where it tells none. Never raises."""
    asked = _asked(adapter, request, parse_bytes_max, rows_max)
    return 1 if isinstance(asked, Fault) else len(asked)


def _asked(adapter: Adapter, request: bytes, parse_bytes_max: int, rows_max: int) -> list[Side] | Fault:
    try:
        sides = sides_asked(adapter, request, parse_bytes_max=parse_bytes_max)
    except Unreadable as unreadable:
        return unreadable.fault
    if len(sides) > rows_max:
        return Fault(REQUEST, f"{len(sides)} rows, at most {rows_max} are told apart")
    return sides


def _spread(sides: list[Side] | Fault, rows: int) -> Sequence[Side | Fault]:
    if isinstance(sides, Fault):
        return [sides] * rows
    if len(sides) == rows:
        return sides
    return [Fault(ANSWER, f"{len(sides)} rows, and {rows} were asked")] * rows
