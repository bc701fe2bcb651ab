"""Where the explanation of a decision stands, as people see it: one word, always there (pure)."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from config.route import Route
from gateway.desk.context import Job, JobState
from gateway.desk.records import Decision, Explanation


class State(StrEnum):
    """`ready` alone means that reasons may be told."""

    PENDING = "pending"
    RUNNING = "running"
    READY = "ready"
    UNCERTAIN = "uncertain"  # made, but its quality figures say: to a human
    UNBOUND = "unbound"  # the registered model does not give the recorded output
    REVIEW = "review"  # sound, but something about the reasons needs a human, such as a factor without a text
    BLOCKED = "blocked"  # a protected factor is among the reasons
    FAILED = "failed"
    ERASED = "erased"  # it was made; its key is gone
    SKIPPED = "skipped"  # the route's explanation policy leaves it out
    UNANSWERED = "unanswered"  # the call brought no answer that could be explained


STATE_WORDS = {
    State.PENDING: "waiting to be explained",
    State.RUNNING: "being explained",
    State.READY: "explained",
    State.UNCERTAIN: "explained, but uncertain",
    State.UNBOUND: "not bound to the recorded answer",
    State.REVIEW: "reasons need a reviewer",
    State.BLOCKED: "reasons blocked",
    State.FAILED: "explanation failed",
    State.ERASED: "erased",
    State.SKIPPED: "not explained by configuration",
    State.UNANSWERED: "nothing to explain",
}


def state_of(
    decision: Decision, explanations: Sequence[Explanation], job: Job | None, route: Route | None
) -> tuple[State, str]:
    """The state and, where there is more to say, why; the newest explanation counts."""
    if explanations:
        return _of_explanation(explanations[0])
    if job is not None and job.state is not JobState.READY:  # a ready one is on its way into the database
        return State(job.state.value), job.reason
    if decision.error is not None or decision.stream != "complete" or not 200 <= decision.status < 300:
        return State.UNANSWERED, decision.error or f"status {decision.status}"
    if job is None and route is not None:
        if route.explain.when == "never" or route.model is None or route.extract is None:
            return State.SKIPPED, "the route's explanation policy says never"
        if decision.label is None:
            return State.UNANSWERED, decision.extraction_error or "no label was found in the answer"
        if route.explain.when == "adverse" and decision.favourable is not False:
            return State.SKIPPED, "the route explains adverse decisions only"
    return State.PENDING, ""


def listed(decision: Decision, job: Job | None, route: Route | None) -> State:
    """The state as a list tells it, from the decision's row alone; a body's finer states are not told apart."""
    if decision.explanation is None:
        return state_of(decision, (), job, route)[0]
    if decision.explanation != "ready":
        return State.FAILED
    return {"sound": State.READY, "uncertain": State.UNCERTAIN}.get(decision.verdict or "", State.UNBOUND)


def _of_explanation(newest: Explanation) -> tuple[State, str]:
    row, body = newest.row, newest.body
    if row.state != "ready":
        return State.FAILED, (row.error or "").replace("_", " ")
    if row.binding == "unbound":
        return State.UNBOUND, ""
    if body is None:
        return State.ERASED, ""
    if row.notice == "blocked":
        return State.BLOCKED, flagged(body)
    if row.verdict == "uncertain":
        return State.UNCERTAIN, flagged(body)
    if row.verdict == "sound":
        return (State.REVIEW, flagged(body)) if row.notice == "human" else (State.READY, "")
    return State.FAILED, "its quality figures are out of bounds"


FLAG_WORDS: Final = {
    "protected_factor": "{factor} is protected",
    "unmapped_factor": "no reason text covers {factor}",
    "direction_disagrees": "the text for {factor} would contradict the person's value",
    "no_factor_counts": "no factor reaches 5 % of the gap",
    "no_gap": "the model's output is no worse than the comparison group's",
    "label_disagrees": "the recorded answer lies on the other side of the line than the model's output",
    "label_unknown": "whether the recorded answer speaks for or against the person is not defined",
    "output_differs": "the registered model does not give the recorded output",
}


def flagged(body: Mapping[str, Any]) -> str:
    """What a human must look at, as the explanation flags it."""
    labels = {str(factor.get("factor")): str(factor.get("label")) for factor in body.get("factors", ())}
    told = []
    for flag in body.get("flags", ()):
        kind, factor = str(flag.get("kind")), str(flag.get("factor"))
        words = FLAG_WORDS.get(kind, kind.replace("_", " "))
        told.append(words.replace("{factor}", f"\u201c{labels.get(factor, factor)}\u201d"))
    return "; ".join(told)
