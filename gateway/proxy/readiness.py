"""What `/-/readyz` says: a stable list of checks, each `ok`, `info`, `degraded` or `unready`, with a sentence.

`unready` (503) is what another worker or host would do better: this one is draining, its journal has stopped or has no
room, it owes an entry. `degraded` (200) is what would be no better elsewhere, or passes of itself; a load balancer that
took all workers out for it would make an outage of a fault. `info` is what stops no decision: a keeper that is away.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import structlog

from gateway.proxy.callers import Applications
from gateway.proxy.lanes import Lane
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.listening import Listener
from storage.journal import Journal
from storage.pressure import Level

Status = Literal["ok", "info", "degraded", "unready"]
UNATTENDED_S = 3.0  # a closing entry is on its way to the disk for milliseconds, not for so long
WARN_RATIO, SHED_RATIO = 0.70, 0.85  # of the whole file system, for people: calls feel `storage.pressure` alone
KEEPER_SILENT_S = 60.0  # it publishes control.json each 5 s
_log = structlog.get_logger(__name__)


class Check(NamedTuple):
    """One look at one thing; `problem` is a sentence where it is not `ok`."""

    name: str
    status: Status
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """All checks of one look."""

    checks: Sequence[Check]

    @property
    def status(self) -> Literal["ready", "degraded", "unready"]:
        """The worst of them; what is only informative counts as ready."""
        found = {check.status for check in self.checks}
        return "unready" if "unready" in found else "degraded" if "degraded" in found else "ready"

    def as_json(self) -> dict[str, Any]:
        """`{status, problems, checks: {name: {status, problem?}}}`; problems are the sentences of what is not well."""
        return {
            "status": self.status,
            "problems": [check.problem for check in self.checks if check.status in ("degraded", "unready")],
            "checks": {
                check.name: {"status": check.status, **({} if check.problem is None else {"problem": check.problem})}
                for check in self.checks
            },
        }


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host's files said when they were last looked at: about once a second, off the loop."""

    disk_ratio: float  # used share of the data's file system
    keeper_silent_s: float | None  # None: no keeper has ever published here


def surroundings(data: Path) -> Surroundings:
    """Look now. Blocking."""
    usage = shutil.disk_usage(data)
    try:
        silent_s = max(0.0, time.time() - (data / "control.json").stat().st_mtime)
    except FileNotFoundError:
        silent_s = None
    return Surroundings(usage.used / usage.total, silent_s)


class Watch:
    """Looks after one worker's parts."""

    def __init__(
        self,
        data: Path,
        *,
        journal: Journal,
        gauge: Gauge,
        budget: Budget,
        known: Applications,
        listener: Listener | None,
        lanes: Callable[[], Sequence[Lane]],
        draining: Callable[[], bool],
    ) -> None:
        self._data = data
        self._journal = journal
        self._gauge = gauge
        self._budget = budget
        self._known = known
        self._listener = listener
        self._lanes = lanes
        self._draining = draining
        self._unattended_since = 0.0  # on the loop's clock; 0: each open call is under way here
        self._around: Surroundings | None = None
        self._pressure = Level.CALM  # as the log was told last

    async def look(self) -> None:
        """Look around, and hold the journal's open calls against those under way; called each second.

        That accepted is closed, open and lost together holds by construction, since open is derived. This does not.
        """
        self._around = await asyncio.to_thread(surroundings, self._data)
        self._tell_pressure()
        if self._journal.unclosed <= self._gauge.now:
            self._unattended_since = 0.0
        elif not self._unattended_since:
            self._unattended_since = asyncio.get_running_loop().time()

    def _tell_pressure(self) -> None:
        """A line where the level of disk and memory has changed, and none while it stays."""
        level = self._journal.pressure
        if level is self._pressure:
            return
        says = self._journal.pressure_text or "disk and memory have room again"
        tell = _log.info if level is Level.CALM else _log.warning
        tell("journal_pressure", level=level.name.lower(), before=self._pressure.name.lower(), says=says)
        self._pressure = level

    @property
    def unattended(self) -> int:
        """How many calls have been open in the journal for `UNATTENDED_S` though nobody handles them."""
        since = self._unattended_since
        if not since or asyncio.get_running_loop().time() - since < UNATTENDED_S:
            return 0
        return max(0, self._journal.unclosed - self._gauge.now)

    def now(self) -> Readiness:
        """How the worker is."""
        return Readiness(
            [
                self._journal_runs(),
                self._entries(),
                self._room(),
                self._memory(),
                self._connections(),
                self._keys(),
                self._certificate(),
                *self._upstreams(),
                self._keeper(),
                Check("drain", "unready", "the worker is draining") if self._draining() else Check("drain", "ok"),
            ]
        )

    def _journal_runs(self) -> Check:
        if self._journal.stopped.done():
            return Check("journal", "unready", "the journal writes no more; the worker must be started again")
        return Check("journal", "ok")

    def _entries(self) -> Check:
        if not self.unattended:
            return Check("entries", "ok")
        said = f"{self._journal.unclosed} calls are open in the journal and {self._gauge.now} are under way"
        return Check("entries", "unready", f"{said}: an entry is owed")

    def _room(self) -> Check:
        if self._journal.stopped.done():
            return Check("disk", "ok")  # nothing is known of it any more, and the journal's own check says so
        level = self._journal.pressure
        if level is not Level.CALM:
            return Check("disk", "unready" if level is Level.REFUSE else "degraded", self._journal.pressure_text)
        if self._around is not None and self._around.disk_ratio >= SHED_RATIO:
            return Check("disk", "degraded", f"{self._around.disk_ratio:.0%} of the data's file system is used")
        if self._around is not None and self._around.disk_ratio >= WARN_RATIO:
            return Check("disk", "info", f"{self._around.disk_ratio:.0%} of the data's file system is used")
        return Check("disk", "ok")

    def _memory(self) -> Check:
        if self._budget.full:
            return Check("memory", "degraded", "the memory for calls is full: bodies are refused with 503 memory_full")
        return Check("memory", "ok")

    def _connections(self) -> Check:
        if self._gauge.now >= self._gauge.most:
            said = f"{self._gauge.now} calls are under way: more are refused with 503 gateway_busy"
            return Check("calls", "degraded", said)
        return Check("calls", "ok")

    def _certificate(self) -> Check:
        if self._listener is not None and self._listener.problem is not None:
            return Check("certificate", "degraded", self._listener.problem)
        return Check("certificate", "ok")

    def _keys(self) -> Check:
        if self._known.problem is not None:
            return Check("keys", "degraded", f"application keys: {self._known.problem}")
        return Check("keys", "ok")

    def _upstreams(self) -> Iterator[Check]:
        for lane in self._lanes():
            if lane.steering is None:
                continue
            replicas = lane.steering.replicas
            wrong = [replica.name for replica in replicas if not replica.sound]
            name = f"upstream/{lane.route.name}"
            if len(wrong) == len(replicas):
                said = f"no model endpoint of route {lane.route.name} is well: its calls are refused, or are probes"
                yield Check(name, "degraded", said)
            elif wrong:
                yield Check(name, "info", f"{', '.join(wrong)} of route {lane.route.name} gets no calls")
            else:
                yield Check(name, "ok")

    def _keeper(self) -> Check:
        around = self._around
        if around is None or (around.keeper_silent_s is not None and around.keeper_silent_s < KEEPER_SILENT_S):
            return Check("keeper", "ok")
        if around.keeper_silent_s is None:
            said = "no keeper has run here yet: decisions are journaled, and nothing is shipped, signed or explained"
        else:
            said = (
                f"the keeper has published nothing for {around.keeper_silent_s:.0f} s: decisions are journaled, "
                "and nothing is shipped, signed or explained"
            )
        return Check("keeper", "info", said)
