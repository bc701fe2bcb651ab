"""What the keeper learns from one decision: its parts opened, its answer read as the route declares.

Both loops that need it share a bounded cache, so that a decision is opened once while they are in step. Opening and
parsing run in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from config.route import Route
from config.settings import Gateway
from gateway.keeper import redacted
from gateway.keeper.feed import Recorded
from gateway.keeper.opening import opened
from gateway.keeper.policy import is_answered
from storage.errors import Unverifiable
from storage.keys import Keyring
from storage.protocols import Extracted, Extractor, spec_of

CACHE_BYTES_MAX = 16 * 1024 * 1024
CACHED_OVERHEAD_BYTES = 2_048  # an entry as a dictionary
NOTHING = hashlib.sha256(b"answerable/extractor/none/v1").hexdigest()  # of a route that declares no extraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """One decision as entry and as what was extracted; `case` and `subject` are pseudonyms."""

    origin: str
    seq: int
    leaf: bytes
    decision: str
    tenant: str
    route: str
    extractor: str
    entry: Mapping[str, Any]
    extracted: Extracted
    case: str | None
    subject: str | None
    size_bytes: int


class Study:
    """Opens and reads decisions; safe from several tasks of one loop."""

    def __init__(self, routes: Mapping[str, Route], *, keyring: Keyring, limits: Gateway) -> None:
        """`limits` are those of the gateway: what it would not parse is not parsed here either."""
        self._keyring = keyring
        self._extractors = extractors(routes, limits)
        self._cache: OrderedDict[tuple[str, int], Studied] = OrderedDict()
        self._cache_bytes = 0
        self._one = asyncio.Lock()

    async def of(self, recorded: list[Recorded]) -> list[Studied]:
        """Each decision studied, in the same order."""
        if not recorded:
            return []
        places = [(one.origin, one.seq) for one in recorded]
        async with self._one:  # the second loop to come waits, and finds what the first one read
            known = {place: self._cache[place] for place in places if place in self._cache}
            missing = [one for one in recorded if (one.origin, one.seq) not in known]
            fresh = await asyncio.to_thread(lambda: [self._read(one) for one in missing]) if missing else []
            for one in fresh:
                known[one.origin, one.seq] = one
                self._keep(one)
        return [known[place] for place in places]

    def _keep(self, studied: Studied) -> None:
        self._cache[studied.origin, studied.seq] = studied
        self._cache_bytes += studied.size_bytes
        while self._cache_bytes > CACHE_BYTES_MAX:
            _, oldest = self._cache.popitem(last=False)
            self._cache_bytes -= oldest.size_bytes

    def _read(self, recorded: Recorded) -> Studied:
        entry = recorded.entry
        extractor = self._extractors.get(entry["route"])
        extracted = self._extract(recorded, extractor)
        tenant = entry["tenant"]
        return Studied(
            origin=recorded.origin,
            seq=recorded.seq,
            leaf=recorded.leaf,
            decision=entry["id"],
            tenant=tenant,
            route=entry["route"],
            extractor=NOTHING if extractor is None else extractor.digest,
            entry=entry,
            extracted=extracted,
            case=entry.get("case") or self._hidden(tenant, "case", extracted.case),
            subject=entry.get("subject") or self._hidden(tenant, "subject", extracted.subject),
            size_bytes=CACHED_OVERHEAD_BYTES + len(recorded.raw) + len(orjson.dumps(extracted.features)),
        )

    def _hidden(self, tenant: str, kind: str, value: str | None) -> str | None:
        return None if value is None else self._keyring.pseudonym(tenant, kind, value)

    def _extract(self, recorded: Recorded, extractor: Extractor | None) -> Extracted:
        """What the route declares, or why it is not there; never a guess."""
        if extractor is None:
            return Extracted()
        if not is_answered(recorded.entry):
            return Extracted(error=f"no answer: {recorded.entry.get('error') or recorded.entry.get('status')}")
        try:
            parts = opened(
                recorded.entry,
                stored=recorded.parts,
                keys=recorded.keys,
                headers=recorded.headers,
                keyring=self._keyring,
            )
        except Unverifiable as error:
            return Extracted(error=f"unverifiable: {error.message}")
        if "redacted" in recorded.entry:
            return redacted.read(extractor, recorded.entry, parts)
        if "response" not in parts:
            return Extracted(error="the answer is not in the journal")
        return extractor.extract(parts.get("request", b""), parts["response"])


def extractors(routes: Mapping[str, Route], limits: Gateway) -> dict[str, Extractor]:
    """One for each route that declares an extraction, by the route's name."""
    specs = {
        name: spec_of(route, parse_bytes_max=limits.parse_bytes_max, rows_max=limits.rows_max)
        for name, route in routes.items()
    }
    return {name: Extractor(spec) for name, spec in specs.items() if spec is not None}
