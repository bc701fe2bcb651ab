"""Registering: what agrees is kept by digest and listed; what does not is refused by file and key."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml

from config.errors import ConfigError
from explainers.comparison import Recorded, compare
from explainers.errors import ArtifactError
from explainers.listing import registered_models
from explainers.models import load_xgboost_json
from explainers.registry import check, register
from explainers.store import Artifacts
from tests.support.tree_models import (
    NAMES,
    Files,
    digest_of,
    features_of,
    make_model,
    served,
    write_baseline,
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_model(tmp_path / "model", trees=5)


def fault(files: Files) -> str:
    with pytest.raises(ConfigError) as raised:
        check(files.registration)
    assert str(files.registration) in raised.value.message
    assert raised.value.advice
    return raised.value.message


def change_artifact(files: Files, edit: Any) -> None:
    """Rewrite the artifact through `edit(learner)` and name its new digest."""
    tree = orjson.loads(files.artifact.read_bytes())
    edit(tree["learner"])
    files.artifact.write_bytes(orjson.dumps(tree))
    files.edit(digest=digest_of(files.artifact))


def test_registering_keeps_three_files_by_digest_and_lists_the_model(files: Files, tmp_path: Path) -> None:
    registered = register(files.registration, tmp_path / "data")
    artifacts = Artifacts(tmp_path / "data")
    for digest, source in (
        (registered.digest, files.artifact),
        (registered.baseline, files.baseline),
        (registered.registration, files.registration),
    ):
        assert artifacts.read(digest, bytes_max=1 << 20) == source.read_bytes()
    listed = orjson.loads((tmp_path / "data" / "models.json").read_bytes())
    assert listed["v"] == 1
    assert listed["models"][0] == {
        "name": "credit",
        "version": "1",
        "digest": registered.digest,
        "baseline": registered.baseline,
        "registration": registered.registration,
        "catalogue_version": "t1",
        "loader": "xgboost-json",
    }
    assert registered_models(tmp_path / "data") == (registered,)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.suffix == ".tmp"]


def test_checking_writes_nothing(files: Files, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert check(files.registration).registration.name == "credit"
    assert sorted(tmp_path.rglob("*")) == before


def test_mended_texts_replace_the_row_and_a_second_version_adds_one(files: Files, tmp_path: Path) -> None:
    first = register(files.registration, tmp_path)
    files.edit(catalogue_version="t2")
    second = register(files.registration, tmp_path)
    assert second.registration != first.registration
    assert registered_models(tmp_path) == (second,)
    files.edit(version="0")
    third = register(files.registration, tmp_path)
    assert registered_models(tmp_path) == (third, second)
    assert Artifacts(tmp_path).read(first.registration, bytes_max=1 << 20)  # what explained older decisions stays


def test_another_artifact_under_the_same_version_is_refused(files: Files, tmp_path: Path) -> None:
    register(files.registration, tmp_path)
    before = (tmp_path / "models.json").read_bytes()
    other = make_model(tmp_path / "other", trees=6)
    with pytest.raises(ConfigError, match=r"model\.yaml: version: credit 1 is registered with artifact"):
        register(other.registration, tmp_path)
    assert (tmp_path / "models.json").read_bytes() == before


def test_a_damaged_list_of_models_is_named(files: Files, tmp_path: Path) -> None:
    for content in (b"{", b'{"v": 2, "models": []}', b'{"v": 1}', b'{"v": 1, "models": [{"x": 1}]}', b"[]"):
        (tmp_path / "models.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"models\.json"):
            register(files.registration, tmp_path)


def test_a_wrong_digest_names_the_key_and_the_digest_that_was_expected(files: Files) -> None:
    files.edit(digest="0" * 64)
    message = fault(files)
    assert "digest: expected the SHA-256 of model.json" in message
    assert digest_of(files.artifact) in message


def test_a_wrong_baseline_digest_names_its_key(files: Files) -> None:
    files.edit(baseline={"file": "baseline.csv", "digest": "0" * 64, "kind": "uploaded"})
    assert "baseline.digest: expected the SHA-256 of baseline.csv" in fault(files)


def test_files_that_are_not_there_are_named(files: Files) -> None:
    files.edit(artifact="nowhere.json")
    assert "artifact:" in (message := fault(files))
    assert "nowhere.json" in message


def test_features_that_do_not_match_the_artifact_are_each_named(files: Files) -> None:
    described = yaml.safe_load(files.registration.read_text())["features"]
    files.edit(features=[f for f in described if f["name"] != "debts"] + [{"name": "shoe_size", "label": "Shoe size"}])
    lines = fault(files).splitlines()
    assert len(lines) == 2
    assert "features: the artifact also uses debts" in lines[0]
    assert "features.shoe_size: the artifact has no such feature" in lines[1]


def rewrite_baseline(files: Files, text: str, kind: str = "uploaded") -> None:
    files.baseline.write_text(text)
    described = {"file": "baseline.csv", "digest": digest_of(files.baseline), "kind": kind}
    files.edit(baseline=described)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("income,debts,assets,late,units\n1,2,3,4,5\n", "missing columns term"),
        (",".join((*NAMES, "shoe_size")) + "\n1,2,3,4,5,6,7\n", "unknown columns shoe_size"),
        (",".join((*NAMES, "term")) + "\n1,2,3,4,5,6,7\n", "twice"),
        (",".join(NAMES) + "\n", "at least one row"),
        ("", "missing columns"),
        (",".join(NAMES) + "\n1,2,three,4,5,6\n", "line 2, column assets"),
        (",".join(NAMES) + "\n1,2,3,4,5\n", "line 2: expected 6 cells"),
        (",".join(NAMES) + "\n1,2,inf,4,5,6\n", "float32"),
        (",".join(NAMES) + '\n1,2,"3\n', "not a CSV file"),
    ],
)
def test_a_baseline_that_cannot_be_used_is_refused_by_column_and_line(files: Files, text: str, expected: str) -> None:
    rewrite_baseline(files, text)
    message = fault(files)
    assert "baseline.file:" in message
    assert expected in message


def test_a_baseline_may_list_its_columns_in_any_order_and_leave_cells_empty(files: Files) -> None:
    rewrite_baseline(files, ",".join(reversed(NAMES)) + "\n6,5,,3,2,1\n")
    assert check(files.registration).baseline.tolist()[0][:3] == [1, 2, 3]
    assert np.isnan(check(files.registration).baseline[0, 3])


def near_cutoff(files: Files, rows: np.ndarray) -> Files:
    write_baseline(files.baseline, NAMES, rows)
    rewrite_baseline(files, files.baseline.read_text(), kind="near_cutoff")
    return files


def test_near_cutoff_asks_for_enough_rows_all_on_the_favourable_side(tmp_path: Path) -> None:
    files = make_model(tmp_path, trees=5, rows=3000)
    answers = files.model().served(files.rows)
    order = np.argsort(answers)
    above, below = files.rows[order[answers[order] >= 0.5]], files.rows[order[answers[order] < 0.5]]
    assert "baseline.kind: expected near_cutoff to have at least 200 rows, found 150" in fault(
        near_cutoff(files, above[:150])
    )
    assert "3 of" in (message := fault(near_cutoff(files, np.concatenate([above[:250], below[:3]]))))
    assert "adverse side" in message
    assert len(check(near_cutoff(files, above[:250]).registration).baseline) == 250


@pytest.mark.parametrize(("trees", "link"), [(5, "logit"), (20, "logit"), (60, "logit"), (20, "identity")])
@pytest.mark.parametrize("favourable", ["higher", "lower"])
def test_near_cutoff_takes_the_narrowest_and_refuses_the_best(
    tmp_path: Path, trees: int, link: str, favourable: str
) -> None:
    files = make_model(tmp_path, trees=trees, rows=3000, link=link)
    space = "probability" if link == "logit" else "margin"
    cutoff = 0.5 if link == "logit" else 0.0
    files.edit(output={"space": space, "link": link, "cutoff": cutoff, "cutoff_space": space, "favourable": favourable})
    beyond = (files.model().served(files.rows) - cutoff) * (1 if favourable == "higher" else -1)
    order = np.argsort(beyond)
    assert check(near_cutoff(files, files.rows[order[beyond[order] >= 1e-4][:250]]).registration)
    message = fault(near_cutoff(files, files.rows[order[-250:]]))
    assert "they do not begin at the cutoff" in message
    reaching = np.concatenate([files.rows[order[beyond[order] >= 1e-4][:1]], files.rows[order[-250:]]])
    if trees == 5:  # of more trees the best leaves never come together, and the bound says less
        assert "where the best that the model could answer lies" in fault(near_cutoff(files, reaching))


def test_an_output_that_does_not_fit_the_objective_is_refused(files: Files, tmp_path: Path) -> None:
    files.edit(output={"space": "probability", "link": "identity", "cutoff": 0.5})
    assert "output.link: expected logit" in fault(files)
    other = make_model(tmp_path / "identity", trees=3, link="identity")
    other.edit(output={"space": "probability", "link": "identity", "cutoff": 0.5})
    assert "output.space, output.cutoff_space: expected margin" in fault(other)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda learner: learner["objective"].update(name="multi:softprob"), "objective multi:softprob"),
        (lambda learner: learner["gradient_booster"].update(name="dart"), "booster dart"),
        (lambda learner: learner.update(feature_names=[]), "no feature names"),
        (lambda learner: learner.update(feature_types=["c", *["float"] * 5]), "categorical"),
        (lambda learner: learner["learner_model_param"].update(num_class="3"), "several outputs"),
        (
            lambda learner: learner["gradient_booster"]["model"]["gbtree_model_param"].update(num_parallel_tree="4"),
            "num_parallel_tree",
        ),
        (lambda learner: learner.pop("objective"), "not an XGBoost JSON model"),
        (lambda learner: learner["gradient_booster"]["model"].update(trees=[]), "no tree"),
        (lambda learner: learner["gradient_booster"]["model"]["trees"][1]["left_children"].pop(), "differ in length"),
        (
            lambda learner: learner["gradient_booster"]["model"]["trees"][0]["left_children"].__setitem__(0, 10**6),
            "plain numeric",
        ),
        (
            lambda learner: learner["gradient_booster"]["model"]["trees"][0]["split_indices"].__setitem__(0, 77),
            "plain numeric",
        ),
    ],
)
def test_artifacts_that_cannot_be_explained_exactly_are_refused_with_their_reason(
    files: Files, edit: Any, expected: str
) -> None:
    change_artifact(files, edit)
    message = fault(files)
    assert "artifact:" in message
    assert expected in message


def test_a_path_that_turns_back_on_itself_is_refused_instead_of_followed(files: Files) -> None:
    change_artifact(
        files, lambda learner: learner["gradient_booster"]["model"]["trees"][0]["left_children"].__setitem__(1, 0)
    )
    assert "plain numeric" in fault(files)


def test_bytes_that_are_no_model_are_refused() -> None:
    for content in (b"", b"{}", b"\x80\x04pickle", b"[1,2]", b'{"learner": 3}'):
        with pytest.raises(ArtifactError, match="not an XGBoost JSON model"):
            load_xgboost_json(content, "0" * 64)


def test_an_unmapped_code_and_a_forbidden_text_are_refused_at_registration(files: Files) -> None:
    files.feature("income", code="C-nothing")
    assert "features.income.code" in fault(files)
    files.feature("income", code="C-income")
    described = yaml.safe_load(files.registration.read_text())["reasons"]
    files.edit(reasons={**described, "C-income": {"text": "Your score was too low"}})
    assert "reasons.C-income" in fault(files)


def test_the_bound_share_over_recorded_decisions_names_those_that_differ(files: Files) -> None:
    recorded = [
        Recorded(decision=f"d{i}", features=(given := features_of(NAMES, row)), score=served(files, given))
        for i, row in enumerate(files.rows[:20])
    ]
    checked = check(files.registration)
    assert compare(checked, recorded).summary == "bound 20 of 20"
    odd = [
        Recorded(decision="x1", features=recorded[0].features, score=0.123),
        Recorded(decision="x2", features={"income": 1}, score=0.5),
        Recorded(decision="x3", features=recorded[0].features, score=None),
    ]
    found = compare(checked, [*recorded, *odd])
    assert found.summary == "bound 20 of 23; 3 differ"
    assert [line.split(":")[0] for line in found.differences] == ["x1", "x2", "x3"]


def test_what_the_keeper_imports_to_talk_to_workers_loads_neither_numpy_nor_shap() -> None:
    parts = ("base", "messages", "jobs", "reasons", "quality", "pool")
    modules = ", ".join(["explainers", *(f"explainers.{part}" for part in parts)])
    code = f"import sys, {modules}; print([m for m in ('numpy', 'shap', 'xgboost', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
