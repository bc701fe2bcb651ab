"""One request on its way to a model, and what came back so far.

A call wakes its waiter as seldom as it can: once when the answer is complete and short (the usual case), or earlier
when something must be decided: the answer is a stream, has grown past the buffer, has failed, or a deadline has
passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.route import Timeouts
from gateway.proxy.answerheads import AnswerHead, AnswerHeads, SeenAnswer
from gateway.proxy.errors import UpstreamFailed, UpstreamSlow
from gateway.proxy.limits import Budget

if TYPE_CHECKING:  # each names the other; at run time only the connection needs the call
    from gateway.proxy.upstream import Connection

HEAD_BYTES_MAX = 64 * 1024  # of an answer; llhttp itself sets no bound
HEADERS_MAX = 256
WINDOW_BYTES = 128 * 1024  # read ahead of a slow caller, then the upstream is paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a call: more than `buffer_bytes` of answer, or a full `budget`, makes it a stream.

    `heads` knows what the heads of its answers mean.
    """

    buffer_bytes: int
    timeouts: Timeouts
    budget: Budget
    heads: AnswerHeads


class Call:
    """One request on its way and what came back so far; made by `Connection.send`, read by one waiter.

    After `await call.headed()`: `status`, `headers`, and `complete` or not. Then `take()` until it returns b"".
    Times are of the loop's clock, in seconds.
    """

    __slots__ = (
        "_chunks",
        "_head_bytes",
        "_loop",
        "_waiter",
        "bodiless",
        "buffered_bytes",
        "complete",
        "connection",
        "declared_bytes",
        "eager",
        "error",
        "event_stream",
        "first_byte_at",
        "head",
        "headers",
        "last_byte_at",
        "limits",
        "overdue",
        "patience_until",
        "received_bytes",
        "started_at",
        "status",
        "until_closed",
        "watcher",
    )

    def __init__(
        self, connection: Connection, limits: Limits, *, bodiless: bool, started_at: float, patience_until: float
    ) -> None:
        self._loop = connection.loop
        self.connection = connection
        self.limits = limits
        self.bodiless = bodiless
        self.started_at = started_at
        self.patience_until = patience_until
        self.overdue = False
        self.eager = False  # wake at every piece: somebody passes them on
        self.status = 0
        self.head: AnswerHead | None = None  # as soon as there is a status
        self.headers: list[tuple[bytes, bytes]] = []
        self.declared_bytes: int | None = None
        self.until_closed = False
        self.event_stream = False
        self.complete = False
        self.error: UpstreamFailed | UpstreamSlow | None = None
        self.received_bytes = 0
        self.buffered_bytes = 0
        self.first_byte_at = 0.0
        self.last_byte_at = 0.0
        self._head_bytes = 0
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.watcher: Callable[[], None] | None = None  # called once, where nobody waits for `settled` yet

    async def settled(self) -> None:
        """Return when the answer is complete, or is to be streamed, or patience is over. True then: one of these.

        Raises:
            UpstreamFailed, UpstreamSlow: it broke off before its end, or a deadline passed.
        """
        while not (self.complete or self.error or self.overdue or self.streams):
            waiter = self._waiter = self._loop.create_future()
            await waiter
        if self.error is not None:
            raise self.error
        self.eager = True

    async def headed(self) -> None:
        """Return when status and headers are there.

        Raises:
            UpstreamFailed, UpstreamSlow: as `settled`.
        """
        while not (self.status or self.error):
            await self._woken()
        if self.error is not None:
            raise self.error

    async def held(self) -> None:
        """Return when the answer is complete, or its head or size says that it is no short one; however long it takes.

        Raises:
            UpstreamFailed, UpstreamSlow: as `settled`.
        """
        self.eager = False  # until somebody takes pieces, nothing but these two is news
        self.connection.resume()
        while not (self.complete or self.error or self.streams):
            await self._woken()
        self.eager = True
        if self.error is not None:
            raise self.error

    @property
    def streams(self) -> bool:
        """Whether the answer's head or size already says that it is not a short one."""
        if not self.status:
            return False
        limits = self.limits
        return (
            self.event_stream
            or self.buffered_bytes > limits.buffer_bytes
            or (self.declared_bytes or 0) > limits.buffer_bytes
            or limits.budget.full
        )

    async def take(self) -> bytes:
        """The bytes that have come since the last time, at least one; b"" once the answer is complete.

        Raises:
            UpstreamFailed, UpstreamSlow: as `settled`; what came before the failure is returned first.
        """
        while not self._chunks:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            await self._woken()
        return self.drain()

    def drain(self) -> bytes:
        """What is there now, without waiting."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.limits.budget.give_back(self.buffered_bytes)
        self.buffered_bytes = 0
        self.connection.resume()
        return data

    def give_up(self) -> None:
        """Nobody will take what is still to come: close the connection unless the answer is complete."""
        self.drain()
        if not self.complete:
            self.fail(UpstreamFailed("given up by the gateway", code="given_up", sent=True))

    def wake(self) -> None:
        """Let the waiter look again, or the watcher."""
        watcher = self.watcher
        if watcher is not None:
            self.watcher = None
            watcher()
            return
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: UpstreamFailed | UpstreamSlow) -> None:
        """End the call without its end; the connection is of no more use."""
        if self.complete or self.error is not None:
            return
        self.error = error
        self.wake()
        self.connection.abort()

    async def _woken(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    # what the connection reports

    def header(self, name: bytes, value: bytes) -> None:
        """One header line; ValueError where there are too many."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES_MAX or len(self.headers) >= HEADERS_MAX:
            raise ValueError("the answer's headers are too large")
        if self.status:  # a trailer, which must not be taken for a header
            return
        self.headers.append((name, value.rstrip(b" \t")))

    def head_complete(self, status: int) -> None:
        """The head is whole; ValueError where its framing is not one that we can pass on."""
        head = self.head = self.limits.heads.of(status, self.headers)
        self.status = status
        self.declared_bytes = head.declared_bytes
        self.event_stream = head.event_stream
        if status in (204, 304):
            self.bodiless = True
        self.until_closed = not (self.bodiless or head.chunked or self.declared_bytes is not None)
        if self.eager or self.streams:
            self.wake()

    def head_seen(self, seen: SeenAnswer, digits: bytes) -> None:
        """The same where this head was met before; `digits` are those of its Content-Length."""
        self.headers = seen.headers(digits)
        self.head = seen.head
        self.status = seen.status
        self.declared_bytes = int(digits)
        if self.eager:
            self.wake()

    def body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.bodiless:
            raise ValueError("a body where none may be")
        self._chunks.append(data)
        count = len(data)
        self.received_bytes += count
        self.buffered_bytes += count
        budget = self.limits.budget
        budget.add(count)
        if self.eager or self.buffered_bytes > self.limits.buffer_bytes or budget.full:
            self.wake()
            if self.buffered_bytes > WINDOW_BYTES or budget.full:
                self.connection.pause()
