"""What the entries of one origin say of each other: counters, scopes, months (pure).

Heartbeats state how many calls were closed, lost and shed, and how many entries each scope has; the entries before them
are counted here. Memory: one number a scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from storage.entries import CLOSING, closes_call
from storage.findings import Findings

_OWN: Final = ("*", None)  # the scope of what a shard says about itself

Scope = tuple[str, str | None]


class Tallies:
    """Counts the entries of one origin, fed in the order of their numbers.

    From a number `since` on that is not the first, nothing can be counted, and nothing is claimed but the months.
    """

    def __init__(self, findings: Findings, *, since: int = 0) -> None:
        self._findings = findings
        self._scopes: dict[Scope, int] = {}
        self._listed: set[Scope] = set()  # by the sheets of one heartbeat so far
        self._closed = self._lost = self._shed = self._open = 0
        self._month = 0
        self._due: tuple[str, int, int] | None = None  # the row that must come next: of which call, its number, of many
        self._heartbeats_from = 0  # nothing but heartbeats of the shard stands from here on
        self._is_whole = not since
        for name in ("counters", "scopes") if self._is_whole else ():
            findings.checked(name)

    @property
    def unrecorded(self) -> int:
        """How many calls may have left content without an entry: those that were lost, and those still open."""
        return self._lost + max(self._open, 0)

    @property
    def month(self) -> int:
        """The latest month that entries were filed under."""
        return self._month

    def skip(self, seq: int) -> None:
        """Entries are missing from there on: what follows cannot be counted."""
        if self._is_whole:
            self._is_whole = False
            for name in ("counters", "scopes"):
                self._findings.unknown(name, seq, "cannot be counted without the missing entries")

    def feed(self, seq: int, said: Mapping[str, Any], month: int) -> None:
        """Count one entry; KeyError, TypeError, ValueError for what no writer writes."""
        if month < self._month:
            self._findings.broken("entries", seq, f"filed under {month}, after entries of {self._month}")
        self._month = max(self._month, month)
        if not self._is_whole:
            return
        kind, scope = said["kind"], (said["tenant"], said["route"])
        self._follow(seq, said)
        if kind == "heartbeat":
            self._heartbeat(seq, said)
        elif kind in CLOSING:
            self._closed += closes_call(said)
            if said["id"] != said["decision"]:
                self._findings.broken("counters", seq, "closes a call under another id than the decision's")
        elif kind == "gap":
            self._lost += said.get("lost", 0)
            self._shed += said.get("shed", 0)
        expected = self._scopes.get(scope, 0)
        if said["scope_seq"] != expected:
            detail = f"is number {said['scope_seq']} of its tenant and route, and follows {expected} of them"
            self._findings.broken("scopes", seq, detail)
        self._scopes[scope] = expected + 1
        if kind != "heartbeat" or scope != _OWN:
            self._heartbeats_from = seq + 1

    def _follow(self, seq: int, said: Mapping[str, Any]) -> None:
        """The rows of a call stand one behind the other: they were written together."""
        due, self._due = self._due, None
        call = said.get("call") if said["kind"] in CLOSING else None
        place = None if call is None or not call.get("rows") else (call["request_id"], call["row"], call["rows"])
        if place is not None and place[1] + 1 < place[2]:
            self._due = (place[0], place[1] + 1, place[2])
        if place != due and (due is not None or (place is not None and place[1])):
            number, of = (due or place or ("", 0, 0))[1:]
            self._findings.broken("counters", seq, f"row {number} of the {of} of a call does not follow the one before")

    def _heartbeat(self, seq: int, said: Mapping[str, Any]) -> None:
        """What it states, against the entries before the place that it speaks of."""
        at, counters = said["at"], said["counters"]
        if not self._heartbeats_from <= at <= seq:
            self._findings.broken("counters", seq, f"states the counters of entry {at}")
            return
        open_calls = counters["open"]
        if counters["accepted"] != counters["closed"] + open_calls + counters["lost"] or open_calls < 0:
            self._findings.broken("counters", seq, f"accepted is not closed + open + lost: {counters}")
        self._open = open_calls
        counted = {"closed": self._closed, "lost": self._lost, "shed": self._shed}
        for name, count in counted.items():
            if counters[name] != count:
                self._findings.broken("counters", seq, f"{counters[name]} calls {name}, the entries say {count}")
        self._compare_scopes(seq, at, said)

    def _compare_scopes(self, seq: int, at: int, said: Mapping[str, Any]) -> None:
        since = seq - at  # heartbeats of the shard that stand between what is stated and here
        if said["sheet"] == 0:
            self._listed.clear()
        for tenant, route, stated in said["scopes"]:
            scope = (tenant, route)
            count = self._scopes.get(scope, 0) - (since if scope == _OWN else 0)
            if stated != count:
                self._findings.broken("scopes", seq, f"{stated} entries of {tenant} {route}, there are {count}")
            self._listed.add(scope)
        if said["sheet"] == said["sheets"] - 1:
            own = self._scopes.get(_OWN, 0) - since
            known = len(self._scopes) - (own == 0 and _OWN in self._scopes)
            if len(self._listed) != known:
                self._findings.broken("scopes", seq, f"states {len(self._listed)} tenants and routes of {known}")
