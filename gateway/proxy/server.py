"""aiohttp's server, with what a data plane needs.

That is: the one error shape for bytes that are no request, limits on connections that stay mute and on heads that
trickle or swell, and requests and replies that copy nothing (`inbound.py`). Everything else (parsing, pipelining,
keep-alive, flow control) is aiohttp's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR

from config.errors import AnswerableError
from gateway.proxy.errors import BadRequest, Busy, HeadTooLarge, RequestSlow
from gateway.proxy.exchange import Caller
from gateway.proxy.forwarded import Hop, Network, is_trusted
from gateway.proxy.framing import Cut, cut_request
from gateway.proxy.heads import Head
from gateway.proxy.inbound import Inbound, Reply, Whole, error_reply, new_request_id
from gateway.proxy.message import Message

HEADERS_MAX = 128
OWN_CONNECTIONS = 8  # beyond `connections_max`, for `/-/` only: a full worker still says how it is
IDLE_AT_LEAST_S = 0.1  # before a connection may be closed for another: its request may be on its way
KEEP_ALIVE_S = 75.0  # longer than a load balancer's usual 60 s, so that it, not we, closes
LINGERING_S = 2.0  # reading what a refused caller still sends, so that it gets to read the refusal


class Begun(NamedTuple):
    """A request that was begun without the task, and what is left to do for it."""

    request: Inbound
    work: Callable[[Inbound], Coroutine[Any, Any, Reply]]


class Wire(web.RequestHandler):
    """One caller's connection."""

    __slots__ = (
        "_cut",
        "_direct",
        "_ended",
        "_handle",
        "_head_bytes",
        "_head_since",
        "_made_at",
        "_owed_bytes",
        "_parked",
        "_seen",
        "certified",
        "hop",
    )

    def __init__(self, manager: DataPlane, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._head_since = 0.0
        self._head_bytes = 0
        self._made_at = 0.0
        self.certified: tuple[object, Caller] | None = None  # whom its certificate speaks for, and who has said so
        self.hop: Hop | None = None  # the other end, where it is a trusted proxy
        self._cut: Cut | None = None  # how the message that waits came
        self._owed_bytes: int | None = 0  # until the parser is between two messages; None: nobody knows any more
        self._handle = manager.handler
        self._seen = manager.seen
        self._direct = manager.direct
        self._parked: asyncio.Future[None] | None = None  # what the task waits for while a call goes without it
        self._ended = False  # no request follows the one that was answered without the task

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more connection, if there may be one more; from now on its first head is waited for."""
        plane = cast("DataPlane", self._manager)
        super().connection_made(transport)
        self._made_at = self._head_since = self._loop.time()
        if len(plane.wires) >= plane.connections_max:
            plane.make_room()
        if len(plane.wires) >= plane.connections_max + OWN_CONNECTIONS:
            self.refuse(plane.busy())
            return
        if len(plane.wires) >= plane.connections_max:
            self._handle, self._direct = plane.own_only, None
        plane.wires.add(self)
        self.hop = plane.hop(transport)

    @property
    def networks(self) -> Sequence[Network]:
        """Whose word about hops is believed."""
        plane = cast("DataPlane | None", self._manager)
        return () if plane is None else plane.networks

    def connection_lost(self, exc: BaseException | None) -> None:
        """One connection less."""
        plane = cast("DataPlane | None", self._manager)
        if plane is not None:
            plane.wires.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless the same head was parsed before, and watch the head that is on its way."""
        waiter = self._waiter
        waiting = waiter is not None and not self._messages
        idle = self._current_request is None and not self._messages
        message = cut_request(data) if idle and self._owed_bytes == 0 else None
        if message is not None and not (self._close or self._force_close):
            seen = self._seen(message, self.hop)
            if seen is not None:
                self._head_since = 0.0
                whole = Whole(data[message.at :], seen[1], message.passing)
                if waiter is not None and not waiter.done() and self._drive(seen[0], whole, waiter):
                    return
                self._messages.append(cast("Any", (seen[0], whole)))
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
                return
        super().data_received(data)
        self._settle(data, message, idle=idle)
        if self._messages:
            self._head_since, self._head_bytes = 0.0, 0
        if not waiting:
            self._tell_the_reader()
            return
        if self._messages:
            return
        plane = cast("DataPlane | None", self._manager)
        if plane is None:
            return
        self._head_since = self._head_since or self._loop.time()
        self._head_bytes += len(data)
        if self._head_bytes > plane.header_bytes_max:
            self.refuse(HeadTooLarge(f"the request's head is longer than {plane.header_bytes_max} bytes"))

    def _drive(self, head: Message, whole: Whole, waiter: asyncio.Future[None]) -> bool:
        """Have a request answered without the task, which goes on waiting where neither aiohttp nor bytes wake it."""
        direct, task = self._direct, self._task_handler
        if direct is None or task is None:
            return False
        request = Inbound(head, whole, self, task)
        self._waiter, self._parked = None, waiter
        self._request_in_progress, self._current_request = True, request
        if direct(request):
            return True
        self._waiter, self._parked = waiter, None
        self._request_in_progress, self._current_request = False, None
        return False

    def answered(self, request: Inbound, *, keep_alive: bool) -> None:
        """A request that was answered without the task is over."""
        request._finish()  # noqa: SLF001 - our own
        request._task = cast("Any", None)  # noqa: SLF001 - as in `_one`
        self._current_request = None
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():  # cancelled at the very end
            self._handler_waiter.set_result(None)
        waiter, self._parked = self._parked, None
        assert waiter is not None
        if keep_alive and not (self._close or self._force_close):
            self._keep()
            self._waiter = waiter
            if not self._messages:
                return
        else:
            self._ended = True
        if not waiter.done():
            waiter.set_result(None)

    def hand_over(self, request: Inbound, work: Callable[[Inbound], Coroutine[Any, Any, Reply]]) -> None:
        """Let the task go on with a request that was begun without it."""
        self._messages.appendleft(cast("Any", (Begun(request, work), request.stream)))
        waiter, self._parked = self._parked, None
        assert waiter is not None
        if not waiter.done():
            waiter.set_result(None)

    def _keep(self) -> None:
        """Wait for the next request, for a while."""
        self._keepalive = True
        self._next_keepalive_close_time = closes_at = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(closes_at, self._process_keepalive)

    def _settle(self, data: bytes, message: Cut | None, *, idle: bool) -> None:
        """Note whether the parser, which has read `data`, is between two messages: only then may it be passed by."""
        self._cut = None
        if self._owed_bytes is None:
            return
        if self._owed_bytes:
            owed = self._owed_bytes - len(data)
        else:
            end = data.find(b"\r\n\r\n") + 4
            head, _ = self._messages[-1] if idle and len(self._messages) == 1 else (None, None)
            if end < 4 or not isinstance(head, RawRequestMessage) or head.chunked or head.upgrade:
                self._owed_bytes = None
                return
            self._cut = message
            owed = end + int(head.headers.get("Content-Length", 0)) - len(data)
        self._owed_bytes = owed if owed >= 0 else None

    async def start(self) -> None:
        """Handle the connection's requests one after the other.

        As aiohttp's own, which makes a task and a writer for each request; these cost more than parsing it.
        """
        task = self._task_handler or cast("asyncio.Task[None]", asyncio.current_task())
        while not self._force_close:
            if not self._messages:
                try:
                    self._waiter = self._loop.create_future()
                    await self._waiter
                except asyncio.CancelledError:
                    under_way = cast("Inbound | None", self._current_request)
                    if under_way is not None and under_way.driven is not None:
                        under_way.driven.cancel()
                    raise
                finally:
                    self._waiter = None
                if self._ended:
                    break
            message, payload = self._messages.popleft()
            whole, self._cut = self._cut, None
            if self._parser is not None and not isinstance(payload, Whole):
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            try:
                if isinstance(message, Begun):
                    reply = await self._one(message.request, message.work)
                elif isinstance(message, RawRequestMessage):
                    reply = await self._one(Inbound(message, payload, self, task, whole), self._handle)
                else:
                    reply = await self._one(Inbound(ERROR, payload, self, task), self._make_error_handler(message))
                if not payload.is_eof():
                    await self._linger(payload)
            except ConnectionError:
                break
            except Exception:  # as aiohttp's: a fault of ours ends the connection, not the worker
                self.logger.exception("the data plane failed")
                self.force_close()
                break
            except BaseException:  # cancelled
                self.force_close()
                raise
            if not reply.keep_alive or self._close or self._force_close:
                break
            self._keep()
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _one(self, request: Inbound, handler: Callable[[Any], Any]) -> web.StreamResponse:
        """One request to its answer's end."""
        self._request_in_progress = True
        self._current_request = request
        try:
            try:
                reply = await handler(request)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets the one error shape, or a cut
                reply = self.handle_error(request, exc=error)
                if request.answering:
                    request.abort(reset=True)
                    reply = Reply(b"", keep_alive=False)
            finally:
                self._current_request = None
                request._finish()  # noqa: SLF001 - our own
            if self._upgraded:  # an upgrade that was refused: what came behind it is still to be parsed
                await self.finish_response(request, reply, None)
            else:
                await reply.send(request)
            return cast("web.StreamResponse", reply)
        finally:
            request._task = cast("Any", None)  # noqa: SLF001 - breaks a cycle: the task's frame holds the request
            self._request_in_progress = False
            if self._handler_waiter is not None and not self._handler_waiter.done():
                self._handler_waiter.set_result(None)

    async def _linger(self, payload: StreamReader) -> None:
        """Read on for a while and ignore it: a connection that is closed at once may take the answer with it."""
        with contextlib.suppress(TimeoutError, HttpProcessingError, web.RequestPayloadError):  # or it is malformed
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof() and not self._force_close:
                    await payload.readany()
        if not payload.is_eof() and not self._force_close:
            self.close()

    def tick(self, now: float, timeout_s: float) -> None:
        """Refuse a head that does not arrive within `timeout_s`; close a connection on which nothing came at all."""
        if not self._head_since or now - self._head_since <= timeout_s:
            return
        if not self._head_bytes:
            self.force_close()
        else:
            self.refuse(RequestSlow(f"the request's head did not arrive within {timeout_s:g} s"))

    @property
    def idle_since(self) -> float | None:
        """Since when nothing is asked here, on the loop's clock; None while a request is handled or waits to be."""
        if self._current_request is not None or self._messages:
            return None
        return max(self._made_at, self._next_keepalive_close_time - KEEP_ALIVE_S)

    def close_if_idle(self) -> None:
        """Close, unless a request is being handled or waits to be."""
        if self.idle_since is not None:
            self.force_close()

    def refuse(self, error: AnswerableError) -> None:
        """Answer bytes that are no request yet, and close."""
        self._head_since = 0.0
        transport = self.transport
        if transport is not None and not transport.is_closing():
            cast("DataPlane", self._manager).on_refusal(error)
            transport.write(error_reply(error, new_request_id(), keep_alive=False).data)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - the signature is aiohttp's
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """The answer to bytes that are no request, or to a fault of ours; the connection is closed after it."""
        if isinstance(exc, LineTooLong) or (isinstance(exc, BadHttpMessage) and exc.message.startswith("Too many")):
            error: AnswerableError = HeadTooLarge("the request's head has too many lines, or too long ones")
        elif isinstance(exc, HttpProcessingError):
            error = BadRequest(f"the request is not HTTP/1.1: {first_line(exc.message)}")
        else:
            self.logger.error("the data plane failed", exc_info=exc)
            error = AnswerableError("the gateway failed while handling this request")
        manager = self._manager
        if manager is not None and not cast("Inbound", request).admitted:
            cast("DataPlane", manager).on_refusal(error)
        return error_reply(error, new_request_id(), keep_alive=False)

    def _tell_the_reader(self) -> None:
        """Pass malformed framing on to whoever reads the body; aiohttp only queues it behind the request."""
        request = self._current_request
        if request is None or not self._messages:
            return
        last, _ = self._messages[-1]
        problem = getattr(last, "exc", None)
        stream = cast("Inbound", request).stream
        if isinstance(problem, HttpProcessingError) and not stream.is_eof() and stream.exception() is None:
            stream.set_exception(problem)


class DataPlane(web.Server):
    """Makes a `Wire` for each connection; `on_refusal(error)` counts what never became a request.

    `seen(cut, hop)` says what a head of these bytes means, if the parser has read one before, from the same hop.
    `direct(request)` answers such a request without a task, if it can.
    """

    def __init__(
        self,
        handler: Callable[[Inbound], Any],
        *,
        header_bytes_max: int,
        connections_max: int,
        on_refusal: Callable[[AnswerableError], None],
        seen: Callable[[Cut, Hop | None], tuple[Message, Head] | None],
        direct: Callable[[Inbound], bool] | None = None,
    ) -> None:
        super().__init__(cast("Any", handler), request_factory=cast("Any", Inbound))
        self.handler = handler
        self.seen = seen
        self.direct = direct
        self.networks: Sequence[Network] = ()
        self._proxy_header = b""
        self.header_bytes_max = header_bytes_max
        self.connections_max = connections_max
        self.on_refusal = on_refusal
        self.wires: set[Wire] = set()

    def __call__(self) -> web.RequestHandler:
        """The protocol of one more connection."""
        return Wire(
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGERING_S,
            max_line_size=self.header_bytes_max,
            max_field_size=self.header_bytes_max,
            max_headers=HEADERS_MAX,
            auto_decompress=False,  # what the caller compressed is evidence as it came
        )

    def trust(self, proxies: Sequence[str], header: str | None) -> None:
        """Believe these networks' word about hops, in the one header, on connections that are made from now on."""
        self.networks = tuple(ipaddress.ip_network(each) for each in proxies)
        self._proxy_header = (header or "").encode("ascii")

    def hop(self, transport: asyncio.BaseTransport) -> Hop | None:
        """The other end of a new connection, where it is a trusted proxy."""
        if not self.networks:
            return None
        name = transport.get_extra_info("peername")
        address = str(name[0]) if isinstance(name, tuple) else ""
        return Hop(address, self._proxy_header) if is_trusted(address, self.networks) else None

    def busy(self) -> Busy:
        """What a connection beyond the bound is told."""
        return Busy(f"{self.connections_max} connections are open on this worker")

    def make_room(self) -> None:
        """Close the connection that has been idle for longest, if one is: who only holds one keeps nobody out."""
        idle = [(since, wire) for wire in self.wires if (since := wire.idle_since) is not None]
        since, longest = min(idle, key=lambda pair: pair[0], default=(0.0, None))
        if longest is not None and self._loop.time() - since >= IDLE_AT_LEAST_S:
            self.wires.discard(longest)
            longest.force_close()

    async def own_only(self, request: Inbound) -> Reply:
        """Handle a request on one of the reserved connections: our own paths are answered, all else is refused."""
        if request.head.path.startswith("/-/"):
            return cast("Reply", await self.handler(request))
        error = self.busy()
        self.on_refusal(error)
        return error_reply(error, new_request_id(), keep_alive=False, body=request.head.method != "HEAD")

    def close_idle(self) -> None:
        """Close the connections on which nothing is asked; the others close after their answers."""
        for wire in list(self.wires):
            wire.close_if_idle()

    def tick(self, now: float, timeout_s: float) -> None:
        """Refuse every head that has been arriving for longer than `timeout_s`."""
        for wire in list(self.wires):
            wire.tick(now, timeout_s)


def first_line(text: str) -> str:
    """The first line of a parser's message, without the bytes it points at."""
    return text.splitlines()[0].rstrip(":") if text else "malformed"
