"""Calls that go without a task (`gateway/proxy/direct.py`), and every way in which one is handed to a task after all.

Each test warms a connection up first: a head that was seen before, over a kept upstream connection, goes directly.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.app import Worker
from storage.durable import Syscalls
from storage.errors import JournalFull
from tests.support.evidence import Evidence
from tests.support.journals import until
from tests.support.upstreams import Behaviour, Exchange, Upstream, events, good, silent
from tests.support.workers import Client, configuration, working

GOOD = b'{"decision":"approved","probability":0.9}'


async def warm(c: Client) -> None:
    """The head is known, and the upstream's connection is kept."""
    for _ in range(2):
        assert (await c.ask()).status == 200


class Disk(Syscalls):
    """The kernel, until it is broken: then nothing becomes durable any more."""

    is_broken = False

    def datasync(self, fd: int) -> None:
        if self.is_broken:
            raise OSError(errno.EIO, "injected")
        super().datasync(fd)


@asynccontextmanager
async def serving(folder: Path, behaviour: Behaviour, **more: Any) -> AsyncIterator[tuple[Upstream, Worker, Client]]:
    """A model, a worker before it, and a connection to that."""
    async with (
        Upstream(behaviour) as upstream,
        working(configuration(folder, upstream.url), **more) as worker,
        Client.to(worker) as client,
    ):
        yield upstream, worker, client


def driven(worker: Worker) -> int:
    """Calls under way without a task."""
    return worker._front._now._driver.under_way


class Gated:
    """Answers like `good` once `open` is set; `later` in its place where it is given."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, exchange: Exchange) -> None:
        await self.open.wait()
        await good(exchange)


async def test_a_warm_call_goes_without_a_task_and_leaves_the_same_evidence(tmp_path: Path):
    model = Gated()
    async with serving(tmp_path, model) as (_, worker, c):
        await warm(c)
        model.open.clear()
        await c.request(body=b'{"a":1}')
        await until(lambda: driven(worker) == 1)
        assert worker._front._now.under_way == 1
        model.open.set()
        got = await c.answer()
        assert (got.status, got.body, driven(worker)) == (200, GOOD, 0)
        entry = Evidence.of(worker).check_receipt(got, "decision")
        assert entry["stream"] == {"bytes": len(GOOD), "state": "complete", "streamed": False}
        evidence = Evidence.of(worker)
        assert (evidence.part(entry, "request"), evidence.part(entry, "response")) == (b'{"a":1}', GOOD)
        assert worker._budget.held_bytes == 0


async def test_requests_that_come_while_one_is_under_way_are_answered_in_their_order(tmp_path: Path):
    model = Gated()
    async with serving(tmp_path, model) as (upstream, worker, c):
        await warm(c)
        model.open.clear()
        await c.request(body=b'{"a":1}')
        await until(lambda: driven(worker) == 1)
        for number in (2, 3):
            await c.request(body=b'{"a":%d}' % number)
        await asyncio.sleep(0.05)
        assert len(upstream.seen) == 3  # the others wait for the first
        model.open.set()
        got = [await c.answer() for _ in range(3)]
        told = [Evidence.of(worker).check_receipt(one, "decision") for one in got]
        bodies = [Evidence.of(worker).part(entry, "request") for entry in told]
        assert bodies == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
        assert (await c.ask()).status == 200


async def test_a_stream_is_handed_to_the_task(tmp_path: Path):
    async with serving(tmp_path, good) as (upstream, worker, c):
        await warm(c)
        gate = asyncio.Semaphore(0)
        upstream.behaviour = events(b"data: 1\n\n", b"data: 2\n\n", gate=gate)
        await c.request()
        got = await c.head()
        assert got.header("Transfer-Encoding") == "chunked"
        assert (driven(worker), worker._front._now.under_way) == (0, 1)
        for _ in range(3):
            gate.release()
        pieces = []
        while (piece := await c.chunk()) is not None:
            pieces.append(piece)
        assert b"".join(pieces) == b"data: 1\n\ndata: 2\n\n"
        (entry,) = [one for one in Evidence.of(worker).entries("decision") if one["stream"]["streamed"]]
        assert entry["stream"]["state"] == "complete"
        upstream.behaviour = good
        assert (await c.ask()).status == 200


async def test_a_late_answer_is_begun_in_the_journal_and_closed_once(tmp_path: Path):
    model = Gated()
    async with serving(tmp_path, model) as (_, worker, c):
        await warm(c)
        model.open.clear()
        await c.request()
        await until(lambda: len(Evidence.of(worker).entries("begin")) == 1)  # patience is over
        assert driven(worker) == 0
        model.open.set()
        got = await c.answer()
        assert (got.status, got.body) == (200, GOOD)
        entry = Evidence.of(worker).entries("decision")[-1]
        (begin,) = Evidence.of(worker).entries("begin")
        assert [ref["id"] for ref in entry["prev"]] == [begin["id"]]


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_a_kept_connection_that_closes_unanswered_is_tried_again_where_that_is_safe(
    tmp_path: Path, method: str, status: int
):
    async def closes(exchange: Exchange) -> None:
        upstream.behaviour = good
        exchange.close()

    async with serving(tmp_path, good) as (upstream, worker, c):
        for _ in range(2):
            assert (await c.ask(method, body=b"")).status == 200
        upstream.behaviour = closes
        got = await c.ask(method, body=b"")
        assert got.status == status
        assert len(upstream.seen) == (4 if status == 200 else 3)
        entry = Evidence.of(worker).entries("decision", "call")[-1]
        assert (entry["status"], entry["error"]) == (status, None if status == 200 else "upstream_no_answer")
        assert (await c.ask(method, body=b"")).status == 200


async def test_an_answer_that_breaks_off_is_closed_as_it_is(tmp_path: Path):
    async def cut(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        exchange.reset()

    async with serving(tmp_path, good) as (upstream, worker, c):
        await warm(c)
        upstream.behaviour = cut
        got = await c.ask()
        assert (got.status, got.code) == (502, "upstream_cut")
        entry = Evidence.of(worker).entries("decision")[-1]
        assert (entry["error"], entry["stream"]["state"]) == ("upstream_cut", "upstream_aborted")


async def test_what_the_journal_refuses_is_refused_before_the_model_is_asked(tmp_path: Path):
    async with serving(tmp_path, good) as (upstream, worker, c):
        await warm(c)
        worker.journal._limits = worker.journal._limits.__class__(pending_bytes_max=-1)
        got = await c.ask()
        assert (got.status, got.code) == (503, JournalFull.code)
        assert len(upstream.seen) == 2
        counters = worker.journal.counters
        assert (counters.accepted, counters.closed, counters.refused) == (2, 2, 1)
        assert (driven(worker), worker._budget.held_bytes, worker._gauge.now) == (0, 0, 0)
        worker.journal._limits = worker.journal._limits.__class__()
        assert (await c.ask()).status == 200  # the connection goes on


async def test_a_journal_that_has_stopped_answers_503_and_never_the_models_answer(tmp_path: Path):
    model, disk = Gated(), Disk()
    async with serving(tmp_path, model, syscalls=disk) as (_, worker, c):
        await warm(c)
        model.open.clear()
        await c.request()
        await until(lambda: driven(worker) == 1)
        disk.is_broken = True
        model.open.set()
        got = await c.answer()
        assert (got.status, got.code) == (503, "journal_stopped")
        assert (driven(worker), worker._budget.held_bytes, worker._gauge.now) == (0, 0, 0)


async def test_a_caller_who_goes_while_the_model_answers_leaves_a_closed_call(tmp_path: Path):
    model = Gated()
    async with serving(tmp_path, model) as (_, worker, c):
        await warm(c)
        model.open.clear()
        await c.request()
        await until(lambda: driven(worker) == 1)
        c.writer.transport.abort()
        await until(lambda: not worker._plane.wires)
        model.open.set()
        await until(lambda: worker.journal.counters.closed == 3)
        entry = Evidence.of(worker).entries("decision")[-1]
        assert entry["stream"]["state"] == "client_aborted"
        await until(lambda: driven(worker) == 0)
        assert (worker._budget.held_bytes, worker._gauge.now) == (0, 0)


async def test_a_worker_that_ends_closes_what_is_under_way_with_its_true_state(tmp_path: Path):
    async with Upstream(good) as upstream:
        made = configuration(tmp_path, upstream.url, gateway={"drain_s": 0.2})
        async with working(made) as worker, Client.to(worker) as c:
            await warm(c)
            upstream.behaviour = silent
            await c.request()
            await until(lambda: driven(worker) == 1)
            await worker.stop()
            counters = worker.journal.counters
            assert (counters.accepted, counters.closed, counters.lost) == (3, 3, 0)
            entry = Evidence.of(worker).entries("decision")[-1]
            assert entry["stream"]["state"] == "gateway_lost"


async def test_a_caller_that_takes_nothing_is_waited_for_by_the_task(tmp_path: Path):
    large = b"x" * 200_000

    async def answers(exchange: Exchange) -> None:
        await exchange.answer(large)

    async with serving(tmp_path, answers) as (upstream, worker, c):
        assert (await c.ask()).body == large
        c.reader._transport.pause_reading()
        for number in range(60):
            await c.request(body=b'{"n":%d}' % number)
        await asyncio.sleep(0.3)
        served = len(upstream.seen)
        assert served < 61  # the rest waits until the caller takes what is there
        c.reader._transport.resume_reading()
        for _ in range(60):
            assert (await c.answer()).body == large
        assert worker.journal.counters.closed == 61


async def test_with_a_full_gauge_a_task_refuses_and_nothing_is_kept(tmp_path: Path):
    async with serving(tmp_path, good) as (_, worker, c):
        await warm(c)
        gauge, lane = worker._gauge, worker._generation.lanes[0]
        taken = gauge.most - gauge.now
        for _ in range(taken):  # callers who left while their model is silent
            gauge.enter()
        refused = await c.ask()
        assert (refused.status, refused.code) == (503, "gateway_busy")
        assert worker.journal.counters.refused == 1
        assert (worker._budget.held_bytes, driven(worker)) == (0, 0)
        idle = lane.pool.idle()
        assert idle is not None, "the connection to the model is free for the next call"
        lane.pool.give_back(idle)
        for _ in range(taken):
            gauge.leave()
        async with Client.to(worker) as other:
            assert (await other.ask()).status == 200
        assert gauge.now == 0


async def test_a_connection_that_is_cut_at_shutdown_breaks_no_delivery_of_a_batch(tmp_path: Path):
    """aiohttp cancels what waits for the handler a turn before it forgets it; a batch may be delivered in between."""
    model, broken = Gated(), []
    async with serving(tmp_path, model) as (_, worker, c):
        await warm(c)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
        model.open.clear()
        await c.request()
        await until(lambda: driven(worker) == 1)
        (wire,) = worker._plane.wires
        wire._handler_waiter = asyncio.get_running_loop().create_future()
        wire._handler_waiter.cancel()
        model.open.set()
        assert (await c.answer()).status == 200
        await until(lambda: driven(worker) == 0)
        await asyncio.sleep(0.05)
        assert broken == []
        wire._handler_waiter = None
