"""One explanation from request to body: bind, attribute, group, give reasons, measure, write.

The body is the explanation part's plaintext: orjson with sorted keys, holding neither time, host nor id, so that the
same decision, model, baseline and registration give the same bytes from any worker of the same environment.
"""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import xgboost

from config.registration import Feature
from explainers.base import (
    Attribution,
    ExplanationRequest,
    ExplanationResult,
    Failure,
    Plan,
    Verdict,
    failed,
)
from explainers.binding import Bound, allowed, bind
from explainers.errors import ArtifactError, RefusedError
from explainers.models import as_rows
from explainers.prepared import Prepared, Shelf
from explainers.quality import Sufficiency, agrees, on_favourable_side, sufficiency
from explainers.reasons import Column, Factor, Flag, GivenReason, Reasons, Side, factors, reasons, shown
from explainers.trees import VERSIONS

BODY_VERSION = 1
ENVIRONMENT = {
    **VERSIONS,
    "xgboost": xgboost.__version__,
    "python": platform.python_version(),
    "machine": platform.machine(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """All that the body is written from."""

    plan: Plan
    prepared: Prepared
    attribution: Attribution
    bound: Bound
    columns: tuple[Column, ...]
    factors: tuple[Factor, ...]
    reasons: Reasons
    sufficiency: Sufficiency | None

    @property
    def adverse(self) -> bool | None:
        """What the recorded label says; None where it says neither: that is never guessed from the score."""
        favourable = self.plan.request.answer.favourable
        return None if favourable is None else favourable == 0

    @property
    def verdict(self) -> Verdict:
        if self.bound.level == "unbound":
            return "failed"
        unchecked = self.plan.request.answer.score is None and self.adverse is None  # nothing of the answer is known
        agreed = agrees(self.attribution.shap_difference, self.attribution.contributions)
        return "sound" if agreed and not unchecked else "uncertain"


def explain(request: ExplanationRequest, shelf: Shelf) -> ExplanationResult:
    """Explain one decision with the models on `shelf`; whatever cannot be explained is a failed result."""
    try:
        prepared = shelf.get(request.registration_digest)
        _check_digests(request, prepared)
        plan = prepared.explainer.plan(request)
    except (ArtifactError, RefusedError) as error:
        return failed(request, error.code, error.message)
    attribution = prepared.explainer.solve(plan)
    if isinstance(attribution, Failure):
        return failed(request, attribution.code, attribution.message)
    found = _find(plan, prepared, attribution)
    return ExplanationResult(
        job=request.job, key=request.key, state="ready", body=_body(found), summary=_summary(found)
    )


def _check_digests(request: ExplanationRequest, prepared: Prepared) -> None:
    registration = prepared.registration
    for what, asked, registered in (
        ("model artifact", request.model.digest, registration.digest),
        ("baseline", request.baseline_digest, registration.baseline.digest),
        ("model name", request.model.name, registration.name),
        ("model version", request.model.version, registration.version),
    ):
        if asked != registered:
            raise RefusedError(
                f"{what}: the decision names {asked}, the registration {registered}", code="digest_differs"
            )


def _find(plan: Plan, prepared: Prepared, attribution: Attribution) -> _Findings:
    request, registration = plan.request, prepared.registration
    explained = math.fsum((attribution.base, *attribution.contributions))
    bound = bind(
        level=request.model.level,
        recorded=request.answer.score,
        explained=_in_answer_space(prepared, explained),
        tolerance=registration.output.tolerance,
    )
    columns = _columns(plan, prepared, attribution)
    grouped = factors(registration, columns)
    given = _give(prepared, bound, attribution, columns, grouped, favourable=request.answer.favourable)
    return _Findings(
        plan=plan,
        prepared=prepared,
        attribution=attribution,
        bound=bound,
        columns=columns,
        factors=grouped,
        reasons=given,
        sufficiency=_sufficiency(plan, prepared, attribution, grouped, given),
    )


def _in_answer_space(prepared: Prepared, margin: float) -> float:
    return prepared.model.answer(margin) if prepared.registration.output.space == "probability" else margin


def _give(
    prepared: Prepared,
    bound: Bound,
    attribution: Attribution,
    columns: tuple[Column, ...],
    grouped: tuple[Factor, ...],
    *,
    favourable: int | None,
) -> Reasons:
    if bound.level == "unbound":
        detail = "the registered model does not answer as recorded"
        return Reasons(notice="human", flags=(Flag(kind="output_differs", detail=detail),))
    if not agrees(attribution.shap_difference, attribution.contributions):
        return Reasons(notice="human", flags=(Flag(kind="methods_disagree", detail="shap finds other contributions"),))
    if favourable is None:
        detail = "the recorded label is missing or neither favourable nor adverse"
        return Reasons(notice="human", flags=(Flag(kind="label_unknown", detail=detail),))
    if _label_disagrees(prepared, attribution.value, favourable):
        # somebody or something other than the model's score decided: its contributions are not the reasons
        detail = "the recorded answer lies on the other side of the cutoff than the model's output"
        return Reasons(notice="human", flags=(Flag(kind="label_disagrees", detail=detail),))
    if favourable:
        return Reasons(notice="none")
    by_name = {column.feature: column for column in columns}
    return reasons(prepared.registration, grouped, by_name, base=attribution.base, value=attribution.value)


def _label_disagrees(prepared: Prepared, margin: float, favourable: int) -> bool:
    cutoff = _in_answer_space(prepared, prepared.cutoff)
    if abs(_in_answer_space(prepared, margin) - cutoff) <= allowed(prepared.registration.output.tolerance, cutoff):
        return False  # float32 and float64 may fall on different sides of the cutoff here
    side = on_favourable_side(margin, cutoff=prepared.cutoff, favourable_is_higher=prepared.favourable_is_higher)
    return side != (favourable == 1)


def _columns(plan: Plan, prepared: Prepared, attribution: Attribution) -> tuple[Column, ...]:
    known = {feature.name: feature for feature in prepared.registration.features}
    return tuple(
        _column(known[name], value, contribution, prepared.baseline[:, i])
        for i, (name, value, contribution) in enumerate(
            zip(prepared.model.features, plan.row, attribution.contributions, strict=True)
        )
    )


def _column(feature: Feature, value: float | None, contribution: float, compared: npt.NDArray[np.float32]) -> Column:
    """`compared` is the feature's column of the baseline, shape (n,)."""
    side = None if value is None else _side(value, compared)
    return Column(
        feature=feature.name,
        value=value,
        shown=shown(feature, value, is_alike=lambda told: _side(told, compared) == side),
        contribution=contribution,
        side=side,
    )


def _side(value: float, compared: npt.NDArray[np.float32]) -> Side | None:
    number = np.float32(value)  # as the model sees it
    low, high = int(np.sum(compared < number)), int(np.sum(compared > number))
    return None if low == high else "higher" if low > high else "lower"


def _sufficiency(
    plan: Plan, prepared: Prepared, attribution: Attribution, grouped: tuple[Factor, ...], given: Reasons
) -> Sufficiency | None:
    """What the reasons alone explain; None where there are none."""
    named = {name for reason in given.reasons or given.withheld for name in reason.factors}
    features = {feature for factor in grouped if factor.factor in named for feature in factor.features}
    if not features:
        return None
    rows = np.repeat(as_rows(plan.row), len(prepared.baseline), axis=0)
    at = [i for i, name in enumerate(prepared.model.features) if name in features]
    rows[:, at] = prepared.baseline[:, at]
    return sufficiency(
        base=attribution.base,
        value=attribution.value,
        replaced=prepared.model.margin(rows).tolist(),
        cutoff=prepared.cutoff,
        favourable_is_higher=prepared.favourable_is_higher,
    )


def _body(found: _Findings) -> bytes:
    prepared, attribution = found.prepared, found.attribution
    registration = prepared.registration
    body = {
        "v": BODY_VERSION,
        "method": {"name": attribution.method, "version": attribution.method_version, "computation": "exact"},
        "versions": ENVIRONMENT,
        "model": {"name": registration.name, "version": registration.version, "digest": registration.digest},
        "registration": {
            "digest": prepared.registration_digest,
            "catalogue_version": registration.catalogue_version,
        },
        "explainer_config": found.plan.request.explainer_config,
        "baseline": {
            "digest": registration.baseline.digest,
            "kind": registration.baseline.kind,
            "rows": len(prepared.baseline),
            "outputs": _baseline_outputs(prepared),
        },
        "output": _output(found),
        "grouping": "signed_sum",
        "attributions": _attributions(found),
        "factors": [_factor(factor) for factor in found.factors],
        "adverse": found.adverse,
        "notice": found.reasons.notice,
        "reasons": [_reason(reason) for reason in found.reasons.reasons],
        "withheld": [_reason(reason) for reason in found.reasons.withheld],
        "flags": [flag.as_json() for flag in found.reasons.flags],
        "quality": _quality(found),
        "binding": found.bound.level,
        "verdict": found.verdict,
        "counterfactuals": [],
    }
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def _baseline_outputs(prepared: Prepared) -> dict[str, float]:
    """Where the baseline's own answers lie, in the answer's space: whom the person is compared with."""
    lowest, median, highest = (_in_answer_space(prepared, margin) for margin in prepared.baseline_margins)
    return {"lowest": lowest, "median": median, "highest": highest}


def _output(found: _Findings) -> dict[str, Any]:
    prepared, output = found.prepared, found.prepared.registration.output
    return {
        "space": "margin",
        "link": output.link,
        "favourable": output.favourable,
        "base": found.attribution.base,
        "value": found.attribution.value,
        "cutoff": prepared.cutoff,
        "answer": {
            "space": output.space,
            "base": _in_answer_space(prepared, found.attribution.base),
            "value": _in_answer_space(prepared, found.attribution.value),
            "cutoff": _in_answer_space(prepared, prepared.cutoff),
        },
        "recorded": found.plan.request.answer.score,
    }


def _attributions(found: _Findings) -> list[dict[str, Any]]:
    known = {feature.name: feature for feature in found.prepared.registration.features}
    return [
        {
            "feature": column.feature,
            "label": known[column.feature].label,
            "factor": known[column.feature].factor or column.feature,
            "value": column.value,
            "shown": column.shown,
            "unit": known[column.feature].unit,
            "side": column.side,
            "contribution": column.contribution,
        }
        for column in found.columns
    ]


def _factor(factor: Factor) -> dict[str, Any]:
    told = {**asdict(factor), "features": list(factor.features)}
    del told["protected_contributions"]  # the attributions hold them
    return told


def _reason(reason: GivenReason) -> dict[str, Any]:
    return {**asdict(reason), "factors": list(reason.factors)}


def _quality(found: _Findings) -> dict[str, Any]:
    enough = found.sufficiency
    return {
        "additivity": found.attribution.additivity,
        "shap_difference": found.attribution.shap_difference,
        "output_difference": found.bound.difference,
        "output_difference_max": found.bound.allowed,
        "tolerance": found.prepared.registration.output.tolerance,
        "baseline_rows": len(found.prepared.baseline),
        "sufficiency": None
        if enough is None
        else {"gap_closed": enough.gap_closed, "flips": enough.flips, "sufficient": enough.sufficient},
    }


def _summary(found: _Findings) -> dict[str, Any]:
    request, registration = found.plan.request, found.prepared.registration
    return {
        "key": request.key,
        "method": found.attribution.method,
        "method_version": found.attribution.method_version,
        "model": registration.digest,
        "baseline": registration.baseline.digest,
        "registration": found.prepared.registration_digest,
        "binding": found.bound.level,
        "verdict": found.verdict,
        "notice": found.reasons.notice,
        "codes": [reason.code for reason in found.reasons.reasons],
        "flags": [flag.in_clear() for flag in found.reasons.flags],
    }
