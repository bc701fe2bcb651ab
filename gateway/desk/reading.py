"""From storage to the desk's records: every question goes through storage.queries, in a thread of its own. Thin."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from gateway.desk import filters
from gateway.desk.context import Context
from gateway.desk.filters import Filter
from gateway.desk.records import Content, Decision, Dossier, Explanation, Seal
from storage import queries
from storage.entries import decode, leaf_hash
from storage.errors import Unverifiable
from storage.ids import is_uuid7
from storage.queries import EntryRow, ExplanationRow

EXPLANATIONS_MAX: Final = 20  # of one decision; each new one is somebody's request
CORRECTIONS_MAX: Final = 20
LOOKS_MAX: Final = 100
UNCHECKED: Final = Seal(state="pending", detail="not checked yet", size=None)


class Reading:
    """Reads for the desk; decides nothing about rights, and filters by tenant always."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._database = context.database

    async def page(
        self, tenant: str, asked: Filter, *, limit: int, cursor: str | None = None
    ) -> tuple[tuple[Decision, ...], str | None]:
        """Decisions newest first, and storage's cursor to the next page."""
        wanted = filters.wanted(asked, tenant)
        found = await asyncio.to_thread(queries.page, self._database, wanted, limit=limit, cursor=cursor)
        return found.rows, found.cursor

    async def latest(self, tenant: str, asked: Filter, kind: str, pseudonyms: Sequence[str]) -> str | None:
        """Whichever of a case's or person's pseudonyms the newest decision in scope carries; None: no decision does."""
        wanted = queries.Filter(
            tenant=tenant,
            span=queries.Span(asked.from_ns, asked.to_ns),
            routes=asked.routes or (),
            cases=tuple(pseudonyms) if kind == "case" else (),
            subjects=tuple(pseudonyms) if kind == "subject" else (),
        )
        found = await asyncio.to_thread(queries.page, self._database, wanted, limit=1)
        return None if not found.rows else found.rows[0].case if kind == "case" else found.rows[0].subject

    async def decision(self, tenant: str, identifier: str) -> Decision | None:
        """One decision of this tenant."""
        found = await asyncio.to_thread(queries.decision, self._database, identifier)
        return found if found is not None and found.tenant == tenant else None

    async def count(self, tenant: str, route: str, span: tuple[int, int]) -> int:
        """How many decisions of a route lie in a period [from, to) of Unix nanoseconds."""
        return await asyncio.to_thread(queries.decisions_of, self._database, tenant, route, queries.Span(*span))

    async def within(self, tenant: str, scope: Filter, identifiers: Sequence[str]) -> set[str]:
        """Those of the decisions that lie in `scope`."""
        asked = [identifier for identifier in identifiers if is_uuid7(identifier)]
        if not asked:
            return set()
        wanted = replace(filters.wanted(scope, tenant), ids=asked)
        found = await asyncio.to_thread(queries.page, self._database, wanted, limit=len(asked))
        return {row.id for row in found.rows}

    async def dossier(self, decision: Decision, *, scope: Filter, looks: bool) -> Dossier:
        """Everything on record of one decision; whether its entry is in the ledger is for the caller to find out.

        `scope` is what the viewer may see: corrections outside it are left out.

        Raises:
            Unverifiable: the decision's entry is not where its row says.
        """
        entry, extracted, explained, correcting, seen = await asyncio.to_thread(
            self._gather, decision, scope, looks=looks
        )
        said = decode(entry.entry)
        damage = None
        try:
            parts = await self._context.open_parts(entry.entry)
            explanations = [await self._explanation(row) for row in explained[:1]]  # the newest counts
        except Unverifiable as error:  # shown as broken integrity, with everything but the content
            damage, parts, explanations = error.message, {}, []
        return Dossier(
            decision=decision,
            entry=said,
            entry_leaf=leaf_hash(entry.entry),
            content=content_of(said, parts),
            explanations=(*explanations, *(Explanation(row=row, body=None) for row in explained[len(explanations) :])),
            extracted_ns=extracted.ts_ns if extracted is not None else None,
            corrected_by=tuple(row.id for row in correcting),
            looks=tuple(seen),
            damage=damage,
            sealed=UNCHECKED,
        )

    async def calls(self, tenant: str, *, since_ns: int, until_ns: int, limit: int) -> list[EntryRow]:
        """The newest decisions and calls as entries, whether or not they were projected."""
        span = queries.Span(since_ns, until_ns)
        kinds = ("decision", "call")
        return await asyncio.to_thread(queries.latest_entries, self._database, tenant, kinds, span, limit=limit)

    async def content(self, entry: EntryRow) -> Content:
        """The recorded request and answer of one entry."""
        return content_of(decode(entry.entry), await self._context.open_parts(entry.entry))

    def _gather(
        self, decision: Decision, scope: Filter, *, looks: bool
    ) -> tuple[EntryRow, EntryRow | None, list[ExplanationRow], tuple[Decision, ...], Sequence[queries.AccessRow]]:
        entry = queries.entry(self._database, decision.origin, decision.seq)
        if entry is None:
            raise Unverifiable(f"the entry of this decision is not at {decision.origin}, {decision.seq}")
        extracted = queries.entry(self._database, decision.extraction_origin, decision.extraction_seq)
        explained = queries.explanations(self._database, decision.id, limit=EXPLANATIONS_MAX)
        later = queries.Span(decision.ts_ns, queries.EVER.high)
        after = queries.Span(max(scope.from_ns, decision.ts_ns), scope.to_ns)
        correcting = replace(filters.wanted(scope, decision.tenant), span=after, corrects=decision.id)
        corrected = queries.page(self._database, correcting, limit=CORRECTIONS_MAX).rows
        seen: Sequence[queries.AccessRow] = ()
        if looks:
            seen = queries.accesses(self._database, decision.tenant, later, decision=decision.id, limit=LOOKS_MAX)
        return entry, extracted, explained, corrected, seen

    async def _explanation(self, row: ExplanationRow) -> Explanation:
        if row.state != "ready":
            return Explanation(row=row, body=None)
        entry = await asyncio.to_thread(queries.entry, self._database, row.origin, row.seq)
        if entry is None:
            raise Unverifiable(f"the entry of this explanation is not at {row.origin}, {row.seq}")
        opened = (await self._context.open_parts(entry.entry)).get("explanation")
        body = orjson.loads(opened) if opened is not None else None
        return Explanation(row=row, body=body if isinstance(body, dict) else None)


def content_of(said: Mapping[str, Any], parts: Mapping[str, bytes]) -> Content:
    """What an entry says of its request and answer, with the parts that opened."""
    stated = {part["name"]: part for part in said.get("parts", ())}

    def media(name: str) -> str:
        return str(stated[name].get("media", "")) if name in stated else ""

    return Content(
        request=parts.get("request"),
        request_media=media("request"),
        response=parts.get("response"),
        response_media=media("response"),
        erased=any(name not in parts for name in ("request", "response") if name in stated),
        redacted=said.get("redacted"),
    )
