"""Opening entries: what a writer states before anything else about how the last one ended. Pure.

Behind the heartbeats that open every segment: an incident for an epoch in quarantine, a recovery for each torn tail,
one gap for the calls that left no entry, and a decision with stream state ``gateway_lost`` for each begin entry
that waits for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage import frames
from storage.entries import COMMON, INT_MAX, SYSTEM_TENANT, Draft, Part, Ref, document, encode
from storage.errors import EntryTooLarge
from storage.items import Item
from storage.recovery import Begun, Recovered
from storage.segment import recovery_payload


class Opening:
    """Makes the items; ``new_id`` and ``now_ns`` are called once an entry."""

    def __init__(self, *, origin: str, config: str, new_id: Callable[[], str], now_ns: Callable[[], int]) -> None:
        self._origin, self.config, self._new_id, self._now_ns = origin, config, new_id, now_ns

    def items(self, recovered: Recovered, quarantined: dict[str, Any] | None) -> list[Item]:
        """All opening items, in order."""
        made = []
        if quarantined is not None:
            made.append(self._own("incident", {"what": "journal_corrupt", "quarantined": quarantined}))
        for cut in recovered.cuts:
            fields = {"segment": cut.segment, "offset": cut.offset, "cut_bytes": cut.size_bytes}
            item = self._own("recovery", {**fields, "watermark": "found" if cut.is_marked else "missing"})
            payload = recovery_payload(segment=cut.segment, offset=cut.offset, cut_bytes=cut.size_bytes)
            item.notes = ((frames.RECOVERY, payload),)
            made.append(item)
        if recovered.lost_calls or not recovered.is_count_known:
            known = "known" if recovered.is_count_known else "unknown"
            item = self._own("gap", {"why": "restart", "lost": recovered.lost_calls, "shed": 0, "count": known})
            item.lost = recovered.lost_calls
            made.append(item)
        made.extend(self._lost_decision(begun) for begun in recovered.begun)
        return made

    def gap(
        self, tenant: str, route: str | None, why: str, *, lost: int, shed: int, decisions: Sequence[str] = ()
    ) -> Item:
        """A gap entry for calls whose entry could not be written, or was not, while the shard ran.

        ``decisions`` are those of them that had begun: no other entry will close these.
        """
        fields: dict[str, object] = {"why": why, "lost": lost, "shed": shed, "count": "known"}
        if decisions:
            fields["decisions"] = list(decisions)
        item = self._own("gap", fields, tenant=tenant, route=route)
        item.lost, item.shed = lost, shed
        return item

    def _own(
        self, kind: str, fields: Mapping[str, object], *, tenant: str = SYSTEM_TENANT, route: str | None = None
    ) -> Item:
        now_ns = self._now_ns()
        draft = Draft(
            kind=kind,
            tenant=tenant,
            route=route,
            actor="journal",
            id=self._new_id(),
            ts_ns=now_ns,
            config=self.config,
            fields=fields,
        )
        return Item(document(draft, self._origin), now_ns)

    def _lost_decision(self, begun: Begun) -> Item:
        """The decision entry that closes a begun one: what its begin entry said, and what was found of its parts."""
        entry = begun.entry
        fields = {name: value for name, value in entry.items() if name not in COMMON}
        stream = {"state": "gateway_lost", "streamed": True, "bytes": sum(part.len for part in begun.parts)}
        fields |= {"stream": stream, "error": "gateway_lost", "status": None}
        draft = self._decision(begun, fields)
        try:
            encode(draft, origin=self._origin, seq=INT_MAX, scope_seq=INT_MAX)
        except EntryTooLarge:
            draft = self._decision(begun, {"stream": stream, "error": "gateway_lost", "status": None})
        return Item(document(draft, self._origin), draft.ts_ns, closes=True)

    def _decision(self, begun: Begun, fields: dict[str, Any]) -> Draft:
        entry = begun.entry
        return Draft(
            kind=entry.get("record", "decision"),
            tenant=entry["tenant"],
            route=entry["route"],
            actor=entry["actor"],
            id=entry["decision"],
            ts_ns=self._now_ns(),
            decision=entry["decision"],
            config=entry["config"],
            trace=entry["trace"],
            prev=(Ref(entry["id"], begun.leaf),),
            parts=(*(Part.from_json(part) for part in entry["parts"]), *begun.parts),
            fields=fields,
        )
