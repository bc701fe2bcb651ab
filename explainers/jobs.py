"""The life of one explanation job (pure): a table of states and events, and a budget of attempts.

    pending ──start──► running ──finish──► ready
       │  ▲               │ │ └──fail────► failed
       │  └─worker_died───┘ └──time_out──► failed
       └──skip──► skipped            (worker_died with no attempt left: failed)

A dead worker says nothing about the job, so the job is tried again; a job that hangs would hang again, so it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["pending", "running", "ready", "failed", "skipped"]
Event = Literal["start", "finish", "fail", "time_out", "worker_died", "skip"]

ATTEMPTS_MAX = 3  # the first try and two more: a job that kills three workers is itself the cause
FINAL: frozenset[State] = frozenset({"ready", "failed", "skipped"})
_TABLE: dict[tuple[State, Event], State] = {
    ("pending", "start"): "running",
    ("pending", "skip"): "skipped",
    ("pending", "fail"): "failed",
    ("running", "finish"): "ready",
    ("running", "fail"): "failed",
    ("running", "time_out"): "failed",
    ("running", "worker_died"): "pending",
}


class TransitionError(RuntimeError):
    """An event that cannot happen in this state: a broken invariant, never an operating error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job; `attempts` counts how often a worker was given it."""

    id: str
    state: State = "pending"
    attempts: int = 0

    def after(self, event: Event) -> Job:
        """The job once `event` has happened.

        Raises:
            TransitionError: the table knows no such step.
        """
        state = _TABLE.get((self.state, event))
        if state is None:
            raise TransitionError(f"job {self.id}: {event} cannot happen while {self.state}")
        if event == "start":
            return replace(self, state=state, attempts=self.attempts + 1)
        if event == "worker_died" and self.attempts >= ATTEMPTS_MAX:
            return replace(self, state="failed")
        return replace(self, state=state)

    @property
    def final(self) -> bool:
        """Nothing can happen to the job any more."""
        return self.state in FINAL
