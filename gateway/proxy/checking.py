"""Health checks: a GET of each replica every few seconds, on a connection of its own, recorded nowhere.

A check is no call of anybody, so it is no decision and has no entry; what it finds out is in the metrics. Checks of one
replica never overlap.
"""

from __future__ import annotations

import asyncio
import random

from config.route import HealthCheck
from gateway.proxy.call import Call, Limits
from gateway.proxy.errors import UpstreamFailed, UpstreamSlow
from gateway.proxy.replicas import HEALTHY, UNHEALTHY, Replica, Steering


async def watch(steering: Steering, replica: Replica, check: HealthCheck, limits: Limits, fixed: bytes) -> None:
    """Check `replica` until cancelled. `fixed`: the header lines for the first replica, Host first, each with CRLF."""
    health = replica.health
    assert health is not None
    lines = (b"\r\n" + fixed).replace(steering.replicas[0].host_line, replica.host_line, 1)
    head = b"GET %b HTTP/1.1%b\r\n" % (check.path.encode("ascii"), lines)
    # workers that start together do not ask together
    await asyncio.sleep(random.random() * min(1.0, check.interval_s))  # noqa: S311 - no secret
    while True:
        passed = await _passes(replica, head, check.timeout_s, limits)
        if health.checked(passed=passed):
            steering.counts.upstream(steering.route, replica.name, HEALTHY if passed else UNHEALTHY)
        await asyncio.sleep(check.interval_s)


async def _passes(replica: Replica, head: bytes, timeout_s: float, limits: Limits) -> bool:
    call: Call | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await replica.pool.connect(timeout_s)  # a kept one may be stale and would prove nothing
            now = connection.loop.time()
            call = Call(connection, limits, bodiless=False, started_at=now, patience_until=now + timeout_s)
            connection.send(head, b"", call)
            await call.headed()
            return 200 <= call.status < 300
    except (UpstreamFailed, UpstreamSlow, TimeoutError):
        return False
    finally:
        if call is not None:
            call.give_up()
