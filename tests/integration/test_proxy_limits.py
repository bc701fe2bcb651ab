# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
import contextlib
from pathlib import Path

import pytest

from gateway.proxy import inbound, server
from gateway.proxy.inbound import Inbound, Reply
from gateway.proxy.server import DataPlane
from tests.support.evidence import Evidence, balanced
from tests.support.upstreams import Exchange, Upstream, events, good
from tests.support.workers import Client, configuration, working

CHUNKED = b"POST /m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_body_over_the_limit_is_413_however_it_is_framed(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"body_bytes_max": 2000})
        async with working(made) as worker:
            async with Client.to(worker) as c:
                assert (await c.ask(body=b"x" * 2000)).status == 200
                got = await c.ask(body=b"x" * 2001)
                assert (got.status, got.code) == (413, "body_too_large")
            async with Client.to(worker) as c:
                await c.send(CHUNKED + b"7d0\r\n" + b"x" * 2000 + b"\r\n1\r\nx\r\n0\r\n\r\n")
                assert (await c.answer()).code == "body_too_large"
            async with Client.to(worker) as c:
                await c.send(CHUNKED)
                await asyncio.sleep(0.05)
                await c.send(b"7d1\r\n" + b"x" * 2001)
                assert (await c.answer()).code == "body_too_large"
            async with Client.to(worker) as c:
                await c.send(b"POST /m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n")
                assert (await c.answer()).code == "body_too_large"
            assert len(model.seen) == 1
            assert worker._budget.held_bytes == 0
            balanced(worker)


async def test_a_chunked_request_reaches_the_model_whole_and_with_its_length(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.send(CHUNKED + b"3\r\nabc\r\n")
        await asyncio.sleep(0.02)
        await c.send(b"2\r\nde\r\n0\r\n\r\n")
        assert (await c.answer()).status == 200
        (asked,) = model.seen
        assert (asked.body, asked.header("Content-Length"), asked.header("Transfer-Encoding")) == (b"abcde", "5", None)
        assert Evidence.of(worker).part(Evidence.of(worker).calls()[0], "request") == b"abcde"


@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("rest", [b"zz\r\nab\r\n", b"3\r\nabcdef\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"])
async def test_malformed_chunking_is_400_and_the_model_is_not_asked(tmp_path: Path, rest: bytes, pause: bool):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.send(CHUNKED if pause else CHUNKED + rest)
        if pause:
            await asyncio.sleep(0.05)
            await c.send(rest)
        got = await c.answer()
        assert got.status == 400
        assert got.code in {"body_malformed", "request_malformed"}
        assert await c.ended()
        assert model.seen == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", 400),
        (b"POST /m/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /m/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /m/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nab", 400),
        (b"GET http://elsewhere/m/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /m/../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /m/x?a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /m/" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 120 * 4 + b"\r\n", 431),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 5 + b"\r\n", 431),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /m/x HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
    ],
)
async def test_what_is_no_request_for_us_gets_the_one_error_shape(tmp_path: Path, request_bytes: bytes, status: int):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.send(request_bytes)
        got = await c.answer()
        assert got.status == status, got
        assert got.code
        assert model.seen == []
        assert worker.journal.counters.accepted == 0
        assert worker.journal.counters.refused >= 1


async def test_a_head_that_trickles_is_408_and_one_that_swells_is_431(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"header_timeout_s": 0.3})
        async with working(made) as worker:
            async with Client.to(worker) as c:
                await c.send(b"GET /m/x HTTP/1.1\r\nHost")
                got = await c.answer()
                assert (got.status, got.code) == (408, "request_timeout")
                assert await c.ended()
            async with Client.to(worker) as c:
                await c.send(b"GET /m/x HTTP/1.1\r\n")
                for _ in range(6):
                    await c.send(b"X: " + b"y" * 3000 + b"\r\n")
                assert (await c.answer()).code == "headers_too_large"
            async with Client.to(worker) as c:
                assert (await c.ask()).status == 200
                await asyncio.sleep(0.7)
                assert (await c.ask()).status == 200, "an idle connection owes no head"


async def test_a_body_that_trickles_is_408(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"body_timeout_s": 0.3})
        async with working(made) as worker, Client.to(worker) as c:
            await c.send(b"POST /m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
            got = await c.answer()
            assert (got.status, got.code) == (408, "request_timeout")
            assert worker._budget.held_bytes == 0
            assert model.seen == []


async def test_a_caller_who_goes_in_mid_request_leaves_nothing(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            await c.send(b"POST /m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
            await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            while worker._gauge.now:
                await asyncio.sleep(0.01)
        assert worker._budget.held_bytes == 0
        assert model.seen == []
        balanced(worker)


async def test_more_connections_than_may_be_are_told_so_and_own_paths_are_answered_all_the_same(tmp_path: Path):
    go_on = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await go_on.wait()
        await good(exchange)

    async with Upstream(behave) as model:
        made = configuration(tmp_path, model.url, gateway={"connections_max": 2})
        async with working(made) as worker, Client.to(worker) as one, Client.to(worker) as two:
            await one.request()
            await two.request()
            async with asyncio.timeout(5):
                while len(model.seen) < 2:
                    await asyncio.sleep(0.005)
            async with Client.to(worker) as three, Client.to(worker) as four:
                got = await three.ask()
                assert (got.status, got.code, got.header("Retry-After")) == (503, "gateway_busy", "1")
                assert await three.ended()
                assert (await four.ask("GET", "/-/readyz", b"")).status == 200
            assert len(model.seen) == 2
            go_on.set()
            assert [(await each.answer()).status for each in (one, two)] == [200, 200]


async def test_a_full_worker_closes_the_connection_that_was_idle_for_longest(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"connections_max": 2})
        async with working(made) as worker, Client.to(worker) as one, Client.to(worker) as two:
            assert (await two.ask()).status == 200
            assert (await one.ask()).status == 200
            await asyncio.sleep(server.IDLE_AT_LEAST_S * 2)
            async with Client.to(worker) as three:
                assert (await three.ask()).status == 200
                assert await two.ended()
                assert (await one.ask()).status == 200
            assert worker.journal.counters.refused == 0


async def test_a_connection_on_which_nothing_comes_is_closed_and_one_that_asked_is_kept(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"header_timeout_s": 0.3})
        async with working(made) as worker, Client.to(worker) as asking, Client.to(worker) as mute:
            assert (await asking.ask()).status == 200
            assert await mute.ended()
            await asyncio.sleep(0.3)
            assert (await asking.ask()).status == 200
            assert worker.journal.counters.refused == 0


async def test_a_fault_of_ours_in_the_middle_of_an_answer_is_a_cut_and_no_second_head():
    async def handler(request: Inbound) -> Reply:
        request.interim(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.head.path == "/begun":
            request.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        raise RuntimeError("a fault of ours")

    counted: list[str] = []
    plane = DataPlane(
        handler,
        header_bytes_max=8192,
        connections_max=9,
        on_refusal=lambda error: counted.append(error.code),
        seen=lambda cut, hop: None,
    )
    server = await asyncio.get_running_loop().create_server(plane, "127.0.0.1", 0)
    try:
        for path, status in (("/begun", b"200"), ("/first", b"500")):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % path.encode())
            got = b""
            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(5):
                    while piece := await reader.read(4096):
                        got += piece
            writer.close()
            heads = [line.split(b" ")[1] for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
            assert heads in ([b"100", status], []), "a reset may take with it what was on its way"
            assert path == "/begun" or heads
    finally:
        server.close()
        await plane.shutdown(1)


async def test_more_calls_than_may_be_are_told_so(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        worker._gauge.now = worker._gauge.most
        assert (await c.ask()).code == "gateway_busy"
        worker._gauge.now = 0


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path):
    async def echo(exchange: Exchange) -> None:
        await exchange.answer(exchange.asked.target.encode())

    async with Upstream(echo) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.send(b"".join(b"GET /m/%d HTTP/1.1\r\nHost: t\r\n\r\n" % n for n in range(50)))
        assert [(await c.answer()).body for _ in range(50)] == [b"/%d" % n for n in range(50)]
        assert len(Evidence.of(worker).entries("decision")) == 50
        balanced(worker)


async def test_expect_100_continue_is_answered_before_the_body_and_a_refusal_instead_of_it(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"body_bytes_max": 2000})
        async with working(made) as worker:
            async with Client.to(worker) as c:
                await c.send(b"POST /m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
                assert (await c.head()).status == 100
                await c.send(b"{}")
                assert (await c.answer()).status == 200
                assert "expect" not in model.seen[0].names()
            async with Client.to(worker) as c:
                await c.send(b"POST /m/x HTTP/1.1\r\nHost: t\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n")
                assert (await c.answer()).status == 413


async def test_a_caller_who_asks_for_it_gets_the_connection_closed(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask(headers={"Connection": "close"})
            assert got.header("Connection") == "close"
            assert await c.ended()
        async with Client.to(worker) as c:
            await c.send(b"GET /m/x HTTP/1.0\r\n\r\n")
            assert (await c.answer()).header("Connection") == "close"
            assert await c.ended()


async def test_header_injection_is_impossible_in_both_directions(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        got = await c.ask(target="/m/x?a=%0d%0aX-Injected:%201", headers={"X-A": "b\tc"})
        assert got.status == 200
        (asked,) = model.seen
        assert asked.target == "/x?a=%0d%0aX-Injected:%201"
        assert "x-injected" not in asked.names()
        assert asked.header("X-A") == "b\tc"


async def test_draining_finishes_what_was_accepted_and_takes_no_more(tmp_path: Path):
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await go_on.wait()
        await good(exchange)

    async with Upstream(slow) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as busy, Client.to(worker) as idle:
            await busy.request()
            await asyncio.wait_for(asked.wait(), 5)
            stopping = asyncio.create_task(worker.stop())
            assert await idle.ended()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", worker.port)
            go_on.set()
            got = await busy.answer()
            assert (got.status, got.header("Connection")) == (200, "close")
            await asyncio.wait_for(stopping, 10)
            assert len(Evidence.of(worker).entries("decision")) == 1
            balanced(worker)


async def test_what_does_not_end_within_the_drain_is_cut_and_closed_as_lost(tmp_path: Path):
    gate = asyncio.Semaphore(1)
    first = b'data: {"object":"chat.completion.chunk"}\n\n'
    async with Upstream(events(first, b"data: [DONE]\n\n", gate=gate)) as model:
        made = configuration(tmp_path, model.url, gateway={"drain_s": 0.2})
        async with working(made) as worker, Client.to(worker) as c:
            await c.request()
            await c.head()
            assert await c.chunk() == first
            await asyncio.wait_for(worker.stop(), 10)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await c.chunk()
        evidence = Evidence.of(worker)
        (entry,) = evidence.entries("decision")
        assert entry["stream"]["state"] == "gateway_lost"
        assert evidence.part(entry, "response") == first
        balanced(worker)


async def test_a_caller_who_takes_nothing_is_cut(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(inbound, "STALLED_S", 0.3)

    async def flood(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await exchange.chunk(b"x" * 65536)

    async with Upstream(flood) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        c.writer.transport.pause_reading()
        await c.request()
        async with asyncio.timeout(10):
            while worker.journal.counters.closed == 0:
                await asyncio.sleep(0.05)
        (entry,) = Evidence.of(worker).entries("decision")
        assert entry["stream"]["state"] == "client_aborted"
