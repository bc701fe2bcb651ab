"""Protocols that score rows: the Open Inference Protocol V2, KServe V1, MLflow, and lists of plain JSON."""

import json
from typing import Any

import pytest

from storage.protocols import Extracted, Extractor, ExtractSpec
from storage.protocols.inference_v2 import ROWS_STATED_MAX
from storage.protocols.reading import adapter_for, count_rows


def rows(protocol: str, request: object, answer: object, **declared: Any) -> list[Extracted]:
    spec = ExtractSpec(protocol=protocol, batch=True, **{"label": "@", "case": "id", **declared})
    bodies = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in (request, answer)]
    return list(Extractor(spec).rows(*bodies))


def told(found: list[Extracted]) -> list[tuple[str | None, str | None, str | None]]:
    return [(row.case, row.label, row.error) for row in found]


BOTH = [("a", "deny", None), ("b", "approve", None)]
PREDICTED = {"predictions": ["deny", "approve"]}


@pytest.mark.parametrize(
    ("request_body", "answer"),
    [
        ({"instances": [{"id": "a"}, {"id": "b"}]}, PREDICTED),
        ({"inputs": {"id": ["a", "b"], "x": [1, 2]}}, PREDICTED),
        ({"signature_name": "s", "inputs": [{"id": "a"}, {"id": "b"}]}, {"outputs": ["deny", "approve"]}),
    ],
)
def test_kserve_v1_rows_are_instances_and_predictions(request_body, answer):
    assert told(rows("kserve-v1", request_body, answer)) == BOTH


def test_kserve_v1_outputs_by_name_are_columns():
    found = rows(
        "kserve-v1",
        {"instances": [[1], [2]]},
        {"outputs": {"l": ["deny", "approve"], "p": [0.1, 1]}},
        label="l",
        score="p",
        case=None,
    )
    assert [(row.label, row.score) for row in found] == [("deny", 0.1), ("approve", 1.0)]


@pytest.mark.parametrize(
    "request_body",
    [
        {"dataframe_split": {"columns": ["id", "x"], "index": [7, 9], "data": [["a", 1], ["b", None]]}},
        {"dataframe_records": [{"id": "a", "x": 1}, {"id": "b"}], "params": {"t": 0}},
        {"instances": [{"id": "a"}, {"id": "b"}]},
        {"inputs": {"id": ["a", "b"]}},
    ],
)
def test_mlflow_rows_are_those_of_each_form_of_request(request_body):
    assert told(rows("mlflow", request_body, PREDICTED)) == BOTH
    assert told(rows("mlflow", request_body, ["deny", "approve"])) == BOTH, "as servers before 2.0 answered"
    records = {"predictions": [{"out": "deny"}, {"out": "approve"}]}
    columns = {"predictions": {"out": ["deny", "approve"]}}
    for answer in (records, columns):
        assert told(rows("mlflow", request_body, answer, label="out")) == BOTH


def test_mlflow_data_frames_without_names_of_columns_have_numbers():
    frame = {"dataframe_split": {"columns": [0, 1], "data": [["a", 1]]}}
    assert told(rows("mlflow", frame, {"predictions": ["deny"]}, case='"0"')) == [("a", "deny", None)]


@pytest.mark.parametrize("prediction", ["deny", {"out": "deny", "all": [1, 2, 3]}])
def test_mlflow_may_answer_one_row_without_a_list(prediction):
    label = "@" if isinstance(prediction, str) else "out"
    assert told(rows("mlflow", {"dataframe_records": [{"id": "a"}]}, {"predictions": prediction}, label=label)) == [
        BOTH[0]
    ]


def tensor(name: str, shape: list[int], data: object, **more: object) -> dict:
    return {"name": name, "shape": shape, "datatype": "BYTES", "data": data, **more}


@pytest.mark.parametrize("shape", [[2], [2, 1], [2, 1, 1]])
@pytest.mark.parametrize("nested", [False, True])
def test_v2_rows_are_the_first_dimension_of_every_tensor(shape, nested):
    def data(*values: str) -> list:
        depth = len(shape) - 1 if nested else 0
        return [json.loads("[" * depth + json.dumps(value) + "]" * depth) for value in values]

    request = {"id": "x", "inputs": [tensor("id", shape, data("a", "b")), tensor("v", [2, 2], [1, 2, 3, 4])]}
    answer = {"model_name": "m", "model_version": "7", "outputs": [tensor("label", shape, data("deny", "approve"))]}
    found = rows("inference-v2", request, answer, label="label", features="{all: v, one: v[1]}")
    assert told(found) == BOTH
    assert [row.features for row in found] == [{"all": [1, 2], "one": 2}, {"all": [3, 4], "one": 4}]
    assert {row.model for row in found} == {"7"}


def test_v2_inner_dimensions_become_lists_of_lists():
    request = {"inputs": [tensor("v", [2, 2, 1, 2], list(range(8)))]}
    found = rows("inference-v2", request, request | {"outputs": request["inputs"]}, case=None, label=None, features="@")
    assert found[1].features == {"v": [[[4, 5]], [[6, 7]]]}


def test_v2_tensors_in_binary_are_not_read_and_said_to_be_so():
    binary = {"name": "x", "shape": [2, 1], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    request = json.dumps({"inputs": [binary, tensor("id", [2], ["a", "b"])]}).encode() + b"\x00\x00\x80?\xff\xff{}"
    answer = {"outputs": [tensor("label", [2], ["deny", "approve"])]}
    assert told(rows("inference-v2", request, answer, label="label")) == BOTH
    found = rows("inference-v2", request, answer, label="label", score="p", features="{x: x}", case="x")
    assert {row.error for row in found} == {"score: not found"}
    assert told(rows("inference-v2", request, answer, label="label", case="x")) == [
        (None, label, "case: in binary, which is not read") for label in ("deny", "approve")
    ]
    shared = {"inputs": [{**binary, "parameters": {"shared_memory_region": "r"}}]}
    assert told(rows("inference-v2", shared, answer, label="label", case=None)) == [
        (None, row[1], None) for row in BOTH
    ]


@pytest.mark.parametrize(
    ("protocol", "request_body", "error"),
    [
        ("kserve-v1", {}, "neither instances nor inputs"),
        ("kserve-v1", {"instances": []}, "no rows"),
        ("kserve-v1", {"instances": {"a": 1}}, "instances is not what the protocol says"),
        ("kserve-v1", {"inputs": {"a": [1], "b": [1, 2]}}, "its columns are not of one length"),
        ("kserve-v1", {"inputs": {}}, "its columns are not of one length"),
        ("kserve-v1", b"id,x\na,1\n", "not JSON"),
        ("mlflow", {}, "expected one of dataframe_split, dataframe_records, instances, inputs"),
        (
            "mlflow",
            {"inputs": [1], "instances": [1]},
            "expected one of dataframe_split, dataframe_records, instances, inputs",
        ),
        ("mlflow", {"dataframe_split": {"columns": ["a", "a"], "data": []}}, "a column stands twice"),
        ("mlflow", {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "a row is not as long as the columns"),
        ("mlflow", {"dataframe_records": [1]}, "a record is not what the protocol says"),
        ("inference-v2", {"inputs": []}, "its tensors are not of one batch size"),
        (
            "inference-v2",
            {"inputs": [tensor("a", [1], [1]), tensor("b", [2], [1, 2])]},
            "its tensors are not of one batch size",
        ),
        ("inference-v2", {"inputs": [tensor("a", [1], [1])] * 2}, "a tensor stands twice"),
        ("inference-v2", {"inputs": [tensor("a", [2], [1])]}, "its data are not of the stated shape"),
        ("inference-v2", {"inputs": [tensor("a", [2, 2], [[1, 2], 3])]}, "data is not what the protocol says"),
        ("inference-v2", {"inputs": [tensor("a", [0], [])]}, "a shape is empty or too large"),
        ("inference-v2", {"inputs": [tensor("a", [], [])]}, "a shape is empty or too large"),
        ("inference-v2", {"inputs": [tensor("a", [10**12, 0], [])]}, "a shape is empty or too large"),
        ("inference-v2", {"inputs": [tensor("a", [1] * 9, [1])]}, "a shape is empty or too large"),
        ("inference-v2", {"inputs": [tensor("a", [True], [1])]}, "a shape is not what the protocol says"),
        (
            "inference-v2",
            {"inputs": [tensor("a", [ROWS_STATED_MAX + 1], [], parameters={"binary_data_size": 1})]},
            "a shape is empty or too large",
        ),
        ("inference-v2", [], "not JSON"),
        ("generic", {"a": 1}, "the body of a batch is not what the protocol says"),
    ],
)
def test_a_request_whose_rows_cannot_be_told_is_one_row_with_its_fault(protocol, request_body, error):
    answer = {"predictions": ["deny"], "outputs": [tensor("label", [1], ["deny"])]}
    found = rows(protocol, request_body, answer if protocol != "generic" else [answer], label="@ && 'deny'")
    assert told(found) == [(None, "deny", f"request: {error}")]


@pytest.mark.parametrize(
    ("protocol", "answer", "error"),
    [
        ("kserve-v1", {"predictions": ["deny"]}, "answer: 1 rows, and 2 were asked"),
        ("kserve-v1", {"error": "no such model"}, "answer: an error instead of an answer"),
        ("kserve-v1", {"explanations": []}, "answer: neither predictions nor outputs"),
        ("mlflow", {"error_code": "BAD_REQUEST", "message": "private"}, "answer: an error instead of an answer"),
        ("mlflow", {"predictions": "deny"}, "answer: predictions is not what the protocol says"),
        ("mlflow", {}, "answer: no predictions"),
        ("mlflow", b"[NaN, NaN]", "label: not a single value"),
    ],
)
def test_an_answer_that_does_not_fit_leaves_every_row_without_label(protocol, answer, error):
    found = rows(protocol, {"instances": [{"id": "a"}, {"id": "b"}]}, answer)
    assert told(found) == [("a", None, error), ("b", None, error)]


def test_more_rows_than_allowed_are_not_told_apart():
    many = {"instances": [{"id": "a"}] * 4}
    found = rows("kserve-v1", many, {"predictions": ["deny"] * 4}, rows_max=3)
    assert told(found) == [(None, None, "request: 4 rows, at most 3 are told apart")]
    assert len(rows("kserve-v1", many, {"predictions": ["deny"] * 4}, rows_max=4)) == 4


def test_without_a_batch_one_row_is_a_decision_and_several_are_none():
    spec = ExtractSpec(protocol="mlflow", label="@", case="id")
    one, two = (json.dumps({"dataframe_records": [{"id": "a"}] * n}).encode() for n in (1, 2))
    assert Extractor(spec).extract(one, b'{"predictions": ["deny"]}').label == "deny"
    found = Extractor(spec).extract(two, b'{"predictions": ["deny", "deny"]}')
    assert (found.label, found.error) == (None, "request: 2 rows, at most 1 are told apart")
    assert Extractor(spec).references(one) == ("a", None)


def test_a_row_is_named_by_its_place_in_the_request():
    spec = ExtractSpec(protocol="generic", batch=True, label="d")
    extractor = Extractor(spec)
    bodies = b"[1, 2]", b'[{"d": "deny"}, {"d": true}]'
    assert [extractor.extract(*bodies, row=row).label for row in (0, 1)] == ["deny", "true"]
    assert extractor.extract(*bodies, row=2).error == "request: no such row"
    assert extractor.extract(*bodies).error == "request: 2 rows, and none is named"


@pytest.mark.parametrize(
    ("request_body", "count"),
    [(b'{"instances": [1, 2, 3]}', 3), (b'{"instances": []}', 1), (b"?", 1), (b'{"instances": [1, 2, 3, 4]}', 1)],
)
def test_rows_can_be_counted_before_there_is_an_answer(request_body, count):
    adapter = adapter_for("kserve-v1", batch=True)
    assert count_rows(adapter, request_body, parse_bytes_max=1_000, rows_max=3) == count
    spec = ExtractSpec(protocol="kserve-v1", batch=True, label="@", parse_bytes_max=1_000, rows_max=3)
    assert len(Extractor(spec).rows(request_body, b"{}")) == count
