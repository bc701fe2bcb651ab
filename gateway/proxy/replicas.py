"""The replicas of one route: which of them gets a call, what it came to, and which get none for now.

A route with one endpoint, no breaker, no health check and no limit has none of this (`steering` is None) and pays for
none of it. What is under way at an endpoint is counted over all routes of this worker that choose, and from the moment
of the choice: a burst of calls that find no connection yet must not all go the same way.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

from gateway.proxy.breaker import Breaker
from gateway.proxy.call import Call
from gateway.proxy.choice import least
from gateway.proxy.counts import Counts
from gateway.proxy.errors import UpstreamFailed, UpstreamOpen, UpstreamSlow
from gateway.proxy.gate import Gate
from gateway.proxy.health import Health
from gateway.proxy.idempotency import NEVER_SENT
from gateway.proxy.pool import Pool

NOT_ITS_FAULT = frozenset({"given_up", "caller_gone"})  # ends of a call that say nothing of the replica
ANSWERED, BAD_STATUS = "answered", "bad_status"
OPENED, CLOSED, UNHEALTHY, HEALTHY = "opened", "closed", "unhealthy", "healthy"
RETRY_AFTER_S_MAX = 60  # longer would keep callers away from a replica that is back


class Replica:
    """One endpoint as one route sees it."""

    __slots__ = ("breaker", "health", "host_line", "name", "pool")

    def __init__(self, name: str, pool: Pool, *, breaker: Breaker | None, health: Health | None) -> None:
        """`name` is host and port, as it stands in metrics."""
        self.name = name
        self.pool = pool
        self.breaker = breaker
        self.health = health
        self.host_line = b"\r\nHost: " + pool.origin.authority + b"\r\n"

    @property
    def sound(self) -> bool:
        """Whether nothing speaks against it: its checks pass and its breaker is closed."""
        if self.health is not None and not self.health.healthy:
            return False
        return self.breaker is None or not self.breaker.is_open

    def available(self, now: float) -> bool:
        """Whether it may get a call."""
        if self.health is not None and not self.health.healthy:
            return False
        return self.breaker is None or self.breaker.allows(now)


class Seat:
    """One call's place at a replica, from before its admission until the model is done with it."""

    __slots__ = ("_left", "_loop", "_period", "_steering", "_told", "_tried", "call", "replica")

    def __init__(self, steering: Steering, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
        self._steering = steering
        self._loop = loop
        self._tried: tuple[Replica, ...] = ()
        self.call: Call | None = None  # once it was answered
        self._told = False  # whether the breaker knows the outcome
        self._left = False
        self.replica = replica
        self._period = 0
        self._sit()

    def head(self, head: bytes) -> bytes:
        """The request's head, which names the first replica, as this one is to get it."""
        first, mine = self._steering.replicas[0].host_line, self.replica.host_line
        return head if first == mine else head.replace(first, mine, 1)  # Host is the first line after the start

    def answered(self, call: Call) -> None:
        """The replica has answered, or begun to; a whole answer gives the place free."""
        self.call = call
        if call.status in self._steering.bad_statuses:
            self._failed(BAD_STATUS)
        else:
            self._succeeded()
        if call.complete:
            self.leave()

    def failed(self, error: UpstreamFailed | UpstreamSlow) -> bool:
        """The attempt failed; returns whether the seat is at another replica now, which may have the same request."""
        if error.code in NOT_ITS_FAULT:
            return False
        self._failed(error.code)
        if error.code not in NEVER_SENT:
            return False
        self._tried = (*self._tried, self.replica)  # which keeps the seat if there is no other
        other = self._steering.choose(self._loop.time(), passing_over=self._tried)
        if other is None:
            return False
        self.replica.pool.seats -= 1
        self.replica = other
        self._sit()
        return True

    def leave(self) -> None:
        """The call has ended, however it did; the first time counts."""
        if self._left:
            return
        self._left = True
        self.replica.pool.seats -= 1
        if not self._told and self.replica.breaker is not None:
            self.replica.breaker.abandoned(self._period)
        error = self.call.error if self.call is not None else None
        if error is not None and error.code not in NOT_ITS_FAULT:  # broke off after it had begun to answer
            self._failed(error.code)
        if self._steering.gate is not None:
            self._steering.gate.leave()

    def _sit(self) -> None:
        self._told = False
        self.replica.pool.seats += 1
        if self.replica.breaker is not None:
            self._period = self.replica.breaker.begin(self._loop.time())

    def _succeeded(self) -> None:
        self._told = True
        steering, replica = self._steering, self.replica
        steering.counts.upstream(steering.route, replica.name, ANSWERED)
        if replica.breaker is not None and replica.breaker.succeeded(self._period):
            steering.counts.upstream(steering.route, replica.name, CLOSED)

    def _failed(self, reason: str) -> None:
        self._told = True
        steering, replica = self._steering, self.replica
        steering.counts.upstream(steering.route, replica.name, reason)
        if replica.breaker is not None and replica.breaker.failed(self._period, self._loop.time()):
            steering.counts.upstream(steering.route, replica.name, OPENED)


class Steering:
    """A route's replicas and its gate."""

    def __init__(
        self,
        route: str,
        replicas: Sequence[Replica],
        *,
        gate: Gate | None,
        bad_statuses: Collection[int],
        counts: Counts,
        roll: Callable[[], float],
    ) -> None:
        """`replicas[0]` is the one that heads are made for; `roll()` in [0, 1) decides between equals."""
        self.route = route
        self.replicas = replicas
        self.gate = gate
        self.bad_statuses = frozenset(bad_statuses)
        self.counts = counts
        self._roll = roll

    async def enter(self) -> Seat:
        """A place for one call, before it is admitted.

        Raises:
            UpstreamOpen: no replica takes calls now.
            RouteBusy: no place under the route's limit in time.
        """
        loop = asyncio.get_running_loop()
        gate = self.gate
        if gate is None:
            return self._seat(loop)
        if self.choose(loop.time()) is None:  # who waits for nothing need not wait
            raise self._closed(loop.time())
        await gate.enter()
        try:
            return self._seat(loop)
        except BaseException:
            gate.leave()
            raise

    def choose(self, now: float, *, passing_over: Collection[Replica] = ()) -> Replica | None:
        """The available replica with the fewest calls under way; None where there is none."""
        able = [replica for replica in self.replicas if replica not in passing_over and replica.available(now)]
        if len(able) < 2:
            return able[0] if able else None
        return able[least([replica.pool.seats for replica in able], self._roll())]

    def _seat(self, loop: asyncio.AbstractEventLoop) -> Seat:
        replica = self.choose(loop.time())
        if replica is None:
            raise self._closed(loop.time())
        return Seat(self, replica, loop)

    def _closed(self, now: float) -> UpstreamOpen:
        waits = [
            replica.breaker.wait_s(now)
            for replica in self.replicas
            if replica.breaker is not None and (replica.health is None or replica.health.healthy)
        ]
        after_s = min(RETRY_AFTER_S_MAX, max(1, math.ceil(min(waits, default=1.0))))
        return UpstreamOpen(f"no model endpoint of route {self.route} takes calls now", retry_after_s=after_s)
