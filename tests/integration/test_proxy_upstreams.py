# ruff: noqa: SIM117 - a worker stands inside its models, and a client inside its worker
"""A route's upstream side over real sockets: replicas, breakers, health checks, limits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.exposition import exposition
from gateway.proxy.app import Worker
from tests.support.evidence import Evidence, balanced, settled
from tests.support.upstreams import Behaviour, Exchange, Upstream, dead_url, good, raw, silent
from tests.support.workers import Client, Got, configuration, working

ONE_AT_A_TIME = {"calls_max": 1, "waiting_max": 1, "wait_s": 5}


def held(gate: asyncio.Semaphore) -> Behaviour:
    """Answers once it may."""

    async def behave(exchange: Exchange) -> None:
        await gate.acquire()
        await good(exchange)

    return behave


@asynccontextmanager
async def calling(tmp_path: Path, upstream: str, **route: Any) -> AsyncIterator[tuple[Worker, Client]]:
    async with working(configuration(tmp_path, upstream, route=route)) as worker, Client.to(worker) as client:
        yield worker, client


def counted(worker: Worker, reason: str, url: str) -> float:
    """What the metrics say of a replica."""
    labels = f'reason="{reason}",replica="{url.partition("//")[2]}",route="m"'
    return _metric(worker, f"answerable_upstream_total{{{labels}}}")


def refused(worker: Worker, code: str) -> float:
    return _metric(worker, f'answerable_refused_total{{code="{code}"}}')


def _metric(worker: Worker, name: str) -> float:
    worker.counts.publish()
    lines = exposition(worker._configuration.data, worker.counts.registry).decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def together(worker: Worker, count: int, then: Callable[[], Awaitable[None]]) -> list[Got]:
    """The answers to `count` calls on connections of their own; `then` runs while they are under way."""

    async def one() -> Got:
        async with Client.to(worker) as client:
            return await client.ask()

    calls = [asyncio.create_task(one()) for _ in range(count)]
    await then()
    return await asyncio.gather(*calls)


async def test_calls_spread_over_the_replicas_by_what_is_under_way(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(held(gate)) as one, Upstream(held(gate)) as two, Upstream(held(gate)) as three:
        async with calling(tmp_path, one.url, replicas=[two.url, three.url]) as (worker, _):

            async def all_there() -> None:
                await until(lambda: sum(len(model.seen) for model in (one, two, three)) == 9)
                for _ in range(9):
                    gate.release()

            assert {got.status for got in await together(worker, 9, all_there)} == {200}
            assert [len(model.seen) for model in (one, two, three)] == [3, 3, 3]
            for model in (one, two, three):
                assert counted(worker, "answered", model.url) == 3
                assert {asked.header("Host") for asked in model.seen} == {model.url.removeprefix("http://")}
            assert {replica.pool.seats for replica in worker._generation.lanes[0].steering.replicas} == {0}
            balanced(worker)


async def test_a_call_whose_replica_cannot_be_reached_goes_to_another_and_is_recorded_once(tmp_path: Path):
    dead = dead_url()
    async with Upstream(good) as model:
        async with calling(tmp_path, dead, replicas=[model.url], breaker={"failures": 3}) as (worker, c):
            for _ in range(30):
                got = await c.ask()
                assert (got.status, got.json()["decision"]) == (200, "approved")
            assert len(model.seen) == len(Evidence.of(worker).entries("decision")) == 30
            assert counted(worker, "upstream_unreachable", dead) == 3
            assert counted(worker, "opened", dead) == 1
            balanced(worker)


async def test_all_replicas_dead_is_one_502_of_one_call(tmp_path: Path):
    one, two = dead_url(), dead_url()
    async with calling(tmp_path, one, replicas=[two]) as (worker, c):
        got = await c.ask()
        assert (got.status, got.code) == (502, "upstream_unreachable")
        assert counted(worker, "upstream_unreachable", one) == counted(worker, "upstream_unreachable", two) == 1
        assert len(Evidence.of(worker).calls()) == 1
        balanced(worker)


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_call_that_may_have_run_meets_no_second_replica(tmp_path: Path, method: str, answer: bytes):
    behaviour = raw(answer, then="close")
    async with Upstream(behaviour) as one, Upstream(behaviour) as two:
        async with calling(tmp_path, one.url, replicas=[two.url]) as (worker, c):
            got = await c.ask(method, body=b"" if method == "GET" else b"{}")
            assert got.status == 502
            assert len(one.seen) + len(two.seen) == 1
            balanced(worker)


async def test_a_breaker_opens_refuses_before_the_model_and_closes_by_a_probe(tmp_path: Path):
    async with Upstream(raw(b"", then="close")) as model:
        rules = {"failures": 2, "open_s": 0.3}
        async with calling(tmp_path, model.url, breaker=rules) as (worker, c):
            assert [(await c.ask()).code for _ in range(2)] == ["upstream_no_answer"] * 2
            got = await c.ask()
            assert (got.status, got.code, got.header("Retry-After")) == (503, "upstream_open", "1")
            assert len(model.seen) == len(Evidence.of(worker).calls()) == 2
            assert refused(worker, "upstream_open") == 1
            assert worker.journal.counters.refused == 1
            balanced(worker)
            model.behaviour = good
            await asyncio.sleep(0.35)
            assert [(await c.ask()).status for _ in range(3)] == [200] * 3
            assert (counted(worker, "opened", model.url), counted(worker, "closed", model.url)) == (1, 1)
            balanced(worker)


async def test_a_probe_that_fails_opens_again_and_there_is_only_one_at_a_time(tmp_path: Path):
    gate = asyncio.Semaphore(0)

    async def late_and_bad(exchange: Exchange) -> None:
        await gate.acquire()
        exchange.close()

    async with Upstream(raw(b"", then="close")) as model:
        async with calling(tmp_path, model.url, breaker={"failures": 1, "open_s": 0.2}) as (worker, c):
            await c.ask()
            model.behaviour = late_and_bad
            await asyncio.sleep(0.25)

            async def let_fail() -> None:
                await until(lambda: len(model.seen) == 2)
                assert (await c.ask()).code == "upstream_open"
                gate.release()

            (probe,) = await together(worker, 1, let_fail)
            assert probe.code == "upstream_no_answer"
            assert (await c.ask()).code == "upstream_open"
            assert counted(worker, "opened", model.url) == 2


async def test_answers_that_say_unavailable_count_for_the_breaker_and_still_reach_the_caller(tmp_path: Path):
    async with Upstream(raw(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")) as model:
        async with calling(tmp_path, model.url, breaker={"failures": 2, "statuses": [503]}) as (worker, c):
            for _ in range(2):
                got = await c.ask()
                assert (got.status, got.body) == (503, b"no")
            assert (await c.ask()).code == "upstream_open"
            assert counted(worker, "bad_status", model.url) == 2
            assert [entry["status"] for entry in Evidence.of(worker).entries("decision")] == [503, 503]


async def test_a_stream_that_breaks_counts_for_the_breaker(tmp_path: Path):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def broken(exchange: Exchange) -> None:
        await exchange.send(head)
        await exchange.chunk(b"data: 1\n\n")
        await asyncio.sleep(0.05)
        exchange.reset()

    async with Upstream(broken) as model:
        async with calling(tmp_path, model.url, breaker={"failures": 1}) as (worker, c):
            await c.request()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await c.answer()
            await settled(worker, 1)
            async with Client.to(worker) as other:
                assert (await other.ask()).code == "upstream_open"
            assert counted(worker, "upstream_cut", model.url) == 1


async def test_calls_beyond_the_limit_wait_and_beyond_the_queue_are_refused(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(held(gate)) as model:
        async with calling(tmp_path, model.url, concurrency=ONE_AT_A_TIME) as (worker, c):

            async def third() -> None:
                steering = worker._generation.lanes[0].steering
                assert steering is not None
                assert steering.gate is not None
                await until(lambda: steering.gate.waiting == 1 and len(model.seen) == 1)
                got = await c.ask()
                assert (got.status, got.code, got.header("Retry-After")) == (503, "route_busy", "1")
                gate.release()
                await until(lambda: len(model.seen) == 2)
                gate.release()

            assert [got.status for got in await together(worker, 2, third)] == [200, 200]
            assert len(model.seen) == len(Evidence.of(worker).entries("decision")) == 2
            assert refused(worker, "route_busy") == 1
            balanced(worker)


async def test_who_waits_too_long_is_refused_before_the_model_is_called(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(held(gate)) as model:
        async with calling(tmp_path, model.url, concurrency={**ONE_AT_A_TIME, "wait_s": 0.05}) as (worker, c):

            async def second() -> None:
                await until(lambda: len(model.seen) == 1)
                got = await c.ask()
                assert (got.status, got.code) == (503, "route_busy")
                gate.release()

            await together(worker, 1, second)
            assert len(model.seen) == len(Evidence.of(worker).entries("decision")) == 1
            balanced(worker)


async def test_a_caller_who_goes_while_waiting_is_not_asked_for(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(held(gate)) as model:
        async with calling(tmp_path, model.url, concurrency=ONE_AT_A_TIME) as (worker, c):

            async def second() -> None:
                steering = worker._generation.lanes[0].steering
                assert steering is not None
                assert steering.gate is not None
                await until(lambda: len(model.seen) == 1)
                async with Client.to(worker) as leaving:
                    await leaving.request()
                    await until(lambda: steering.gate.waiting == 1)
                await asyncio.sleep(0.05)
                gate.release()

            await together(worker, 1, second)
            gate.release()
            assert (await c.ask()).status == 200
            assert len(model.seen) == 2
            balanced(worker)


async def test_a_failed_or_streamed_call_gives_its_place_back(tmp_path: Path):
    limit = {"calls_max": 1, "waiting_max": 0}
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with Upstream(raw(b"", then="close")) as model:
        async with calling(tmp_path, model.url, concurrency=limit) as (_, c):
            assert (await c.ask()).status == 502
            model.behaviour = raw(head, b"9\r\ndata: 1\n\n\r\n", b"0\r\n\r\n")
            assert (await c.ask()).body == b"data: 1\n\n"
            model.behaviour = good
            assert (await c.ask()).status == 200


async def test_a_replica_that_fails_its_checks_gets_no_calls_until_it_passes_them(tmp_path: Path):
    well = True

    async def behave(exchange: Exchange) -> None:
        if exchange.asked.target != "/health":
            await good(exchange)
        elif well:
            await exchange.answer(b"ok")
        else:
            await exchange.answer(b"ill", "500 Ill")

    check = {"path": "/health", "interval_s": 0.02, "unhealthy_after": 2, "healthy_after": 2}
    async with Upstream(behave) as model:
        async with calling(tmp_path, model.url, health=check) as (worker, c):
            assert (await c.ask()).status == 200
            well = False
            await until(lambda: counted(worker, "unhealthy", model.url) == 1)
            got = await c.ask()
            assert (got.status, got.code) == (503, "upstream_open")
            well = True
            await until(lambda: counted(worker, "healthy", model.url) == 1)
            assert (await c.ask()).status == 200
            assert next(a.header("Host") for a in model.seen if a.target == "/health") == model.url[7:]
            assert len(Evidence.of(worker).calls()) == 2, "checks are nobody's calls"
            assert worker._budget.held_bytes == 0
            balanced(worker)


@pytest.mark.parametrize("behaviour", [silent, raw(b"", then="close"), raw(b"no http")])
async def test_a_replica_that_answers_its_check_with_nothing_useful_is_left_out(tmp_path: Path, behaviour: Behaviour):
    check = {"path": "/health", "interval_s": 0.02, "timeout_s": 0.05, "unhealthy_after": 1}
    async with Upstream(good) as well, Upstream(behaviour) as ill:
        async with calling(tmp_path, ill.url, replicas=[well.url], health=check) as (worker, c):
            await until(lambda: counted(worker, "unhealthy", ill.url) == 1)
            assert {(await c.ask()).status for _ in range(10)} == {200}
            assert {asked.target for asked in ill.seen} == {"/health"}


async def test_retry_after_is_the_time_until_the_first_probe_rounded_up(tmp_path: Path):
    async with Upstream(raw(b"", then="close")) as model:
        async with calling(tmp_path, model.url, breaker={"failures": 1, "open_s": 30.5}) as (_, c):
            await c.ask()
            assert (await c.ask()).header("Retry-After") in {"31", "30"}


async def test_a_worker_that_ends_cuts_who_is_under_way_and_who_waits_and_keeps_its_balance(tmp_path: Path):
    route = {"concurrency": ONE_AT_A_TIME, "breaker": {}}
    async with Upstream(silent) as model:
        made = configuration(tmp_path, model.url, route=route, gateway={"drain_s": 0.1})
        async with working(made) as worker, Client.to(worker) as first, Client.to(worker) as second:
            steering = worker._generation.lanes[0].steering
            assert steering is not None
            assert steering.gate is not None
            await first.request()
            await until(lambda: len(model.seen) == 1)
            await second.request()
            await until(lambda: steering.gate.waiting == 1)
            await worker.stop()
            assert (steering.gate.inside, steering.gate.waiting, steering.replicas[0].pool.seats) == (0, 0, 0)
            assert len(model.seen) == 1
            balanced(worker)
