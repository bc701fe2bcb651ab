from __future__ import annotations

import pytest

from storage.protocols import Extracted, Extractor, ExtractSpec, extract

SPEC = ExtractSpec(
    label="decision",
    favourable=("approved",),
    adverse=("denied",),
    score="scores[0]",
    case="application.id",
    subject="applicant.ssn",
    features="application.features",
)
REQUEST = b'{"application":{"id":7,"features":{"income":4.5,"kind":"home"}},"applicant":{"ssn":"123"}}'


def test_a_call_gives_label_score_case_subject_and_features() -> None:
    assert extract(REQUEST, b'{"decision":"denied","scores":[0.25]}', SPEC) == Extracted(
        label="denied",
        favourable=0,
        score=0.25,
        case="7",
        subject="123",
        features={"income": 4.5, "kind": "home"},
    )
    assert extract(REQUEST, b'{"decision":"approved","scores":[1]}', SPEC).favourable == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"<html>", "answer: not JSON"),
        (b"{}", "label: not found"),
        (b'{"decision":{"x":1},"scores":[0]}', "label: not a single value"),
        (b'{"decision":"maybe","scores":[0]}', "label: neither favourable nor adverse"),
        (b'{"decision":"denied","scores":["high"]}', "score: not a finite number"),
        (b'{"decision":"denied","scores":[true]}', "score: not a finite number"),
        (b'{"decision":"' + b"x" * 65 + b'","scores":[0]}', "label: longer than 64 bytes"),
        (b'{"decision":"denied"}', "score: not found"),
    ],
)
def test_what_the_answer_does_not_say_is_an_error_and_no_guess(answer: bytes, error: str) -> None:
    found = extract(REQUEST, answer, SPEC)
    assert found.error == error
    assert found.case == "7"
    assert found.favourable is None or found.label == "denied"


@pytest.mark.parametrize(
    ("request_body", "error"),
    [
        (b"", "request: not JSON"),
        (b'{"application":{"id":[],"features":{}},"applicant":{"ssn":1}}', "case: not a string or a number"),
        (
            b'{"application":{"id":"","features":{}},"applicant":{"ssn":1}}',
            "case: empty, or longer than 512 characters",
        ),
        (b'{"application":{"id":1,"features":[]},"applicant":{"ssn":1}}', "features: not an object"),
        (b'{"application":{"id":1,"features":{}}}', "subject: not found"),
    ],
)
def test_what_the_request_does_not_say_is_an_error_and_the_label_stays(request_body: bytes, error: str) -> None:
    found = extract(request_body, b'{"decision":"denied","scores":[0]}', SPEC)
    assert (found.error, found.label) == (error, "denied")


def test_a_label_without_declared_meaning_has_no_favour_and_no_error() -> None:
    found = extract(b"", b'{"flag":true}', ExtractSpec(label="flag"))
    assert found == Extracted(label="true")
    assert extract(b"not json", b"not json", ExtractSpec()) == Extracted()


def test_bodies_over_the_limit_are_not_parsed() -> None:
    found = extract(b"", b'{"flag":1}', ExtractSpec(label="flag", parse_bytes_max=5))
    assert found.error == "answer: 10 bytes, at most 5 are parsed"


def test_a_function_that_meets_a_wrong_type_is_an_error() -> None:
    found = extract(b"", b'{"n":"x"}', ExtractSpec(score="abs(n)"))
    assert found.error is not None
    assert found.error.startswith("score: ")


def test_an_expression_that_does_not_compile_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="label: '\\[\\['"):
        Extractor(ExtractSpec(label="[["))


def test_the_digest_changes_with_what_is_extracted_and_with_nothing_else() -> None:
    same = ExtractSpec(label="a", favourable=("x", "y"))
    assert same.digest == ExtractSpec(label="a", favourable=("y", "x")).digest
    assert len({same.digest, ExtractSpec(label="b").digest, ExtractSpec(score="a").digest}) == 3


def test_case_and_subject_can_be_captured_before_there_is_an_answer() -> None:
    assert Extractor(SPEC).references(REQUEST) == ("7", "123")
    assert Extractor(SPEC).references(b"?") == (None, None)
