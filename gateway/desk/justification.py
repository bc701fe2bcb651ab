"""One decision as one answer: decision, explanation, reasons, proof; for one viewer, with what is not theirs left out.

`document` is pure. What it returns is the JSON twin as it is, and all that the page's template is given: nothing is
masked later, so nothing can be forgotten there. `masked` lists what was left out and why, in the viewer's words.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from config.route import Route
from gateway.desk import content, words
from gateway.desk.context import Job
from gateway.desk.records import Decision, Dossier, Explanation
from gateway.desk.redaction import redaction
from gateway.desk.roles import Right, Viewer
from gateway.desk.sentences import LEAD, card
from gateway.desk.states import STATE_WORDS, State, state_of
from gateway.desk.timeline import timeline
from storage.ids import b64

SEAL_WORDS = {
    "proven": "Recorded, unaltered, proof available",
    "pending": "Recorded; the proof follows within seconds",
    "broken": "Does not match the ledger",
}


def document(dossier: Dossier, viewer: Viewer, *, route: Route | None, job: Job | None) -> dict[str, Any]:
    """The justification of one decision as far as `viewer` may see it; plain JSON values only."""
    decision = dossier.decision
    state, why = state_of(decision, dossier.explanations, job, route)
    newest = dossier.explanations[0] if dossier.explanations else None
    body = newest.body if newest is not None and newest.body is not None else {}
    reasons = _reasons(body, state, viewer)
    told = card(decision, state, [reason["text"] for reason in reasons], body.get("baseline", {}).get("kind"))
    return {
        "decision": _decision(dossier, viewer),
        "model": _model(decision, newest),
        "card": {
            "say": list(told.say),
            "lead": LEAD,
            "reasons": list(told.reasons),
            "decided_by": told.decided_by,
            "ai_role": told.ai_role,
            "next_step": told.next_step,
        },
        "explanation": _explanation(newest, (state, why), viewer) | {"reasons": reasons},
        "content": _content(dossier, viewer),
        "timeline": timeline(dossier, people=viewer.may(Right.ACCESSES)),
        "integrity": {
            "state": dossier.sealed.state,
            "text": SEAL_WORDS[dossier.sealed.state],
            "detail": dossier.sealed.detail,
            "origin": decision.origin,
            "seq": decision.seq,
            "leaf": b64(decision.leaf),
            "checkpoint_size": dossier.sealed.size,
        },
        "masked": _masked(viewer),
        "links": _links(decision, viewer),
    }


def _decision(dossier: Dossier, viewer: Viewer) -> dict[str, Any]:
    decision = dossier.decision
    person = viewer.may(Right.PERSON)
    return {
        "id": decision.id,
        "reference": words.short(decision.id),
        "at": words.iso(decision.ts_ns),
        "route": decision.route,
        "app": decision.app,
        "case": decision.case if person else None,
        "subject": decision.subject if person else None,
        "purpose": decision.purpose,
        "corrects": decision.corrects,
        "corrected_by": list(dossier.corrected_by),
        "call": {"id": decision.call, "row": decision.row, "rows": decision.rows},
        "answer": answer(decision) | {"score": decision.score if viewer.may(Right.ATTRIBUTIONS) else None},
        "status": decision.status,
        "error": decision.error,
        "stream": decision.stream,
        "evidence": decision.mode,
        "retention": decision.retention,
        "duration_us": {"model": decision.upstream_us, "total": decision.total_us},
        "configuration": dossier.entry.get("config"),
    }


def answer(decision: Decision) -> dict[str, Any]:
    """The label of the model's answer and which way it went; lists use it too."""
    direction = {True: "favourable", False: "adverse", None: None}[decision.favourable]
    return {"label": decision.label, "direction": direction, "error": decision.extraction_error}


def _model(decision: Decision, newest: Explanation | None) -> dict[str, Any]:
    return {
        "name": decision.model_name,
        "version": decision.model_version,
        "digest": decision.model_digest,
        "named_by": decision.model_source,
        "binding": newest.row.binding if newest is not None else None,
    }


def _reasons(body: Mapping[str, Any], state: State, viewer: Viewer) -> list[dict[str, Any]]:
    """The reasons in order; told only where the state is ready, and without the person's values where masked."""
    if not viewer.may(Right.REASONS):
        return []
    given = body.get("reasons", ()) if state is State.READY else ()
    against = _against(body)
    labels = {str(factor.get("factor")): factor.get("label") for factor in body.get("factors", ())}
    told = []
    for reason in given:
        label = str(labels.get(str(reason.get("factor"))) or reason.get("factor"))
        item: dict[str, Any] = {
            "rank": reason.get("rank"),
            "code": reason.get("code"),
            "label": label,
            "text": str(reason.get("text")) if viewer.may(Right.PERSON) else label,
        }
        if viewer.may(Right.ATTRIBUTIONS):
            item |= {key: reason.get(key) for key in ("contribution", "share")}
            item["share_against"] = _share(reason, against)
        told.append(item)
    return told


def _against(body: Mapping[str, Any]) -> float:
    """How much of the output all factors together took from the person: what reasons are a share of."""
    sign = 1 if body.get("output", {}).get("favourable", "higher") == "lower" else -1
    return math.fsum(max(0.0, sign * float(factor.get("contribution") or 0.0)) for factor in body.get("factors", ()))


def _share(item: Mapping[str, Any], against: float) -> float | None:
    """A reason's part of all that counted against the person, 0 to 1; its `share` is of the gap and may exceed 1."""
    contribution = item.get("contribution")
    return None if contribution is None or against <= 0 else min(1.0, abs(float(contribution)) / against)


def _explanation(newest: Explanation | None, state: tuple[State, str], viewer: Viewer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "state": state[0].value,
        "text": STATE_WORDS[state[0]],
        "why": state[1] or None,
        "at": words.iso(newest.row.ts_ns) if newest is not None else None,
        "id": newest.row.id if newest is not None else None,
        **_NOT_SHOWN,
    }
    body = newest.body if newest is not None else None
    if newest is None or body is None or not viewer.may(Right.ATTRIBUTIONS):
        return told
    protected = {name for factor in body.get("factors", ()) if factor.get("protected") for name in factor["features"]}
    values = viewer.may(Right.VALUES)
    attributions = [_attribution(item, protected, values=values) for item in body.get("attributions", ())]
    baseline = dict(body.get("baseline", {}))
    return told | {
        "method": body.get("method"),
        "verdict": newest.row.verdict,
        "binding": newest.row.binding,
        "binding_text": words.BINDING_WORDS.get(newest.row.binding or ""),
        "output": dict(body.get("output", {})),
        "baseline": baseline | {"text": words.BASELINE_WORDS.get(str(baseline.get("kind")))},
        "factors": [_factor(item, attributions) for item in body.get("factors", ())],
        "attributions": attributions,
        "withheld": [
            {key: item.get(key) for key in _WITHHELD} | {"share_against": _share(item, _against(body))}
            for item in body.get("withheld", ())
        ],
        "flags": list(body.get("flags", ())),
        "quality": dict(body.get("quality", {})),
        "versions": body.get("versions"),
    }


_NOT_SHOWN: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("method", "verdict", "binding", "binding_text", "output", "baseline", "quality", "versions")),
    **dict.fromkeys(("factors", "attributions", "withheld", "flags"), ()),
}
_WITHHELD: Final = (
    "rank",
    "code",
    "factor",
    "contribution",
    "share",
    "protected",
)  # not the texts: they are no reasons


def _attribution(item: Mapping[str, Any], protected: set[str], *, values: bool) -> dict[str, Any]:
    name = str(item.get("feature"))
    shown = None
    if values and name not in protected:
        unit = item.get("unit")
        shown = f"{item.get('shown')} {unit}" if unit and item.get("value") is not None else item.get("shown")
    return {
        "feature": name,
        "label": item.get("label") or name,
        "value": shown,
        "side": item.get("side") if values and name not in protected else None,
        "contribution": item.get("contribution"),
        "protected": name in protected,
    }


def _factor(item: Mapping[str, Any], attributions: list[dict[str, Any]]) -> dict[str, Any]:
    """A factor with the value of its only feature; several features have no one value."""
    features = list(item.get("features", ()))
    value = next((told["value"] for told in attributions if [told["feature"]] == features), None)
    return {
        "factor": item.get("factor"),
        "label": item.get("label"),
        "features": features,
        "value": value,
        "contribution": item.get("contribution"),
        "protected": bool(item.get("protected")),
    }


def _content(dossier: Dossier, viewer: Viewer) -> dict[str, Any]:
    """The recorded request and answer: as they are, as their shape, or as erased."""
    recorded = dossier.content
    bodies = {"request": recorded.request, "response": recorded.response}
    hidden = redaction(recorded.redacted or {})
    if viewer.may(Right.CONTENT):
        state, show = "shown", content.text
    elif viewer.may(Right.CONTENT_MASKED):
        state, show = "masked", content.shape
    else:
        return {"state": "withheld", "request": None, "response": None, "redacted": hidden}
    if recorded.erased:
        state = "erased"
    told = {name: None if body is None else show(body) for name, body in bodies.items()}
    media = {"request": recorded.request_media, "response": recorded.response_media}
    return {"state": state, "media": media, "redacted": hidden, **told}


def _masked(viewer: Viewer) -> list[str]:
    left_out = []
    if not viewer.may(Right.CONTENT):
        needs = " (needs a second person's approval)" if viewer.may(Right.LOOKUP) and viewer.full else ""
        left_out.append(f"values in the recorded request and answer{needs}")
    if not viewer.may(Right.PERSON):
        left_out.append("who the person is, and their values")
    if not viewer.may(Right.ATTRIBUTIONS):
        left_out.append("contributions and quality figures")
    return left_out


def _links(decision: Decision, viewer: Viewer) -> dict[str, str]:
    links = {"self": f"/v1/decisions/{decision.id}", "page": f"/decisions/{decision.id}"}
    if viewer.may(Right.PROOF):
        links["proof"] = f"/v1/decisions/{decision.id}/proof"
    if decision.case is not None and viewer.may(Right.PERSON):
        links["case"] = f"/v1/cases/{decision.case}"
    if (decision.rows or 1) > 1 and viewer.may(Right.LIST):
        links["call"] = f"/v1/decisions?call={decision.call}"
    if decision.corrects is not None:
        links["corrects"] = f"/v1/decisions/{decision.corrects}"
    return links
