"""MLflow's `/invocations`: `dataframe_split`, `dataframe_records`, `instances`, `inputs`; `predictions`, one a row.

A row of a data frame is an object `{column: value}`. CSV, which the server also takes, is not read: the request is
recorded and found to be no JSON.
"""

from __future__ import annotations

from typing import Any, Final

from storage.protocols.documents import typed
from storage.protocols.exchange import Adapter, Side
from storage.protocols.faults import ANSWER, REQUEST, Unreadable
from storage.protocols.tables import rows_of

_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def asked(document: Any) -> list[Side]:
    """One side for each row; exactly one of the four forms must be there, as the server demands."""
    request = typed(document, dict, REQUEST, "the body")
    given = [form for form in _FORMS if form in request]
    if len(given) != 1:
        raise Unreadable(REQUEST, f"expected one of {', '.join(_FORMS)}")
    form = given[0]
    stated = request[form]
    if form == "dataframe_split":
        rows: list[Any] = _split(typed(stated, dict, REQUEST, form))
    elif form == "dataframe_records":
        rows = [typed(row, dict, REQUEST, "a record") for row in typed(stated, list, REQUEST, form)]
    else:
        rows = rows_of(stated, REQUEST, form)
    return [Side(value=row) for row in rows]


def answered(document: Any, rows: int | None) -> list[Side]:
    """One side for each prediction; an object of columns is turned into rows. Older servers answer with a bare list."""
    if isinstance(document, list):
        return [Side(value=row) for row in document]
    answer = typed(document, dict, ANSWER, "the body")
    if "predictions" not in answer:
        what = "an error instead of an answer" if "error_code" in answer else "no predictions"
        raise Unreadable(ANSWER, what)
    predictions = answer["predictions"]
    if rows == 1 and not isinstance(predictions, list) and not _are_columns(predictions):
        return [Side(value=predictions)]
    return [Side(value=row) for row in rows_of(predictions, ANSWER, "predictions")]


def _are_columns(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(column, list) for column in value.values())


def _split(frame: dict[str, Any]) -> list[dict[str, Any]]:
    columns = typed(frame.get("columns"), list, REQUEST, "columns")
    names = [str(name) if isinstance(name, int) else typed(name, str, REQUEST, "a column's name") for name in columns]
    if len(set(names)) != len(names):
        raise Unreadable(REQUEST, "a column stands twice")
    rows = []
    for row in typed(frame.get("data"), list, REQUEST, "data"):
        cells = typed(row, list, REQUEST, "a row")
        if len(cells) != len(names):
            raise Unreadable(REQUEST, "a row is not as long as the columns")
        rows.append(dict(zip(names, cells, strict=True)))
    return rows


ADAPTER: Final = Adapter(name="mlflow", version=1, asked=asked, answered=answered)
