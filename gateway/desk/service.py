"""What the desk does, whoever asks and however: page and JSON twin call the same method and show the same document.

Every method follows one order: may the role do this at all (else 403) → is the purpose stated (else 428) → read → is it
in scope (else 404, the same as not there) → write the access entry → return. An entry is durable before anything is
returned; a refused attempt leaves one too; where it cannot be written, nothing is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from config.errors import AnswerableError
from gateway.desk import filters, words
from gateway.desk.context import Context, Proof
from gateway.desk.errors import ForbiddenError, NotFoundError, PurposeRequiredError, RequestError
from gateway.desk.evidence import DECISIONS_MAX, EvidenceRequest
from gateway.desk.filters import Filter
from gateway.desk.justification import answer, document
from gateway.desk.looks import Look
from gateway.desk.reading import Reading
from gateway.desk.records import Decision, Dossier, Seal
from gateway.desk.roles import PURPOSES, TICKET_CHARS_MAX, TRY_PURPOSE, Right, Viewer
from gateway.desk.sessions import Grant, Grants
from gateway.desk.states import STATE_WORDS, listed
from storage.bundles import Scope, Wanted
from storage.ids import b64

REFERENCE_CHARS_MAX = 200
CASE_ROWS_MAX = 500
REFERENCE_DAYS = 400  # how far back the end of an id is looked for: every id of that time is read


class Service:
    """The desk's operations over its host's parts."""

    def __init__(self, context: Context, reading: Reading, grants: Grants) -> None:
        self._context = context
        self._reading = reading
        self._grants = grants
        self._cursor_key = context.random(32)
        self._routes = {route.name: route for route in context.configuration.settings.routes}

    # ---- purposes

    def grant(self, purpose: str, ticket: str | None) -> Grant:
        """A purpose as somebody states it.

        Raises:
            RequestError: the purpose is unknown, or the ticket too long.
        """
        if purpose not in PURPOSES:
            raise RequestError(f"the purpose is one of {', '.join(PURPOSES)}", code="purpose_unknown")
        ticket = (ticket or "").strip() or None
        if ticket is not None and (len(ticket) > TICKET_CHARS_MAX or not ticket.isprintable()):
            raise RequestError(f"a ticket has at most {TICKET_CHARS_MAX} characters", code="ticket_invalid")
        return Grant(purpose=purpose, ticket=ticket, stated_ns=self._context.now_ns())

    def state_purpose(self, viewer: Viewer, target: str, grant: Grant) -> None:
        """Remember why `viewer` looks at `target`, for a session's time from when it was stated."""
        self._grants.state(viewer, target, grant)

    def granted(self, viewer: Viewer, right: Right, targets: Sequence[str], stated: Grant | None) -> Grant:
        """The purpose that holds for the first of `targets`: stated now, or earlier for any of them.

        Raises:
            PurposeRequiredError: none was stated, or no ticket by somebody who needs one.
        """
        if self._context.trying:
            return self._trying()
        found = stated or next(
            (one for one in (self._grants.find(viewer, t) for t in targets) if one is not None), None
        )
        if found is None:
            raise PurposeRequiredError("state why you look at this")
        if found.ticket is None and viewer.needs_ticket(right):
            raise PurposeRequiredError("state the ticket you work on", code="ticket_required")
        for target in targets[:2]:  # asked once per case: what was stated for a decision holds for its case, not for
            self._grants.state(viewer, target, found)  # everything about the person
        return found

    def _trying(self) -> Grant:
        return Grant(purpose=TRY_PURPOSE, ticket=None, stated_ns=self._context.now_ns())

    # ---- operations

    async def lookup(self, viewer: Viewer, *, reference: str, kind: str, stated: Grant) -> dict[str, Any]:
        """A case or person by the customer's reference, as a pseudonymous link; the purpose then holds for it.

        `kind` decision finds a decision by its id or by the twelve characters that a call card gives; a case's number
        that no case carries is tried as those too, since people type what they were given into the first field.

        Raises:
            RequestError, ForbiddenError, PurposeRequiredError, NotFoundError.
        """
        if kind not in ("case", "subject", "decision"):
            raise RequestError("`kind` is case, subject or decision")
        reference = reference.strip()
        if not 0 < len(reference) <= REFERENCE_CHARS_MAX:
            raise RequestError(f"`reference` has 1 to {REFERENCE_CHARS_MAX} characters")
        look = Look(self._context.record_access, viewer, "lookup", stated)
        if kind == "decision":
            async with look:
                return await self._by_number(viewer, reference, look, stated)
        async with look:
            viewer.require(Right.LOOKUP)
            if stated.ticket is None and viewer.needs_ticket(Right.LOOKUP):
                raise PurposeRequiredError("state the ticket you work on", code="ticket_required")
            # after a new pepper, older decisions are found under the older one
            pseudonyms = self._context.pseudonyms(viewer.tenant, kind, reference)
            asked = self._all(viewer)
            look.about(**{kind: pseudonyms[0]})
            found = await self._reading.latest(viewer.tenant, asked, kind, pseudonyms)
            if found is None and kind == "case" and filters.reference(reference) is not None:
                look.about()
                return await self._by_number(viewer, reference, look, stated)
            if found is None:
                raise NotFoundError(f"no decision of this {kind} is on record in your scope")
            look.about(**{kind: found})
            await look.granted(rows=0)
        self._grants.state(viewer, f"{kind}:{found}", stated)
        period = f"from={words.iso(asked.from_ns)}&to={words.iso(asked.to_ns)}"
        rest = f"cases/{found}" if kind == "case" else f"decisions?subject={found}&{period}"
        return {"kind": kind, "pseudonym": found, "links": {"self": f"/v1/{rest}", "page": f"/{rest}"}}

    async def case(self, viewer: Viewer, pseudonym: str, *, stated: Grant | None) -> dict[str, Any]:
        """Everything on record of one case, newest first.

        Raises:
            ForbiddenError, PurposeRequiredError, NotFoundError.
        """
        if not filters.is_pseudonym(pseudonym):  # it may be a customer's number: neither repeated nor recorded
            raise NotFoundError("no such case in your scope")
        look = Look(self._context.record_access, viewer, "case", stated, case=pseudonym)
        async with look:
            viewer.require(Right.LOOKUP)
            look.stated = self.granted(viewer, Right.LOOKUP, (f"case:{pseudonym}",), stated)
            asked = self._all(viewer, case=pseudonym)
            found, following = await self._reading.page(viewer.tenant, asked, limit=CASE_ROWS_MAX)
            if not found:
                raise NotFoundError("no such case in your scope")
            found = await self._scoped(viewer, found)
            await look.granted(rows=len(found))
        return {
            "case": pseudonym,
            "subjects": sorted({one.subject for one in found if one.subject is not None}),
            "complete": following is None,
            "decisions": [self._line(one, viewer) for one in found],
            "links": {"self": f"/v1/cases/{pseudonym}", "page": f"/cases/{pseudonym}"},
        }

    async def decisions(self, viewer: Viewer, query: Mapping[str, str], *, stated: Grant | None) -> dict[str, Any]:
        """One page of decisions, newest first, and the cursor to the next.

        Raises:
            RequestError, ForbiddenError, PurposeRequiredError, NotFoundError.
        """
        look = Look(self._context.record_access, viewer, "decisions", stated)
        async with look:
            asked = filters.parse(query, viewer)
            look.about(case=asked.case, subject=asked.subject, filter_digest=asked.digest)
            right, target = filters.needed(asked)
            viewer.require(right)
            look.stated = self.granted(viewer, right, (target,), stated)
            rows_max, after = filters.limit(query), None
            if query.get("cursor"):
                after = filters.open_cursor(query["cursor"], asked, viewer, self._cursor_key)
            found, following = await self._reading.page(viewer.tenant, asked, limit=rows_max, cursor=after)
            found = await self._scoped(viewer, found)
            await look.granted(rows=len(found))
        cursor = None
        if following is not None:
            cursor = filters.seal_cursor(following, asked, viewer, self._cursor_key)
        return {
            "from": words.iso(asked.from_ns),
            "to": words.iso(asked.to_ns),
            "routes": list(asked.routes) if asked.routes is not None else None,
            "decisions": [self._line(one, viewer) for one in found],
            "cursor": cursor,
        }

    async def decision(self, viewer: Viewer, identifier: str, *, stated: Grant | None) -> dict[str, Any]:
        """The justification of one decision, as far as the viewer may see it.

        Raises:
            ForbiddenError, PurposeRequiredError, NotFoundError.
        """
        identifier = filters.decision_id(identifier)
        look = Look(self._context.record_access, viewer, "decision", stated, decision=identifier)
        async with look:
            viewer.require(Right.REASONS)
            found = await self._found(viewer, identifier, Right.REASONS, look)
            (found,) = await self._scoped(viewer, (found,))
            looks = viewer.may(Right.ACCESSES)
            dossier = await self._reading.dossier(found, scope=self._all(viewer), looks=looks)
            sealed = await self._sealed(found, dossier)
            await look.granted(rows=1)
        return document(sealed, viewer, route=self._routes.get(found.route or ""), job=self._context.job(identifier))

    async def proof(self, viewer: Viewer, identifier: str, *, stated: Grant | None) -> dict[str, Any]:
        """The two proofs that one decision's entry stands in its shard's ledger, and that ledger in the log of logs.

        `proofs` has the first alone, or none, while the rest does not exist yet; `state` says which.

        Raises:
            ForbiddenError, PurposeRequiredError, NotFoundError, or what the proof's own checks raise.
        """
        identifier = filters.decision_id(identifier)
        look = Look(self._context.record_access, viewer, "proof", stated, decision=identifier)
        async with look:
            viewer.require(Right.PROOF)
            found = await self._found(viewer, identifier, Right.PROOF, look)
            proof = await self._context.prove(found.origin, found.seq)
            await look.granted(rows=1)
        told: dict[str, Any] = {
            "decision": found.id,
            "entry": {"origin": found.origin, "seq": found.seq, "leaf": b64(found.leaf)},
            "state": "pending" if proof is None else "checkpointed" if proof.second is None else "included",
            "proofs": [],
            "links": {"self": f"/v1/decisions/{found.id}/proof", "page": f"/decisions/{found.id}/proof"},
        }
        if proof is not None:
            told["checkpoint_size"] = proof.size
            told["proofs"] = [{"of": "the entry, to its shard's signed checkpoint", "text": proof.text}]
        if proof is not None and proof.second is not None:
            told["log_size"] = proof.log_size
            of = "that checkpoint, to the signed log of logs"
            told["proofs"].append({"of": of, "text": proof.second})
        return told

    async def evidence(self, viewer: Viewer, asked: EvidenceRequest, *, stated: Grant) -> Wanted:
        """What a bundle for `viewer` may hold: recorded as a look, durable on return, before anything is made.

        Raises:
            RequestError, ForbiddenError, PurposeRequiredError, NotFoundError.
        """
        look = Look(self._context.record_access, viewer, "evidence", stated)
        look.about(filter_digest=asked.digest)
        async with look:
            viewer.require(Right.PROOF)
            if not viewer.may(Right.ENTRIES):
                viewer.require(Right.PERSON)  # entries name case and subject, by their pseudonyms
            if asked.parts:
                viewer.require(Right.CONTENT)
            if stated.ticket is None and viewer.needs_ticket(Right.PROOF):
                raise PurposeRequiredError("state the ticket you work on", code="ticket_required")
            wanted = await self._wanted(viewer, asked)
            if len(wanted.decisions) == 1:
                look.about(decision=wanted.decisions[0], filter_digest=asked.digest)
            await look.granted(rows=len(wanted.decisions))
        return wanted

    async def reconciliation(
        self, viewer: Viewer, *, route: str | None, span: tuple[int, int], stated: Grant
    ) -> tuple[str, Filter]:
        """The tenant whose decisions a list may be held against, and which of them; the look is on record on return.

        Raises:
            ForbiddenError, NotFoundError: as `decisions`.
        """
        asked = Filter(from_ns=span[0], to_ns=span[1], routes=None if route is None else (route,))
        look = Look(self._context.record_access, viewer, "reconcile", stated)
        look.about(route=route, filter_digest=asked.digest)
        async with look:
            viewer.require(Right.LIST)
            viewer.require(Right.LOOKUP)  # it joins the customers' own references with decisions
            asked = filters.narrowed(asked, viewer)
            await look.granted(rows=0)
        return viewer.tenant, asked

    async def _wanted(self, viewer: Viewer, asked: EvidenceRequest) -> Wanted:
        if asked.everything:
            viewer.require(Right.ENTRIES)
            if viewer.matter is not None or viewer.tenant != self._context.configuration.settings.tenant:
                raise ForbiddenError("entries of all tenants are for auditors of the whole deployment")
            return Wanted(asked=asked.told, everything=True)
        scopes: list[Scope] = []
        if asked.route is not None:
            viewer.require(Right.LIST)
            low_ns, high_ns = asked.span
            if not (viewer.sees(asked.route, low_ns) and viewer.sees(asked.route, high_ns - 1)):
                raise NotFoundError("that route and period are not in your scope")
            scopes = [Scope(tenant=viewer.tenant, route=asked.route, low_ns=low_ns, high_ns=high_ns)]
        decisions = await self.visible(viewer, asked.decisions)
        for kind, reference in asked.references:
            decisions += await self.of_reference(viewer, kind, reference)
        return Wanted(asked=asked.told, decisions=tuple(dict.fromkeys(decisions)), scopes=scopes, parts=asked.parts)

    async def visible(self, viewer: Viewer, asked: Sequence[str]) -> list[str]:
        """The decisions of these ids; NotFoundError unless each is there and in the viewer's scope."""
        identifiers = [filters.decision_id(each) for each in asked]
        for at in range(0, len(identifiers), CASE_ROWS_MAX):
            some = identifiers[at : at + CASE_ROWS_MAX]
            seen = await self._reading.within(viewer.tenant, self._all(viewer), some)
            if not seen.issuperset(some):
                raise NotFoundError("no such decision in your scope")
        return identifiers

    async def of_reference(self, viewer: Viewer, kind: str, reference: str) -> list[str]:
        """The decisions of a case or person, by the customer's own reference, under every pepper there was."""
        found: list[str] = []
        for pseudonym in self._context.pseudonyms(viewer.tenant, kind, reference):
            asked = self._all(viewer, **{kind: pseudonym})
            cursor: str | None = None
            while True:
                rows, cursor = await self._reading.page(viewer.tenant, asked, limit=CASE_ROWS_MAX, cursor=cursor)
                found += [row.id for row in rows]
                if cursor is None or len(found) > DECISIONS_MAX:
                    break
        if not found:
            raise NotFoundError(f"no decision of this {kind} is on record in your scope")
        return found

    async def tried(self, viewer: Viewer, *, rows: int) -> None:
        """Record that the one user of `answerable try` is about to see `rows` calls; true on return: it is durable."""
        await Look(self._context.record_access, viewer, "try", self._trying()).granted(rows=rows)

    async def count(self, viewer: Viewer, route: str, span: tuple[int, int]) -> int:
        """How many decisions of a route lie in a period [from, to) of Unix nanoseconds."""
        return await self._reading.count(viewer.tenant, route, span)

    # ---- inside

    async def _by_number(self, viewer: Viewer, given: str, look: Look, stated: Grant) -> dict[str, Any]:
        """A decision by its id or by how it ends; several that end alike lead to a list of them."""
        right = Right.REASONS if viewer.may(Right.REASONS) else Right.PROOF
        viewer.require(right)
        if stated.ticket is None and viewer.needs_ticket(right):
            raise PurposeRequiredError("state the ticket you work on", code="ticket_required")
        rest = "" if right is Right.REASONS else "/proof"
        tail = filters.reference(given)
        asked = self._lately(viewer, tail or "")
        if tail is None:
            whole = await self._reading.decision(viewer.tenant, filters.decision_id(given.lower()))
            found: tuple[Decision, ...] = (
                (whole,) if whole is not None and viewer.sees(whole.route or "", whole.ts_ns) else ()
            )
        else:
            found, _ = await self._reading.page(viewer.tenant, asked, limit=filters.ROWS_DEFAULT)
        if not found:
            raise NotFoundError("no decision of this number is on record in your scope")
        if len(found) == 1:
            (one,) = found
            look.about(decision=one.id, case=one.case, subject=one.subject, route=one.route)
            path = f"decisions/{one.id}{rest}"
        else:
            look.about(filter_digest=asked.digest)
            path = f"decisions?reference={tail}&from={words.iso(asked.from_ns)}&to={words.iso(asked.to_ns)}"
            self._grants.state(viewer, f"reference:{tail}", stated)
        await look.granted(rows=len(found))
        for one in found:
            self._grants.state(viewer, f"decision:{one.id}", stated)
        return {"kind": "decision", "pseudonym": None, "links": {"self": f"/v1/{path}", "page": f"/{path}"}}

    async def _found(self, viewer: Viewer, identifier: str, right: Right, look: Look) -> Decision:
        """The decision, once the purpose is stated; the order hides whether it exists from those who state none."""
        found = await self._reading.decision(viewer.tenant, identifier)
        visible = found is not None and viewer.sees(found.route or "", found.ts_ns)
        targets = [f"decision:{identifier}"]
        if found is not None and visible:
            targets.append(f"case:{found.case}" if found.case else targets[0])
            targets += [f"subject:{found.subject}"] if found.subject else []
        look.stated = self.granted(viewer, right, targets, look.stated)
        if found is None or not visible:
            raise NotFoundError("no such decision in your scope")
        look.about(case=found.case, subject=found.subject, route=found.route)
        return found

    async def _scoped(self, viewer: Viewer, found: Sequence[Decision]) -> tuple[Decision, ...]:
        """The decisions without the names of those that they correct, where these lie outside a regulator's matter."""
        corrected = {one.corrects for one in found if one.corrects is not None}
        if viewer.matter is None or not corrected:
            return tuple(found)
        seen = await self._reading.within(viewer.tenant, self._all(viewer), sorted(corrected))
        return tuple(one if one.corrects in seen else replace(one, corrects=None) for one in found)

    async def _sealed(self, found: Decision, dossier: Dossier) -> Dossier:
        """The dossier with its entry checked against the ledger, now."""
        if dossier.damage is not None:
            return replace(dossier, sealed=Seal(state="broken", detail=dossier.damage, size=None))
        try:
            proof = await self._context.prove(found.origin, found.seq)
        except AnswerableError as error:
            return replace(dossier, sealed=Seal(state="broken", detail=error.message, size=None))
        return replace(dossier, sealed=_seal(found, proof, entry_leaf=dossier.entry_leaf))

    def _line(self, one: Decision, viewer: Viewer) -> dict[str, Any]:
        """A decision as a list tells of it."""
        person = viewer.may(Right.PERSON)
        state = listed(one, self._context.job(one.id), self._routes.get(one.route or ""))
        return {
            "id": one.id,
            "reference": words.short(one.id),
            "at": words.iso(one.ts_ns),
            "route": one.route,
            "app": one.app,
            "case": one.case if person else None,
            "subject": one.subject if person else None,
            "corrects": one.corrects,
            "call": {"id": one.call, "row": one.row, "rows": one.rows},
            "answer": answer(one),
            "model": {"name": one.model_name, "version": one.model_version},
            "status": one.status,
            "stream": one.stream,
            "explanation": {"state": state.value, "text": STATE_WORDS[state]},
            "links": {"self": f"/v1/decisions/{one.id}", "page": f"/decisions/{one.id}"},
        }

    def _lately(self, viewer: Viewer, tail: str) -> Filter:
        """Decisions of the last REFERENCE_DAYS whose id ends so, in the viewer's scope."""
        end_ns = self._all(viewer).to_ns
        asked = Filter(from_ns=end_ns - REFERENCE_DAYS * words.DAY_NS, to_ns=end_ns, reference=tail)
        return filters.narrowed(asked, viewer)

    def _all(self, viewer: Viewer, *, case: str | None = None, subject: str | None = None) -> Filter:
        """All that is on record of a case or person, in the viewer's scope."""
        end_ns = self._context.now_ns() + words.DAY_NS
        asked = Filter(from_ns=words.BEGINNING_NS, to_ns=end_ns - end_ns % words.DAY_NS, case=case, subject=subject)
        return filters.narrowed(asked, viewer)


def _seal(found: Decision, proof: Proof | None, *, entry_leaf: bytes) -> Seal:
    if entry_leaf != found.leaf or (proof is not None and proof.leaf != entry_leaf):
        return Seal(state="broken", detail="the stored entry does not hash to the recorded leaf", size=None)
    if proof is None:
        return Seal(state="pending", detail="no signed checkpoint covers this entry yet", size=None)
    detail = f"Checked just now: the entry is in the ledger's signed checkpoint of {proof.size:,} entries."
    return Seal(state="proven", detail=detail, size=proof.size)
