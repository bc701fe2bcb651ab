"""Tree explanations: equal to shap, to enumeration, additive, bound, and the same for missing values as XGBoost."""

import itertools
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from explainers.base import Answer, ExplanationResult
from explainers.baselines import read_baseline
from explainers.inline import Inline
from explainers.leaves import LeafPatterns
from explainers.listing import Registered
from explainers.models import TreeModel, as_rows
from explainers.registry import register
from explainers.store import Artifacts
from explainers.trees import shap
from tests.support.tree_models import (
    NAMES,
    Files,
    adverse_case,
    features_of,
    make_model,
    request,
    served,
    write_baseline,
)

BASELINE_ROWS = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_model(tmp_path_factory.mktemp("model"), baseline_rows=BASELINE_ROWS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def registered(files: Files, data: Path) -> Registered:
    return register(files.registration, data)


@pytest.fixture(scope="module")
def inline(data: Path, registered: Registered) -> Inline:
    assert registered.name
    return Inline(data)


def body(result: ExplanationResult) -> dict[str, Any]:
    assert result.error is None, result.error
    found: dict[str, Any] = orjson.loads(result.body)
    return found


def patterns_of(files: Files) -> tuple[TreeModel, LeafPatterns, np.ndarray]:
    model = files.model()
    baseline = read_baseline(files.baseline.read_bytes(), model.features)
    return model, LeafPatterns(model, baseline), baseline


@pytest.mark.parametrize(
    "settings",
    [
        {"trees": 20, "depth": 3},
        {"trees": 60, "depth": 6},
        {"trees": 5, "depth": 10, "rows": 1500},
        {"trees": 1, "depth": 1},
        {"trees": 15, "link": "identity"},
        {"trees": 15, "depth": 0, "parameters": {"subsample": 0.7, "grow_policy": "lossguide", "max_leaves": 12}},
        {"trees": 10, "parameters": {"base_score": 0.9}},
    ],
)
def test_contributions_equal_shap_within_1e_6_and_add_up_to_the_float64_sum(tmp_path: Path, settings: Any) -> None:
    files = make_model(tmp_path, baseline_rows=120, **settings)
    model, patterns, baseline = patterns_of(files)
    masker = shap.maskers.Independent(baseline, max_samples=len(baseline))
    oracle = shap.TreeExplainer(model.booster, masker, feature_perturbation="interventional")
    rows = files.rows[200:240]
    expected = oracle.shap_values(rows)
    base = model.margin(baseline).mean()
    for i in range(len(rows)):
        found = patterns.contributions(rows[i : i + 1])
        assert np.max(np.abs(found - expected[i])) <= 1e-6
        assert abs(base + found.sum() - model.margin(rows[i : i + 1])[0]) <= 1e-9


def test_contributions_equal_the_enumeration_of_all_coalitions(files: Files) -> None:
    model, patterns, baseline = patterns_of(files)
    n = len(model.features)
    for row in (files.rows[300], files.rows[301], np.full(n, np.nan, np.float32)):
        worth = {}
        for size in range(n + 1):
            for coalition in itertools.combinations(range(n), size):
                mixed = baseline.copy()
                mixed[:, list(coalition)] = row[list(coalition)]
                worth[coalition] = model.margin(mixed).mean()
        found = patterns.contributions(row[None, :])
        for i in range(n):
            others = [k for k in range(n) if k != i]
            expected = sum(
                factorial(size) * factorial(n - size - 1) / factorial(n) * (worth[tuple(sorted((*s, i)))] - worth[s])
                for size in range(n)
                for s in itertools.combinations(others, size)
            )
            assert found[i] == pytest.approx(expected, abs=1e-12)


def test_the_sum_of_the_trees_equals_xgboost_with_missing_values_in_every_place(files: Files) -> None:
    model = files.model()
    rows = np.concatenate([files.rows, np.full((1, len(NAMES)), np.nan, np.float32)])
    assert np.isnan(rows).any(axis=0).all()
    ours = np.asarray([model.answer(margin) for margin in model.margin(rows)])
    assert np.max(np.abs(ours - model.served(rows))) <= 1e-5


def test_a_value_exactly_on_a_threshold_goes_the_same_way_as_in_xgboost(files: Files) -> None:
    model = files.model()
    inner = np.flatnonzero(model.trees.left != np.arange(len(model.trees.left)))
    rows = np.zeros((len(inner), len(NAMES)), np.float32)
    rows[np.arange(len(inner)), model.trees.feature[inner]] = model.trees.threshold[inner]
    ours = np.asarray([model.answer(margin) for margin in model.margin(rows)])
    assert np.max(np.abs(ours - model.served(rows))) <= 1e-5


async def test_an_explanation_is_additive_bound_and_tells_what_it_was_made_of(
    files: Files, registered: Registered, inline: Inline
) -> None:
    features, score = adverse_case(files)
    result = await inline.explain(request(registered, features, score=score))
    found = body(result)
    output, quality = found["output"], found["quality"]
    assert abs(output["base"] + sum(a["contribution"] for a in found["attributions"]) - output["value"]) <= 1e-9
    assert quality["additivity"] <= 1e-9
    assert quality["output_difference"] <= 1e-5
    assert quality["shap_difference"] <= 1e-6
    assert (found["binding"], found["verdict"], found["notice"]) == ("announced", "sound", "ready")
    assert found["model"]["digest"] == registered.digest
    answers = files.model().served(files.rows[:BASELINE_ROWS])
    outputs = found["baseline"].pop("outputs")
    assert found["baseline"] == {"digest": registered.baseline, "kind": "uploaded", "rows": BASELINE_ROWS}
    assert (outputs["lowest"], outputs["highest"]) == pytest.approx((answers.min(), answers.max()), abs=1e-5)
    assert outputs["lowest"] < outputs["median"] < outputs["highest"]
    assert found["output"]["recorded"] == score
    assert 1 <= len(found["reasons"]) <= 4
    assert [a["feature"] for a in found["attributions"]] == list(NAMES)
    assert result.summary["codes"] == [reason["code"] for reason in found["reasons"]]
    assert result.key == result.summary["key"]
    assert set(found["versions"]) >= {"kernel", "numpy", "shap", "xgboost", "machine"}
    for word in ("time", "host", "job", "decision", '"id"'):
        assert f'"{word}"' not in result.body.decode()


async def test_null_nan_and_a_missing_value_in_xgboost_are_the_same(
    files: Files, registered: Registered, inline: Inline
) -> None:
    row = next(row for row in files.rows if np.isnan(row).sum() == 2)
    features = features_of(NAMES, row)
    as_nan = {name: float("nan") if value is None else value for name, value in features.items()}
    score = served(files, features)
    results = [await inline.explain(request(registered, given, score=score)) for given in (features, as_nan)]
    assert results[0].body == results[1].body
    assert body(results[0])["quality"]["output_difference"] <= 1e-5
    assert [a["shown"] for a in body(results[0])["attributions"]].count("not stated") == 2


async def test_true_and_whole_numbers_count_as_the_numbers_they_are(
    files: Files, registered: Registered, inline: Inline
) -> None:
    features = dict.fromkeys(NAMES, 1)
    score = served(files, features)
    same = [features, dict.fromkeys(NAMES, 1.0), {**features, "income": True}]
    assert len({(await inline.explain(request(registered, given, score=score))).body for given in same}) == 1


ABSENT = object()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"income": "3"}, ("feature_unusable", "income")),
        ({"income": "NaN"}, ("feature_unusable", "income")),
        ({"debts": [1]}, ("feature_unusable", "debts")),
        ({"debts": {"a": 1}}, ("feature_unusable", "debts")),
        ({"late": float("inf")}, ("feature_unusable", "late")),
        ({"late": -1e39}, ("feature_unusable", "late")),
        ({"late": 10**30}, ("feature_unusable", "late")),
        ({"late": 10**400}, ("feature_unusable", "late")),
        ({"units": ABSENT}, ("features_differ", "units")),
        ({"extra": 1.0}, ("features_differ", "extra")),
        ({"extra": "text", "units": ABSENT}, ("features_differ", "units")),
    ],
)
async def test_features_that_are_not_the_models_fail_by_name_and_without_their_value(
    files: Files, registered: Registered, inline: Inline, changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    features, score = adverse_case(files)
    given = {name: value for name, value in {**features, **changes}.items() if value is not ABSENT}
    result = await inline.explain(request(registered, given, score=score))
    assert (result.state, result.body) == ("failed", b"")
    assert result.error is not None
    assert result.error.code == expected[0]
    assert expected[1] in result.error.message
    assert "3" not in result.error.message.replace("float32", "")
    assert result.summary["verdict"] == "failed"
    assert result.summary["error"] == expected[0]


async def test_a_feature_that_is_constant_in_the_baseline_and_in_the_row_contributes_nothing(tmp_path: Path) -> None:
    files = make_model(tmp_path / "m")
    constant = files.rows[:40].copy()
    constant[:, 0] = 1.5
    write_baseline(files.baseline, NAMES, constant)
    described = {
        "file": files.baseline.name,
        "digest": Artifacts(tmp_path).add(files.baseline.read_bytes()),
        "kind": "uploaded",
    }
    files.edit(baseline=described)
    registered = register(files.registration, tmp_path)
    features, _ = adverse_case(files)
    features["income"] = 1.5
    found = body(await Inline(tmp_path).explain(request(registered, features, score=served(files, features))))
    assert found["attributions"][0]["contribution"] == 0.0
    assert "income" not in [reason["factor"] for reason in found["reasons"]]
    assert found["quality"]["additivity"] <= 1e-9


async def test_an_answer_that_differs_by_more_than_the_tolerance_is_unbound_and_gives_no_reasons(
    files: Files, registered: Registered, inline: Inline
) -> None:
    features, score = adverse_case(files)
    for level in ("announced", "declared"):
        result = await inline.explain(request(registered, features, score=score + 1e-4, level=level))
        found = body(result)
        assert (result.state, found["binding"], found["verdict"], found["notice"]) == (
            "ready",
            "unbound",
            "failed",
            "human",
        )
        assert (found["reasons"], found["withheld"]) == ([], [])
        assert found["flags"][0]["kind"] == "output_differs"
        assert found["quality"]["output_difference"] == pytest.approx(1e-4, rel=0.1)
        assert result.summary["codes"] == []


async def test_outputs_of_large_magnitude_are_compared_by_their_size(tmp_path: Path) -> None:
    files = make_model(tmp_path / "m", link="identity", scale=1e6)
    files.edit(output={"space": "margin", "link": "identity", "cutoff": 2e5, "cutoff_space": "margin"})
    registered = register(files.registration, tmp_path)
    inline = Inline(tmp_path)
    for row in files.rows[:20]:
        features = features_of(NAMES, row)
        score = served(files, features)
        given = request(registered, features, score=score, favourable=int(score >= 2e5))
        found = body(await inline.explain(given))
        assert (found["binding"], found["verdict"]) == ("announced", "sound")
        assert found["quality"]["output_difference_max"] == pytest.approx(1e-5 * max(1.0, abs(score)), rel=1e-4)
        off = request(registered, features, score=score + abs(score) * 1e-4, favourable=int(score >= 2e5))
        assert body(await inline.explain(off))["binding"] == "unbound"


async def test_a_recorded_infinity_is_never_within_tolerance(
    files: Files, registered: Registered, inline: Inline
) -> None:
    features, _ = adverse_case(files)
    for recorded in (float("inf"), float("-inf"), float("nan")):
        given = request(registered, features, score=recorded, favourable=0)
        assert body(await inline.explain(given))["binding"] == "unbound"


async def test_a_told_value_is_not_rounded_over_the_baseline(tmp_path: Path) -> None:
    files = make_model(tmp_path / "m")
    compared = files.rows[:40].copy()
    compared[:, 0] = 0.99604
    write_baseline(files.baseline, NAMES, compared)
    digest = Artifacts(tmp_path).add(files.baseline.read_bytes())
    files.edit(baseline={"file": files.baseline.name, "digest": digest, "kind": "uploaded"})
    registered = register(files.registration, tmp_path)
    features, _ = adverse_case(files)
    features = {**features, "income": 0.99602}
    found = body(await Inline(tmp_path).explain(request(registered, features, score=served(files, features))))
    assert found["attributions"][0]["side"] == "lower"
    assert found["attributions"][0]["shown"] == "0.996"
    features = {**features, "income": 0.996042}
    found = body(await Inline(tmp_path).explain(request(registered, features, score=served(files, features))))
    assert found["attributions"][0]["side"] == "higher"
    assert found["attributions"][0]["shown"] == "0.996042"


async def test_the_level_says_who_named_the_model_and_whether_the_outputs_were_compared(
    files: Files, registered: Registered, inline: Inline
) -> None:
    features, score = adverse_case(files)
    levels = {
        (level, given): body(
            await inline.explain(request(registered, features, score=given, favourable=0, level=level))
        )
        for level in ("announced", "declared")
        for given in (score, None)
    }
    assert {key: found["binding"] for key, found in levels.items()} == {
        ("announced", score): "announced",
        ("announced", None): "announced",
        ("declared", score): "output-matched",
        ("declared", None): "declared",
    }
    assert levels["declared", None]["quality"]["output_difference"] is None


async def test_a_favourable_decision_gets_attributions_and_no_reasons(
    files: Files, registered: Registered, inline: Inline
) -> None:
    model = files.model()
    best = files.rows[int(np.argmax(model.served(files.rows)))]
    features = features_of(NAMES, best)
    found = body(await inline.explain(request(registered, features, score=served(files, features))))
    assert (found["adverse"], found["notice"], found["reasons"]) == (False, "none", [])
    assert found["quality"]["sufficiency"] is None


@pytest.mark.parametrize("label", [None, "refer to underwriter"])
async def test_a_label_that_is_missing_or_neither_is_never_taken_for_an_adverse_decision(
    files: Files, registered: Registered, inline: Inline, label: str | None
) -> None:
    features, score = adverse_case(files)
    for given, verdict in ((score, "sound"), (None, "uncertain")):
        answer = Answer(score=given, label=label, favourable=None)
        result = await inline.explain(request(registered, features, score=given, answer=answer))
        found = body(result)
        assert (found["adverse"], found["notice"], found["verdict"]) == (None, "human", verdict)
        assert (found["reasons"], found["withheld"]) == ([], [])
        assert [flag["kind"] for flag in found["flags"]] == ["label_unknown"]
        assert (result.summary["notice"], result.summary["codes"]) == ("human", [])


async def test_a_refusal_on_the_favourable_side_of_the_cutoff_was_not_the_models_and_goes_to_a_human(
    files: Files, registered: Registered, inline: Inline
) -> None:
    model = files.model()
    features = features_of(NAMES, files.rows[int(np.argmax(model.served(files.rows)))])
    found = body(await inline.explain(request(registered, features, score=served(files, features), favourable=0)))
    assert (found["notice"], found["reasons"], found["flags"][0]["kind"]) == ("human", [], "label_disagrees")


async def test_a_protected_factor_among_the_reasons_blocks_and_an_unmapped_one_goes_to_a_human(tmp_path: Path) -> None:
    files = make_model(tmp_path / "m")
    features, score = adverse_case(files)
    plain = body(await Inline(tmp_path).explain(request(register(files.registration, tmp_path), features, score=score)))
    first = plain["reasons"][0]["factor"]
    files.feature(first, protected=True)
    blocked = await Inline(tmp_path).explain(request(register(files.registration, tmp_path), features, score=score))
    assert body(blocked)["notice"] == "blocked"
    assert body(blocked)["flags"][0]["factor"] == first
    assert blocked.summary["flags"] == [{"kind": "protected_factor", "factor": None}]  # the entry is not sealed
    assert blocked.summary["codes"] == []
    files.feature(first, protected=False, code=None)
    human = await Inline(tmp_path).explain(request(register(files.registration, tmp_path), features, score=score))
    assert body(human)["notice"] == "human"
    assert human.summary["flags"] == [{"kind": "unmapped_factor", "factor": first}]


@pytest.mark.parametrize("what", ["digest", "baseline", "registration"])
async def test_an_altered_artifact_is_refused(tmp_path: Path, what: str) -> None:
    files = make_model(tmp_path / "m")
    registered = register(files.registration, tmp_path)
    path = Artifacts(tmp_path).path(getattr(registered, what))
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    features, score = adverse_case(files)
    result = await Inline(tmp_path).explain(request(registered, features, score=score))
    assert result.error is not None
    assert (result.state, result.error.code) == ("failed", "digest_differs")
    path.unlink()
    gone = await Inline(tmp_path).explain(request(registered, features, score=score))
    assert gone.error is not None
    assert gone.error.code == "artifact_missing"


@pytest.mark.parametrize("changes", [{"baseline_digest": "0" * 64}, {"registration_digest": "../../etc/passwd"}])
async def test_digests_that_are_not_the_registered_ones_are_refused(
    files: Files, registered: Registered, inline: Inline, changes: dict[str, str]
) -> None:
    features, score = adverse_case(files)
    result = await inline.explain(request(registered, features, score=score, **changes))
    assert result.error is not None
    assert result.error.code in {"digest_differs", "digest_invalid"}


async def test_a_decision_by_another_version_is_refused(files: Files, registered: Registered, inline: Inline) -> None:
    features, score = adverse_case(files)
    asked = request(registered, features, score=score)
    other = type(asked.model)(name="credit", version="1", digest="0" * 64, level="announced")
    result = await inline.explain(request(registered, features, score=score, model=other))
    assert result.error is not None
    assert (result.error.code, "0" * 64 in result.error.message) == ("digest_differs", True)


def test_a_row_alone_and_in_a_batch_has_the_same_margin_bits(files: Files) -> None:
    model = files.model()
    together = model.margin(files.rows)
    assert all(model.margin(as_rows(row.tolist()))[0] == together[i] for i, row in enumerate(files.rows[:50]))
