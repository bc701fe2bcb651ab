"""Asking the model: one connection, one attempt; a second one only where the first cannot have been seen.

A request on a kept connection that closes before a byte came back is sent once more where its method is idempotent
(RFC 9110 §9.2.2). A POST is not: it may have run. A connection known to be closed before anything was written is no
attempt at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.proxy.errors import UpstreamFailed
from gateway.proxy.lanes import Lane
from gateway.proxy.upstream import Call, Connection

PATIENCE_S = 1.0  # an answer that is not complete by then is begun in the journal, and streamed
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


async def ask(
    lane: Lane, method: str, head: bytes, body: bytes, *, received_at: float, on_patience: Callable[[], None]
) -> Call:
    """Send the request and return its call once it is settled (see `Call.settled`).

    `received_at` is on the loop's clock; `on_patience()` is called at most once, when `PATIENCE_S` have passed since
    then without a complete answer, even while there is no connection yet.

    Raises:
        UpstreamFailed, UpstreamSlow: no connection, or it broke off, or a deadline passed, before the call was settled.
    """
    patience_until = received_at + PATIENCE_S
    kept = lane.pool.idle()
    if kept is not None:
        try:
            return await _attempt(kept, lane, method, head, body, patience_until, on_patience)
        except UpstreamFailed as error:
            may_repeat = method in IDEMPOTENT or not error.sent
            if error.code != "upstream_no_answer" or not may_repeat:
                raise
    fresh = await _connect(lane, patience_until, on_patience)
    return await _attempt(fresh, lane, method, head, body, patience_until, on_patience)


async def _attempt(
    connection: Connection,
    lane: Lane,
    method: str,
    head: bytes,
    body: bytes,
    patience_until: float,
    on_patience: Callable[[], None],
) -> Call:
    call = Call(
        connection,
        lane.limits,
        bodiless=method == "HEAD",
        started_at=connection.loop.time(),
        patience_until=patience_until,
    )
    connection.send(head, body, call)
    try:
        await call.settled()
    except asyncio.CancelledError:
        call.give_up()
        raise
    if call.overdue and not call.complete:
        on_patience()
        await call.headed()
    return call


async def _connect(lane: Lane, patience_until: float, on_patience: Callable[[], None]) -> Connection:
    loop = asyncio.get_running_loop()
    connecting = loop.create_task(lane.pool.connect(lane.route.timeouts.connect_s))
    try:
        await asyncio.wait({connecting}, timeout=max(0.0, patience_until - loop.time()))
        if not connecting.done():
            on_patience()
        return await connecting
    finally:
        connecting.cancel()
