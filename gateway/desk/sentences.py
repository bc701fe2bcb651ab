"""The call card: what a support agent says to a customer about one decision, and what is for the agent alone (pure).

`say` is read out word by word: at most four sentences, spoken by "us" to "you". The rest is for the agent and is never
read out. No Shapley value, no score, no cutoff stands here. Where the reasons are not there, or not sure, a fixed
sentence says so, and no reason is named: a wrong reason told to a person is worse than none. A person's look at the
case is something to ask for, never something promised: what the organisation then does is not on record here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.desk import words
from gateway.desk.records import Decision
from gateway.desk.states import State

SENTENCES_MAX = 4
LEAD = "The main things that counted against the application:"
_ARTICLES = ("A", "An", "The", "There", "This", "That", "Your", "You", "It", "No", "Not")
_AMOUNTS = ("Too", "More", "Less", "Fewer", "Few", "Many", "Some", "Several", "Other", "Recent")
_OPENERS = frozenset((*_ARTICLES, *_AMOUNTS))

# Said to the customer instead of reasons; each is one sentence.
FIXED: Mapping[State, str] = {
    State.PENDING: "We are still working out the reasons for this answer, so we cannot give you any yet.",
    State.RUNNING: "We are working out the reasons for this answer right now, so we cannot give you any yet.",
    State.FAILED: "We could not work out the reasons for this answer, so we cannot give you any.",
    State.UNCERTAIN: "The reasons we have are not certain enough to give you, so a person needs to look at them first.",
    State.UNBOUND: "We could not confirm the reasons for this answer, so a person needs to look at them first.",
    State.REVIEW: "A person needs to check the reasons for this answer before we can give them to you.",
    State.BLOCKED: "The reasons for this answer need to be checked by a person before we can give them to you.",
    State.ERASED: "The details of this decision have been erased, so we can no longer give reasons for it.",
    State.SKIPPED: "We do not record reasons for this kind of decision.",
    State.UNANSWERED: "We have no answer from the system that we can read, so there are no reasons to give.",
}
# Said to the customer of the group that the reasons compare with, by its kind.
COMPARED: Mapping[str, str] = {
    "near_cutoff": "We compared your application with ones that were only just approved.",
    "all_applicants": "We compared your application with all kinds of applications, approved or not.",
}
COMPARED_OTHERWISE = "We compared your application with a set of applications that is kept for this purpose."
REVIEW = (
    "As far as our records show, no person took part in this assessment, and you can ask us to have one look at it."
)

# For the agent alone.
_HAND_OVER = "Name no reasons. Hand the case to a reviewer with the reference below."
_NEXT: Mapping[State, str] = {
    State.PENDING: "Name no reasons yet. Look at this page again in a moment, or offer to call back.",
    State.RUNNING: "Name no reasons yet. Look at this page again in a moment, or offer to call back.",
    State.FAILED: _HAND_OVER,
    State.UNCERTAIN: _HAND_OVER,
    State.UNBOUND: "Name no reasons: the model on file gives another result than the recorded one. Hand the case to a"
    " reviewer with the reference below.",
    State.REVIEW: _HAND_OVER,
    State.BLOCKED: "Name no reasons. Hand the case to compliance with the reference below.",
    State.UNANSWERED: "Find out whether the application was sent again: that would be a decision of its own.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What stands on the call card."""

    say: tuple[str, ...]  # to the customer; at most SENTENCES_MAX
    reasons: tuple[str, ...]  # those in `say`, one by one
    decided_by: str  # this and what follows: for the agent
    ai_role: str
    next_step: str


def card(decision: Decision, state: State, reasons: Sequence[str], baseline: str | None) -> Card:
    """The card of one decision; `reasons` are the plain texts in order, used only where `state` is ready.

    `baseline` is the kind of group that the reasons compare with, None where there is none.
    """
    told = tuple(reasons) if state is State.READY and decision.favourable is False else ()
    say = [_happened(decision), _why(decision, state, told)]
    if told and baseline is not None:
        say.append(COMPARED.get(baseline, COMPARED_OTHERWISE))
    say.append(REVIEW)
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
        return f"On {when} your application was put to our automated system, but no complete answer came back."
    if decision.label is None:
        return f"On {when} your application was put to our automated system."
    return f"On {when} our automated system assessed your application, and its answer was \u201c{decision.label}\u201d."


def _why(decision: Decision, state: State, told: Sequence[str]) -> str:
    if told:
        return f"{LEAD} {'; '.join(_inside(text) for text in told)}."
    if state is State.READY and decision.favourable:
        return "The answer was in your favour, so there is nothing against your application to explain."
    if state is State.READY and decision.favourable is None:
        return "We have not set down whether this answer is for or against you, so we cannot give reasons for it."
    if state is State.READY:
        return "No single thing weighed enough to be named as a reason, so a person needs to look at the answer first."
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
    return (
        "As far as our records show, the model gave this answer by itself. What was then done with it is not part of"
        " this record."
    )


def _next_step(decision: Decision, state: State) -> str:
    if state in _NEXT:
        return _NEXT[state]
    if decision.favourable:
        return "Nothing is due. If a detail looks wrong, hand the case to a reviewer with the reference below."
    return (
        "If the customer disagrees, or a detail is wrong, hand the case to a reviewer with the reference below. A"
        " corrected request makes a new decision that points back to this one."
    )
