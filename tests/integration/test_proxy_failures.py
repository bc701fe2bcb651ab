# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.pool import Origin, Pool
from tests.support.certificates import authority, server_context
from tests.support.evidence import Evidence, balanced, settled
from tests.support.upstreams import Exchange, Upstream, dead_url, events, good, raw, silent
from tests.support.workers import Client, Got, configuration, working

FAST = {"connect_s": 0.5, "first_byte_s": 0.3, "idle_s": 0.3, "total_s": 30}


def closed(worker: Any, got: Got | None, *, state: str, error: str | None, status: int) -> dict[str, Any]:
    """The one closing entry, which says all this."""
    (entry,) = Evidence.of(worker).entries("decision")
    assert (entry["stream"]["state"], entry["error"], entry["status"]) == (state, error, status)
    if got is not None:
        assert got.header("Decision-Id") == entry["id"] == got.json()["error"]["request_id"]
        Evidence.of(worker).check_receipt(got, "decision")
    balanced(worker)
    return entry


async def test_a_dead_model_is_502_and_closed(tmp_path: Path):
    async with working(configuration(tmp_path, dead_url())) as worker, Client.to(worker) as c:
        got = await c.ask()
        assert (got.status, got.code) == (502, "upstream_unreachable")
        entry = closed(worker, got, state="upstream_aborted", error="upstream_unreachable", status=502)
        assert entry["timing"]["upstream_first_us"] is None
        assert (await c.ask("HEAD", body=b"")).status == 502
        assert (await c.ask()).status == 502, "the connection goes on"


async def test_an_unknown_host_is_502(tmp_path: Path):
    async with working(configuration(tmp_path, "http://nowhere.invalid:1")) as worker, Client.to(worker) as c:
        assert (await c.ask()).code == "upstream_unreachable"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "upstream_no_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "upstream_cut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nxx", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nxx", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nxx", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nxx", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nxx", "upstream_malformed"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n", "upstream_malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(300)) + b"\r\n", "upstream_malformed"),
    ],
)
async def test_a_model_that_breaks_off_or_speaks_no_http_is_502_while_nothing_was_sent(
    tmp_path: Path, answer: bytes, code: str
):
    async with Upstream(raw(answer, then="close")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, got.code) == (502, code)
            closed(worker, got, state="upstream_aborted", error=code, status=502)


async def test_a_reset_in_a_close_delimited_answer_is_a_cut_and_not_its_end(tmp_path: Path):
    async with Upstream(raw(b"HTTP/1.1 200 OK\r\n\r\nhalf", then="reset")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            assert (await c.ask()).code == "upstream_cut"


async def test_what_a_broken_off_answer_had_brought_is_in_the_record(tmp_path: Path):
    async with Upstream(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then="close")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
            entry = closed(worker, got, state="upstream_aborted", error="upstream_cut", status=502)
            assert entry["stream"]["bytes"] == 4
            assert Evidence.of(worker).part(entry, "response") == b"half"


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"", "upstream_timeout"), (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "upstream_idle_timeout")],
)
async def test_a_slow_model_is_504_and_its_connection_is_closed(tmp_path: Path, answer: bytes, code: str):
    ended = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await exchange.send(answer)
        await silent(exchange)
        ended.set()

    async with Upstream(behave) as model:
        made = configuration(tmp_path, model.url, route={"timeouts": FAST})
        async with working(made) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, got.code) == (504, code)
            closed(worker, got, state="upstream_aborted", error=code, status=504)
            await asyncio.wait_for(ended.wait(), 5)


async def test_a_call_that_was_begun_and_then_fails_is_closed_with_the_model_s_failure(tmp_path: Path):
    slow = {**FAST, "first_byte_s": 1.2}
    async with Upstream(silent) as model:
        made = configuration(tmp_path, model.url, route={"timeouts": slow})
        async with working(made) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, got.code) == (504, "upstream_timeout")
            begin, decision = Evidence.of(worker).calls()
            assert (begin["kind"], decision["kind"]) == ("begin", "decision")
            assert begin["decision"] == decision["id"] == got.header("Decision-Id")
            balanced(worker)


async def test_the_total_time_bounds_a_model_that_trickles(tmp_path: Path):
    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await exchange.send(b"x")
            await asyncio.sleep(0.02)

    async with Upstream(behave) as model:
        timeouts = {**FAST, "total_s": 0.4}
        made = configuration(tmp_path, model.url, route={"timeouts": timeouts})
        async with working(made) as worker, Client.to(worker) as c:
            assert (await c.ask()).code == "upstream_total_timeout"


@pytest.mark.parametrize("framing", ["chunked", "length", "http/1.0"])
@pytest.mark.parametrize("how", ["close", "reset", "silence", "garbage"])
async def test_a_stream_that_breaks_is_never_given_an_end(tmp_path: Path, framing: str, how: str):
    start = b"x" * 300_000
    head = b"Content-Length: 400000" if framing == "length" else b"Transfer-Encoding: chunked"

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        await (exchange.send(start) if framing == "length" else exchange.chunk(start))
        await asyncio.sleep(0.1)
        if how == "garbage" and framing != "length":
            await exchange.send(b"no chunk\r\n")
        elif how == "silence":
            await silent(exchange)
        elif how == "reset":
            exchange.reset()
        else:
            exchange.close()

    async with Upstream(behave) as model:
        made = configuration(tmp_path, model.url, route={"timeouts": FAST})
        async with working(made) as worker, Client.to(worker) as c:
            if framing == "http/1.0":
                await c.send(b"POST /m/x HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
                with pytest.raises(ConnectionResetError):
                    await c.answer()
            else:
                await c.request()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await c.answer()
            await settled(worker, 1)
            codes = {"silence": "upstream_idle_timeout", "garbage": "upstream_malformed"}
            expected = codes.get(how, "upstream_cut")
            if how == "garbage" and framing == "length":
                expected = "upstream_cut"
            entry = closed(worker, None, state="upstream_aborted", error=expected, status=200)
            assert entry["stream"]["streamed"] is True
            assert Evidence.of(worker).part(entry, "response") == start


async def test_a_stream_that_breaks_before_its_head_was_sent_is_502(tmp_path: Path):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with Upstream(raw(head, then="close")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, got.code) == (502, "upstream_cut")
            closed(worker, got, state="upstream_aborted", error="upstream_cut", status=502)


async def test_an_idle_connection_that_the_model_closed_is_replaced_before_anything_is_written(tmp_path: Path):
    async def behave(exchange: Exchange) -> None:
        await good(exchange)
        exchange.close()

    async with Upstream(behave) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            for _ in range(3):
                assert (await c.ask()).status == 200
                await asyncio.sleep(0.02)
        assert model.connections == 3


@pytest.mark.parametrize(("method", "status", "tries"), [("GET", 200, 2), ("POST", 502, 1), ("PUT", 200, 2)])
async def test_what_may_have_run_is_sent_again_only_where_that_is_harmless(
    tmp_path: Path, method: str, status: int, tries: int
):
    async def vanish(exchange: Exchange) -> None:
        model.behaviour = good
        exchange.reset()

    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.ask()
        model.behaviour = vanish
        got = await c.ask(method, body=b"" if method == "GET" else b"{}")
        assert got.status == status
        assert len(model.seen) == 1 + tries
        assert len(Evidence.of(worker).calls()) == 2


async def test_bytes_behind_an_answer_do_not_meet_the_next_caller(tmp_path: Path):
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    async with Upstream(raw(stray)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            assert (await c.ask()).body == b"ok"
            model.behaviour = good
            assert (await c.ask()).json()["decision"] == "approved"
            model.behaviour = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"later")
            assert (await c.ask()).body == b"ok"
            await asyncio.sleep(0.05)
            model.behaviour = good
            assert (await c.ask()).json()["decision"] == "approved"


async def test_a_body_behind_the_head_of_an_answer_to_head_closes_the_connection(tmp_path: Path):
    async with Upstream(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask("HEAD", body=b"")
            assert got.status in (200, 502)
            model.behaviour = good
            assert (await c.ask()).json()["decision"] == "approved"


async def test_the_journal_refuses_before_the_model_is_called(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        worker.journal._pending_bytes += worker.journal._limits.pending_bytes_max + 1
        got = await c.ask()
        assert (got.status, got.code, got.header("Retry-After")) == (503, "journal_full", "5")
        assert model.seen == []
        assert worker.journal.counters.refused == 1
        worker.journal._pending_bytes -= worker.journal._limits.pending_bytes_max + 1
        assert (await c.ask()).status == 200
        balanced(worker)


async def test_a_route_may_say_that_calls_pass_while_the_disk_is_full_and_the_gap_is_stated(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"disk_full": "pass"})
        async with working(made) as worker, Client.to(worker) as c:
            worker.journal._pending_bytes += worker.journal._limits.pending_bytes_max + 1
            got = await c.ask()
            worker.journal._pending_bytes -= worker.journal._limits.pending_bytes_max + 1
            assert (got.status, got.header("Decision-Id")) == (200, None)
        (gap,) = Evidence.of(worker).entries("gap")
    assert (gap["tenant"], gap["route"], gap["why"]) == ("default", "m", "disk_full")
    assert (gap["lost"], gap["shed"], gap["count"]) == (1, 1, "known")


async def test_tls_to_the_model_is_checked(tmp_path: Path):
    own = authority(tmp_path)
    async with Upstream(good, tls=server_context(own)) as model:
        trusting = ssl.create_default_context(cafile=str(own.ca))
        async with working(configuration(tmp_path, model.url), tls=trusting) as worker, Client.to(worker) as c:
            assert (await c.ask()).status == 200
        other = configuration(tmp_path, model.url, data="data-2")
        async with working(other) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, got.code) == (502, "upstream_tls")


async def test_a_connection_that_takes_too_long_is_504(tmp_path: Path):
    # a listener that never accepts, its queue filled: further connections get no answer at all
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        timeouts = {**FAST, "connect_s": 1.3}
        async with (
            working(configuration(tmp_path, url, route={"timeouts": timeouts})) as worker,
            Client.to(worker) as c,
        ):
            got = await c.ask()
            assert (got.status, got.code) == (504, "upstream_connect_timeout")
            assert [entry["kind"] for entry in Evidence.of(worker).calls()] == ["begin", "decision"]
        for filler in fillers:
            filler.close()


async def test_idle_connections_are_closed_before_the_model_would(tmp_path: Path):
    answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=1\r\nContent-Length: 0\r\n\r\n"
    async with Upstream(raw(answer)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            await c.ask()
            await asyncio.sleep(0.2)
            await c.ask()
            assert model.connections == 2


def test_an_origin_is_named_as_in_host():
    assert Origin.of("http://model.example").authority == b"model.example"
    assert Origin.of("https://model.example:443/base").authority == b"model.example"
    assert Origin.of("https://model.example:80").authority == b"model.example:80"
    assert Origin.of("http://[::1]:9000").authority == b"[::1]:9000"


async def test_a_pool_closes_every_connection(tmp_path: Path):
    async with Upstream(events(b"x")) as model:
        pool = Pool(Origin.of(model.url))
        connection = await pool.connect(1)
        assert connection.alive
        await pool.close()
        assert not connection.alive
