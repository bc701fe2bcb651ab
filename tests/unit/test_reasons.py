"""From contributions to reasons: each rule by itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.errors import ConfigError
from config.registration import Registration, load_registration
from explainers.quality import additivity, agrees, sufficiency
from explainers.reasons import Column, Reasons, factors, reasons, shown

BASE: dict[str, Any] = {
    "v": 1,
    "name": "credit",
    "version": "1",
    "artifact": "m.json",
    "digest": "a" * 64,
    "loader": "xgboost-json",
    "baseline": {"file": "b.csv", "digest": "b" * 64, "kind": "uploaded"},
    "output": {"space": "probability", "cutoff": 0.5},
    "catalogue_version": "1",
}


def registration(features: list[dict[str, Any]], texts: dict[str, Any], **output: Any) -> Registration:
    described = {**BASE, "features": features, "reasons": texts, "output": {**BASE["output"], **output}}
    return Registration.model_validate(described)


def simple(*names: str, **changes: dict[str, Any]) -> Registration:
    features = [{"name": n, "label": n.capitalize(), "code": f"C-{n}", **changes.get(n, {})} for n in names]
    codes = {f["code"] for f in features if f.get("code")}
    return registration(features, {code: {"text": f"{code[2:]} is {{value}}"} for code in codes})


def tell(described: Registration, contributions: dict[str, float], base: float = 1.0, **more: Any) -> Reasons:
    sides, values = more.get("sides", {}), more.get("values", {})
    columns = [
        Column(feature=name, value=values.get(name, 3.0), contribution=given, side=sides.get(name, "higher"))
        for name, given in contributions.items()
    ]
    value = base + sum(contributions.values())
    by_name = {column.feature: column for column in columns}
    return reasons(described, factors(described, columns), by_name, base=base, value=value)


def test_only_what_counted_against_the_person_is_told_the_largest_first() -> None:
    found = tell(simple("a", "b", "c"), {"a": -0.5, "b": 1.0, "c": -2.0})
    assert [(r.rank, r.factor) for r in found.reasons] == [(1, "c"), (2, "a")]
    assert found.notice == "ready"
    assert found.reasons[0].share == pytest.approx(2.0 / 1.5)


def test_where_a_lower_output_is_favourable_the_positive_contributions_count_against_the_person() -> None:
    features = [{"name": n, "label": n, "code": "C"} for n in ("a", "b")]
    described = registration(features, {"C": {"text": "{label}: {value}"}}, favourable="lower")
    found = tell(described, {"a": 2.0, "b": -0.5})
    assert [r.factor for r in found.reasons] == ["a"]
    assert found.reasons[0].share == pytest.approx(2.0 / 1.5)


def test_at_most_four_reasons_and_never_padded() -> None:
    assert [r.factor for r in tell(simple(*"abcdef"), dict.fromkeys("abcdef", -1.0)).reasons] == ["a", "b", "c", "d"]
    assert len(tell(simple("a", "b"), {"a": -1.0, "b": 0.2}).reasons) == 1


def test_what_is_under_five_per_cent_of_the_gap_is_dropped() -> None:
    found = tell(simple("a", "b", "c"), {"a": -0.96, "b": -0.04, "c": 0.0})
    assert [r.factor for r in found.reasons] == ["a"]
    assert [r.factor for r in tell(simple("a", "b"), {"a": -0.94, "b": -0.06}).reasons] == ["a", "b"]


def test_columns_of_one_factor_are_summed_with_their_signs_and_told_by_the_one_that_counts_most() -> None:
    described = simple("a", "b", "c", a={"factor": "f", "code": "C-f"}, b={"factor": "f", "code": "C-f"})
    columns = [
        Column(feature=name, value=value, contribution=given, side="higher")
        for name, value, given in (("a", 1.0, -1.0), ("b", 2.0, 0.4), ("c", 3.0, -0.5))
    ]
    found = {factor.factor: factor for factor in factors(described, columns)}
    assert found["f"].contribution == pytest.approx(-0.6)
    assert (found["f"].driver, found["f"].features) == ("a", ("a", "b"))
    told = tell(described, {"a": -1.0, "b": 0.4, "c": -0.5}, values={"a": 1.0})
    assert [(r.factor, r.text) for r in told.reasons] == [("f", "f is 1"), ("c", "c is 3")]


def test_an_unmapped_factor_sends_everything_to_a_human_and_nothing_is_handed_out() -> None:
    found = tell(simple("a", "b", b={"code": None}), {"a": -1.0, "b": -0.5})
    assert (found.notice, found.reasons) == ("human", ())
    assert [r.factor for r in found.withheld] == ["a"]
    assert [(f.kind, f.factor) for f in found.flags] == [("unmapped_factor", "b")]


def test_an_unmapped_factor_that_is_not_among_the_four_changes_nothing() -> None:
    described = simple(*"abcde", e={"code": None})
    found = tell(described, {"a": -5.0, "b": -4.0, "c": -3.0, "d": -2.0, "e": -1.0})
    assert (found.notice, len(found.reasons), found.flags) == ("ready", 4, ())


def test_a_protected_factor_among_the_reasons_blocks_the_notice_and_is_flagged() -> None:
    found = tell(simple("a", "b", b={"protected": True}), {"a": -1.0, "b": -0.5})
    assert (found.notice, found.reasons) == ("blocked", ())
    assert [(r.factor, r.protected) for r in found.withheld] == [("a", False), ("b", True)]
    assert [(f.kind, f.factor) for f in found.flags] == [("protected_factor", "b")]


def test_one_protected_column_makes_its_factor_protected_and_blocking_outranks_the_human() -> None:
    described = simple(
        "a",
        "b",
        "c",
        a={"factor": "f", "code": None, "protected": True},
        b={"factor": "f", "code": None},
        c={"code": None},
    )
    found = tell(described, {"a": -0.1, "b": -1.0, "c": -1.0})
    assert found.notice == "blocked"
    assert [f.kind for f in found.flags] == ["protected_factor", "unmapped_factor"]


def test_equal_texts_are_merged_after_ranking_and_free_a_place() -> None:
    features = [{"name": n, "label": n, "code": "C" if n in "ab" else n} for n in "abcdef"]
    texts = {"C": {"text": "Too little history"}, **{n: {"text": f"Reason {n}"} for n in "cdef"}}
    found = tell(registration(features, texts), {"a": -6.0, "b": -5.0, "c": -4.0, "d": -3.0, "e": -2.0, "f": -1.0})
    assert [r.text for r in found.reasons] == ["Too little history", "Reason c", "Reason d", "Reason e"]
    assert [r.rank for r in found.reasons] == [1, 2, 3, 4]
    assert found.reasons[0].factors == ("a", "b")
    assert found.reasons[0].contribution == pytest.approx(-11.0)


def test_too_many_and_too_few_agree_with_where_the_value_lies() -> None:
    described = registration(
        [{"name": "lines", "label": "Lines", "code": "L"}],
        {"L": {"when_higher": "Too many ({value})", "when_lower": "Too few ({value})"}},
    )
    assert tell(described, {"lines": -1.0}, sides={"lines": "higher"}).reasons[0].text == "Too many (3)"
    assert tell(described, {"lines": -1.0}, sides={"lines": "lower"}).reasons[0].text == "Too few (3)"
    neither = tell(described, {"lines": -1.0}, sides={"lines": None})
    assert (neither.notice, neither.flags[0].kind) == ("human", "direction_disagrees")


def test_a_text_that_would_contradict_the_persons_value_goes_to_a_human() -> None:
    described = simple("debts", debts={"adverse": "higher"})
    assert tell(described, {"debts": -1.0}, sides={"debts": "higher"}).notice == "ready"
    found = tell(described, {"debts": -1.0}, sides={"debts": "lower"})
    assert (found.notice, found.reasons, found.flags[0].kind) == ("human", (), "direction_disagrees")
    assert "3" not in found.flags[0].detail  # the flag names the feature, not the value


def test_somebody_whom_the_model_places_above_the_baseline_gets_no_reasons() -> None:
    found = tell(simple("a", "b"), {"a": 1.0, "b": -0.5})
    assert (found.notice, found.reasons, found.flags[0].kind) == ("human", (), "no_gap")


def test_a_gap_in_which_no_single_factor_counts_goes_to_a_human() -> None:
    names = [f"x{i}" for i in range(30)]
    found = tell(simple(*names), dict.fromkeys(names, -0.01))
    assert (found.notice, found.flags[0].kind) == ("human", "no_factor_counts")


def test_equal_contributions_are_ordered_by_name() -> None:
    assert [r.factor for r in tell(simple("c", "a", "b"), {"c": -1.0, "a": -1.0, "b": -1.0}).reasons] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not stated"),
        (1.0, "yes"),
        (0.5, "half"),
        (2.0, "2"),
        (12345.0, "12,345"),
        (1234.567, "1,234.57"),
        (-2.5, "-2.5"),
    ],
)
def test_values_are_written_as_people_write_them(value: float | None, text: str) -> None:
    described = simple("a", a={"values": {"1": "yes", "0.5": "half"}})
    assert shown(described.features[0], value) == text


def test_a_missing_value_can_have_a_text_of_its_own() -> None:
    described = simple("a", a={"values": {"null": "unknown to the bank"}})
    assert shown(described.features[0], None) == "unknown to the bank"


@pytest.mark.parametrize(
    "text", ["Your score was too low", "Credit score too low", "Internal policy", "Our internal standards"]
)
def test_forbidden_texts_are_refused_with_file_and_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.yaml"
    described = {**BASE, "features": [{"name": "a", "label": "A", "code": "C"}], "reasons": {"C": {"text": text}}}
    path.write_text(yaml.safe_dump(described))
    with pytest.raises(ConfigError, match=r"m\.yaml: .*reasons\.C.*no specific reason"):
        load_registration(path)


def test_additivity_is_not_a_number_where_a_contribution_is_not() -> None:
    assert additivity(1.0, [0.5, -0.25], 1.25) == 0.0
    assert not additivity(1.0, [float("nan")], 1.0) <= 1e-9
    assert not additivity(1.0, [float("inf")], 1.0) <= 1e-9


def test_agreement_with_shap_allows_for_its_float32_weights_only() -> None:
    assert agrees(9e-7, [0.1, -0.2])
    assert not agrees(2e-6, [0.1, -0.2])
    assert agrees(2e-6, [5.0, -5.0])
    assert not agrees(float("nan"), [1.0])


def test_reasons_are_sufficient_if_they_flip_the_decision_or_close_half_the_gap() -> None:
    def of(*replaced: float) -> tuple[float, bool, bool]:
        found = sufficiency(base=2.0, value=-2.0, replaced=replaced, cutoff=1.5, favourable_is_higher=True)
        return found.gap_closed, found.flips, found.sufficient

    assert of(1.0, 3.0) == (1.0, True, True)
    assert of(0.0) == (0.5, False, True)
    assert of(-1.0) == (0.25, False, False)
