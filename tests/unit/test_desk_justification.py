import json
import re
from dataclasses import replace
from typing import Any

import pytest

from gateway.desk.content import KEYS_MAX, shape, text
from gateway.desk.context import Job, JobState
from gateway.desk.justification import document
from gateway.desk.records import Content, Dossier
from gateway.desk.sentences import FIXED, SENTENCES_MAX
from gateway.desk.states import State
from tests.support.desks import body
from tests.support.dossiers import ROUTE, decision, dossier, explanation, who

WITHHELD = {"withheld": body()["reasons"], "reasons": []}
STATES: dict[State, tuple[Dossier, Job | None]] = {
    State.PENDING: (dossier(explanations=()), None),
    State.RUNNING: (dossier(explanations=()), Job(JobState.RUNNING)),
    State.READY: (dossier(), None),
    State.FAILED: (dossier(explanations=(explanation(None),)), None),
    State.UNCERTAIN: (dossier(explanations=(explanation(body(verdict="uncertain", **WITHHELD)),)), None),
    State.REVIEW: (dossier(explanations=(explanation(body(notice="human", **WITHHELD)),)), None),
    State.BLOCKED: (dossier(explanations=(explanation(body(notice="blocked", **WITHHELD)),)), None),
    State.UNBOUND: (dossier(explanations=(explanation(body(binding="unbound", verdict="failed")),)), None),
    State.ERASED: (dossier(explanations=(explanation(body(), erased=True),)), None),
    State.SKIPPED: (dossier(explanations=(), decision=decision(route="cards")), None),
    State.UNANSWERED: (dossier(explanations=(), decision=decision(label=None, favourable=None, status=502)), None),
}


def told(made: Dossier, *roles: str, job: Job | None = None) -> dict[str, Any]:
    never = ROUTE.model_copy(update={"explain": ROUTE.explain.model_copy(update={"when": "never"})})
    return document(made, who(*roles), route=never if made.decision.route == "cards" else ROUTE, job=job)


@pytest.mark.parametrize("state", list(State))
def test_the_state_of_the_explanation_is_always_told(state):
    made, job = STATES[state]
    for role in ("support", "compliance", "model_owner", "dpo", "regulator"):
        assert told(made, role, job=job)["explanation"]["state"] == state.value


@pytest.mark.parametrize("state", list(State))
def test_the_card_says_at_most_four_sentences_and_no_number_of_the_model(state):
    made, job = STATES[state]
    card = told(made, "support", job=job)["card"]
    assert 2 <= len(card["say"]) <= SENTENCES_MAX
    assert all(len(re.findall(r"[.!?](?=\s+[A-Z]|$)", sentence)) == 1 for sentence in card["say"]), card["say"]
    written = json.dumps(card)
    for number in ("0.312", "0.92", "0.81", "SHAP", "log-odds", "cutoff"):
        assert number not in written


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_no_reason_is_named_unless_the_explanation_is_ready(state):
    made, job = STATES[state]
    for role in ("support", "compliance", "regulator", "model_owner", "dpo"):
        found = told(made, role, job=job)
        assert FIXED[state] in found["card"]["say"]
        assert found["card"]["reasons"] == []
        assert found["explanation"]["reasons"] == []
        assert "debts take a large part" not in json.dumps(found)


def test_the_card_names_the_reasons_in_order_who_decided_and_what_comes_next():
    card = told(dossier(), "support")["card"]
    assert [reason.split()[1] for reason in card["reasons"]] == ["monthly", "credit", "is", "loan"]
    assert card["say"][0] == (
        "On 3 March 2026 our automated system assessed your application, and its answer was \u201cdenied\u201d."
    )
    assert card["say"][1].startswith(
        "The main things that counted against the application: your monthly debts take a large part of your income"
        " (47 %);"
    )
    assert card["say"][2] == "We compared your application with ones that were only just approved."
    assert card["say"][3] == (
        "As far as our records show, no person took part in this assessment, and you can ask us to have one look at it."
    )
    assert "mortgage-approval" in card["decided_by"]
    assert "reviewer" in card["next_step"]


AGENTS_WORDS = re.compile(
    r"\b(please|hand|case|customer|caller|the person|the model|reviewer|reload|page)\b", re.IGNORECASE
)


@pytest.mark.parametrize("state", list(State))
def test_what_is_said_to_the_customer_addresses_them_and_holds_nothing_that_is_for_the_agent(state):
    made, job = STATES[state]
    for favourable in (True, False, None):
        one = replace(made, decision=replace(made.decision, favourable=favourable))
        card = told(one, "support", job=job)["card"]
        assert "your application" in card["say"][0]
        assert not [found for sentence in card["say"] for found in AGENTS_WORDS.findall(sentence)], card["say"]
        assert "your " not in card["next_step"]
    if state not in (State.READY, State.ERASED, State.SKIPPED, State.UNANSWERED):
        assert card["next_step"].startswith("Name no reasons")


def test_no_person_and_no_review_is_claimed_beyond_what_is_on_record():
    for made, job in STATES.values():
        card = told(made, "support", job=job)["card"]
        assert card["say"][-1].startswith("As far as our records show, no person took part")
        assert "you can ask us" in card["say"][-1]


def test_each_reason_has_its_share_of_all_that_counted_against():
    found = told(dossier(), "compliance")["explanation"]
    against = sum(-factor["contribution"] for factor in found["factors"] if factor["contribution"] < 0)
    shares = [reason["share_against"] for reason in found["reasons"]]
    assert shares == [pytest.approx(part / against) for part in (0.92, 0.81, 0.44, 0.31)]
    assert sum(shares) <= 1
    withheld = told(STATES[State.BLOCKED][0], "compliance")["explanation"]["withheld"]
    assert [item["share_against"] for item in withheld] == shares


def test_a_favourable_answer_has_no_reasons_against_it():
    made = dossier(decision=decision(label="approved", favourable=True))
    assert "in your favour" in told(made, "support")["card"]["say"][1]
    assert told(made, "support")["card"]["reasons"] == []


def test_support_sees_plain_reasons_and_no_contribution_score_or_value():
    found = told(dossier(), "support")
    assert found["explanation"]["reasons"][0].keys() == {"rank", "code", "label", "text"}
    assert not found["explanation"]["attributions"]
    assert found["explanation"]["output"] is None
    assert found["decision"]["answer"]["score"] is None
    assert "Jane" not in json.dumps(found)
    assert "2500" not in json.dumps(found)
    assert "-0.92" not in json.dumps(found)
    assert "proof" not in found["links"]


def test_compliance_sees_everything_but_the_content():
    found = told(dossier(), "compliance")
    assert len(found["explanation"]["attributions"]) == 11
    assert found["explanation"]["factors"][0]["value"] == "47 %"
    assert found["content"]["state"] == "masked"
    assert "Jane" not in json.dumps(found)
    assert any("approval" in left for left in found["masked"])


def test_a_regulator_sees_the_content_too():
    found = told(dossier(), "regulator")
    assert found["content"]["state"] == "shown"
    assert "Jane Doe" in found["content"]["request"]
    assert found["masked"] == []


def test_a_model_owner_sees_contributions_but_neither_the_person_nor_their_values():
    found = told(dossier(), "model_owner")
    assert found["explanation"]["factors"][0] == {
        "factor": "obrat",
        "label": "Monthly debts as a share of income",
        "features": ["obrat"],
        "value": None,
        "contribution": -0.92,
        "protected": False,
    }
    assert found["decision"]["case"] is None
    assert found["decision"]["subject"] is None
    written = json.dumps(found)
    for hidden in ("47 %", "92 %", "62,000", "Jane", "2500", "c" * 43, "s" * 43):
        assert hidden not in written
    assert found["explanation"]["reasons"][0]["text"] == "Monthly debts as a share of income"


def test_the_data_protection_officer_sees_the_person_and_who_looked_but_no_contribution():
    found = told(dossier(), "dpo")
    assert found["decision"]["subject"] is not None
    assert not found["explanation"]["factors"]
    assert any(event["title"] == "Looked at" for event in found["timeline"])


def test_who_looked_is_told_only_to_those_who_may_know():
    for role, knows in (("support", False), ("model_owner", False), ("compliance", True), ("regulator", True)):
        assert any("ben" in event["detail"] for event in told(dossier(), role)["timeline"]) is knows


def test_a_protected_factors_value_is_shown_to_nobody():
    explained = body()
    explained["factors"][1]["protected"] = True
    explained["attributions"][1]["shown"] = "a secret of the person"
    made = dossier(explanations=(explanation(explained),))
    for role in ("compliance", "regulator", "model_owner"):
        assert "a secret of the person" not in json.dumps(told(made, role))


def test_withheld_reasons_are_listed_for_those_who_review_without_their_texts():
    made, _ = STATES[State.BLOCKED]
    found = told(made, "compliance")
    assert [item["code"] for item in found["explanation"]["withheld"]] == ["R01", "R07", "R03", "R05"]
    assert "text" not in found["explanation"]["withheld"][0]
    assert not told(made, "support")["explanation"]["withheld"]


def test_what_a_reviewer_must_look_at_is_told_in_words():
    flags = [{"kind": "direction_disagrees", "factor": "obrat"}, {"kind": "something_new", "factor": None}]
    made = dossier(explanations=(explanation(body(notice="human", flags=flags, **WITHHELD)),))
    assert told(made, "compliance")["explanation"]["why"] == (
        "the text for \u201cMonthly debts as a share of income\u201d would contradict the person's value; something new"
    )


def test_erased_content_is_told_as_erased():
    content = Content(request=None, request_media="a/b", response=None, response_media="a/b", erased=True)
    for role in ("support", "regulator"):
        assert told(dossier(content=content), role)["content"]["state"] == "erased"


def test_the_timeline_is_in_order_of_time():
    events = told(dossier(), "compliance")["timeline"]
    assert [event["title"] for event in events] == [
        "Request received",
        "Model answered",
        "Recorded",
        "Answer read",
        "Explained",
        "Looked at",
    ]
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ({"mode": "strict"}, "durable before the answer ended"),
        ({"mode": "spool"}, "written before the answer ended, durable a moment later (mode spool)"),
        ({"mode": "best_effort"}, "the answer did not wait for it (mode best effort)"),
        ({"mode": None}, "in the journal"),
        ({"mode": "strict", "stream": "gateway_lost"}, "after the gateway was started again"),
    ],
)
def test_the_timeline_says_of_each_mode_what_had_happened_when_the_answer_ended(said, detail):
    (recorded,) = [
        event
        for event in told(dossier(decision=decision(**said)), "compliance")["timeline"]
        if event["title"] == "Recorded"
    ]
    assert recorded["detail"] == detail


def test_an_answer_is_never_told_after_its_own_record():
    made = dossier(decision=decision(upstream_us=7_200))  # received 7 ms before the entry's time
    events = [event["title"] for event in told(made, "compliance")["timeline"]]
    assert events.index("Model answered") < events.index("Recorded")


def test_a_route_that_explains_adverse_decisions_only_skips_the_others():
    adverse = ROUTE.model_copy(update={"explain": ROUTE.explain.model_copy(update={"when": "adverse"})})
    made = dossier(explanations=(), decision=decision(label="approved", favourable=True))
    assert document(made, who("support"), route=adverse, job=None)["explanation"]["state"] == "skipped"
    assert document(replace(made, decision=decision()), who("support"), route=adverse, job=None)["explanation"][
        "state"
    ] == ("pending")


def test_the_shape_of_a_body_holds_names_and_kinds_but_no_value():
    shown = shape(b'{"name": "Jane", "age": 51, "ok": true, "none": null, "list": [{"street": "Elm"}, 3.5]}')
    assert json.loads(shown) == {
        "name": "\u2022\u2022\u2022 text",
        "age": "\u2022\u2022\u2022 number",
        "ok": "\u2022\u2022\u2022 yes or no",
        "none": "\u2022\u2022\u2022 nothing",
        "list": [{"street": "\u2022\u2022\u2022 text"}, "\u2022\u2022\u2022 number"],
    }


def test_names_that_may_be_a_persons_are_masked_with_the_values():
    assert json.loads(shape(b'{"4711": 1, "jane@example.com": 2, "income": 3}')) == {
        "\u2022\u2022\u2022 1": "\u2022\u2022\u2022 number",
        "\u2022\u2022\u2022 2": "\u2022\u2022\u2022 number",
        "income": "\u2022\u2022\u2022 number",
    }


@pytest.mark.parametrize("name", ["John Smith", "john.smith", "Anna-Maria", "O'Neil", "Zoë", "a" * 41, "4711", ""])
def test_only_names_as_programs_give_them_to_fields_are_shown(name):
    shown = shape(json.dumps({"guarantors": {name: 100}}).encode())
    assert json.loads(shown) == {"guarantors": {"\u2022\u2022\u2022 1": "\u2022\u2022\u2022 number"}}


def test_an_object_with_very_many_names_is_cut():
    shown = json.loads(shape(json.dumps({f"k{number}": 1 for number in range(250)}).encode()))
    assert len(shown) == KEYS_MAX + 1
    assert list(shown)[-1] == "\u2026 and 50 more"


def test_the_shape_of_what_is_no_json_is_its_length():
    assert shape(b"Jane Doe, 51") == "12 bytes, masked"


def test_a_deep_or_wide_body_is_cut_and_never_fails():
    deep = b"[" * 500 + b"1" + b"]" * 500
    assert "\u2026" in shape(deep)
    assert len(shape(b"[" + b"1," * 20_000 + b"1]")) < 500_000
    assert text(b"x" * 100_000).endswith("bytes more")
    assert text(b"\xff\xfe") == "2 bytes that are not text"
