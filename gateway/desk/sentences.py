"""The call card: what a support agent may say about one decision, in at most four sentences (pure).

No Shapley value, no score, no cutoff stands here. Where the reasons are not there, or not sure, a fixed sentence says
so, and no reason is named: a wrong reason told to a person is worse than none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.desk import words
from gateway.desk.records import Decision
from gateway.desk.states import State

SENTENCES_MAX = 4
LEAD = "What counted against it:"
_OPENERS = frozenset(
    ["A", "An", "The", "There", "This", "That", "Your", "You", "It", "No", "Not", "Too", "More", "Less", "Few", "Many"]
)

# Told instead of reasons; each is one sentence.
FIXED: Mapping[State, str] = {
    State.PENDING: "The reasons are still to be worked out and appear in a moment, so please do not name any yet.",
    State.RUNNING: "The reasons are being worked out right now and appear in a moment, so please do not name any yet.",
    State.FAILED: "The reasons could not be worked out, so please name none and hand the case to a reviewer.",
    State.UNCERTAIN: "The reasons are not certain enough to be named, so please hand the case to a reviewer.",
    State.UNBOUND: (
        "The model on file gives another result than the recorded one, so no reason can be named and the case belongs"
        " to a reviewer."
    ),
    State.REVIEW: "The reasons need a reviewer's eye before they may be named, so please hand the case over.",
    State.BLOCKED: "The reasons may not be named before compliance has looked at them, so please hand the case over.",
    State.ERASED: "The details of this decision were erased, so no reasons can be given any more.",
    State.SKIPPED: "This kind of decision is recorded without reasons.",
    State.UNANSWERED: "No answer could be read from what the model's endpoint sent, so there are no reasons to give.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What stands on the call card."""

    say: tuple[str, ...]  # at most SENTENCES_MAX
    reasons: tuple[str, ...]
    decided_by: str
    ai_role: str
    next_step: str


def card(decision: Decision, state: State, reasons: Sequence[str], baseline: str | None) -> Card:
    """The card of one decision; `reasons` are the plain texts in order, used only where `state` is ready.

    `baseline` is the kind of group that the reasons compare with, None where there is none.
    """
    told = tuple(reasons) if state is State.READY and decision.favourable is False else ()
    say = [_happened(decision), _why(decision, state, told)]
    if told and baseline is not None:
        say.append(f"This compares the case with {words.BASELINE_WORDS.get(baseline, 'the comparison group')}.")
    say.append("No person took part in the answer as far as the record shows, and you may ask for a review by one.")
    return Card(
        say=tuple(say[:SENTENCES_MAX]),
        reasons=told,
        decided_by=_decided_by(decision),
        ai_role=_ai_role(decision),
        next_step=_next_step(decision, state),
    )


def _happened(decision: Decision) -> str:
    when = words.date(decision.ts_ns)
    if decision.stream != "complete" or decision.error is not None:
        return f"On {when} this case was put to an automated model, but no complete answer came back."
    if decision.label is None:
        return f"On {when} this case was put to an automated model."
    return f"On {when} an automated model assessed this case, and its answer was \u201c{decision.label}\u201d."


def _why(decision: Decision, state: State, told: Sequence[str]) -> str:
    if told:
        return f"{LEAD} {'; '.join(_inside(text) for text in told)}."
    if state is State.READY and decision.favourable:
        return "The answer was in the person's favour, so there are no reasons against it to give."
    if state is State.READY and decision.favourable is None:
        return "Whether this answer speaks for or against a person is not defined, so no reasons are given."
    if state is State.READY:
        return "No single reason weighed enough to be named, so please hand the case to a reviewer."
    return FIXED[state]


def _inside(text: str) -> str:
    """A reason's own sentence as part of another; only words that English writes small are made small."""
    text = text.strip().rstrip(".;")
    first, space, rest = text.partition(" ")
    return f"{first.lower()}{space}{rest}" if first in _OPENERS else text


def _decided_by(decision: Decision) -> str:
    if decision.model_name is None:
        return f"An automated model behind the service \u201c{decision.route}\u201d; which one is not recorded."
    version = f", version {decision.model_version}" if decision.model_version else ""
    return f"The automated model \u201c{decision.model_name}\u201d{version}. No person is on record."


def _ai_role(decision: Decision) -> str:
    if decision.label is None:
        return "The model was asked; no usable answer of it is on record."
    return "The model gave this answer by itself. What was then done with it is not part of this record."


def _next_step(decision: Decision, state: State) -> str:
    if state in (State.PENDING, State.RUNNING):
        return "Reload this page in a moment. If the caller cannot wait, offer to call back."
    if decision.favourable:
        return "Nothing is due. If a detail looks wrong, hand the case to a reviewer with the reference below."
    return (
        "If the customer disagrees, or a detail is wrong, hand the case to a reviewer with the reference below. A"
        " corrected request makes a new decision that points back to this one."
    )
