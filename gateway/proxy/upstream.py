"""One connection to a model endpoint: HTTP/1.1 over httptools, one call at a time.

A call wakes its waiter as seldom as it can: once when the answer is complete and short (the usual case), or earlier
when something must be decided: the answer is a stream, has grown past the buffer, has failed, or a deadline has
passed. Deadlines are kept by the pool's one ticker, not by a timer a call.

What counts as complete: Content-Length met, the last chunk seen, or the connection closed where the answer has
neither (RFC 9112 §6.3). Everything else that ends is a cut, and raises. An interim answer (1xx) is skipped; a 101
that nobody asked for is malformed. Bytes after the answer's end close the connection instead of meeting the next
caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from config.settings import Timeouts
from gateway.proxy.errors import UpstreamFailed, UpstreamSlow
from gateway.proxy.headers import lowered
from gateway.proxy.limits import Budget

HEAD_BYTES_MAX = 64 * 1024  # of an answer; llhttp itself sets no bound
HEADERS_MAX = 256
WINDOW_BYTES = 128 * 1024  # read ahead of a slow caller, then the upstream is paused
EVENT_STREAM = b"text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a call: more than `buffer_bytes` of answer, or a full `budget`, makes it a stream."""

    buffer_bytes: int
    timeouts: Timeouts
    budget: Budget


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
        "headers",
        "last_byte_at",
        "limits",
        "overdue",
        "patience_until",
        "received_bytes",
        "started_at",
        "status",
        "until_closed",
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

    async def settled(self) -> None:
        """Return when the answer is complete, or is to be streamed, or patience is over. True then: one of these.

        Raises:
            UpstreamFailed, UpstreamSlow: it broke off before its end, or a deadline passed.
        """
        while not (self.complete or self.error or self.overdue or self.streams):
            await self._woken()
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
        """Let the waiter look again."""
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
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES_MAX or len(self.headers) >= HEADERS_MAX:
            raise ValueError("the answer's headers are too large")
        self.headers.append((name, value.rstrip(b" \t")))

    def head_complete(self, status: int) -> None:
        self.status = status
        chunked = False
        for name, value in self.headers:
            match lowered(name):
                case b"content-length":
                    self.declared_bytes = int(value)
                case b"transfer-encoding":
                    if value.lower() != b"chunked":
                        raise ValueError("the answer has a transfer coding other than chunked")
                    chunked = True
                case b"content-type":
                    self.event_stream = value[: len(EVENT_STREAM)].lower() == EVENT_STREAM
        if status in (204, 304):
            self.bodiless = True
        self.until_closed = not (self.bodiless or chunked or self.declared_bytes is not None)
        if self.eager or self.streams:
            self.wake()

    def body(self, data: bytes) -> None:
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


class Connection(asyncio.Protocol):
    """A socket to one upstream; `on_free(connection)` is called when a call has ended and another may follow."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_free: Callable[[Connection], None]) -> None:
        self.loop = loop
        self.on_free = on_free
        self.transport: asyncio.Transport | None = None
        self.call: Call | None = None
        self.used = False
        self.idle_since = 0.0
        self.keep_s: float | None = None  # what a Keep-Alive header of the upstream promises
        self._parser = httptools.HttpResponseParser(self)
        self.paused = False
        self._keeps_alive = False
        self._unframed = False  # the answer under way has no body whatever its head says
        self._closed = asyncio.Event()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's share no base class with asyncio's

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:  # an upstream that talks unasked would have its words taken for the next answer
            self.abort()
            return
        call.last_byte_at = self.loop.time()
        if not call.first_byte_at:
            call.first_byte_at = call.last_byte_at
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed(call, error)
        else:
            if self._unframed and not call.complete:  # the parser cannot know that an answer to HEAD ends here
                self._parser = httptools.HttpResponseParser(self)
                self._finish(call, reusable=self._keeps_alive)

    def eof_received(self) -> bool:
        return False  # closes our side too

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._closed.set()
        call = self.call
        self.call = None
        if call is None or call.complete:
            self.on_free(self)
            return
        if call.status and call.until_closed and exc is None and call.error is None:
            call.complete = True
            call.wake()
        else:
            began = call.first_byte_at > 0
            code = "upstream_cut" if began else "upstream_no_answer"
            text = (
                "the model endpoint broke off in mid-answer" if began else "the model endpoint closed without answering"
            )
            call.fail(UpstreamFailed(text, code=code, sent=True))
        self.on_free(self)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.call is not None:
            self.call.header(name, value)

    def on_headers_complete(self) -> None:
        call = self.call
        if call is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise ValueError("switched protocols unasked")
            call.headers = []
            return
        self._keeps_alive = self._parser.should_keep_alive()
        self._unframed = call.bodiless
        call.head_complete(status)

    def on_body(self, data: bytes) -> None:
        if self.call is not None:
            self.call.body(data)

    def on_message_complete(self) -> None:
        call = self.call
        if call is not None and call.status:
            self._finish(call, reusable=self._keeps_alive)

    def on_message_begin(self) -> None:
        if self.call is None:  # bytes after the end of an answer
            raise ValueError("an answer that nobody asked for")

    # the pool and the handler

    def send(self, head: bytes, body: bytes, call: Call) -> None:
        """Write one request; its answer will arrive in `call`."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise UpstreamFailed("the connection to the model endpoint is gone", code="upstream_gone")
        self.call = call
        self.used = True
        self._unframed = False
        if len(body) <= 16 * 1024:  # one system call; larger bodies are not worth copying
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    def pause(self) -> None:
        """Stop reading until `resume`: the caller is slower than the upstream."""
        if not self.paused and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.paused and self.transport is not None:
            self.paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def alive(self) -> bool:
        """Whether another call may be tried on it."""
        return self.transport is not None and not self.transport.is_closing()

    async def closed(self) -> None:
        """Return when the socket is closed."""
        await self._closed.wait()

    def _finish(self, call: Call, *, reusable: bool) -> None:
        self.call = None
        call.complete = True
        call.wake()
        for name, value in call.headers:
            if lowered(name) == b"keep-alive":
                self.keep_s = keep_alive_s(value)
        self.resume()
        if reusable:
            self.on_free(self)
        else:
            self.abort()

    def _malformed(self, call: Call, error: Exception) -> None:
        if call.complete:
            self.abort()
            return
        why = error.__context__ if isinstance(error.__context__, ValueError) else error
        call.fail(
            UpstreamFailed(f"the model endpoint's answer is not HTTP/1.1: {why}", code="upstream_malformed", sent=True)
        )


def keep_alive_s(value: bytes) -> float | None:
    """Seconds that a `Keep-Alive: timeout=N` header promises, or None."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit():
            return float(number)
    return None
