"""Holds and what waits for a second person: what the entries on record come to (pure).

A hold keeps what it covers from being erased or pruned until it is released. Whoever may place one places it alone;
whoever may only ask for one, and everybody who wants one released, waits for a second person. Every step is an entry:

    hold      {event: placed | requested, scope, basis, role}                 parts: reason, ticket
    approval  {event: requested, action: hold_release, object, role}          parts: reason, ticket
    approval  {event: approved | rejected | withdrawn, request, action, object, role}   part: reason

There is no other state: what is in force is computed from the entries, and what the rules forbid (a verdict by whoever
asked, a second verdict, one that comes too late) counts for nothing, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from gateway.desk.errors import RequestError
from gateway.desk.evidence import EvidenceRequest
from storage.entries import decode
from storage.ids import is_uuid7
from storage.rows import EntryRow

REQUEST_DAYS: Final = 30  # then a request that nobody answered has lapsed
REQUEST_NS: Final = REQUEST_DAYS * 86_400 * 1_000_000_000
REASON_CHARS_MAX: Final = 2_000
DECISIONS_MAX: Final = 500  # named one by one: the entry holds their ids


class Basis(StrEnum):
    """Why something is kept."""

    LITIGATION = "litigation"
    INVESTIGATION = "investigation"
    SUPERVISION = "supervision"
    COMPLAINT = "complaint"
    AUDIT = "audit"


BASES: Final[Mapping[Basis, str]] = {
    Basis.LITIGATION: "Litigation, pending or expected",
    Basis.INVESTIGATION: "An investigation of our own",
    Basis.SUPERVISION: "A supervisor's order or inquiry",
    Basis.COMPLAINT: "A complaint that is not settled",
    Basis.AUDIT: "An audit",
}


class Action(StrEnum):
    """What a second person is asked for."""

    HOLD_PLACE = "hold_place"
    HOLD_RELEASE = "hold_release"


class Verdict(StrEnum):
    """How a request ends: by a second person, or by whoever asked."""

    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request for a second person, and what became of it. `state`: waiting, lapsed, or a verdict."""

    row: EntryRow  # of the request
    action: Action
    object: str  # the hold's id
    by: str
    state: str = "waiting"
    decided: EntryRow | None = None
    decided_by: str | None = None

    @property
    def id(self) -> str:
        """The request's own id."""
        return self.row.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A hold. `state`: requested, in_force, released, or how its request ended: rejected, withdrawn, lapsed.

    `scope` has `decisions` (ids), `cases` or `subjects` (pseudonyms: one for each pepper there was), or `route` with
    `from_ns` and `to_ns` (texts).
    """

    row: EntryRow
    scope: Mapping[str, Any]
    basis: str
    by: str
    state: str

    @property
    def id(self) -> str:
        """The id of the entry that placed it, or asked for it."""
        return self.row.id

    def covers(self, *, decision: str, case: str | None, subject: str | None, route: str | None, ts_ns: int) -> bool:
        """Whether a decision of `ts_ns` (Unix nanoseconds) lies in its scope; says nothing about its state."""
        scope = self.scope
        return (
            decision in scope.get("decisions", ())
            or (case is not None and case in scope.get("cases", ()))
            or (subject is not None and subject in scope.get("subjects", ()))
            or ("route" in scope and scope["route"] == route and int(scope["from_ns"]) <= ts_ns < int(scope["to_ns"]))
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """All holds and requests of one tenant, each by its id, oldest first."""

    holds: Mapping[str, Hold]
    approvals: Mapping[str, Approval]
    releases: Mapping[str, Approval]  # by the hold: the request for its release that waits

    @property
    def in_force(self) -> tuple[Hold, ...]:
        """The holds that keep something now."""
        return tuple(hold for hold in self.holds.values() if hold.state == "in_force")


def standing(rows: Iterable[EntryRow], *, now_ns: int) -> Standing:
    """What the entries come to; what is no entry of a form above counts for nothing. `rows` are oldest first."""
    held: dict[str, Hold] = {}
    asked: dict[str, Approval] = {}
    verdicts: list[tuple[EntryRow, dict[str, Any]]] = []
    for row in rows:
        said = decode(row.entry)
        by, event = str(said["actor"]), said.get("event")
        if row.kind == "hold" and event in ("placed", "requested") and isinstance(said.get("scope"), dict):
            state = "in_force" if event == "placed" else "requested"
            held[row.id] = Hold(row=row, scope=said["scope"], basis=str(said.get("basis")), by=by, state=state)
            if event == "requested":
                asked[row.id] = Approval(row=row, action=Action.HOLD_PLACE, object=row.id, by=by)
        elif row.kind == "approval" and event == "requested" and said.get("action") == Action.HOLD_RELEASE:
            asked[row.id] = Approval(row=row, action=Action.HOLD_RELEASE, object=str(said.get("object")), by=by)
        elif row.kind == "approval" and event in list(Verdict):
            verdicts.append((row, said))
    for row, verdict in verdicts:
        request = asked.get(str(verdict.get("request")))
        if request is not None and _counts(request, row, verdict):
            asked[request.id] = replace(request, state=verdict["event"], decided=row, decided_by=str(verdict["actor"]))
    for request in asked.values():
        if request.state == "waiting" and now_ns - request.row.ts_ns > REQUEST_NS:
            asked[request.id] = replace(request, state="lapsed")
    for request in asked.values():
        hold = held.get(request.object)
        if hold is not None:
            held[hold.id] = replace(hold, state=_after(hold, request))
    waiting = (each for each in asked.values() if each.state == "waiting" and each.action is Action.HOLD_RELEASE)
    return Standing(held, asked, {each.object: each for each in waiting})


def _counts(request: Approval, row: EntryRow, said: Mapping[str, Any]) -> bool:
    """Whether a verdict counts: the first one, in time, by another person, or withdrawn by the same one."""
    is_own = said["actor"] == request.by
    is_timely = 0 <= row.ts_ns - request.row.ts_ns <= REQUEST_NS
    return request.state == "waiting" and is_timely and is_own == (said["event"] == Verdict.WITHDRAWN)


def _after(hold: Hold, request: Approval) -> str:
    """The hold's state after a request about it."""
    if request.action is Action.HOLD_RELEASE:
        return "released" if hold.state == "in_force" and request.state == Verdict.APPROVED else hold.state
    return {"approved": "in_force", "waiting": "requested"}.get(request.state, request.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """What somebody wants kept, why by its kind, and why in their own words."""

    scope: EvidenceRequest
    basis: Basis
    reason: str

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> HoldRequest:
        """The request in a JSON object: `basis`, `reason`, and one of decisions, case, subject, route with from and to.

        Raises:
            RequestError: a member is unknown, of another kind, or there is not exactly one scope.
        """
        rest = {name: value for name, value in given.items() if name not in ("basis", "reason")}
        for name in ("parts", "everything"):
            if rest.get(name):
                raise RequestError(f"a hold has no `{name}`")
        basis = given.get("basis")
        if basis not in list(Basis):
            raise RequestError(f"`basis` is one of {', '.join(Basis)}")
        scope = EvidenceRequest.parse(rest)
        if sum(map(bool, (scope.decisions, scope.case, scope.subject, scope.route))) != 1:
            raise RequestError("a hold is for decisions, or a case, or a subject, or a route with from and to")
        if len(scope.decisions) > DECISIONS_MAX:
            raise RequestError(f"`decisions` names at most {DECISIONS_MAX}; hold the case, the person or the route")
        return cls(scope=scope, basis=Basis(basis), reason=reason(given.get("reason")))


def reason(given: object) -> str:
    """A reason in somebody's own words, without the space around it.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(given, str) or not 0 < len(given.strip()) <= REASON_CHARS_MAX:
        raise RequestError(f"`reason` has 1 to {REASON_CHARS_MAX} characters")
    return given.strip()


def statement_id(given: str) -> str:
    """The id of a hold or of a request.

    Raises:
        RequestError: it is none.
    """
    if not is_uuid7(given):
        raise RequestError("the id is a UUIDv7, as it was returned")
    return given


def ids(decisions: Sequence[str]) -> dict[str, Any]:
    """The scope of named decisions."""
    return {"decisions": sorted(decisions)}
