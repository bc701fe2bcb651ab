"""Who may see what: the role table as data, and a viewer who holds roles (pure).

The rules that the table alone does not say:

* rights of several roles add up, except that whoever is an administrator reads no content, whatever else they are;
* a regulator sees their matter (routes and a period) and nothing else, whatever else they are;
* support needs a ticket, unless another of the viewer's roles allows the same without one;
* `developer` exists only under `answerable try`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from gateway.desk.errors import ForbiddenError

MATTER_ROUTES_MAX = 200


class Right(StrEnum):
    """One line of the role table."""

    LOOKUP = "lookup"  # find a decision by customer reference
    LIST = "list"  # page through decisions; without it, only those of one case or person
    REASONS = "reasons"  # plain reasons and the timeline of one decision
    PERSON = "person"  # the pseudonyms of case and subject, and the person's values in reason texts
    CONTENT = "content"  # the recorded request and answer
    CONTENT_MASKED = "content_masked"  # their shape: names and kinds, no values
    ATTRIBUTIONS = "attributions"  # contributions, baseline, quality figures
    VALUES = "values"  # the person's values beside the contributions
    PROOF = "proof"  # verify, download proofs
    ENTRIES = "entries"  # all entries of a ledger, of every tenant
    ACCESSES = "accesses"  # who looked at what and why
    HOLD_ASK = "hold_ask"  # ask for a hold, and see those that oneself asked for
    HOLD = "hold"  # place a hold, ask for its release, see all of them
    APPROVE = "approve"  # be the second person
    TRY = "try"  # the try page


class Role(StrEnum):
    """The roles that a token may name; other names in it mean nothing here."""

    SUPPORT = "support"
    COMPLIANCE = "compliance"
    REGULATOR = "regulator"
    MODEL_OWNER = "model_owner"
    DPO = "dpo"
    ADMIN = "admin"
    AUDITOR = "auditor"  # of the whole deployment: ledgers with their entries; no content, no reasons
    DEVELOPER = "developer"


# Compliance and dpo see the shape of content: no action opens it to them by a second person's approval yet.
RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.SUPPORT: frozenset({Right.LOOKUP, Right.REASONS, Right.PERSON, Right.CONTENT_MASKED, Right.HOLD_ASK}),
    Role.COMPLIANCE: frozenset(Right) - {Right.CONTENT, Right.TRY, Right.ENTRIES},
    Role.REGULATOR: frozenset(Right) - {Right.TRY, Right.ENTRIES, Right.HOLD, Right.APPROVE},
    Role.MODEL_OWNER: frozenset({Right.LIST, Right.REASONS, Right.ATTRIBUTIONS, Right.CONTENT_MASKED, Right.PROOF}),
    Role.DPO: frozenset(
        {Right.LOOKUP, Right.LIST, Right.REASONS, Right.PERSON, Right.CONTENT_MASKED, Right.PROOF, Right.ACCESSES}
        | {Right.HOLD_ASK, Right.HOLD, Right.APPROVE}
    ),
    Role.ADMIN: frozenset({Right.PROOF}),
    Role.AUDITOR: frozenset({Right.PROOF, Right.ENTRIES}),
    Role.DEVELOPER: frozenset(Right),
}
TITLES: Mapping[Role, str] = {
    Role.SUPPORT: "Support",
    Role.COMPLIANCE: "Compliance",
    Role.REGULATOR: "Regulator",
    Role.MODEL_OWNER: "Model owner",
    Role.DPO: "Data protection officer",
    Role.ADMIN: "Administrator",
    Role.AUDITOR: "Auditor",
    Role.DEVELOPER: "Developer",
}
TRY_PURPOSE = "try"
PURPOSES: Mapping[str, str] = {
    "customer_question": "A customer's question",
    "complaint": "A complaint",
    "review": "A review of the decision",
    "access_request": "A data subject's access request",
    "audit": "An audit",
    "supervision": "Supervision or an investigation",
    "model_quality": "The quality of a model",
    "incident": "An incident",
    "legal": "A legal claim",
}
TICKET_CHARS_MAX = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """A regulator's scope, from the token's claim `matter`: routes, and a period [from, to) in Unix nanoseconds."""

    id: str
    routes: frozenset[str]
    from_ns: int
    to_ns: int

    def covers(self, route: str, ts_ns: int) -> bool:
        """Whether a decision of `route` at `ts_ns` lies inside."""
        return route in self.routes and self.from_ns <= ts_ns < self.to_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Somebody who is signed in, and what their roles allow."""

    tenant: str
    issuer: str
    subject: str
    roles: frozenset[Role]
    matter: Matter | None
    session: str = field(default="", repr=False)  # which session speaks; empty: a bearer token

    @property
    def actor(self) -> str:
        """As access entries name them."""
        return f"{self.issuer}|{self.subject}"

    @property
    def title(self) -> str:
        """The roles as people read them."""
        return ", ".join(TITLES[role] for role in Role if role in self.roles)

    def may(self, right: Right) -> bool:
        """Whether any of the roles gives `right`."""
        return any(right in RIGHTS[role] for role in self._counting())

    def require(self, right: Right) -> None:
        """Return if the viewer has `right`.

        Raises:
            ForbiddenError: none of the roles gives it, or a regulator's token names no matter.
        """
        if Role.REGULATOR in self.roles and self.matter is None:
            raise ForbiddenError(
                "this regulator's token names no matter, so nothing is in scope", code="matter_missing"
            )
        if not self.may(right):
            raise ForbiddenError("your role does not allow this")

    def needs_ticket(self, right: Right) -> bool:
        """Whether only the role support gives `right`."""
        giving = {role for role in self._counting() if right in RIGHTS[role]}
        return giving == {Role.SUPPORT}

    def sees(self, route: str, ts_ns: int) -> bool:
        """Whether a decision lies in the viewer's scope."""
        if Role.REGULATOR in self.roles:
            return self.matter is not None and self.matter.covers(route, ts_ns)
        return True

    @property
    def full(self) -> bool:
        """Whether the full view is theirs; else they get the call card."""
        return self.may(Right.ATTRIBUTIONS) or self.may(Right.ACCESSES)

    def _counting(self) -> frozenset[Role]:
        return frozenset({Role.ADMIN}) if Role.ADMIN in self.roles else self.roles


def viewer(*, tenant: str, issuer: str, subject: str, roles: frozenset[str], matter: object, trying: bool) -> Viewer:
    """The viewer whom a verified token (or a one-time code) speaks for; `matter` is the claim as it came.

    Raises:
        ForbiddenError: none of the roles is known here, or the matter is not one.
    """
    known = frozenset(role for role in Role if role.value in roles and (trying or role is not Role.DEVELOPER))
    if not known:
        raise ForbiddenError("none of your roles is known here")
    scope = _matter(matter) if Role.REGULATOR in known and matter is not None else None
    return Viewer(tenant=tenant, issuer=issuer, subject=subject, roles=known, matter=scope)


def _matter(claim: object) -> Matter:
    """`{"id": "2026-17", "routes": ["mortgage"], "from": "2026-01-01", "to": "2026-07-01"}` as a scope."""
    refusal = ForbiddenError("the matter of this token is not {id, routes, from, to}", code="matter_invalid")
    if not isinstance(claim, Mapping):
        raise refusal
    name, routes = claim.get("id"), claim.get("routes")
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
        raise refusal
    if not isinstance(routes, list) or len(routes) > MATTER_ROUTES_MAX or not all(isinstance(r, str) for r in routes):
        raise refusal
    start, end = _time_ns(claim.get("from")), _time_ns(claim.get("to"))
    if start is None or end is None:
        raise refusal
    return Matter(id=name, routes=frozenset(routes), from_ns=start, to_ns=end)


def _time_ns(text: Any) -> int | None:
    return time_ns(text) if isinstance(text, str) else None


def time_ns(text: str) -> int | None:
    """An ISO 8601 date or time (UTC where it names no zone) as Unix nanoseconds; None where it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    whole = int((moment.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return whole * 1_000_000_000 + moment.microsecond * 1_000
