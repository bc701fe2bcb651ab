# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
from pathlib import Path

import pytest

from gateway.proxy import answers
from tests.support.evidence import Evidence, balanced, settled
from tests.support.upstreams import Exchange, Upstream, events, good, raw
from tests.support.workers import Client, configuration, working

FIRST = b'data: {"object":"chat.completion.chunk","n":1}\n\n'
SECOND = b'data: {"object":"chat.completion.chunk","n":2}\n\n'
DONE = b"data: [DONE]\n\n"


async def test_events_pass_one_by_one_and_the_terminal_one_only_after_its_decision_is_durable(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(events(FIRST, SECOND, DONE, gate=gate)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request()
            evidence = Evidence.of(worker)
            head = await c.head()
            begin = evidence.check_receipt(head, "begin")
            assert evidence.part(begin, "request") == b"{}"
            gate.release()
            assert await c.chunk() == FIRST, "the model waits: nothing else can have come"
            gate.release()
            assert await c.chunk() == SECOND
            gate.release()
            await asyncio.sleep(0.05)
            assert evidence.entries("decision") == []
            gate.release()
            assert await c.chunk() == DONE
            (entry,) = evidence.entries("decision")
            assert await c.chunk() is None
            assert evidence.part(entry, "response") == FIRST + SECOND + DONE
            assert evidence.part(entry, "request") == b"{}"
            assert entry["stream"] == {"state": "complete", "streamed": True, "bytes": len(FIRST + SECOND + DONE)}
            assert [ref["id"] for ref in entry["prev"]] == [begin["id"]]
            assert head.header("Decision-Id") == entry["id"]
            assert (await c.ask(target="/-/healthz", method="GET", body=b"")).status == 200, "the connection goes on"
            balanced(worker)


async def test_in_an_unknown_stream_the_last_piece_is_held_until_durable(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(events(b"data: 1\n\n", b"data: 2\n\n", gate=gate)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request()
            await c.head()
            gate.release()
            await asyncio.sleep(0.1)  # so that the two pieces do not come as one
            gate.release()
            assert await c.chunk() == b"data: 1\n\n"
            assert Evidence.of(worker).entries("decision") == []
            gate.release()
            assert await c.chunk() == b"data: 2\n\n"
            assert len(Evidence.of(worker).entries("decision")) == 1
            assert await c.chunk() is None


async def test_a_longer_answer_than_the_buffer_is_streamed_with_its_length_and_its_end_held(tmp_path: Path):
    body = bytes(range(256)) * 4096
    more = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-10])
        await more.wait()
        await exchange.send(body[-10:])

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request()
            head = await c.head()
            evidence = Evidence.of(worker)
            evidence.check_receipt(head, "begin")
            assert head.header("Content-Length") == str(len(body))
            assert head.header("Transfer-Encoding") is None
            got = await c.reader.readexactly(len(body) - 10)
            assert evidence.entries("decision") == []
            more.set()
            assert got + await c.reader.readexactly(10) == body
            (entry,) = evidence.entries("decision")
            assert evidence.part(entry, "response") == body
            assert entry["stream"]["streamed"] is True
            assert next(part for part in entry["parts"] if part["name"] == "response")["chunks"] > 4
            balanced(worker)


async def test_a_long_answer_without_a_length_becomes_a_stream_when_the_buffer_is_full(tmp_path: Path):
    pieces = [bytes([65 + n]) * 100_000 for n in range(5)]

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            await exchange.chunk(piece)
        await exchange.send(b"0\r\n\r\n")

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert got.body == b"".join(pieces)
            assert got.header("Transfer-Encoding") == "chunked"
            assert [entry["kind"] for entry in Evidence.of(worker).calls()] == ["begin", "decision"]


async def test_an_answer_that_takes_longer_than_a_second_gets_a_begin_entry_while_it_is_open(tmp_path: Path):
    go_on = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await go_on.wait()
        await good(exchange)

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request()
            evidence = Evidence.of(worker)
            async with asyncio.timeout(answers.PATIENCE_S + 2):
                while not evidence.entries("begin"):
                    await asyncio.sleep(0.02)
            assert evidence.entries("decision") == []
            go_on.set()
            got = await c.answer()
            begin, decision = evidence.calls()
            assert got.header("Decision-Id") == begin["decision"] == decision["id"]
            assert decision["timing"]["total_us"] > 1_000_000
            assert evidence.part(decision, "response") == got.body
            assert got.status == 200
            balanced(worker)


async def test_a_slow_trickle_is_passed_on_as_it_comes(tmp_path: Path):
    gate = asyncio.Semaphore(0)

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
        await gate.acquire()
        await exchange.send(b"cd")
        await gate.acquire()
        await exchange.send(b"ef")

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request()
            await c.head()
            assert await c.reader.readexactly(2) == b"ab"
            gate.release()
            assert await c.reader.readexactly(2) == b"cd"
            assert Evidence.of(worker).entries("decision") == []
            gate.release()
            assert await c.reader.readexactly(2) == b"ef"
            assert len(Evidence.of(worker).entries("decision")) == 1


async def test_what_streams_is_in_the_journal_within_a_second_or_two_while_the_stream_is_silent(tmp_path: Path):
    gate = asyncio.Semaphore(1)
    async with Upstream(events(FIRST, DONE, gate=gate)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request()
            await c.head()
            assert await c.chunk() == FIRST
            evidence = Evidence.of(worker)
            async with asyncio.timeout(4):
                while not [part for batch in evidence.batches() for part in batch.parts if part.index == 1]:
                    await asyncio.sleep(0.05)
            gate.release()
            gate.release()
            assert await c.chunk() == DONE


async def test_a_caller_of_http_1_0_gets_a_stream_that_ends_with_the_connection(tmp_path: Path):
    async with Upstream(events(FIRST, DONE)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.send(b"POST /m/x HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
            got = await c.answer()
            assert got.body == FIRST + DONE
            assert got.header("Connection") == "close"
            assert got.header("Transfer-Encoding") is None
            assert await c.ended()


async def test_a_compressed_event_stream_passes_untouched(tmp_path: Path):
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\n\x1f\x8b\x08\r\n2\r\nxy\r\n0\r\n\r\n"
    )
    async with Upstream(raw(answer)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
    assert got.body == b"\x1f\x8b\x08xy"
    assert got.header("Content-Encoding") == "gzip"


async def test_a_slow_caller_slows_the_model_down_and_memory_stays_bounded(tmp_path: Path):
    total = 24 * 1024 * 1024
    sent = 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await exchange.send(sent.to_bytes(8, "big") * 8192)
            sent += 65536

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            c.writer.transport.pause_reading()
            await c.request()
            last = -1
            while sent != last or sent == 0:
                last = sent
                await asyncio.sleep(0.2)
            assert sent < total, "it was stopped"
            assert worker._budget.held_bytes < 2 * 1024 * 1024
            c.writer.transport.resume_reading()
            await c.head()
            for at in range(0, total, 65536):
                assert await c.reader.readexactly(65536) == at.to_bytes(8, "big") * 8192
            await settled(worker, 1)
            assert worker._budget.held_bytes == 0


async def test_a_stream_that_goes_on_behind_its_terminal_event_is_cut_and_closed_with_its_true_state(tmp_path: Path):
    sent = 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.chunk(FIRST)
        await exchange.chunk(DONE)
        while True:
            await exchange.chunk(b": " + b"x" * 8190)
            sent += 8192

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await c.ask()
            assert b"".join(c.pieces) == FIRST, "the end never left"
            await settled(worker, 1)
            evidence = Evidence.of(worker)
            (entry,) = evidence.entries("decision")
            assert (entry["stream"]["state"], entry["error"]) == ("upstream_aborted", "upstream_malformed")
            assert (evidence.part(entry, "response") or b"").startswith(FIRST + DONE + b": x")
            assert entry["stream"]["bytes"] == len(evidence.part(entry, "response") or b"")
            async with asyncio.timeout(5):
                while worker._gauge.now:
                    await asyncio.sleep(0.005)
            assert worker._budget.held_bytes == 0
            balanced(worker)


async def test_what_had_come_of_a_stream_that_is_cut_before_its_head_left_stays_a_sealed_part(tmp_path: Path):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = b"%x\r\n%b\r\n" % (len(FIRST), FIRST)
    async with Upstream(raw(head + framed, then="close")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, got.code) == (502, "upstream_cut")
            evidence = Evidence.of(worker)
            (entry,) = evidence.entries("decision")
            assert evidence.part(entry, "response") == FIRST
            assert entry["stream"] == {"state": "upstream_aborted", "streamed": False, "bytes": len(FIRST)}
            assert worker._budget.held_bytes == 0


async def test_when_memory_is_full_short_answers_are_streamed_too(tmp_path: Path):
    body = b"y" * 200_000
    async with Upstream(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + body)) as model:
        made = configuration(tmp_path, model.url, gateway={"pending_bytes_max": 1024 * 1024})
        async with working(made) as worker, Client.to(worker) as c:
            worker._budget.add(1024 * 1024)
            got = await c.ask("GET", body=b"")
            assert got.body == body
            assert [entry["kind"] for entry in Evidence.of(worker).calls()] == ["begin", "decision"]
            refused = await c.ask(body=b"{}")
            assert (refused.status, refused.code, refused.header("Retry-After")) == (503, "memory_full", "1")
            worker._budget.give_back(1024 * 1024)


@pytest.mark.parametrize("when", ["in_the_stream", "before_the_head"])
async def test_a_caller_who_goes_in_mid_answer_is_noticed_and_the_call_is_closed_with_its_true_state(
    tmp_path: Path, when: str
):
    gate = asyncio.Semaphore(1 if when == "in_the_stream" else 0)
    model_saw_the_end = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await gate.acquire()
        await exchange.chunk(FIRST)
        await exchange.reader.read()
        model_saw_the_end.set()

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker:
            async with Client.to(worker) as c:
                await c.request()
                if when == "in_the_stream":
                    await c.head()
                    assert await c.chunk() == FIRST
            await settled(worker, 1)
            await asyncio.wait_for(model_saw_the_end.wait(), 5) if when == "in_the_stream" else None
            evidence = Evidence.of(worker)
            (entry,) = evidence.entries("decision")
            assert entry["stream"]["state"] == "client_aborted"
            assert evidence.part(entry, "response") == (FIRST if when == "in_the_stream" else None)
            balanced(worker)


async def test_a_caller_who_goes_while_the_model_thinks_leaves_a_whole_record(tmp_path: Path):
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        asked.set()
        await go_on.wait()
        await good(exchange)

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url)) as worker:
            async with Client.to(worker) as c:
                await c.request()
                await asyncio.wait_for(asked.wait(), 5)
            await asyncio.sleep(0.05)
            go_on.set()
            await settled(worker, 1)
            evidence = Evidence.of(worker)
            (entry,) = evidence.entries("decision")
            assert entry["stream"] == {"state": "client_aborted", "streamed": False, "bytes": 41}
            assert evidence.part(entry, "response") == b'{"decision":"approved","probability":0.9}'
            balanced(worker)
