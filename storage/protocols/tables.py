"""Rows in the forms in which scoring protocols write them. Pure; linear in the number of cells."""

from __future__ import annotations

from typing import Any

from storage.protocols.documents import typed
from storage.protocols.faults import Unreadable


def records_of(columns: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """`{name: [values]}` as one object a row.

    Raises:
        Unreadable: a column is no list, or the columns are not of one length.
    """
    lists = {name: typed(values, list, where, "a column") for name, values in columns.items()}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1:
        raise Unreadable(where, "its columns are not of one length")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def rows_of(value: Any, where: str, what: str) -> list[Any]:
    """Rows given as a list of them, or as an object of columns.

    Raises:
        Unreadable: it is neither.
    """
    if isinstance(value, dict):
        return records_of(value, where)
    return typed(value, list, where, what)
