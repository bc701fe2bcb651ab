"""The Open Inference Protocol V2 (KServe, Triton, MLServer): tensors by name, the first dimension counts the rows.

A row is an object `{tensor: value}`; a value is a number, a text, or lists of them where more dimensions follow; a row
of one element is that element. Not read: tensors of the binary extension and of shared memory (what stands after the
JSON, `binary_data_size`, `shared_memory_region`). They are absent from the row, which says so.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

from storage.protocols.documents import typed
from storage.protocols.exchange import Adapter, Side
from storage.protocols.faults import ANSWER, REQUEST, Unreadable

DIMENSIONS_MAX: Final = 8
ROWS_STATED_MAX: Final = 100_000  # what `rows_max` may be at most: binary tensors state rows without showing them
_ELSEWHERE: Final = ("binary_data_size", "shared_memory_region")


def asked(document: Any) -> list[Side]:
    """One side for each row of the inputs."""
    request = typed(document, dict, REQUEST, "the body")
    return _sides(typed(request.get("inputs"), list, REQUEST, "inputs"), REQUEST)


def answered(document: Any, _rows: int | None) -> list[Side]:
    """One side for each row of the outputs."""
    answer = typed(document, dict, ANSWER, "the body")
    if "error" in answer:
        raise Unreadable(ANSWER, "an error instead of an answer")
    return _sides(typed(answer.get("outputs"), list, ANSWER, "outputs"), ANSWER)


def _sides(tensors: list[Any], where: str) -> list[Side]:
    columns: dict[str, list[Any]] = {}
    names: set[str] = set()
    lengths: set[int] = set()
    for stated in tensors:
        tensor = typed(stated, dict, where, "a tensor")
        name = typed(tensor.get("name"), str, where, "the name of a tensor")
        if name in names:
            raise Unreadable(where, "a tensor stands twice")
        names.add(name)
        shape = _shape(tensor, where)
        lengths.add(shape[0])
        if not _is_elsewhere(tensor, where):
            columns[name] = _rows(tensor, shape, where)
    if len(lengths) != 1:
        raise Unreadable(where, "its tensors are not of one batch size")
    unread = "in binary, which is not read" if len(columns) < len(names) else None
    if not columns:
        return [Side(value={}, unread=unread)] * lengths.pop()
    return [
        Side(value=dict(zip(columns, values, strict=True)), unread=unread)
        for values in zip(*columns.values(), strict=True)
    ]


def _shape(tensor: dict[str, Any], where: str) -> list[int]:
    shape = typed(tensor.get("shape"), list, where, "a shape")
    sizes = [typed(size, int, where, "a shape") for size in shape]
    if not 0 < len(sizes) <= DIMENSIONS_MAX or min(sizes) < 1 or sizes[0] > ROWS_STATED_MAX:
        raise Unreadable(where, "a shape is empty or too large")
    return sizes


def _is_elsewhere(tensor: dict[str, Any], where: str) -> bool:
    parameters = tensor.get("parameters") or {}
    return any(name in typed(parameters, dict, where, "parameters") for name in _ELSEWHERE)


def _rows(tensor: dict[str, Any], shape: list[int], where: str) -> list[Any]:
    """The elements, sent flat or nested in row-major order, as one value for each row."""
    values = typed(tensor.get("data"), list, where, "data")
    while any(isinstance(value, list) for value in values):
        values = [element for value in values for element in typed(value, list, where, "data")]
    if len(values) != prod(shape):
        raise Unreadable(where, "its data are not of the stated shape")
    if prod(shape[1:]) > 1:
        for size in reversed(shape[1:]):
            values = [values[at : at + size] for at in range(0, len(values), size)]
    return values


ADAPTER: Final = Adapter(
    name="inference-v2",
    version=1,
    asked=asked,
    answered=answered,
    model=lambda answer: answer.get("model_version"),
    binary_tail=True,
)
