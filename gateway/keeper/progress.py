"""How far the keeper has come: a function of its own journal, so that it can never disagree with what is durable.

Two things ride on the keeper's entries and are therefore atomic with them: an *extraction* entry names the
decisions that it covers (``source: {origin, first, last}``, rows in the order of their sequence numbers, one
tenant and route each), an *explanation* entry names its decision's place (``source: {origin, seq}``). `Progress`
is what follows from reading them in order. The snapshot (``ship/progress.json``) only saves reading the own
journal from its beginning: it states up to which of the own entries it was taken.

What is derivable rides on nothing: which decisions the explanation policy leaves out, and ``low``, the sequence
number below which every decision of an origin is settled (explained, failed or left out).

Pure: no clock, no file, no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSION = 1

Scope = tuple[str, str]  # tenant, route


@dataclass(slots=True)
class Settled:
    """Which decisions of one origin need no explanation any more."""

    low: int = 0  # all below
    done: set[int] = field(default_factory=set)  # and these at or above `low`

    def __contains__(self, seq: int) -> bool:
        return seq < self.low or seq in self.done

    def raise_to(self, low: int) -> None:
        """Every decision below `low` is settled; never goes down."""
        if low > self.low:
            self.low = low
            self.done = {seq for seq in self.done if seq >= low}


@dataclass(slots=True)
class Progress:
    """What the keeper's own entries say has been done, up to `upto` of the own origin `own`."""

    own: str | None = None  # the own origin that `upto` counts in
    upto: int = 0  # every own entry with a lower sequence number is applied
    extracted: dict[str, dict[Scope, int]] = field(default_factory=dict)  # last covered sequence number
    extracted_below: dict[str, int] = field(default_factory=dict)  # all scopes: nothing is missing below this
    settled: dict[str, Settled] = field(default_factory=dict)
    kept_from: dict[str, int] = field(default_factory=dict)  # parts of what is yet to do may stand from here on

    def apply(self, origin: str, seq: int, entry: Mapping[str, Any]) -> bool:
        """Take in one own entry; entries come in order, one that was applied before is ignored (false)."""
        if origin != self.own:
            self.own, self.upto = origin, 0  # a new epoch of the own journal; what the last one said stays true
        if seq < self.upto:
            return False
        self.upto = seq + 1
        source = entry.get("source")
        if entry["kind"] == "extraction" and source is not None:
            scopes = self.extracted.setdefault(source["origin"], {})
            scope = (entry["tenant"], entry["route"])
            scopes[scope] = max(scopes.get(scope, -1), source["last"])
        elif entry["kind"] == "explanation" and source is not None:
            self.of(source["origin"]).done.add(source["seq"])
        return True

    def of(self, origin: str) -> Settled:
        """The explanations of `origin`."""
        return self.settled.setdefault(origin, Settled())

    def is_extracted(self, origin: str, scope: Scope, seq: int) -> bool:
        """Whether an extraction entry covers this decision."""
        if seq < self.extracted_below.get(origin, 0):
            return True
        return seq <= self.extracted.get(origin, {}).get(scope, -1)

    def extracted_to(self, origin: str, below: int) -> None:
        """Every decision of `origin` below `below` is covered, whatever its scope; never goes down."""
        if below > self.extracted_below.get(origin, 0):
            self.extracted_below[origin] = below
            scopes = self.extracted.get(origin, {})
            for scope in [scope for scope, last in scopes.items() if last < below]:
                del scopes[scope]  # says no more than `below` does: the table stays as small as what is unfinished

    def begin(self, origin: str) -> int:
        """From where `origin` must be read so that nothing is missed."""
        below, low = self.extracted_below.get(origin, 0), self.of(origin).low
        return min(below, low, self.kept_from.get(origin, 0))

    def as_json(self) -> dict[str, Any]:
        """The snapshot, for `from_json`."""
        return {
            "v": VERSION,
            "own": self.own,
            "upto": self.upto,
            "extracted": {
                origin: [[*scope, last] for scope, last in sorted(scopes.items())]
                for origin, scopes in self.extracted.items()
            },
            "extracted_below": self.extracted_below,
            "settled": {origin: [of.low, sorted(of.done)] for origin, of in self.settled.items()},
            "kept_from": self.kept_from,
        }

    @classmethod
    def from_json(cls, snapshot: Mapping[str, Any]) -> Progress:
        """The progress that `as_json` stated.

        Raises:
            ValueError: an unknown version.
        """
        if snapshot["v"] != VERSION:
            raise ValueError(f"a progress snapshot of version {snapshot['v']}; this program knows {VERSION}")
        return cls(
            own=snapshot["own"],
            upto=snapshot["upto"],
            extracted={
                origin: {(tenant, route): last for tenant, route, last in scopes}
                for origin, scopes in snapshot["extracted"].items()
            },
            extracted_below=dict(snapshot["extracted_below"]),
            settled={origin: Settled(low, set(done)) for origin, (low, done) in snapshot["settled"].items()},
            kept_from=dict(snapshot["kept_from"]),
        )
