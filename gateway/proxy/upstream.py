"""One connection to a model endpoint: HTTP/1.1 over httptools, one call at a time.

What counts as complete: Content-Length met, the last chunk seen, or the connection closed where the answer has
neither (RFC 9112 §6.3). Everything else that ends is a cut, and raises. An interim answer (1xx) is skipped; a 101
that nobody asked for is malformed. Bytes after the answer's end close the connection instead of meeting the next
caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from gateway.proxy.answerheads import SeenAnswer
from gateway.proxy.call import Call
from gateway.proxy.errors import UpstreamFailed
from gateway.proxy.framing import Cut, cut
from gateway.proxy.headers import lowered


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
        """The socket is there."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's share no base class with asyncio's

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        call = self.call
        if call is None:  # an upstream that talks unasked would have its words taken for the next answer
            self.abort()
            return
        call.last_byte_at = self.loop.time()
        answer: Cut | None = None
        if not call.first_byte_at:
            call.first_byte_at = call.last_byte_at
            answer = None if call.bodiless else cut(data)
            if answer is not None and self._is_seen(call, answer, data):
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed(call, error)
        else:
            if self._unframed and not call.complete:  # the parser cannot know that an answer to HEAD ends here
                self._parser = httptools.HttpResponseParser(self)
                self._finish(call, reusable=self._keeps_alive)
            elif answer is not None:
                self._see(call, answer)

    def eof_received(self) -> bool:
        """The upstream sends no more; our side is closed too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection: of the answer too where it has no other, else a cut."""
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
        """A header line, or one of a trailer, which ends here (RFC 9110 §6.5.1)."""
        if self.call is not None:
            self.call.header(name, value)

    def on_headers_complete(self) -> None:
        """The head, or an interim one."""
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
        """A piece of the body, its framing taken off."""
        if self.call is not None:
            self.call.body(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        call = self.call
        if call is not None and call.status:
            self._finish(call, reusable=self._keeps_alive, keep_s=_promised_s(call))

    def on_message_begin(self) -> None:
        """An answer begins; ValueError where nothing was asked."""
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

    def _is_seen(self, call: Call, answer: Cut, data: bytes) -> bool:
        """Take a whole answer whose head was met before; False, and nothing was done, if it was not."""
        seen = call.limits.heads.find(answer)
        if seen is None or len(data) > call.limits.buffer_bytes:
            return False
        call.head_seen(seen, answer.digits)
        if len(data) > answer.at:
            call.body(data[answer.at :])
        self._finish(call, reusable=True, keep_s=seen.keep_s)
        return True

    def _see(self, call: Call, answer: Cut) -> None:
        """Remember the head of an answer that was whole in the first bytes that came, and leaves all as it was."""
        head = call.head
        if head is None or not (call.complete and self._keeps_alive and answer.digits) or call.bodiless:
            return
        if head.declared_bytes == call.received_bytes and not (head.chunked or head.event_stream):
            call.limits.heads.see(answer, SeenAnswer(call.status, call.headers, head, keep_s=_promised_s(call)))

    def _finish(self, call: Call, *, reusable: bool, keep_s: float | None = None) -> None:
        self.call = None
        call.complete = True
        call.wake()
        if keep_s is not None:
            self.keep_s = keep_s
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


def _promised_s(call: Call) -> float | None:
    for name, value in call.headers:
        if lowered(name) == b"keep-alive":
            return keep_alive_s(value)
    return None


def keep_alive_s(value: bytes) -> float | None:
    """Seconds that a `Keep-Alive: timeout=N` header promises, or None."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit():
            return float(number)
    return None
