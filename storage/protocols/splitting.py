"""A call of several rows as calls of one: each row's slice of request and answer, as a body of its own. Pure.

A slice holds one row and all that the sender said once for all rows, in the form in which the whole was sent, so that
the protocol's adapter reads from it what it reads of that row from the whole. What cannot be split exactly is not
split: `Unsplit` says why, in one word that holds nothing of the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

from storage.protocols.documents import json_part, parsed
from storage.protocols.exchange import Side
from storage.protocols.faults import ANSWER, REQUEST, Unreadable
from storage.protocols.reading import adapter_for

Reason = Literal[
    "too_large", "too_many", "unreadable", "rows_differ", "not_answered", "streamed", "withheld", "gateway_lost"
]  # README.md of storage, "Calls and rows"
_encoded: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_INFINITY: Final = b"Infinity"

Slicing = Callable[[Any, list[Side]], Iterable[Any]]


class Unsplit(Exception):  # noqa: N818 - a state of the bytes, which an entry states
    """The rows of a call cannot be told apart, and why."""

    def __init__(self, why: Reason) -> None:
        super().__init__(why)
        self.why: Reason = why


@dataclass(frozen=True, slots=True)
class Slices:
    """The rows of a request: each as a body of its own, and as expressions see it."""

    bodies: tuple[bytes, ...]
    values: tuple[Any, ...]


class Splitter:
    """Splits the calls of one route."""

    def __init__(self, protocol: str, *, parse_bytes_max: int, rows_max: int) -> None:
        """A longer body is not parsed; a call of more rows is not split. KeyError for a protocol without rows."""
        self._adapter = adapter_for(protocol, batch=True)
        self._asked, self._answered = _SLICINGS[protocol]
        self._parse_bytes_max = parse_bytes_max
        self._rows_max = rows_max

    def asked(self, request: bytes, *, bytes_max: int) -> Slices:
        """The rows of a request; a request of one row stays as it came.

        Raises:
            Unsplit: it cannot be read, or its slices have more than `bytes_max` bytes together.
        """
        document = self._document(request, REQUEST)
        try:
            sides = self._adapter.asked(document)
        except Unreadable as unreadable:
            raise Unsplit("unreadable") from unreadable
        if not sides:
            raise Unsplit("unreadable")
        if len(sides) > self._rows_max:
            raise Unsplit("too_many")
        values = tuple(side.value for side in sides)
        if len(sides) == 1:
            return Slices((request,), values)
        return Slices(_bodies(self._asked(document, sides), request, bytes_max), values)

    def answered(self, answer: bytes, rows: int, *, bytes_max: int) -> tuple[bytes, ...]:
        """The rows of the answer to a request of so many, which are several.

        Raises:
            Unsplit: it cannot be read, has other rows, or its slices have more than `bytes_max` bytes together.
        """
        document = self._document(answer, ANSWER)
        sides = self._sides(document, rows)
        if len(sides) != rows:
            raise Unsplit("rows_differ")
        return _bodies(self._answered(document, sides), answer, bytes_max)

    def count_answered(self, answer: bytes, rows: int) -> int:
        """How many rows the answer to a request of so many has; raises Unsplit where it cannot be read."""
        return len(self._sides(self._document(answer, ANSWER), rows))

    def _sides(self, document: Any, rows: int) -> list[Side]:
        try:
            return self._adapter.answered(document, rows)
        except Unreadable as unreadable:
            raise Unsplit("unreadable") from unreadable

    def _document(self, raw: bytes, where: str) -> Any:
        if len(raw) > self._parse_bytes_max:
            raise Unsplit("too_large")
        try:
            if self._adapter.binary_tail and json_part(raw, where) != raw.rstrip(b" \t\r\n"):
                raise Unsplit("unreadable")  # values in binary: which bytes are whose is not read
            return parsed(raw, where)
        except Unreadable as unreadable:
            raise Unsplit("unreadable") from unreadable


def _bodies(documents: Iterable[Any], whole: bytes, bytes_max: int) -> tuple[bytes, ...]:
    """The documents as bytes. What is said once for all rows stands in each, so they may be far more than the whole."""
    bodies: list[bytes] = []
    room = bytes_max
    finite = _INFINITY not in whole
    for document in documents:
        body = _encoded(document).encode("utf-8")
        room -= len(body)
        if room < 0:
            raise Unsplit("too_large")
        if finite and _INFINITY in body:  # 1e999: a number that Python does not hold
            raise Unsplit("unreadable")
        bodies.append(body)
    return tuple(bodies)


def _one_of(value: Any, at: int) -> Any:
    """One row of a list of rows, or of an object of columns, in the same form."""
    if isinstance(value, dict):
        return {name: [values[at]] for name, values in value.items()}
    return [value[at]]


def _under(*names: str) -> Slicing:
    """Rows that stand under one of these names; where several of them are there, one row would hold the others too."""

    def sliced(document: Any, sides: list[Side]) -> Iterable[Any]:
        given = [name for name in names if name in document]
        if len(given) != 1:
            raise Unsplit("unreadable")
        (name,) = given
        for at in range(len(sides)):
            yield {**document, name: _one_of(document[name], at)}

    return sliced


def _listed(document: Any, _sides: list[Side]) -> Iterable[Any]:
    for row in document:
        yield [row]


def _mlflow_asked(document: Any, sides: list[Side]) -> Iterable[Any]:
    if "dataframe_split" not in document:
        yield from _under("dataframe_records", "instances", "inputs")(document, sides)
        return
    frame = document["dataframe_split"]
    index = frame.get("index")
    if index is not None and (not isinstance(index, list) or len(index) != len(sides)):
        raise Unsplit("unreadable")
    for at, row in enumerate(frame["data"]):
        labels = {} if index is None else {"index": [index[at]]}
        yield {**document, "dataframe_split": {**frame, **labels, "data": [row]}}


def _mlflow_answered(document: Any, sides: list[Side]) -> Iterable[Any]:
    return _listed(document, sides) if isinstance(document, list) else _under("predictions")(document, sides)


def _tensors(name: str) -> Slicing:
    """Tensors as the Open Inference Protocol lists them; the data of a row are flat or nested as they came."""

    def sliced(document: Any, sides: list[Side]) -> Iterable[Any]:
        whole = []
        for tensor in document[name]:
            if "data" not in tensor or any(elsewhere in (tensor.get("parameters") or {}) for elsewhere in _ELSEWHERE):
                raise Unsplit("unreadable")
            is_nested = any(isinstance(value, list) for value in tensor["data"])
            if is_nested and len(tensor["data"]) != len(sides):
                raise Unsplit("unreadable")
            whole.append((tensor, 1 if is_nested else prod(tensor["shape"][1:])))
        for at in range(len(sides)):
            rows = [
                {**tensor, "shape": [1, *tensor["shape"][1:]], "data": tensor["data"][at * each : (at + 1) * each]}
                for tensor, each in whole
            ]
            yield {**document, name: rows}

    return sliced


_ELSEWHERE: Final = ("binary_data_size", "shared_memory_region")


def _prompts(document: Any, sides: list[Side]) -> Iterable[Any]:
    for prompt, side in zip(document["prompt"], sides, strict=True):
        tokens = isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt)
        if not isinstance(prompt, str) and not tokens:
            raise Unsplit("unreadable")
        yield side.value


def _choices(_document: Any, sides: list[Side]) -> Iterable[Any]:
    return [side.value for side in sides]


_SLICINGS: Final[dict[str, tuple[Slicing, Slicing]]] = {
    "generic": (_listed, _listed),
    "openai": (_prompts, _choices),
    "inference-v2": (_tensors("inputs"), _tensors("outputs")),
    "kserve-v1": (_under("instances", "inputs"), _under("predictions", "outputs")),
    "mlflow": (_mlflow_asked, _mlflow_answered),
}
