"""How many calls fit into a stretch of time (pure).

A rate is held by a sliding window: of the window before this one counts as much as still lies within one window's
length from now. In any t seconds it lets at most burst + rate_per_s · t calls pass, the bound of a token bucket of
that size. A quota is held by the calendar, UTC. What is counted, and where, is the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

_PERIOD_S = {"minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Rate:
    """`calls` at once, and `calls / window_s` a second for good."""

    calls: int
    window_s: float

    @classmethod
    def of(cls, rate_per_s: float, burst: int | None) -> Rate:
        """The window in which `burst` calls at `rate_per_s` arrive; by default one second's calls, at least one."""
        calls = burst if burst is not None else max(1, math.ceil(rate_per_s))
        return cls(calls, calls / rate_per_s)

    def index(self, now_s: float) -> int:
        """The number of the window that `now_s` lies in."""
        return int(now_s / self.window_s)

    def wait_s(self, now_s: float, *, current: int, previous: int) -> float:
        """How long until one more call fits; 0: it fits now. The counts are of this window and the one before it."""
        elapsed_s = now_s - self.index(now_s) * self.window_s
        room = self.calls - current - 1
        if room < 0:  # not in this window: in the next one, once enough of this one's calls are that long ago
            rest = max(0.0, 1 - (self.calls - 1) / current)
            return self.window_s - elapsed_s + self.window_s * rest
        if previous * (1 - elapsed_s / self.window_s) <= room:
            return 0.0
        return max(0.0, self.window_s * (1 - room / previous) - elapsed_s)


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `calls` in one period of the calendar, UTC."""

    calls: int
    per: Literal["minute", "hour", "day", "month"]

    def index(self, now_s: float) -> int:
        """The number of the period that `now_s` lies in."""
        if self.per == "month":
            day = datetime.fromtimestamp(now_s, UTC)
            return day.year * 12 + day.month - 1
        return int(now_s // _PERIOD_S[self.per])

    def ends_s(self, now_s: float) -> float:
        """When that period ends, Unix seconds."""
        index = self.index(now_s) + 1
        if self.per == "month":
            return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC).timestamp()
        return float(index * _PERIOD_S[self.per])
