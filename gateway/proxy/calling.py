"""Asking the model: one connection, one attempt; a second one only where the first cannot have been seen.

A request on a kept connection that closes before a byte came back is sent once more where its method is idempotent
(RFC 9110 §9.2.2). A POST is not: it may have run. A connection known to be closed before anything was written is no
attempt at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.proxy.errors import UpstreamFailed
from gateway.proxy.lanes import Lane
from gateway.proxy.upstream import Call, Connection

PATIENCE_S = 1.0  # an answer that is not complete by then is begun in the journal, and streamed
REPEATABLE = frozenset({"upstream_no_answer", "upstream_gone"})
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


@dataclass(frozen=True, slots=True)
class Asking:
    """One request as the model gets it: `head` is everything up to and with the empty line."""

    method: str
    head: bytes
    body: bytes


async def ask(
    lane: Lane,
    asking: Asking,
    *,
    received_at: float,
    on_sent: Callable[[Call], None],
    on_patience: Callable[[], None],
) -> Call:
    """Send the request and return its call once it is settled (see `Call.settled`).

    `received_at` is on the loop's clock; `on_sent(call)` is called at each attempt; `on_patience()` when `PATIENCE_S`
    have passed since `received_at` without a complete answer, even while there is no connection yet.

    Raises:
        UpstreamFailed, UpstreamSlow: no connection, or it broke off, or a deadline passed, before the call was settled.
    """
    patience_until = received_at + PATIENCE_S
    kept = lane.pool.idle()
    if kept is not None:
        try:
            return await _attempt(kept, lane, asking, patience_until, on_sent, on_patience)
        except UpstreamFailed as error:
            may_repeat = asking.method in IDEMPOTENT or not error.sent
            if error.code not in REPEATABLE or not may_repeat:
                raise
    fresh = await _connect(lane, patience_until, on_patience)
    return await _attempt(fresh, lane, asking, patience_until, on_sent, on_patience)


async def _attempt(
    connection: Connection,
    lane: Lane,
    asking: Asking,
    patience_until: float,
    on_sent: Callable[[Call], None],
    on_patience: Callable[[], None],
) -> Call:
    call = Call(
        connection,
        lane.limits,
        bodiless=asking.method == "HEAD",
        started_at=connection.loop.time(),
        patience_until=patience_until,
    )
    on_sent(call)
    connection.send(asking.head, asking.body, call)
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
