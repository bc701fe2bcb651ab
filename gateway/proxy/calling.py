"""Asking the model: one connection, one attempt; a second one only where the first cannot have been seen.

A request on a kept connection that closes before a byte came back is sent once more where its method is idempotent
(RFC 9110 §9.2.2). A POST is not: it may have run. A connection known to be closed before anything was written is no
attempt at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.proxy.call import Call
from gateway.proxy.errors import UpstreamFailed
from gateway.proxy.lanes import Lane
from gateway.proxy.upstream import Connection

PATIENCE_S = 1.0  # an answer that is not complete by then is begun in the journal, and streamed
REPEATABLE = frozenset({"upstream_no_answer", "upstream_gone"})
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


@dataclass(frozen=True, slots=True)
class Asking:
    """One request as the model gets it: `head` is everything up to and with the empty line."""

    method: str
    head: bytes
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who is told: `on_sent(call)` at each attempt; `on_patience()` when `patience_until` (loop's clock) has passed."""

    patience_until: float
    on_sent: Callable[[Call], None]
    on_patience: Callable[[], None]


async def ask(lane: Lane, asking: Asking, watching: Watching) -> Call:
    """Send the request and return its call once it is settled (see `Call.settled`).

    `on_patience` is called where the answer is not complete by `patience_until`, even while there is no connection yet.

    Raises:
        UpstreamFailed, UpstreamSlow: no connection, or it broke off, or a deadline passed, before the call was settled.
    """
    kept = lane.pool.idle()
    if kept is not None:
        try:
            return await _attempt(kept, lane, asking, watching)
        except UpstreamFailed as error:
            may_repeat = asking.method in IDEMPOTENT or not error.sent
            if error.code not in REPEATABLE or not may_repeat:
                raise
    fresh = await _connect(lane, watching)
    return await _attempt(fresh, lane, asking, watching)


async def _attempt(connection: Connection, lane: Lane, asking: Asking, watching: Watching) -> Call:
    call = Call(
        connection,
        lane.limits,
        bodiless=asking.method == "HEAD",
        started_at=connection.loop.time(),
        patience_until=watching.patience_until,
    )
    watching.on_sent(call)
    connection.send(asking.head, asking.body, call)
    try:
        await call.settled()
    except asyncio.CancelledError:
        call.give_up()
        raise
    if call.overdue and not call.complete:
        watching.on_patience()
        await call.headed()
    return call


async def _connect(lane: Lane, watching: Watching) -> Connection:
    loop = asyncio.get_running_loop()
    connecting = loop.create_task(lane.pool.connect(lane.route.timeouts.connect_s))
    try:
        await asyncio.wait({connecting}, timeout=max(0.0, watching.patience_until - loop.time()))
        if not connecting.done():
            watching.on_patience()
        return await connecting
    finally:
        connecting.cancel()
