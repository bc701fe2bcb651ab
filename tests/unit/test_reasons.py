"""From contributions to reasons: each rule by itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError
from config.registration import Registration, load_registration
from explainers.quality import additivity, agrees, sufficiency
from explainers.reasons import Column, Flag, Reasons, Side, factors, reasons, shown

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
    return registration(features, {code: both_ways(f"{code[2:]} is {{value}}") for code in codes})


def both_ways(text: str) -> dict[str, str]:
    return {"when_higher": text, "when_lower": text}


def anything(_: float) -> bool:
    return True


def column(described: Registration, name: str, value: float | None, contribution: float, side: Side | None) -> Column:
    feature = next(feature for feature in described.features if feature.name == name)
    words = shown(feature, value, is_alike=anything)
    return Column(feature=name, value=value, shown=words, contribution=contribution, side=side)


def tell(described: Registration, contributions: dict[str, float], base: float = 1.0, **more: Any) -> Reasons:
    sides, values = more.get("sides", {}), more.get("values", {})
    columns = [
        column(described, name, values.get(name, 3.0), given, sides.get(name, "higher"))
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
    described = registration(features, {"C": both_ways("{label}: {value}")}, favourable="lower")
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
        column(described, name, value, given, "higher")
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


def test_what_protected_columns_count_against_the_person_is_not_set_off_by_the_rest_of_their_factor() -> None:
    grouped = {"factor": "f", "code": "C-f"}
    described = simple("a", "b", "c", a={**grouped, "protected": True}, b=grouped)
    found = tell(described, {"a": -1.0, "b": 1.0, "c": -2.0})
    assert (found.notice, found.reasons) == ("blocked", ())
    assert [(f.kind, f.factor) for f in found.flags] == [("protected_factor", "f")]
    assert tell(described, {"a": -0.05, "b": 0.05, "c": -2.0}).notice == "ready"  # under 5 % of the gap
    assert tell(described, {"a": 1.0, "b": -0.9, "c": -2.0}).notice == "ready"  # it spoke for the person


def test_protected_columns_that_cancel_each_other_out_block() -> None:
    grouped = {"factor": "f", "code": "C-f", "protected": True}
    described = simple("a", "b", "c", a=grouped, b=grouped)
    assert tell(described, {"a": -1.0, "b": 1.0, "c": -2.0}).notice == "blocked"


def test_a_protected_factor_that_counts_blocks_whatever_its_rank() -> None:
    described = simple(*"abcde", e={"protected": True})
    found = tell(described, {"a": -5.0, "b": -4.0, "c": -3.0, "d": -2.0, "e": -1.0})
    assert (found.notice, [f.kind for f in found.flags]) == ("blocked", ["protected_factor"])


def test_a_flag_outside_the_sealed_body_does_not_name_a_protected_factor() -> None:
    assert Flag(kind="protected_factor", factor="race").in_clear() == {"kind": "protected_factor", "factor": None}
    assert Flag(kind="unmapped_factor", factor="b").in_clear() == {"kind": "unmapped_factor", "factor": "b"}


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
    texts = {"C": both_ways("Too little history"), **{n: both_ways(f"Reason {n}") for n in "cdef"}}
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
        (0.996, "0.996"),
        (0.9996, "0.9996"),
        (0.004, "0.004"),
        (0.00412345, "0.00412"),
        (-0.001, "-0.001"),
        (99.999, "99.999"),
        (1.004, "1.004"),
        (1e-7, "0.0000001"),
        (-0.0, "0"),
    ],
)
def test_values_are_written_as_people_write_them(value: float | None, text: str) -> None:
    described = simple("a", a={"values": {"1": "yes", "0.5": "half"}})
    assert shown(described.features[0], value, is_alike=anything) == text


@given(
    value=st.floats(width=32, allow_nan=False, allow_infinity=False),
    baseline=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    nudges=st.lists(st.integers(-40, 40), max_size=5),
)
def test_a_told_number_parses_back_within_half_a_per_cent_and_on_the_same_side_of_the_baseline(
    value: float, baseline: list[float], nudges: list[int]
) -> None:
    baseline = [*baseline, *(value * (1 + nudge / 10_000) for nudge in nudges)]  # some of them very near

    def side(number: float) -> int:
        return sum(other < number for other in baseline) - sum(other > number for other in baseline)

    told = shown(simple("a").features[0], value, is_alike=lambda number: side(number) == side(value))
    parsed = float(told.replace(",", ""))
    assert abs(parsed - value) <= 0.005 * abs(value)
    assert parsed.is_integer() == value.is_integer()
    assert (parsed > 0, parsed < 0) == (value > 0, value < 0)
    assert side(parsed) == side(value)
    assert told != "-0"


def test_a_missing_value_can_have_a_text_of_its_own() -> None:
    described = simple("a", a={"values": {"null": "unknown to the bank"}})
    assert shown(described.features[0], None, is_alike=anything) == "unknown to the bank"


FORBIDDEN = """
Your score was too low
Credit score too low
Credit score
Your credit score ({value})
Credit score: {value} points
Low credit score
Your score was below our cutoff
Your application scored 420, which is below the cutoff
Scored below the minimum
Insufficient credit scoring system points
Not enough points
Failed to achieve a qualifying score on our credit scoring system
You did not reach the minimum score
Your risk score did not meet the threshold
Credit scoring result
Internal policy
Our internal standards
Company policy
Due to our credit policy
policy reasons
For reasons of policy
Does not meet our criteria
Does not meet our minimum lending criteria
Does not meet the criteria for approval
Did not satisfy the requirements
Our guidelines were not met
Outside our lending guidelines
""".strip().splitlines()
ALLOWED = """
No credit score could be obtained from the credit report
Unable to obtain a credit score from the credit report
The credit score on the report is under dispute
The credit score report lists three accounts in collection
Your credit score report shows balances below the amount stated
Insufficient number of accounts in the credit score report
Insufficient information to compute a credit score
Underscored fields of the application were left empty
Income is below the amount required for this loan
Insufficient number of credit references provided
Number of recent inquiries on credit bureau report
Poor credit performance with us
Value or type of collateral not sufficient
The insurance policy on the property has lapsed
The life insurance policy offered as collateral has no cash value
The property does not meet the flood insurance requirements
The property does not meet the requirements for flood insurance
Does not meet our minimum income criteria
Loan-to-value ratio is below the standard for this property type
Too few discount points paid
""".strip().splitlines()


@pytest.mark.parametrize("text", ALLOWED)
def test_a_specific_reason_that_speaks_of_scores_policies_or_standards_is_accepted(text: str) -> None:
    assert registration([{"name": "a", "label": "A", "code": "C"}], {"C": both_ways(text)})


@pytest.mark.parametrize("text", ["{label} is low ({value})", "Reason: {value}"])
def test_a_text_is_judged_as_it_will_be_told_with_its_label_and_values(text: str) -> None:
    feature = {"name": "a", "label": "Credit score", "code": "C", "values": {"1": "internal policy"}}
    with pytest.raises(ValueError, match=r"reasons\.C\.text.*names no specific reason.*for feature a"):
        registration([feature], {"C": both_ways(text)})


@pytest.mark.parametrize(
    "text",
    ["Income {", "Income } is low", "{value", "Debts {{value}}", "{value!r} is low", "{value:>9} is low", "Low {}"],
)
def test_a_text_that_could_not_be_filled_in_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="text: "):
        registration([{"name": "a", "label": "A", "code": "C"}], {"C": both_ways(text)})


@pytest.mark.parametrize("text", [" ", "{value}", "({value} {unit})"])
def test_a_text_without_words_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="has no words"):
        registration([{"name": "a", "label": "A", "code": "C"}], {"C": both_ways(text)})


def test_one_text_for_both_sides_needs_a_feature_that_states_which_side_counts() -> None:
    texts = {"C": {"text": "Too many recent inquiries ({value})"}}
    with pytest.raises(ValueError, match=r"features\.inquiries\.adverse: expected higher or lower"):
        registration([{"name": "inquiries", "label": "Inquiries", "code": "C"}], texts)
    described = registration([{"name": "inquiries", "label": "Inquiries", "code": "C", "adverse": "higher"}], texts)
    few = tell(described, {"inquiries": -1.0}, values={"inquiries": 0.0}, sides={"inquiries": "lower"})
    assert (few.notice, few.reasons) == ("human", ())
    half = {"C": {"text": "Too many ({value})", "when_higher": "Too many ({value})"}}  # lower would fall back to text
    with pytest.raises(ValueError, match=r"features\.inquiries\.adverse"):
        registration([{"name": "inquiries", "label": "Inquiries", "code": "C"}], half)


@pytest.mark.parametrize("text", FORBIDDEN)
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
