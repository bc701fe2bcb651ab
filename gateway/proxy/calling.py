"""Asking the model: one connection, one attempt; a second one only where the first cannot have been seen.

A request on a kept connection that closes before a byte came back is sent once more where its method is idempotent
(RFC 9110 §9.2.2). A POST is not: it may have run. A connection known to be closed before anything was written is no
attempt at all. Another replica is asked only where no byte of the request was written to the first.
"""

from __future__ import annotations

import asyncio

from gateway.proxy.answers import Answer
from gateway.proxy.call import Call
from gateway.proxy.errors import UpstreamFailed, UpstreamSlow
from gateway.proxy.idempotency import IDEMPOTENT
from gateway.proxy.pool import Pool
from gateway.proxy.replicas import Seat
from gateway.proxy.upstream import Connection

REPEATABLE = frozenset({"upstream_no_answer", "upstream_gone"})


async def ask(answer: Answer, pool: Pool, method: str, head: bytes, body: bytes, *, begun: Call | None = None) -> Call:
    """Send the request to the endpoint of `pool` and return its call once it is settled (see `Call.settled`).

    `head` is everything up to and with the empty line. `answer.late()` is called where the call is not complete by
    `answer.patience_until`, even while there is no connection yet. `begun` is the first attempt, where it was made.

    Raises:
        UpstreamFailed, UpstreamSlow: no connection, or it broke off, or a deadline passed, before the call was settled.
    """
    kept = None if begun is not None else pool.idle()
    if begun is not None or kept is not None:
        try:
            if begun is None:
                assert kept is not None
                begun = send(kept, answer, method, head, body)
            return await _settled(begun, answer)
        except UpstreamFailed as error:
            may_repeat = method in IDEMPOTENT or not error.sent
            if error.code not in REPEATABLE or not may_repeat:
                raise
    fresh = await _connect(answer, pool)
    return await _settled(send(fresh, answer, method, head, body), answer)


async def ask_one_of(seat: Seat, answer: Answer, method: str, head: bytes, body: bytes) -> Call:
    """As `ask`, at the seat's replica; at another one where the request never left for the first.

    Raises:
        UpstreamFailed, UpstreamSlow: of the last replica that was tried.
    """
    while True:
        answer.origin = seat.replica.pool.origin
        try:
            call = await ask(answer, seat.replica.pool, method, seat.head(head), body)
        except (UpstreamFailed, UpstreamSlow) as error:
            if not seat.failed(error):
                raise
        else:
            seat.answered(call)
            return call


def send(connection: Connection, answer: Answer, method: str, head: bytes, body: bytes) -> Call:
    """Write the request; its call, whose answer is still to come.

    Raises:
        UpstreamFailed: the connection is gone, and nothing was written.
    """
    call = answer.call = Call(
        connection,
        answer.lane.limits,
        bodiless=method == "HEAD",
        started_at=connection.loop.time(),
        patience_until=answer.patience_until,
    )
    connection.send(head, body, call)
    return call


async def _settled(call: Call, answer: Answer) -> Call:
    try:
        await call.settled()
    except asyncio.CancelledError:
        call.give_up()
        raise
    if call.overdue and not call.complete:
        answer.late()
        await call.headed()
    return call


async def _connect(answer: Answer, pool: Pool) -> Connection:
    loop = asyncio.get_running_loop()
    connecting = loop.create_task(pool.connect(answer.lane.route.timeouts.connect_s))
    try:
        await asyncio.wait({connecting}, timeout=max(0.0, answer.patience_until - loop.time()))
        if not connecting.done():
            answer.late()
        return await connecting
    finally:
        connecting.cancel()
