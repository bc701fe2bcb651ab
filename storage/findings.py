"""What verification finds: claims with a verdict, a place and a reason (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

FINDINGS_MAX: Final = 100  # per claim and origin; further ones are counted
# what reading an entry that no writer made may raise: it becomes a finding
MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)


class Verdict(StrEnum):
    """What became of a claim."""

    PASS = "PASS"  # noqa: S105 (a verdict, not a password)
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim about one origin; a broken one names the sequence number where it is known."""

    name: str
    verdict: Verdict
    origin: str
    seq: int | None = None
    detail: str = ""
    counts: bool = True  # False: told, and not asked for, so that it leaves the exit code alone

    def as_json(self) -> dict[str, Any]:
        """For commands and the desk."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "origin": self.origin,
            "seq": self.seq,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All claims; `exit_code`: 0 sound, 1 something is broken, 2 something could not be told.

    `entries` were looked at in all, `checked` of them by origin.
    """

    claims: tuple[Claim, ...]
    entries: int = 0
    checked: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """What a command that verifies exits with."""
        verdicts = {claim.verdict for claim in self.claims if claim.counts}
        return 1 if Verdict.FAIL in verdicts else 2 if Verdict.UNKNOWN in verdicts else 0

    @property
    def broken(self) -> tuple[Claim, ...]:
        """The claims that do not hold."""
        return tuple(claim for claim in self.claims if claim.verdict is Verdict.FAIL)


class Findings:
    """Collects what is wrong with one origin; a claim without a finding passes."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._claims: dict[str, list[Claim]] = {}
        self._details: dict[str, str] = {}
        self._more: dict[str, tuple[int, Verdict]] = {}

    def checked(self, name: str, detail: str = "") -> None:
        """The claim was looked at; it passes unless a finding comes."""
        self._claims.setdefault(name, [])
        self._details[name] = detail or self._details.get(name, "")

    def broken(self, name: str, seq: int | None, detail: str, *, origin: str | None = None) -> None:
        """The claim does not hold, there; `origin` where what is broken stands in another ledger."""
        self._add(name, Verdict.FAIL, seq, detail, origin or self.origin)

    def unknown(self, name: str, seq: int | None, detail: str) -> None:
        """The claim cannot be told, from there."""
        self._add(name, Verdict.UNKNOWN, seq, detail, self.origin)

    def claims(self) -> Iterator[Claim]:
        """One PASS per sound claim, else the findings."""
        for name, found in self._claims.items():
            yield from found
            if name in self._more:
                count, verdict = self._more[name]
                yield Claim(name=name, verdict=verdict, origin=self.origin, detail=f"and {count} more")
            if not found:
                detail = self._details.get(name, "")
                yield Claim(name=name, verdict=Verdict.PASS, origin=self.origin, detail=detail)

    def _add(self, name: str, verdict: Verdict, seq: int | None, detail: str, origin: str) -> None:
        found = self._claims.setdefault(name, [])
        if len(found) >= FINDINGS_MAX:
            count, worst = self._more.get(name, (0, verdict))
            self._more[name] = (count + 1, Verdict.FAIL if Verdict.FAIL in (worst, verdict) else verdict)
            return
        found.append(Claim(name=name, verdict=verdict, origin=origin, seq=seq, detail=detail))
