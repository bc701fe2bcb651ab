"""Two workers share their keys; a worker killed between claim and answer leaves repeats an answer, no second run."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.fault.test_kill_processes import ask as command
from tests.fault.test_kill_processes import until
from tests.support.deployment import Deployment
from tests.support.upstreams import Exchange, Upstream

KILLS = int(os.environ.get("ANSWERABLE_KILLS", "5"))
ANSWER = b'{"decision":"approved","probability":0.9}'
WORKERS = ("gateway-0", "gateway-1")


def start(deployment: Deployment, shard: str) -> None:
    process = deployment.start("gateway", "--shard", shard)
    deployment._running[shard] = deployment._running.pop("gateway")
    assert process is deployment._running[shard]


async def serving(deployment: Deployment, shard: str) -> None:
    """Return when this very worker answers: connections go to either."""
    await until((deployment.data / "journal" / shard / "watermark").exists)
    headers = {"Authorization": f"Bearer {deployment.key}"}
    async with asyncio.timeout(30):
        while True:
            try:
                async with aiohttp.ClientSession(headers=headers) as session:
                    url = f"http://127.0.0.1:{deployment.port}/-/healthz"
                    before = listeners(deployment.port)
                    async with session.get(url) as response:
                        if response.status == 200 and before == len(deployment._running):
                            return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def listeners(port: int) -> int:
    """How many sockets listen on the port."""
    with Path("/proc/net/tcp").open() as table:
        return sum(1 for line in table if f":{port:04X} " in line.split()[1] + " " and line.split()[3] == "0A")


async def repeat(deployment: Deployment, key: str, body: bytes) -> tuple[int, dict, bytes]:
    """One call on a connection of its own, so that any worker may get it."""
    headers = {"Authorization": f"Bearer {deployment.key}", "Idempotency-Key": key, "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{deployment.port}/credit/score"
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, data=body, headers=headers) as got:
        return got.status, dict(got.headers), await got.read()


async def outcome(deployment: Deployment, key: str, body: bytes) -> tuple[int, dict, bytes]:
    """What a repeat is told in the end."""
    async with asyncio.timeout(30):
        while True:
            status, headers, answer = await repeat(deployment, key, body)
            if status != 409 or orjson.loads(answer)["error"]["code"] != "idempotency_in_flight":
                return status, headers, answer
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_hundreds_of_repeats_over_two_workers_run_the_model_once_and_the_evidence_holds(tmp_path):
    go_on = asyncio.Event()

    async def gated(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.answer(ANSWER, "200 OK", "Content-Type: application/json")

    async with Upstream(gated) as model:
        deployment = Deployment(tmp_path, model.url)
        try:
            for shard in WORKERS:
                start(deployment, shard)
            for shard in WORKERS:
                await serving(deployment, shard)
            body = b'{"case":"c"}'
            asking = [asyncio.create_task(repeat(deployment, "one-key", body)) for _ in range(300)]
            await until(lambda: sum(task.done() for task in asking) == 299)
            go_on.set()
            got = await asyncio.gather(*asking)
            assert Counter(status for status, _, _ in got) == {200: 1, 409: 299}
            replayed = await asyncio.gather(*[repeat(deployment, "one-key", body) for _ in range(300)])
            assert {(status, answer) for status, _, answer in replayed} == {(200, ANSWER)}
            assert len(model.seen) == 1
            decisions = {headers["Decision-Id"] for _, headers, _ in (*got, *replayed)}
            assert len(decisions) == 1
            calls = {shard: [e for e in deployment.entries(shard) if e["kind"] == "call"] for shard in WORKERS}
            assert all(calls.values()), "both workers gave repeats"
            repeats = [entry for entries in calls.values() for entry in entries]
            assert {entry["repeats"] for entry in repeats} == decisions
            assert {entry["id"] for entry in repeats} == {headers["Decision-Repeat"] for _, headers, _ in replayed}
            for shard in WORKERS:
                assert deployment.kill(shard, 15) == 0
            deployment.start("keeper")
            await deployment.ready("keeper")
            await command(deployment, "settle")
            assert deployment.kill("keeper", 15) == 0
            verified = await asyncio.to_thread(deployment.run, "verify")
            assert verified.returncode == 0, verified.stdout
        finally:
            go_on.set()
            deployment.close()


@pytest.mark.timeout(300)
async def test_a_worker_killed_between_claim_and_answer_leaves_409_with_the_decision_that_recovery_closed(tmp_path):
    async def never(exchange: Exchange) -> None:
        await exchange.reader.read()

    async with Upstream(never) as model:
        deployment = Deployment(tmp_path, model.url)
        try:
            deployment.start("gateway")
            await deployment.ready("gateway")
            first = asyncio.create_task(repeat(deployment, "k", b"{}"))
            await until(lambda: any(entry["kind"] == "begin" for entry in deployment.entries()))
            status, running, _ = await repeat(deployment, "k", b"{}")
            assert status == 409
            await asyncio.to_thread(deployment.kill, "gateway")
            with pytest.raises(aiohttp.ClientError):
                await first
            deployment.start("gateway")
            await deployment.ready("gateway")
            status, headers, answer = await outcome(deployment, "k", b"{}")
            assert (status, orjson.loads(answer)["error"]["code"]) == (409, "idempotency_outcome_unknown")
            assert headers["Decision-Id"] == running["Decision-Id"]
            assert "Retry-After" not in headers
            closed = {e["id"]: e["stream"]["state"] for e in deployment.entries() if e["kind"] == "decision"}
            assert closed == {headers["Decision-Id"]: "gateway_lost"}
            assert len(model.seen) == 1
        finally:
            deployment.close()


@pytest.mark.timeout(3600)
async def test_keys_in_use_while_workers_are_killed_again_and_again_never_run_the_model_twice(tmp_path):
    async def answering(exchange: Exchange) -> None:
        await asyncio.sleep(random.random() * 0.05)
        if b'"stream"' in exchange.asked.body:
            await exchange.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(3):
                await exchange.chunk(b"data: x\n\n")
                await asyncio.sleep(0.01)
            await exchange.send(b"0\r\n\r\n")
        else:
            await exchange.answer(ANSWER, "200 OK", "Content-Type: application/json")

    async with Upstream(answering) as model:
        deployment = Deployment(tmp_path, model.url)
        asked: dict[str, bytes] = {}
        answered: dict[str, tuple[str, bytes]] = {}
        stopping = asyncio.Event()

        async def caller(number: int) -> None:
            serial = 0
            while not stopping.is_set():
                serial += 1
                key = f"{number}-{serial}"
                asked[key] = orjson.dumps({"case": key, "stream" if serial % 3 == 0 else "whole": True})
                try:
                    status, headers, answer = await repeat(deployment, key, asked[key])
                except (aiohttp.ClientError, TimeoutError, ConnectionError):
                    await asyncio.sleep(0.02)
                else:
                    if status == 200:
                        answered[key] = headers["Decision-Id"], answer

        try:
            for shard in WORKERS:
                start(deployment, shard)
            for shard in WORKERS:
                await serving(deployment, shard)
            callers = [asyncio.create_task(caller(number)) for number in range(8)]
            for kill in range(KILLS):
                before = len(answered)
                await until(lambda before=before: len(answered) > before + 20)
                shard = WORKERS[kill % 2]
                await asyncio.to_thread(deployment.kill, shard)
                start(deployment, shard)
                await serving(deployment, shard)
            stopping.set()
            await asyncio.gather(*callers)
            told: Counter[str] = Counter()
            for key, body in asked.items():
                status, headers, answer = await outcome(deployment, key, body)
                if key in answered:
                    assert (headers["Decision-Id"], answer) == answered[key]
                    assert headers["Idempotency-Replayed"] == "true"
                told[str(status) if status == 200 else orjson.loads(answer)["error"]["code"]] += 1
            runs = Counter(orjson.loads(one.body)["case"] for one in model.seen)
            assert {key: count for key, count in runs.items() if count != 1} == {}
            assert told["idempotency_outcome_unknown"] > 0, "no kill met a call: this run shows nothing"
            assert set(told) <= {"200", "idempotency_outcome_unknown", "idempotency_answer_incomplete"}, told
            for shard in WORKERS:
                assert deployment.kill(shard, 15) == 0
                counters = deployment.counters(shard)
                assert (counters.open, counters.accepted) == (0, counters.closed + counters.lost)
        finally:
            stopping.set()
            deployment.close()
