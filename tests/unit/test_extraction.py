import json
import re
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

import storage.protocols
from config.extract import Extract
from config.route import Route
from storage.protocols import Extractor, ExtractSpec, extract, spec_of


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (b"true", "true"),
        (b"0", "0"),
        (b"1.0", "1.0"),
        (b"1e2", "100.0"),
        (b'"1"', "1"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b'"' + "é".encode() * 32 + b'"', "é" * 32),
    ],
)
def test_a_scalar_is_a_label_as_json_spells_it(answer, label):
    assert extract(b"", answer, ExtractSpec(label="@")).label == label


@pytest.mark.parametrize("answer", [b"NaN", b"Infinity", b"1e999", b"[1]", b"{}"])
def test_what_is_no_single_value_is_no_label(answer):
    assert extract(b"", answer, ExtractSpec(label="@")).error == "label: not a single value"


@pytest.mark.parametrize("answer", [b"NaN", b"-Infinity", b"9" * 400, b'"0.5"', b"true", b"[0.5]"])
def test_what_is_no_finite_number_is_no_score(answer):
    assert extract(b"", answer, ExtractSpec(score="@")).error == "score: not a finite number"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("p = .5", 0.5),
        ("p = -1.25e-3,", -0.00125),
        ("p = 7", 7.0),
        ("p = seven", None),
        ("p = 1e9999", None),
        ("p = nan", None),
    ],
)
def test_a_matched_text_is_a_score_where_it_spells_a_number(text, score):
    declared = Extract.model_validate({"label": "@", "score": {"match": r"p = ([^\s,]+)", "at": "@"}})
    found = extract(b"", json.dumps(text).encode(), ExtractSpec(score=declared.score))
    assert (found.score, found.error) == (score, None if score is not None else "score: not a finite number")


@pytest.mark.parametrize("features", [{"x": 2**63}, {"x": [{"y": -(10**30)}]}])
def test_features_that_would_change_on_their_way_are_not_taken(features):
    found = extract(json.dumps(features).encode(), b"", ExtractSpec(features="@"))
    assert (found.features, found.error) == (None, "features: an integer is too large")
    assert extract(b'{"x": 9223372036854775807}', b"", ExtractSpec(features="@")).features == {"x": 2**63 - 1}


def test_a_text_named_by_a_path_must_be_one():
    declared = Extract.model_validate({"label": {"json": "a", "at": "t"}})
    assert extract(b"", b'{"t": 7}', ExtractSpec(label=declared.label)).error == "label: not a text"
    assert extract(b"", b"{}", ExtractSpec(label=declared.label)).error == "label: not found"
    assert extract(b"", b'{"t": "{\\"a\\": 1}"}', ExtractSpec(label=declared.label)).label == "1"
    bare = Extract.model_validate({"label": {"json": "a"}})
    assert extract(b"", b'{"t": 7}', ExtractSpec(label=bare.label)).error == "label: the answer has no text"


@pytest.mark.parametrize("expression", ["(?:a+)+$", "(?:a|a)*b", "(?:.*a){12}b", "(?:a?){100}a{100}b", "(?:a+b)|a"])
def test_no_expression_takes_more_than_linear_time(expression):
    declared = Extract.model_validate({"label": {"match": expression, "at": "@"}})
    answer = b'"' + b"a" * 200_000 + b'!"'
    started = time.perf_counter()
    extract(b"", answer, ExtractSpec(label=declared.label))
    assert time.perf_counter() - started < 5.0  # hours where matching backtracks, some ms here


def test_the_digest_names_everything_that_decides_what_is_read():
    reading = Extract.model_validate({"label": {"tool": "t", "argument": "a"}}).label
    specs = [
        ExtractSpec(),
        ExtractSpec(protocol="openai"),
        ExtractSpec(batch=True),
        ExtractSpec(rows_max=7),
        ExtractSpec(parse_bytes_max=7),
        ExtractSpec(label="a"),
        ExtractSpec(label=reading),
        ExtractSpec(score=reading),
        ExtractSpec(favourable=("a",)),
        ExtractSpec(adverse=("a",)),
    ]
    assert len({spec.digest for spec in specs}) == len(specs)
    assert ExtractSpec(label=reading).digest == ExtractSpec(label=reading.model_copy()).digest


def test_a_route_says_what_is_extracted_and_one_without_extract_says_nothing():
    route = Route(
        name="r", prefix="/r", upstream="http://h", protocol="mlflow", batch="rows", extract=Extract(label="@")
    )
    assert spec_of(route, parse_bytes_max=9) == ExtractSpec(protocol="mlflow", batch=True, label="@", parse_bytes_max=9)
    assert spec_of(route.model_copy(update={"extract": None}), parse_bytes_max=9) is None


def test_a_version_that_an_answer_names_is_kept_where_it_looks_like_one():
    spec = ExtractSpec(protocol="inference-v2", label="l")
    request = b'{"inputs": [{"name": "a", "shape": [1], "data": [1]}]}'
    outputs = b'"outputs": [{"name": "l", "shape": [1], "data": ["x"]}]'
    named = {b'"3"': "3", b"3": None, b'""': None, b'"' + b"x" * 129 + b'"': None}
    for version, model in named.items():
        assert Extractor(spec).extract(request, b'{"model_version": ' + version + b", " + outputs + b"}").model == model


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        ("generic", b"[{}" + b",{}" * 40_000 + b"]"),
        ("openai", b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n' * 2_000),
        ("openai", b"data\n" * 25_000 + b"\n"),
        ("kserve-v1", b'{"instances":[0' + b",0" * 50_000 + b"]}"),
        ("inference-v2", b'{"inputs":[{"name":"x","shape":[50000],"data":[0' + b",0" * 49_999 + b"]}]}"),
    ],
)
def test_memory_is_bounded_by_what_is_read(protocol, body):
    answer = body.replace(b"instances", b"predictions").replace(b"inputs", b"outputs")
    extractor = Extractor(ExtractSpec(protocol=protocol, batch=True, label="@", features="@"))
    tracemalloc.start()
    extractor.rows(body, answer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * len(body)


def test_the_examples_in_the_readme_are_routes():
    text = (Path(storage.protocols.__file__).parent / "README.md").read_text()
    stated = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    routes = [Route.model_validate(route) for route in stated]
    assert [Extractor(spec_of(route, parse_bytes_max=1_000)).spec.batch for route in routes] == [False, True]
