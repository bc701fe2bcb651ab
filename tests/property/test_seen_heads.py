"""What is taken from a known head is what the parser would have made of the same bytes, however they come in pieces."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.route import Timeouts
from gateway.proxy.answerheads import AnswerHeads
from gateway.proxy.call import Call, Limits
from gateway.proxy.framing import Cut
from gateway.proxy.inbound import Inbound, Reply
from gateway.proxy.limits import Budget
from gateway.proxy.passing import NAMES
from gateway.proxy.server import DataPlane
from gateway.proxy.upstream import Connection

LENGTHS = st.sampled_from(["Content-Length: {n}", "content-length: {n}", "Content-Length:{n}", "CONTENT-LENGTH: {n}"])
ODD = st.sampled_from(
    [
        "Content-Length: {n}\r\nContent-Length: {n}",
        "Content-Length: {n}\r\ncontent-length: 3",
        "Transfer-Encoding: chunked",
        "Content-Length: {n}\r\nTransfer-Encoding: chunked",
        "X: a\r\n b\r\nContent-Length: {n}",
        "X: \r\n\r\nContent-Length: {n}",
        "Content-Length: {n}\r\nConnection: close",
        "Content-Length: {n}\nX: 1",
        "X: 1",
    ]
)
OF_ONE_CALL = st.builds(
    "{}{}\\r\\n".format,
    st.sampled_from(
        ["X-Request-Id: ", "x-request-id: ", "X-Request-Id:", "traceparent: ", "Traceparent: ", "tracestate: "]
    ),
    st.sampled_from(["1", "2", "a b", "\u00e9", "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "00-" + "3" * 55, ""]),
)
BODIES = st.sampled_from([b"", b"ab", b"0123456789", b"a\r\n\r\nb", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
HABITS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def requests(draw: Any) -> bytes:
    body = draw(BODIES)
    length = draw(st.one_of(LENGTHS, LENGTHS, ODD)).format(n=len(body) + draw(st.sampled_from([0, 0, 0, 0, 1])))
    before = draw(st.sampled_from(["", "", "", "\r\n", "\r\n\r\n"]))
    return f"{before}POST /a HTTP/1.1\r\nHost: x\r\n{length}\r\nX-Last: 1\r\n\r\n".encode() + body


@st.composite
def answers(draw: Any) -> bytes:
    body = draw(BODIES)
    length = draw(st.one_of(LENGTHS, LENGTHS, ODD)).format(n=len(body) + draw(st.sampled_from([0, 0, 0, 0, 1])))
    status = draw(st.sampled_from(["200 OK", "200 OK", "200 OK", "100 Continue", "204 No Content", "404 Not Found"]))
    return f"HTTP/1.1 {status}\r\n{length}\r\nKeep-Alive: timeout=9\r\n\r\n".encode() + body


class Socket(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


async def _served(messages: list[list[bytes]], *, remembers: bool) -> tuple[list[object], bytes, bool, int]:
    handled: list[object] = []
    known: dict[bytes, Any] = {}
    hits = 0

    async def handler(request: Inbound) -> Reply:
        body = b"".join([request.whole_body()] if request.stream.is_eof() else [await request.stream.read()])  # type: ignore[union-attr]
        message = request.head
        headers = [pair for pair in message.raw_headers if pair[0].lower() not in {b"content-length", *NAMES}]
        handled.append((message.method, message.path, headers, message.should_close, body, request.passing))
        if request.cut is not None and remembers and request.cut.passing == request.passing:
            known[request.cut.head] = (message, None)
        return Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.", keep_alive=request.keeps_alive)

    def seen(message: Cut, hop: str | None) -> Any:
        nonlocal hits
        found = known.get(message.head)
        hits += found is not None
        return found

    plane = DataPlane(
        handler,
        header_bytes_max=8192,
        connections_max=9,
        on_refusal=lambda error: handled.append(error.code),
        seen=seen,
    )
    wire, socket = plane(), Socket()
    wire.connection_made(socket)
    for message in messages:
        for piece in message:
            if not socket.closed:
                wire.data_received(piece)
            for _ in range(4):
                await asyncio.sleep(0)
    for _ in range(8):
        await asyncio.sleep(0)
    closed = socket.closed
    wire.connection_lost(None)
    await asyncio.sleep(0)
    return handled, re.sub(rb'"request_id":"[0-9a-f]+"', b"", socket.written), closed, hits


@HABITS
@given(st.lists(st.tuples(requests(), st.lists(st.integers(0, 500), max_size=2)), min_size=1, max_size=6))
def test_a_connection_that_remembers_heads_serves_what_one_serves_that_forgets_them(
    plan: list[tuple[bytes, list[int]]],
) -> None:
    async def both() -> None:
        messages = [pieces(data, cuts) for data, cuts in plan]
        forgetful = await _served(messages, remembers=False)
        mindful = await _served(messages, remembers=True)
        assert mindful[:3] == forgetful[:3]

    asyncio.run(both())


def test_a_head_that_comes_again_is_not_parsed_again() -> None:
    def post(body: bytes) -> list[bytes]:
        return [b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]

    async def run() -> None:
        handled, _, _, hits = await _served([post(b"a"), post(b"bc"), post(b"")], remembers=True)
        assert [each[-2] for each in handled] == [b"a", b"bc", b""]  # type: ignore[index]
        assert hits == 2

    asyncio.run(run())


async def _answered(messages: list[list[bytes]], heads: AnswerHeads) -> list[object]:
    loop = asyncio.get_running_loop()
    freed: list[Connection] = []
    limits = Limits(buffer_bytes=9, timeouts=Timeouts(), budget=Budget(10_000), heads=heads)
    connection, socket = Connection(loop, freed.append), Socket()
    connection.connection_made(socket)
    outcomes: list[object] = []
    for message in messages:
        if socket.closed:
            break
        call = Call(connection, limits, bodiless=False, started_at=0, patience_until=9e9)
        connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", call)
        for piece in message:
            if not socket.closed:
                connection.data_received(piece)
        head = call.head
        meant = None if head is None else (head.lines, head.media, head.chunked, head.event_stream)
        body = call.drain()
        error = None if call.error is None else call.error.code
        outcomes.append(
            (call.status, call.headers, meant, call.declared_bytes, body, call.complete, error, call.received_bytes)
        )
        outcomes.append((len(freed), socket.closed, connection.keep_s))
        if not call.complete:
            break
    return outcomes


@pytest.mark.sources
@HABITS
@given(st.lists(st.tuples(answers(), st.lists(st.integers(0, 500), max_size=2)), min_size=1, max_size=6))
def test_an_upstream_whose_heads_are_remembered_is_understood_as_one_whose_heads_are_not(
    plan: list[tuple[bytes, list[int]]],
) -> None:
    async def both() -> None:
        messages = [pieces(data, cuts) for data, cuts in plan]
        heads = AnswerHeads()
        await _answered(messages, heads)  # so that whatever may be remembered is
        mindful = await _answered(messages, heads)
        forgetful = await _answered(messages, Forgetful())
        assert mindful == forgetful

    asyncio.run(both())


class Forgetful(AnswerHeads):
    """Remembers nothing."""

    def find(self, cut: Cut) -> None:
        return None


@pytest.mark.sources
def test_an_answer_whose_head_came_before_is_not_parsed_again() -> None:
    found = []

    class Watched(AnswerHeads):
        def find(self, cut: Cut) -> Any:
            found.append(super().find(cut))
            return found[-1]

    async def run() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nKeep-Alive: timeout=9\r\n\r\n%b"
        outcomes = await _answered([[answer % (1, b"a")], [answer % (3, b"bcd")]], Watched())
        assert [each is not None for each in found] == [False, True]
        assert outcomes[2][1:5:3] == ([(b"Content-Length", b"3"), (b"Keep-Alive", b"timeout=9")], b"bcd")  # type: ignore[index]

    asyncio.run(run())
