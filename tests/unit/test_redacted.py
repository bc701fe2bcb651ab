"""What the keeper and the desk say of a decision whose record was redacted."""

from typing import Any

import orjson
import pytest

from config.extract import Extract
from config.redaction import Redact
from gateway.desk.redaction import redaction
from gateway.keeper.redacted import read
from gateway.proxy.redact import Side
from storage.protocols import Extractor, ExtractSpec
from storage.protocols.splitting import Splitter

REQUEST = {"case": "L-1", "person": "ann", "features": {"income": 10, "debt": 5, "note": "pay 4111111111111111"}}
ANSWER = {"decision": "denied", "score": 0.25}
SPEC = Extract.model_validate(
    {
        "label": "decision",
        "adverse": ["denied"],
        "score": "score",
        "case": "case",
        "subject": "person",
        "features": "features",
    }
)


def extractor(protocol: str = "generic") -> Extractor:
    declared = {name: getattr(SPEC, name) for name in type(SPEC).model_fields}
    return Extractor(ExtractSpec(protocol=protocol, **declared))


def recorded(
    redact: dict[str, Any], *, request: Any = None, answer: Any = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Entry and parts as a gateway would have made them."""
    declared = Redact.model_validate(redact)
    entry: dict[str, Any] = {"redacted": {}, "parts": []}
    parts: dict[str, bytes] = {}
    for name, rules, value in (
        ("request", declared.request, REQUEST if request is None else request),
        ("response", declared.response, ANSWER if answer is None else answer),
    ):
        raw = value if isinstance(value, bytes) else orjson.dumps(value)
        parts[name] = raw
        side = Side.of(rules, declared, route="m", bytes_max=1 << 20)
        if side is not None:
            copied = side.copy(raw, media="application/json", coding="", keyed=lambda kind, value: f"p.{'A' * 43}")
            entry["redacted"][name] = copied.stated
            if copied.body is None:
                del parts[name]
                continue
            parts[name] = copied.body
        entry["parts"].append({"name": name, "media": "application/json"})
    return entry, parts


@pytest.mark.parametrize("how", ["drop", "mask", "hash", "token"])
@pytest.mark.parametrize(
    ("path", "missing"),
    [("person", "subject"), ("case", "case"), ("features.income", "features"), ("**.debt", "features")],
)
def test_what_depends_on_a_hidden_value_is_missing_and_the_rest_is_read(how, path, missing):
    entry, parts = recorded({"request": [{"path": path, "how": how}]})
    found = read(extractor(), entry, parts)
    assert getattr(found, missing) is None
    assert found.error == f"{missing}: redacted before recording"
    plain = read(
        extractor(), {"parts": [], "redacted": {}}, {"request": orjson.dumps(REQUEST), "response": parts["response"]}
    )
    for name in {"label", "favourable", "score", "case", "subject", "features"} - {missing}:
        assert getattr(found, name) == getattr(plain, name) is not None


@pytest.mark.parametrize("how", ["drop", "mask", "hash", "token"])
@pytest.mark.parametrize("path", ["decision", "score"])
def test_a_hidden_answer_is_no_label_and_no_score(how, path):
    entry, parts = recorded({"response": [{"path": path, "how": how}]})
    found = read(extractor(), entry, parts)
    name = {"decision": "label"}.get(path, path)
    assert getattr(found, name) is None
    assert found.error == f"{name}: redacted before recording"
    assert found.features == REQUEST["features"]


def test_a_number_found_in_a_feature_hides_that_feature_and_elsewhere_it_hides_nothing():
    entry, parts = recorded({"detect": ["card"]})
    assert read(extractor(), entry, parts).error == "features: redacted before recording"
    entry, parts = recorded({"detect": ["card"]}, request={**REQUEST, "features": {"a": 1}, "x": "4111111111111111"})
    found = read(extractor(), entry, parts)
    assert (found.error, found.features) == (None, {"a": 1})


def test_what_is_hidden_elsewhere_changes_nothing():
    entry, parts = recorded({"request": [{"path": "person", "how": "drop"}, {"path": "features.*.x", "how": "drop"}]})
    assert read(extractor(), entry, parts).features == REQUEST["features"]


def test_a_withheld_side_is_told_with_its_reason_and_the_other_is_read():
    entry, parts = recorded({"request": [{"path": "person", "how": "drop"}]}, request=b"no json")
    found = read(extractor(), entry, parts)
    assert (found.label, found.error) == ("denied", "request: withheld before recording: not_json")
    entry, parts = recorded({"response": [{"path": "x", "how": "drop"}]}, answer=b"no json")
    found = read(extractor(), entry, parts)
    assert (found.label, found.error) == (None, "answer: withheld before recording: not_json")


def test_the_desk_says_in_words_what_was_hidden_and_what_was_not_recorded():
    stated = {
        "request": {
            "paths": {"person": {"how": "token", "values": 1}, "notes[*]": {"how": "drop", "values": 3}},
            "detected": {"card": 1, "iban": 2},
        },
        "response": {"withheld": "too_large"},
        "target": {},
    }
    assert redaction(stated) == [
        (
            "The request was redacted before recording: person replaced by a token, notes[*] left out (3 values), "
            "1 card number, 2 IBANs."
        ),
        (
            "The answer could not be redacted as the route asks, so it was not recorded: it was larger than "
            "what is parsed."
        ),
    ]
    assert redaction({"response": {"unfinished_bytes": 7}}) == [
        "The answer ends in 7 bytes without an end, which were left out."
    ]


def test_of_a_row_nothing_is_read_that_was_hidden_in_the_whole_call():
    redact = {"request": [{"path": "[*].features.income", "how": "mask"}]}
    entry, parts = recorded(redact, request=[REQUEST, REQUEST | {"case": "L-2"}], answer=[ANSWER, ANSWER])
    splitter = Splitter("generic", parse_bytes_max=1 << 20, rows_max=10)
    request = splitter.asked(parts["request"], bytes_max=1 << 20).bodies[1]
    answer = splitter.answered(parts["response"], 2, bytes_max=1 << 20)[1]
    declared = {name: getattr(SPEC, name) for name in type(SPEC).model_fields}
    found = read(Extractor(ExtractSpec(batch=True, **declared)), entry, {"request": request, "response": answer})
    assert (found.case, found.label, found.features) == ("L-2", "denied", None)
    assert found.error == "features: redacted before recording"
