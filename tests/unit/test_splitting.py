"""A call of several rows as calls of one: the same adapter reads the same of each, or the call is not split."""

import gzip
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.protocols.exchange import Side
from storage.protocols.reading import adapter_for
from storage.protocols.splitting import Splitter, Unsplit

ROOM = 1 << 20
PREDICTED = {"predictions": ["deny", "approve"], "model": "m"}
TWO = {
    "generic": ([{"id": "a"}, {"id": "b"}], ["deny", "approve"]),
    "kserve-v1": ({"instances": [{"id": "a"}, {"id": "b"}], "signature_name": "s"}, PREDICTED),
    "mlflow": ({"dataframe_split": {"columns": ["id"], "index": [7, 9], "data": [["a"], ["b"]]}}, PREDICTED),
    "inference-v2": (
        {"id": "1", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [[1.5, 2], [3, 4]]}]},
        {"outputs": [{"name": "y", "shape": [2], "datatype": "BYTES", "data": ["deny", "approve"]}]},
    ),
    "openai": (
        {"model": "m", "prompt": ["a", [1, 2]], "n": 2},
        {"choices": [{"index": at, "text": f"t{at}"} for at in range(4)], "usage": {"total_tokens": 9}},
    ),
}
MORE = [
    ("kserve-v1", {"inputs": {"id": ["a", "b"], "x": [1, 2]}}, {"outputs": {"l": ["deny", "approve"], "p": [0.1, 1]}}),
    ("kserve-v1", {"inputs": [["a", 1], ["b", 2]]}, {"predictions": [[0.1], [0.9]]}),
    ("mlflow", {"dataframe_records": [{"id": "a"}, {"id": "b"}], "params": {"t": 0}}, [0, 1]),
    ("mlflow", {"instances": [{"id": "a"}, {"id": "b"}]}, PREDICTED),
    ("mlflow", {"inputs": {"id": ["a", "b"]}}, {"predictions": {"l": ["deny", "approve"]}}),
    ("mlflow", {"dataframe_split": {"columns": ["x"], "data": [[math.nan], [10**30]]}}, {"predictions": [1.5, 2]}),
    ("generic", ["Müller", "\U0001f600"], [None, {"deep": [[]]}]),
]


def splitter(protocol: str, **more: int) -> Splitter:
    return Splitter(protocol, **{"parse_bytes_max": ROOM, "rows_max": 100, **more})


def spelled(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def sides(protocol: str, request: bytes, answer: bytes, rows: int) -> list[tuple[Side, Side]]:
    adapter = adapter_for(protocol, batch=True)
    pairs = zip(adapter.asked(json.loads(request)), adapter.answered(json.loads(answer), rows), strict=True)
    return list(pairs)


def check(protocol: str, request: bytes, answer: bytes, rows: int) -> None:
    """Each row, read from its own bodies, is what it is in the whole."""
    one = splitter(protocol)
    asked = one.asked(request, bytes_max=ROOM)
    answered = one.answered(answer, rows, bytes_max=ROOM)
    assert len(asked.bodies) == len(answered) == rows
    alone = [sides(protocol, *bodies, 1) for bodies in zip(asked.bodies, answered, strict=True)]
    assert repr([row for each in alone for row in each]) == repr(sides(protocol, request, answer, rows))
    assert repr(list(asked.values)) == repr([row.value for row, _ in sides(protocol, request, answer, rows)])


@pytest.mark.parametrize(
    ("protocol", "request_body", "answer"), [*[(name, *bodies) for name, bodies in TWO.items()], *MORE]
)
def test_the_adapter_reads_of_each_slice_what_it_reads_of_that_row_in_the_whole(protocol, request_body, answer):
    check(protocol, spelled(request_body), spelled(answer), 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=7)


@given(ROWS, st.dictionaries(st.sampled_from(["model", "id", "params"]), VALUES))
def test_any_rows_of_any_values_are_split_as_they_are(rows: list[tuple[Any, Any]], said: dict[str, Any]):
    asked, answered = [row for row, _ in rows], [row for _, row in rows]
    check("generic", spelled(asked), spelled(answered), len(rows))
    check("kserve-v1", spelled({**said, "instances": asked}), spelled({**said, "predictions": answered}), len(rows))
    frame = {"columns": ["a"], "index": answered, "data": [[row] for row in asked]}
    check("mlflow", spelled({"dataframe_split": frame, "params": said}), spelled(answered), len(rows))


@given(st.integers(2, 5), st.lists(st.integers(1, 3), max_size=3), st.booleans(), st.data())
def test_tensors_of_any_shape_are_split_along_their_first_dimension(rows, rest, is_nested, data):
    count = rows * math.prod(rest)
    values: list[Any] = data.draw(st.lists(st.integers() | st.text(max_size=3), min_size=count, max_size=count))
    nested = values
    for size in reversed(rest if is_nested else []):
        nested = [nested[at : at + size] for at in range(0, len(nested), size)]
    tensors = [{"name": "x", "shape": [rows, *rest], "datatype": "BYTES", "data": nested}]
    check("inference-v2", spelled({"inputs": tensors}), spelled({"outputs": tensors}), rows)


def test_a_request_of_one_row_stays_as_it_came():
    raw = b' {"instances" : [ {"b": 1.50, "a": 2} ]}\n'
    assert splitter("kserve-v1").asked(raw, bytes_max=1).bodies == (raw,)


def test_what_was_said_once_for_all_rows_stands_beside_each():
    request, answer = TWO["kserve-v1"]
    one = splitter("kserve-v1")
    assert one.asked(spelled(request), bytes_max=ROOM).bodies == (
        b'{"instances":[{"id":"a"}],"signature_name":"s"}',
        b'{"instances":[{"id":"b"}],"signature_name":"s"}',
    )
    assert one.answered(spelled(answer), 2, bytes_max=ROOM)[1] == b'{"predictions":["approve"],"model":"m"}'


@pytest.mark.parametrize(
    ("protocol", "request_body", "why"),
    [
        ("generic", {"not": "a list"}, "unreadable"),
        ("generic", [], "unreadable"),
        ("generic", b"", "unreadable"),
        ("generic", b"[1, 2", "unreadable"),
        ("generic", b'[{"a": 1, "a": 2}, 3]', "unreadable"),
        ("generic", b"[1e999, 2]", "unreadable"),
        ("generic", gzip.compress(b"[1, 2]", mtime=0), "unreadable"),
        ("generic", [1] * 101, "too_many"),
        ("generic", ["x" * ROOM], "too_large"),
        ("kserve-v1", {"instances": [1, 2], "inputs": [1, 2]}, "unreadable"),
        ("kserve-v1", {"instances": [1] * 50, "signature_name": "s" * 30_000}, "too_large"),
        ("mlflow", {"dataframe_split": {"columns": ["a"], "index": [1], "data": [[1], [2]]}}, "unreadable"),
        ("mlflow", b"a,b\n1,2\n", "unreadable"),
        ("openai", {"prompt": [["a", "b"], "c"]}, "unreadable"),
        (
            "inference-v2",
            {"inputs": [{"name": "x", "shape": [2], "parameters": {"binary_data_size": 8}}]},
            "unreadable",
        ),
        ("inference-v2", spelled(TWO["inference-v2"][0]) + b"\x00\x01", "unreadable"),
    ],
)
def test_a_request_that_cannot_be_split_exactly_says_why(protocol, request_body, why):
    with pytest.raises(Unsplit) as caught:
        splitter(protocol).asked(spelled(request_body), bytes_max=ROOM)
    assert caught.value.why == why


@pytest.mark.parametrize(
    ("protocol", "answer", "why"),
    [
        ("generic", [1], "rows_differ"),
        ("generic", [1, 2, 3], "rows_differ"),
        ("kserve-v1", {"predictions": [1]}, "rows_differ"),
        ("kserve-v1", {"predictions": [1, 2], "outputs": [1, 2]}, "unreadable"),
        ("mlflow", {"error_code": "BAD_REQUEST"}, "unreadable"),
        ("openai", {"choices": [{"index": 0}]}, "unreadable"),
        ("generic", ["x" * 600_000, "y" * 600_000], "too_large"),
    ],
)
def test_an_answer_that_cannot_be_split_exactly_says_why(protocol, answer, why):
    with pytest.raises(Unsplit) as caught:
        splitter(protocol).answered(spelled(answer), 2, bytes_max=ROOM)
    assert caught.value.why == why


def test_rows_of_what_came_are_counted_where_something_else_is_recorded():
    assert [splitter("generic").count_answered(answer, 2) for answer in (b"[3, 4]", b"[3]")] == [2, 1]
