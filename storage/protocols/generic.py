"""Any JSON: one row, whose request and answer are the bodies as they are; with `batch: rows`, two equal lists."""

from __future__ import annotations

from typing import Any, Final

from storage.protocols.documents import typed
from storage.protocols.exchange import Adapter, Side
from storage.protocols.faults import ANSWER, REQUEST


def asked(document: Any) -> list[Side]:
    """The whole body as one side."""
    return [Side(value=document)]


def answered(document: Any, _rows: int | None) -> list[Side]:
    """The whole body as one side."""
    return [Side(value=document)]


def listed_asked(document: Any) -> list[Side]:
    """One side for each element of a list."""
    return [Side(value=row) for row in typed(document, list, REQUEST, "the body of a batch")]


def listed_answered(document: Any, _rows: int | None) -> list[Side]:
    """One side for each element of a list."""
    return [Side(value=row) for row in typed(document, list, ANSWER, "the body of a batch")]


ADAPTER: Final = Adapter(name="generic", version=2, asked=asked, answered=answered)
ROWS: Final = Adapter(name="generic", version=2, asked=listed_asked, answered=listed_answered)
