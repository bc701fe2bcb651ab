"""KServe's V1 protocol, which is TensorFlow Serving's `:predict`: `instances` and `predictions`, one a row.

The columnar form (`inputs`, `outputs`) is read where each is an object of lists of one length, or a list of rows.
"""

from __future__ import annotations

from typing import Any, Final

from storage.protocols.documents import typed
from storage.protocols.exchange import Adapter, Side
from storage.protocols.faults import ANSWER, REQUEST, Unreadable
from storage.protocols.tables import rows_of


def asked(document: Any) -> list[Side]:
    """One side for each instance."""
    request = typed(document, dict, REQUEST, "the body")
    if "instances" in request:
        return [Side(value=row) for row in typed(request["instances"], list, REQUEST, "instances")]
    if "inputs" in request:
        return [Side(value=row) for row in rows_of(request["inputs"], REQUEST, "inputs")]
    raise Unreadable(REQUEST, "neither instances nor inputs")


def answered(document: Any, _rows: int | None) -> list[Side]:
    """One side for each prediction."""
    answer = typed(document, dict, ANSWER, "the body")
    if "predictions" in answer:
        return [Side(value=row) for row in rows_of(answer["predictions"], ANSWER, "predictions")]
    if "outputs" in answer:
        return [Side(value=row) for row in rows_of(answer["outputs"], ANSWER, "outputs")]
    what = "an error instead of an answer" if "error" in answer else "neither predictions nor outputs"
    raise Unreadable(ANSWER, what)


ADAPTER: Final = Adapter(name="kserve-v1", version=1, asked=asked, answered=answered)
