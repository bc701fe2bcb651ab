"""A gateway worker killed with SIGKILL while calls of several rows are under way: all rows of a call, or one entry."""

import asyncio
import os
from collections import defaultdict

import aiohttp
import orjson
import pytest

from gateway.keeper.socket import command
from tests.support.deployment import EXTRACT, Deployment
from tests.support.journals import check_rows
from tests.support.upstreams import Exchange, Upstream

KILLS = int(os.environ.get("ANSWERABLE_KILLS", "5"))
SIZES = (1, 2, 7, 40, 400)
SLOW = 7  # rows of the call that is begun before it is answered


async def score(exchange: Exchange) -> None:
    asked = orjson.loads(exchange.asked.body)
    if len(asked) == SLOW:
        await asyncio.sleep(1.3)
    rows = [{"decision": "approved" if one["x"] % 2 else "denied", "probability": 0.5} for one in asked]
    await exchange.answer(orjson.dumps(rows), "200 OK", "Content-Type: application/json")


async def call(deployment: Deployment, told: dict[str, int], stopping: asyncio.Event) -> None:
    """Call after call; what was answered is in `told`: the call's id, its rows."""
    url = f"http://127.0.0.1:{deployment.port}/credit/score"
    headers = {"Authorization": f"Bearer {deployment.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        number = 0
        while not stopping.is_set():
            number += 1
            rows = SIZES[number % len(SIZES)]
            try:
                body = [{"x": at, "case": f"C-{at}"} for at in range(rows)]
                async with session.post(url, json=body) as answer:
                    assert len(await answer.json()) == rows
                    told[answer.headers["Decision-Call"]] = int(answer.headers["Decision-Rows"])
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.05)


@pytest.mark.timeout(600)
async def test_a_killed_worker_leaves_all_rows_of_a_call_or_one_entry_and_the_whole_verifies(tmp_path):
    async with Upstream(score) as upstream:
        route = {"name": "credit", "prefix": "/credit", "upstream": upstream.url, "extract": EXTRACT, "batch": "rows"}
        deployment = Deployment(tmp_path, upstream.url, routes=[route])
        told: dict[str, int] = {}
        stopping = asyncio.Event()
        try:
            deployment.start("gateway")
            await deployment.ready("gateway")
            calling = [asyncio.create_task(call(deployment, told, stopping)) for _ in range(6)]
            for _ in range(KILLS):
                before = len(told)
                async with asyncio.timeout(60):
                    while len(told) < before + 20:
                        await asyncio.sleep(0.01)
                await asyncio.to_thread(deployment.kill, "gateway")
                deployment.start("gateway")
                await deployment.ready("gateway")
            stopping.set()
            await asyncio.wait_for(asyncio.gather(*calling), 60)
            assert deployment.kill("gateway", 15) == 0

            entries = list(deployment.entries())
            check_rows(entries)
            calls = defaultdict(list)
            for entry in entries:
                if entry["kind"] == "decision":
                    calls[entry["call"]["request_id"]].append(entry["call"])
            assert told == {name: len(calls[name]) for name in told}
            whole = [rows[0] for rows in calls.values() if rows[0]["rows"] is None]
            assert {one["unsplit"] for one in whole} <= {"gateway_lost"}
            assert all(len(rows) == (rows[0]["rows"] or 1) for rows in calls.values())
            counters = deployment.counters("gateway-0")
            assert (counters.open, counters.accepted) == (0, counters.closed + counters.lost)
            assert counters.closed == len(calls)

            deployment.start("keeper")
            await deployment.ready("keeper")
            settled = await asyncio.to_thread(deployment.run, "keeper", "settle")
            settled = [line async for line in command(deployment.data, "settle", {})][-1]
            assert settled["exit"] == 0
            assert settled["result"]["decisions"]["closings"] == counters.closed
            assert settled["result"]["decisions"]["projected"] == sum(map(len, calls.values()))
            assert deployment.kill("keeper", 15) == 0
            verified = await asyncio.to_thread(deployment.run, "verify")
            assert verified.returncode == 0, verified.stdout
        finally:
            stopping.set()
            deployment.close()
