"""Every reason that the demo gives a denied applicant is true: of the applicant's own value, and of the baseline.

The whole way without processes: trained, registered, explained. Texts are judged here by what the data says, not by the
code that chose them.
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from explainers.inline import Inline
from explainers.models import as_rows
from explainers.registry import check, register
from gateway.demo.applicants import Applicant
from gateway.demo.catalogue import FEATURES, REASONS
from gateway.demo.train import Trained, train
from tests.support.tree_models import request

KNOWN = {feature["name"]: feature for feature in FEATURES}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
Holds = Callable[[float], bool]
# sentences that claim something by themselves, without a number beside it
CLAIMS: dict[str, Holds] = {
    "several dwelling units": lambda value: value > 1,
    "is a gift": lambda value: value == 1,
    "bankruptcy is on record": lambda value: value == 1,
    "Late payments": lambda value: value == 1,
    "no co-signer": lambda value: value == 0,
    "could not be verified": lambda value: value == 1,
}
HIGHER = re.compile(r"\b(more|higher|longer|high)\b", re.IGNORECASE)
LOWER = re.compile(r"\b(fewer|lower|shorter|low)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def denied(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Applicant, dict[str, Any]]]:
    """Each held-out applicant whom the model denies, with the explanation's body."""
    data = tmp_path_factory.mktemp("data")
    model = check(trained.registration).model
    registered, inline = register(trained.registration, data), Inline(data)
    asked = []
    for applicant in trained.held_out:
        row = as_rows([applicant.features[name] for name in model.features])
        score = float(model.served(row)[0])
        if score >= trained.cutoff:
            continue
        given = request(registered, dict(applicant.features), score=score, favourable=0, job=applicant.case)
        asked.append((applicant, given))

    async def explained() -> list[tuple[Applicant, dict[str, Any]]]:
        return [(applicant, orjson.loads((await inline.explain(given)).body)) for applicant, given in asked]

    return asyncio.run(explained())


@pytest.fixture(scope="module")
def baseline(trained: Trained) -> dict[str, np.ndarray]:
    """The baseline's values by feature, missing ones left out."""
    checked = check(trained.registration)
    columns = {name: checked.baseline[:, i] for i, name in enumerate(checked.model.features)}
    return {name: column[~np.isnan(column)] for name, column in columns.items()}


def drivers(body: dict[str, Any], reason: dict[str, Any]) -> list[dict[str, Any]]:
    """The attributions that the reason may speak of: of its code, against the applicant, the largest of each factor."""
    factors = {factor["factor"]: factor["features"] for factor in body["factors"]}
    members = [[a for a in body["attributions"] if a["feature"] in factors[name]] for name in reason["factors"]]
    return [min(group, key=lambda a: a["contribution"]) for group in members]


def told(denied: list[tuple[Applicant, dict[str, Any]]]) -> list[tuple[Applicant, dict[str, Any], dict[str, Any]]]:
    """(applicant, reason, the attribution that it speaks of) for every reason of every denied applicant."""
    return [
        (applicant, reason, drivers(body, reason)[0])
        for applicant, body in denied
        for reason in (*body["reasons"], *body["withheld"])
    ]


def share(column: np.ndarray, value: float) -> tuple[float, float]:
    """Which parts of the baseline lie below and above the value."""
    number = np.float32(value)
    return float(np.mean(column < number)), float(np.mean(column > number))


def test_nearly_every_denied_applicant_gets_reasons_and_the_others_go_to_a_human(denied) -> None:
    assert len(denied) == 66
    for _, body in denied:
        assert (body["adverse"], body["binding"], body["verdict"]) == (True, "announced", "sound")
        assert body["notice"] in {"ready", "human"}
        assert (body["notice"] == "ready") == (1 <= len(body["reasons"]) <= 4) == (not body["flags"])
        assert all(flag["kind"] == "direction_disagrees" for flag in body["flags"])
    assert sum(body["notice"] == "ready" for _, body in denied) >= 0.95 * len(denied)


def test_each_reason_counted_against_the_applicant_and_is_told_in_the_catalogues_words(denied) -> None:
    for applicant, reason, attribution in told(denied):
        feature = KNOWN[attribution["feature"]]
        assert reason["code"] == feature["code"], applicant.case
        assert reason["contribution"] < 0, applicant.case
        assert attribution["contribution"] < 0, applicant.case
        assert reason["share"] >= 0.05, applicant.case
        filled = {
            " ".join(text.format(value=reason["shown"], label=feature["label"], unit=feature.get("unit", "")).split())
            for text in REASONS[reason["code"]].values()
        }
        assert reason["text"] in filled, applicant.case


def test_the_value_in_each_reason_is_the_applicants_own(denied) -> None:
    for applicant, reason, attribution in told(denied):
        feature = KNOWN[attribution["feature"]]
        value = applicant.features[attribution["feature"]]
        assert reason["value"] == value, applicant.case
        words = feature.get("values", {})
        if value is None:
            assert reason["shown"] == "not stated", applicant.case
        elif words:
            assert reason["shown"] == words[str(int(value))], applicant.case
        else:
            number = float(reason["shown"].replace(",", ""))
            assert abs(number - value) <= 0.005 * abs(value), applicant.case
            assert number.is_integer() == float(value).is_integer(), applicant.case
            for written in _NUMBER.findall(reason["text"].replace(feature["label"], "")):
                assert float(written.replace(",", "")) == number, reason["text"]


def test_what_a_reason_claims_by_itself_is_so(denied) -> None:
    for applicant, reason, _ in told(denied):
        for words, holds in CLAIMS.items():
            if words in reason["text"]:
                assert holds(reason["value"]), (applicant.case, reason["text"])


def test_a_reason_that_says_more_or_less_agrees_with_where_the_value_lies_against_the_baseline(
    denied, baseline
) -> None:
    compared = 0
    for applicant, reason, attribution in told(denied):
        bare = reason["text"].replace(attribution["label"], "").replace(reason["shown"], "")
        says = ("higher" if HIGHER.search(bare) else None) or ("lower" if LOWER.search(bare) else None)
        stated = KNOWN[attribution["feature"]].get("adverse")
        if says is None and stated is None:
            continue
        below, above = share(baseline[attribution["feature"]], reason["value"])
        side = "higher" if below > above else "lower" if above > below else None
        assert side == attribution["side"], applicant.case
        assert says in {None, side}, (applicant.case, reason["text"])
        assert stated in {None, side}, (applicant.case, reason["text"])
        if "than is usual" in reason["text"]:  # more than half of the baseline, not only of those who differ
            assert max(below, above) > 0.5, (applicant.case, reason["text"])
        compared += 1
    assert compared > 150


def test_the_told_value_lies_on_the_same_side_as_the_value(denied, baseline) -> None:
    for applicant, body in denied:
        for attribution in body["attributions"]:
            if attribution["value"] is None or KNOWN[attribution["feature"]].get("values"):
                continue
            below, above = share(baseline[attribution["feature"]], float(attribution["shown"].replace(",", "")))
            side = "higher" if below > above else "lower" if above > below else None
            assert side == attribution["side"], (applicant.case, attribution["feature"])


async def test_no_label_or_another_one_gives_no_applicant_a_reason(trained: Trained, tmp_path: Path) -> None:
    model = check(trained.registration).model
    registered, inline = register(trained.registration, tmp_path), Inline(tmp_path)
    for applicant in trained.held_out[:40]:
        score = float(model.served(as_rows([applicant.features[name] for name in model.features]))[0])
        given = request(registered, dict(applicant.features), score=None, job=applicant.case)
        for one in (given, request(registered, dict(applicant.features), score=score, answer=given.answer)):
            body = orjson.loads((await inline.explain(one)).body)
            assert (body["adverse"], body["notice"], body["reasons"], body["withheld"]) == (None, "human", [], [])
