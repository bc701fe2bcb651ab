"""How far everything is: what was durable at one moment, and whether each loop has come past it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.keeper.tail import Shelf

if TYPE_CHECKING:
    from gateway.keeper.extraction import Extraction
    from gateway.keeper.parts import Parts
    from gateway.keeper.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Origin → one past the last durable entry, at one moment; damaged shards are left out."""

    decisions: Mapping[str, int]
    own: Mapping[str, int]

    @classmethod
    def of(cls, shelves: Sequence[Shelf], *, own: str) -> Target:
        """What the last look at the watermarks saw."""
        sound = [shelf for shelf in shelves if shelf.damage is None]
        return cls(
            decisions={shelf.origin: shelf.next_seq for shelf in sound if shelf.origin.split("/")[-2] != own},
            own={shelf.origin: shelf.next_seq for shelf in sound if shelf.origin.split("/")[-2] == own},
        )


@dataclass(frozen=True, slots=True)
class Where:
    """The places of the loops."""

    parts: Parts
    extraction: Extraction
    schedule: Schedule

    def is_decided(self, target: Target) -> bool:
        """Every decision has its row and its explanation, failure, or reason to need none, durably."""
        return all(
            self.extraction.covered_below(origin) >= below and self.schedule.settled_below(origin) >= below
            for origin, below in target.decisions.items()
        )

    def is_extracted(self, target: Target) -> bool:
        """Every decision has its durable row."""
        return all(self.extraction.covered_below(origin) >= below for origin, below in target.decisions.items())

    def has_all_shipped(self, target: Target) -> bool:
        """Every entry was read back from ClickHouse."""
        shipping = self.parts.shipping
        return all(
            shipping.shipped_below(origin) >= below for origin, below in {**target.decisions, **target.own}.items()
        )

    def is_shipped(self, target: Target) -> bool:
        """Every decision has its durable row, and every entry was read back."""
        return self.is_extracted(target) and self.has_all_shipped(target)

    def is_visible(self, target: Target) -> bool:
        """Every entry was read back, is covered by a checkpoint, and has its typed rows."""
        shipping = self.parts.shipping
        return self.has_all_shipped(target) and all(
            shipping.projected_below(origin) >= below and shipping.signed_below(origin) >= below
            for origin, below in {**target.decisions, **target.own}.items()
        )

    def progress(self, target: Target) -> dict[str, int]:
        """How many entries of the gateways' journals have come how far, of those that shall."""
        shipping, wanted = self.parts.shipping, target.decisions
        return {
            "entries": sum(wanted.values()),
            "shipped": sum(min(below, shipping.shipped_below(origin)) for origin, below in wanted.items()),
            "extracted": sum(min(below, self.extraction.covered_below(origin)) for origin, below in wanted.items()),
            "explained": sum(min(below, self.schedule.settled_below(origin)) for origin, below in wanted.items()),
            "waiting": self.schedule.waiting,
        }

    def shards(self) -> list[dict[str, Any]]:
        """One row a readable journal, for people and programs."""
        rows = []
        for shelf in self.parts.library.shelves:
            origin, counters = shelf.origin, shelf.mark.counters
            rows.append(
                {
                    "origin": origin,
                    "directory": shelf.directory.name,
                    **counters.as_json(),
                    "entries": shelf.next_seq,
                    "shipped": self.parts.shipping.shipped_below(origin),
                    "projected": self.parts.shipping.projected_below(origin),
                    "signed": self.parts.shipping.signed_below(origin),
                    "extracted": self.extraction.covered_below(origin),
                    "explained": self.schedule.settled_below(origin),
                    "damage": None if shelf.damage is None else shelf.damage.message,
                }
            )
        return rows
