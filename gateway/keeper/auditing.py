"""Continuous audit: ClickHouse re-read against what was signed, for as long as the keeper runs.

Two passes, each in a thread of its own: what is recent, at once and again every few seconds; the whole ledger, at a
pace that leaves the host to others. What does not hold is looked at a second time, since a keeper writes meanwhile;
what still does not hold becomes an incident entry, a metric and a line in doctor. Nothing waits for a pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from config.ledger import Audit
from gateway.keeper import metrics
from gateway.keeper.parts import Parts
from gateway.keeper.verifying import verify
from gateway.keeper.writing import Writer
from storage.errors import StorageError
from storage.findings import Claim, Report
from storage.pace import Paced
from storage.recent import ENTRIES_MIN, audit_recent

RATE_FIRST: Final = 20_000.0  # entries a second, until a pass has told
INCIDENTS_MAX: Final = 20  # a pass; what is left over is stated after the next
STATED_MAX: Final = 10_000  # findings that were stated, remembered so that none is stated twice
TEXT_CHARS_MAX: Final = 400  # of what a finding says, in an incident
RETRY_S: Final = 5.0  # after ClickHouse did not answer
START_S: Final = 0.2  # between two looks whether there are tables to read
LATE_S: Final = 60.0  # within which tampering with recent data is to be known

Finding = tuple[str, str, int | None]  # claim, origin, sequence number

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Pass:
    """One of the two, and what it last found."""

    name: str
    handle: Paced
    look: Callable[[], Report]
    finished_s: float | None = None  # time.time() of the last that was finished
    began_s: float = 0.0
    entries: int = 0
    findings: dict[Finding, Claim] = field(default_factory=dict)
    seen_s: dict[Finding, float] = field(default_factory=dict)  # time.monotonic() of the last pass that found it
    problem: str | None = None
    is_failed: bool = False  # whether the problem is what it read, and not that it could not read

    def confirmed(self) -> Report:
        """Look; and where something does not hold, look again and keep what still does not. Blocking.

        Raises:
            StorageUnavailable: ClickHouse does not answer: nothing was found out.
        """
        self.handle.rested()
        report = self.look()
        if not report.broken:
            return report
        self.handle.rested()
        again = self.look()
        first = {_finding(claim) for claim in report.broken}
        return replace(again, claims=tuple(claim for claim in again.broken if _finding(claim) in first))


class Auditing:
    """One per keeper; `loops` run it, `close` ends what is under way."""

    def __init__(self, settings: Audit, parts: Parts, writer: Writer) -> None:
        self._settings = settings
        self._parts = parts
        self._writer = writer
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(2, "auditing")
        self._stated: set[Finding] = set()
        self._rate = RATE_FIRST
        profile = parts.database.profile
        self.recent = Pass(
            name="recent", handle=Paced(profile, share=1.0, stop=self._stop), look=self._look_at_what_is_recent
        )
        self.whole = Pass(
            name="whole", handle=Paced(profile, share=settings.share, stop=self._stop), look=self._look_at_everything
        )
        for one in (self.recent, self.whole):
            metrics.AUDITED.labels(span=one.name)  # stands at 0 before the first
        metrics.AUDIT_FINDINGS.set(0)

    def loops(self) -> dict[str, Coroutine[None, None, None]]:
        """Name → what runs for ever."""
        every_s = self._settings.recent_s
        return {
            "audit recent": self._run(self.recent, every_s),
            "audit whole": self._run(self.whole, max(every_s, LATE_S)),
        }

    @property
    def findings(self) -> dict[Finding, Claim]:
        """What does not hold, by the last pass of each kind."""
        return self.whole.findings | self.recent.findings

    async def close(self) -> None:
        """End both passes where they are; true on return: no thread of theirs runs."""
        self._stop.set()
        await asyncio.to_thread(self._threads.shutdown)
        for one in (self.recent, self.whole):
            one.handle.close()

    def states(self) -> Iterator[tuple[str, bool | None, str]]:
        """Of each pass: its name, whether all holds (None: it does not come to an end), and a sentence."""
        for one, late_s in ((self.recent, self._settings.recent_s + LATE_S), (self.whole, None)):
            name = f"audit, {one.name}"
            if one.findings:
                yield name, False, _told(one.findings)
            elif one.problem is not None:
                yield name, False if one.is_failed else None, one.problem
            elif one.finished_s is None:
                yield name, True, "the first pass is under way"
            else:
                age_s = time.time() - one.finished_s
                is_late = late_s is not None and age_s > late_s
                yield name, None if is_late else True, f"{one.entries} entries hold; finished {age_s:.0f} s ago"

    # --- the passes -----------------------------------------------------------------------------------------

    async def _run(self, one: Pass, every_s: float) -> None:
        while True:
            pause_s = START_S
            if self._parts.shipping.is_migrated:
                pause_s = every_s if await self._pass(one) else RETRY_S
            await asyncio.sleep(pause_s)

    async def _pass(self, one: Pass) -> bool:
        """One pass, and what follows from it; whether it came to an end."""
        one.began_s = time.monotonic()
        await self._parts.library.look(discover=True)
        try:
            report = await asyncio.get_running_loop().run_in_executor(self._threads, one.confirmed)
        except StorageError as error:
            if one.problem is None:
                _log.warning("audit_interrupted", span=one.name, error=error.message)
            one.problem = error.message
            return False
        except Exception as error:  # noqa: BLE001 - forged rows may break any check; the keeper goes on and says so
            one.problem, one.is_failed = _clipped(f"it fails on what it reads: {error!r}"), True
            _log.error("audit_failed", span=one.name, error=one.problem)
            return False
        one.problem, one.finished_s, one.entries, one.is_failed = None, time.time(), report.entries, False
        found = {_finding(claim): claim for claim in report.broken}
        if one is self.whole:
            one.findings = found
            self._settle()
        else:  # what has left the span of what is recent stays a finding until a whole pass has looked
            one.findings |= found
            one.seen_s |= dict.fromkeys(found, time.monotonic())
        metrics.AUDITED.labels(span=one.name).inc(report.entries)
        metrics.AUDIT_FINISHED.labels(span=one.name).set(one.finished_s)
        metrics.AUDIT_FINDINGS.set(len(self.findings))
        stated = [claim for claim in found.values() if _finding(claim) not in self._stated]
        for claim in stated[:INCIDENTS_MAX]:
            await self._state(claim, one)
        return True

    def _settle(self) -> None:
        """A whole pass has ended: what it did not find, and was last found before it began, holds again."""
        recent = self.recent
        for key in [key for key, seen_s in recent.seen_s.items() if seen_s < self.whole.began_s]:
            del recent.seen_s[key], recent.findings[key]

    def _look_at_what_is_recent(self) -> Report:
        keyring = self._parts.keyring
        began_s = time.monotonic()
        affordable = self._rate * self._settings.share * self._settings.recent_s
        report = audit_recent(
            self.recent.handle,
            public=keyring.log.public_key().public_bytes_raw(),
            data=self._parts.configuration.data,
            entries_max=max(ENTRIES_MIN, round(affordable)),
            host_keys={keyring.host.public_key().public_bytes_raw()},
        )
        if report.entries >= ENTRIES_MIN:
            self._rate = report.entries / max(time.monotonic() - began_s, 1e-3)
        return report

    def _look_at_everything(self) -> Report:
        return verify(replace(self._parts, database=self.whole.handle), lambda _: None)

    async def _state(self, claim: Claim, one: Pass) -> None:
        """One incident entry for each finding that this process has met."""
        if len(self._stated) >= STATED_MAX:
            return
        fields = {
            "event": "evidence_damaged",
            "claim": claim.name,
            "source": {"origin": claim.origin and _clipped(claim.origin), "seq": claim.seq},
            "detail": _clipped(claim.detail),
            "span": one.name,
        }
        await self._writer.append(self._writer.draft("incident", fields=fields))
        self._stated.add(_finding(claim))
        _log.error("evidence_damaged", claim=claim.name, origin=claim.origin, seq=claim.seq, detail=fields["detail"])


def _clipped(text: str) -> str:
    """At most `TEXT_CHARS_MAX` characters: what forged rows say can be as long as they like, an entry cannot."""
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…"


def _finding(claim: Claim) -> Finding:
    return claim.name, claim.origin, claim.seq


def _told(findings: dict[Finding, Claim]) -> str:
    claim = next(iter(findings.values()))
    place = claim.origin if claim.seq is None else f"{claim.origin} entry {claim.seq}"
    more = f"; and {len(findings) - 1} more: run `answerable verify`" if len(findings) > 1 else ""
    return f"{claim.name} of {place}: {claim.detail}{more}"
