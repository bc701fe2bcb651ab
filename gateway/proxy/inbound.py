"""Requests and replies of the data plane, which copy nothing.

`Inbound` and `Reply` stand in for aiohttp's request and response: the head stays raw bytes, and a reply is written
as one piece. They lean on a few of aiohttp's private names, as `server.py` does.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, cast

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.streams import StreamReader

from config.errors import AnswerableError
from gateway.proxy.errors import Forbidden, NotRepeated, TooMany
from gateway.proxy.forwarded import client
from gateway.proxy.framing import Cut
from gateway.proxy.headers import status_line
from gateway.proxy.message import Message
from gateway.proxy.passing import Passing, passing

if TYPE_CHECKING:  # they need requests at run time, and a request does not need them
    from gateway.proxy.direct import Driven
    from gateway.proxy.heads import Head
    from gateway.proxy.server import Wire

RETRY_AFTER_S = 1
STALLED_S = 60.0  # a caller that takes nothing for so long is cut
_LINGER_NOT = struct.pack("ii", 1, 0)  # close with RST, whatever is unsent


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate as the handshake left it: hex SHA-256 of its DER bytes, its subject alternative names.

    A name comes with its type as `ssl` gives it: DNS, URI, email, …
    """

    sha256: str
    names: tuple[tuple[str, str], ...]


class Whole:
    """The body of a request whose head was seen before: all of it is there. In the place of aiohttp's stream."""

    __slots__ = ("body", "passing", "seen")

    def __init__(self, body: bytes, seen: Head, passing: Passing) -> None:
        self.body = body
        self.seen = seen
        self.passing = passing

    def is_eof(self) -> bool:
        """Nothing is still to come."""
        return True

    def exception(self) -> BaseException | None:
        """What is there cannot break any more."""
        return None

    def set_exception(self, exc: BaseException) -> None:
        """The caller is gone: nobody reads here who would have to be told."""


class Inbound(web.BaseRequest):
    """One request: the parsed head, the body's stream, and whether the caller is still there.

    `on_gone` is called once when the caller's connection is lost while the request is being handled.
    """

    def __init__(
        self,
        message: Message,
        payload: StreamReader | Whole,
        protocol: web.RequestHandler,
        task: asyncio.Task[None],
        cut: Cut | None = None,
    ) -> None:
        """`cut` is how the request came, where it came whole and was parsed."""
        # aiohttp's own __init__ looks up addresses and TLS state that nobody here asks for
        self._payload = cast("StreamReader", payload)
        self._protocol = protocol
        self._task = task
        self.head = message
        self.stream = payload
        self.cut = cut
        self.gone = False
        self.admitted = False  # from then on what goes wrong is a call's end, no refusal
        self.answering = False  # something of the answer was written: no other answer can take its place
        self.on_gone: Callable[[], None] | None = None
        self.driven: Driven | None = None  # who answers it without a task

    @property
    def remote(self) -> str | None:
        """Unknown to whoever asks as aiohttp does: an address may name a person, and is never recorded."""
        return None

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection: for `metrics.allow`, and for the log where it may hold it."""
        transport = self._protocol.transport
        name = None if transport is None else transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else None

    @property
    def passing(self) -> Passing:
        """What names this one call and passes on."""
        stream = self.stream
        return stream.passing if isinstance(stream, Whole) else passing(self.head.raw_headers)

    @property
    def wire(self) -> Wire:
        """The connection that it came on."""
        return cast("Wire", self._protocol)

    @property
    def client(self) -> str | None:
        """The caller's address: the other end of the connection, or whom the trusted proxies there name."""
        wire = self.wire
        if wire.hop is None:
            return self.peer
        return client(wire.hop, self.head.raw_headers, wire.networks)

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the caller's connection has shown, checked by the handshake."""
        transport = self._protocol.transport
        tls: ssl.SSLObject | None = None if transport is None else transport.get_extra_info("ssl_object")
        raw = None if tls is None else tls.getpeercert(binary_form=True)
        if tls is None or raw is None:
            return None
        named = cast("dict[str, tuple[tuple[str, str], ...]]", tls.getpeercert() or {})
        return Certificate(sha256(raw).hexdigest(), tuple(named.get("subjectAltName", ())))

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow on this connection (RFC 9112 §9.3)."""
        return not self.head.should_close and self.head.version.minor >= 1

    @property
    def speaks_chunks(self) -> bool:
        """Whether a body without a known length can be framed for this caller (RFC 9112 §7)."""
        return bool(self.head.version.minor >= 1)

    def whole_body(self) -> bytes:
        """The body, all of which is there."""
        stream = self.stream
        if isinstance(stream, Whole):
            return stream.body
        if not stream.total_bytes:
            return b""
        if self._protocol._reading_paused or stream.exception() is not None:  # noqa: SLF001
            return stream.read_nowait()
        # reading by the stream's own method asks the connection each time to resume what was never paused
        buffer = stream._buffer  # noqa: SLF001
        return buffer[0] if len(buffer) == 1 else b"".join(buffer)

    def write(self, data: bytes) -> bool:
        """Hand bytes of the answer to the socket; false if the caller is gone."""
        self.answering = True
        return self.interim(data)

    def interim(self, data: bytes) -> bool:
        """Hand bytes to the socket that come before the answer; false if the caller is gone."""
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            self.gone = True
            return False
        transport.write(data)
        return True

    async def drained(self) -> None:
        """Return when the caller has taken enough that more may be written, or is gone.

        One that takes nothing for `STALLED_S` is cut: it would hold memory for ever.
        """
        if self.gone or not self._protocol.writing_paused:  # aiohttp's waiter cannot be awaited twice once cancelled
            return
        try:
            async with asyncio.timeout(STALLED_S):
                await self._protocol._drain_helper()  # noqa: SLF001 - what aiohttp's own writer would call
        except (ConnectionError, TimeoutError):
            self.gone = True
            self.abort()

    def abort(self, *, reset: bool = False) -> None:
        """Cut the connection; with `reset` by RST, where closing would look like the end of the answer."""
        transport = self._protocol.transport
        if transport is None:
            return
        if reset:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()

    def _cancel(self, exc: BaseException) -> None:
        if isinstance(exc, asyncio.CancelledError):  # the worker ends and cancels the handler next
            return
        self.gone = True
        self._payload.set_exception(exc)
        if self.on_gone is not None:
            self.on_gone()

    def _finish(self) -> None:
        self.on_gone = None


class Reply(web.StreamResponse):
    """One answer, head and body as they go onto the wire; empty bytes where all was written before."""

    def __init__(self, data: bytes, *, keep_alive: bool) -> None:
        # aiohttp's own __init__ builds header maps; here the head is bytes already
        self.data = data
        self._keep_alive = keep_alive
        self._status = 200
        self._eof_sent = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it."""
        await self.send(cast("Inbound", request))
        return None

    async def send(self, request: Inbound) -> None:
        """Write it; returns when the caller has taken enough that more may be written."""
        if self.data and request.write(self.data):
            await request.drained()

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - the signature is aiohttp's
        """Nothing is left to write."""
        self._eof_sent = True


def error_body(error: AnswerableError, request_id: str) -> bytes:
    """The one error shape."""
    return orjson.dumps(error.as_json(request_id))


def error_lines(error: AnswerableError, *, extra: bytes = b"") -> bytes:
    """Status line and header lines of an error, without framing; `extra` are whole lines."""
    return b"%bContent-Type: application/json\r\nCache-Control: no-store\r\n%b" % (status_line(error.status), extra)


def error_reply(
    error: AnswerableError, request_id: str, *, keep_alive: bool, extra: bytes = b"", body: bool = True
) -> Reply:
    """The one error shape as an answer; `extra` are whole header lines; without `body` for an answer to HEAD."""
    shape = error_body(error, request_id)
    lines = [error_lines(error, extra=extra)]
    if error.status == 401:
        lines.append(b'WWW-Authenticate: Bearer realm="answerable"\r\n')
    if isinstance(error, Forbidden):
        lines.append(b"WWW-Authenticate: %b\r\n" % error.challenge.encode("ascii"))
    if isinstance(error, TooMany):
        fields = error.policy.encode("ascii"), error.state.encode("ascii")
        lines.append(b"RateLimit-Policy: %b\r\nRateLimit: %b\r\n" % fields)
    retry_after_s = getattr(error, "retry_after_s", RETRY_AFTER_S if error.status in (429, 503) else None)
    if retry_after_s is not None:
        lines.append(b"Retry-After: %d\r\n" % retry_after_s)
    if isinstance(error, NotRepeated):
        lines.append(b"Decision-Id: %b\r\n" % error.decision.encode("ascii"))
    if not keep_alive:
        lines.append(b"Connection: close\r\n")
    lines.append(b"Content-Length: %d\r\n\r\n" % len(shape))
    return Reply(b"".join(lines) + (shape if body else b""), keep_alive=keep_alive)


def new_request_id() -> str:
    """An id for a request that got no Decision-Id."""
    return secrets.token_hex(8)
