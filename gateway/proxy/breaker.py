"""When to stop asking a replica that fails, and when to try it again (pure: the clock is passed in).

    closed ──failures in a row, or their rate──► open ──open_s have passed──► half open (one probe)
      ▲                                           ▲                             │        │
      └───────────── the probe succeeds ──────────┼─────────────────────────────┘        │
                                                  └────────── the probe fails ───────────┘

Each call that begins takes the breaker's period with it and gives it back with its outcome: what was under way when
the breaker opened says nothing about the replica after that, and is ignored. So is a probe that the caller broke off:
another one may follow at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What opens a breaker: `failures` in a row, or a share `rate` of failures in the last `window` calls."""

    failures: int
    rate: float | None
    window: int
    open_s: float


class Breaker:
    """One replica's breaker. Times are seconds of any one clock that does not go back."""

    __slots__ = ("_last", "_mask", "_opened_until", "_probing", "_row", "_seen", "_thresholds", "period")

    def __init__(self, thresholds: Thresholds) -> None:
        """Closed, nothing seen."""
        self._thresholds = thresholds
        self._mask = (1 << thresholds.window) - 1
        self._row = 0  # failures since the last success
        self._last = 0  # the last calls as bits, 1 where one failed
        self._seen = 0  # calls in `_last`, at most the window
        self._opened_until: float | None = None
        self._probing = False
        self.period = 0  # grows with each change between closed and open

    def state(self, now: float) -> State:
        """Where the breaker stands."""
        if self._opened_until is None:
            return "closed"
        return "half_open" if now >= self._opened_until else "open"

    @property
    def is_open(self) -> bool:
        """Whether it is not closed: open, or half open and waiting for its probe."""
        return self._opened_until is not None

    def allows(self, now: float) -> bool:
        """Whether a call may begin: always while closed, one at a time while half open, none while open."""
        return self._opened_until is None or (now >= self._opened_until and not self._probing)

    def begin(self, now: float) -> int:
        """A call that was allowed begins; returns the period that its outcome belongs to."""
        assert self.allows(now)
        self._probing = self._opened_until is not None
        return self.period

    def succeeded(self, period: int) -> bool:
        """A call of `period` was answered; returns whether this closes the breaker."""
        if period != self.period:
            return False
        self._row = 0
        if self._opened_until is None:
            if self._thresholds.rate is not None:
                self._note(0)
            return False
        self._close()
        return True

    def failed(self, period: int, now: float) -> bool:
        """A call of `period` failed; returns whether this opens the breaker."""
        if period != self.period:
            return False
        if self._opened_until is not None:
            self._open(now)
            return True
        self._row += 1
        self._note(1)
        if self._row >= self._thresholds.failures or self._rate_is_reached():
            self._open(now)
            return True
        return False

    def abandoned(self, period: int) -> None:
        """A call of `period` ended without saying anything of the replica."""
        if period == self.period:
            self._probing = False

    def wait_s(self, now: float) -> float:
        """Seconds until a call may be allowed; 0 where it is now, or where only a probe's outcome is awaited."""
        return 0.0 if self._opened_until is None else max(0.0, self._opened_until - now)

    def _note(self, failed: int) -> None:
        self._last = (self._last << 1 | failed) & self._mask
        if self._seen < self._thresholds.window:
            self._seen += 1

    def _rate_is_reached(self) -> bool:
        rules = self._thresholds
        if rules.rate is None or self._seen < rules.window:  # fewer calls make no rate
            return False
        return self._last.bit_count() >= rules.rate * rules.window

    def _open(self, now: float) -> None:
        self._opened_until = now + self._thresholds.open_s
        self._reset()

    def _close(self) -> None:
        self._opened_until = None
        self._reset()

    def _reset(self) -> None:
        self._probing = False
        self._row = self._last = self._seen = 0
        self.period += 1
