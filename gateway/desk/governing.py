"""Holds and approvals, whoever asks and however: as in service.py, every look is on record before it is answered.

A step is an entry by whoever takes it, durable before the answer. Steps of one host are taken one after the other, each
upon everything that is on record. Hosts that share a database see each other's once these are shipped; where two people
answer the same request on two hosts within that second, the earlier verdict counts, everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.desk import words
from gateway.desk.context import Context, Statement
from gateway.desk.errors import ConflictError, ForbiddenError, NotFoundError, RequestError
from gateway.desk.evidence import EvidenceRequest
from gateway.desk.holds import (
    Action,
    Approval,
    Hold,
    HoldRequest,
    Standing,
    Verdict,
    ids,
    reason,
    standing,
    statement_id,
)
from gateway.desk.looks import Look
from gateway.desk.roles import Right, Viewer
from gateway.desk.service import Service
from gateway.desk.sessions import Grant
from storage.queries import EntryRow

WAITING_MAX = 50  # of one person: each has a reason that somebody must read
LISTED_MAX = 500
TARGET = "holds"  # what a purpose is stated for


class Governing:
    """What people state at the desk."""

    def __init__(self, context: Context, service: Service) -> None:
        self._context = context
        self._service = service
        self._turn = asyncio.Lock()

    async def place(self, viewer: Viewer, asked: HoldRequest, *, stated: Grant | None) -> dict[str, Any]:
        """Place a hold, or ask for one where the role may not place it alone: the document's `state` says which.

        Raises:
            RequestError, ForbiddenError, PurposeRequiredError, NotFoundError: nothing of the scope is on record.
        """
        look = self._look(viewer, "hold", stated)
        look.about(filter_digest=asked.scope.digest)
        async with look, self._turn:
            grant = self._granted(viewer, Right.HOLD_ASK, look)
            rows = await self._rows(viewer)
            if not viewer.may(Right.HOLD):
                _refuse_many(await self._standing(rows), viewer)
            scope, covered = await self._scope(viewer, asked.scope)
            await look.granted(rows=covered)
            event = "placed" if viewer.may(Right.HOLD) else "requested"
            fields = {"event": event, "scope": scope, "basis": asked.basis.value}
            texts = _texts(asked.reason, grant) | _reference(asked.scope)
            row = await self._state(viewer, grant, "hold", fields, texts)
            now = await self._standing([*rows, row])
        return {**hold_document(now.holds[row.id], now), "covers": covered}

    async def release(self, viewer: Viewer, hold: str, why: str, *, stated: Grant | None) -> dict[str, Any]:
        """Ask for a hold's release: the request, which waits for another person.

        Raises:
            RequestError, ForbiddenError, PurposeRequiredError, NotFoundError.
            ConflictError: it is not in force, or its release was asked for already.
        """
        hold, why = statement_id(hold), reason(why)
        look = self._look(viewer, "hold", stated)
        async with look, self._turn:
            grant = self._granted(viewer, Right.HOLD, look)
            rows = await self._rows(viewer)
            now = await self._standing(rows)
            found = _found(now.holds.get(hold))
            _refuse_many(now, viewer)
            if found.state != "in_force":
                raise ConflictError(f"this hold is not in force: {found.state}")
            if now.releases.get(hold) is not None:
                raise ConflictError("its release was asked for already and waits for a second person")
            await look.granted(rows=0)
            fields = {"event": "requested", "action": Action.HOLD_RELEASE.value, "object": hold}
            row = await self._state(viewer, grant, "approval", fields, _texts(why, grant), about=found.row)
            now = await self._standing([*rows, row])
        return approval_document(now.approvals[row.id], viewer)

    async def decide(
        self, viewer: Viewer, request: str, verdict: Verdict, why: str, *, stated: Grant | None
    ) -> dict[str, Any]:
        """Answer a request as the second person, or withdraw one's own; what was approved is in force on return.

        Raises:
            RequestError, PurposeRequiredError, NotFoundError.
            ForbiddenError: the role may not, or the viewer asked for it themselves (``own_request``).
            ConflictError: it was answered already, or has lapsed.
        """
        request, why = statement_id(request), reason(why)
        look = self._look(viewer, "approve", stated)
        is_withdrawal = verdict is Verdict.WITHDRAWN
        async with look, self._turn:
            grant = self._granted(viewer, Right.HOLD_ASK if is_withdrawal else Right.APPROVE, look)
            rows = await self._rows(viewer)
            now = await self._standing(rows)
            found = _visible(now.approvals.get(request), viewer)
            if is_withdrawal and found.by != viewer.actor:
                raise ForbiddenError("only whoever asked may withdraw it", code="not_your_request")
            if not is_withdrawal and found.by == viewer.actor:
                raise ForbiddenError(
                    "you asked for this yourself; another person decides",
                    code="own_request",
                    advice="Ask a colleague who may approve, or withdraw it.",
                )
            if found.state != "waiting":
                by = "" if found.decided_by is None else f" by {found.decided_by}"
                raise ConflictError(f"this request is no longer waiting: {found.state}{by}")
            await look.granted(rows=0)
            fields = {"event": verdict.value, "request": request, "action": found.action.value, "object": found.object}
            row = await self._state(viewer, grant, "approval", fields, _texts(why, grant), about=found.row)
            now = await self._standing([*rows, row])
        return approval_document(now.approvals[request], viewer)

    async def holds(self, viewer: Viewer, *, stated: Grant | None) -> dict[str, Any]:
        """The newest holds: those that the viewer asked for, or everybody's where the role may place them."""
        look = self._look(viewer, "holds", stated)
        async with look:
            self._granted(viewer, Right.HOLD_ASK, look)
            now = await self._standing(await self._rows(viewer))
            seen = [one for one in now.holds.values() if viewer.may(Right.HOLD) or one.by == viewer.actor]
            shown = [*reversed(seen)][:LISTED_MAX]
            await look.granted(rows=len(shown))
        documents = [hold_document(one, now) for one in shown]
        return {
            "holds": documents,
            "complete": len(shown) == len(seen),
            "links": {"self": "/v1/holds", "page": "/holds"},
        }

    async def hold(self, viewer: Viewer, identifier: str, *, stated: Grant | None) -> dict[str, Any]:
        """One hold with the reason that was given for it; null where its key is gone or it is not shipped yet."""
        identifier = statement_id(identifier)
        look = self._look(viewer, "hold", stated)
        async with look:
            self._granted(viewer, Right.HOLD_ASK, look)
            now = await self._standing(await self._rows(viewer))
            found = _found(now.holds.get(identifier))
            if not viewer.may(Right.HOLD) and found.by != viewer.actor:
                raise NotFoundError("no such hold in your scope")
            await look.granted(rows=1)
        return {**hold_document(found, now), "reason": await self._reason(found)}

    async def approvals(self, viewer: Viewer, *, stated: Grant | None) -> dict[str, Any]:
        """What waits for a second person, oldest first, with its reason: one's own, or all for who may approve."""
        look = self._look(viewer, "approvals", stated)
        async with look:
            self._granted(viewer, Right.HOLD_ASK, look)
            now = await self._standing(await self._rows(viewer))
            waiting = [one for one in now.approvals.values() if one.state == "waiting"]
            seen = [one for one in waiting if viewer.may(Right.APPROVE) or one.by == viewer.actor]
            shown = [one for one in seen if one.object in now.holds][:LISTED_MAX]
            await look.granted(rows=len(shown))
        documents = [
            {
                **approval_document(one, viewer),
                "reason": await self._reason(one),
                "hold": hold_document(now.holds[one.object], now),
            }
            for one in shown
        ]
        return {
            "approvals": documents,
            "complete": len(shown) == len(seen),
            "links": {"self": "/v1/approvals", "page": "/holds"},
        }

    # ---- inside

    def _look(self, viewer: Viewer, action: str, stated: Grant | None) -> Look:
        return Look(self._context.record_access, viewer, action, stated)

    def _granted(self, viewer: Viewer, right: Right, look: Look) -> Grant:
        viewer.require(right)
        look.stated = grant = self._service.granted(viewer, right, (TARGET,), look.stated)
        return grant

    async def _rows(self, viewer: Viewer) -> Sequence[EntryRow]:
        """Everything that was stated so far; read before a step is taken, so that none is taken and then not told."""
        return await self._context.statements(viewer.tenant)

    async def _standing(self, rows: Sequence[EntryRow]) -> Standing:
        return await asyncio.to_thread(standing, rows, now_ns=self._context.now_ns())

    async def _scope(self, viewer: Viewer, asked: EvidenceRequest) -> tuple[dict[str, Any], int]:
        """What the entry says is held, and how many decisions of it are on record now."""
        if asked.decisions:
            named = await self._service.visible(viewer, asked.decisions)
            return ids(named), len(named)
        if asked.route is not None:
            viewer.require(Right.LIST)
            low_ns, high_ns = asked.span
            if not (viewer.sees(asked.route, low_ns) and viewer.sees(asked.route, high_ns - 1)):
                raise NotFoundError("that route and period are not in your scope")
            scope = {"route": asked.route, "from_ns": str(low_ns), "to_ns": str(high_ns)}
            return scope, await self._service.count(viewer, asked.route, asked.span)
        ((kind, reference),) = asked.references
        viewer.require(Right.LOOKUP)
        covered = await self._service.of_reference(viewer, kind, reference)
        return {f"{kind}s": list(self._context.pseudonyms(viewer.tenant, kind, reference))}, len(covered)

    async def _reason(self, of: Hold | Approval) -> str | None:
        text = (await self._context.open_parts(of.row.entry)).get("reason")
        return None if text is None else text.decode()

    async def _state(
        self,
        viewer: Viewer,
        grant: Grant,
        kind: str,
        fields: Mapping[str, Any],
        texts: Mapping[str, str],
        *,
        about: EntryRow | None = None,
    ) -> EntryRow:
        """Write what `viewer` states, by which right and why; true on return: it is durable."""
        role = ",".join(sorted(role.value for role in viewer.roles))
        said = {**fields, "role": role, "purpose": grant.purpose}
        return await self._context.state(
            Statement(kind=kind, tenant=viewer.tenant, actor=viewer.actor, fields=said, texts=texts, about=about)
        )


def _refuse_many(now: Standing, viewer: Viewer) -> None:
    """Return unless too many requests of the viewer's wait already."""
    waiting = sum(one.state == "waiting" and one.by == viewer.actor for one in now.approvals.values())
    if waiting >= WAITING_MAX:
        raise ConflictError(
            f"{waiting} requests of yours wait for a second person already",
            advice="Have some of them answered, or withdraw them.",
        )


def _texts(why: str, grant: Grant) -> dict[str, str]:
    return {"reason": why} if grant.ticket is None else {"reason": why, "ticket": grant.ticket}


def _reference(scope: EvidenceRequest) -> dict[str, str]:
    """The customer's own number, sealed: without it nobody could say which later pseudonyms the hold covers."""
    reference = scope.case or scope.subject
    return {} if reference is None else {"reference": reference}


def _found(hold: Hold | None) -> Hold:
    if hold is None:
        raise NotFoundError("no such hold in your scope")
    return hold


def _visible(found: Approval | None, viewer: Viewer) -> Approval:
    if found is None or not (viewer.may(Right.APPROVE) or found.by == viewer.actor):
        raise NotFoundError("no such request in your scope")
    return found


def verdict_of(given: object) -> Verdict:
    """`approve`, `reject` or `withdraw` as a verdict; RequestError for anything else."""
    words_of = {"approve": Verdict.APPROVED, "reject": Verdict.REJECTED, "withdraw": Verdict.WITHDRAWN}
    if not isinstance(given, str) or given not in words_of:
        raise RequestError("`verdict` is approve, reject or withdraw")
    return words_of[given]


def hold_document(hold: Hold, now: Standing) -> dict[str, Any]:
    """A hold as the API tells of it."""
    scope: Mapping[str, Any] = hold.scope
    shown = dict(scope)
    if "route" in scope:
        low, high = int(scope["from_ns"]), int(scope["to_ns"])
        shown = {"route": scope["route"], "from": words.iso(low), "to": words.iso(high)}
    release = now.releases.get(hold.id)
    return {
        "id": hold.id,
        "state": hold.state,
        "scope": shown,
        "basis": hold.basis,
        "by": hold.by,
        "at": words.iso(hold.row.ts_ns),
        "release": None if release is None else release.id,
        "entry": {"origin": hold.row.origin, "seq": hold.row.seq},
        "links": {"self": f"/v1/holds/{hold.id}", "page": "/holds"},
    }


def approval_document(one: Approval, viewer: Viewer) -> dict[str, Any]:
    """A request as the API tells of it; `mine`: the viewer asked for it."""
    return {
        "id": one.id,
        "action": one.action.value,
        "object": one.object,
        "state": one.state,
        "by": one.by,
        "at": words.iso(one.row.ts_ns),
        "mine": one.by == viewer.actor,
        "decided_by": one.decided_by,
        "decided_at": None if one.decided is None else words.iso(one.decided.ts_ns),
        "links": {"self": "/v1/approvals", "page": "/holds"},
    }
