"""Gateway workers and keepers killed with SIGKILL under load: nothing acknowledged is lost, nothing arrives twice."""

import asyncio
import contextlib
import os
from collections import Counter

import pytest

from gateway.keeper.socket import command
from tests.support.deployment import Client, Deployment, receipts_agree, sometimes_slow
from tests.support.upstreams import Upstream

KILLS = int(os.environ.get("ANSWERABLE_KILLS", "50"))
IN_FLIGHT = 8


async def until(condition, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


async def kill_again_and_again(deployment: Deployment, client: Client, kills: int) -> None:
    for _ in range(kills):
        before = len(client.received)
        await until(lambda before=before: len(client.received) > before + 20 and client.in_flight >= IN_FLIGHT)
        await asyncio.to_thread(deployment.kill, "gateway")
        deployment.start("gateway")
        await deployment.ready("gateway")


async def ask(deployment: Deployment, name: str, **arguments: object) -> dict:
    """The result of a keeper command that must succeed."""
    lines = [line async for line in command(deployment.data, name, arguments, configuration=deployment.configuration)]
    assert lines[-1].get("exit") == 0, lines[-1]
    return lines[-1]["result"]


@pytest.mark.timeout(3600)
async def test_a_gateway_worker_killed_50_times_loses_nothing_that_it_acknowledged(tmp_path):
    async with Upstream(sometimes_slow) as upstream:
        deployment = Deployment(tmp_path, upstream.url)
        client = Client(deployment)
        try:
            deployment.start("gateway")
            await deployment.ready("gateway")
            calling = asyncio.create_task(client.run())
            await kill_again_and_again(deployment, client, KILLS)
            client.stopping = True
            await asyncio.wait_for(calling, 60)
            assert deployment.kill("gateway", 15) == 0

            assert receipts_agree(client, deployment) == []
            journaled = deployment.journaled()
            assert [decision for decision, times in journaled.items() if times != 1] == []
            assert set(client.received) <= set(journaled)
            counters = deployment.counters("gateway-0")
            assert counters.open == 0
            assert counters.accepted == counters.closed + counters.lost
            # counted where each happened, by different writers: in the watermark and in the entries
            kinds = Counter(entry["kind"] for entry in deployment.entries())
            assert counters.closed == kinds["decision"] + kinds["call"] == len(journaled)
            assert counters.lost == sum(entry["lost"] for entry in deployment.entries() if entry["kind"] == "gap")
            assert counters.lost > 0  # calls were under way at each kill

            deployment.start("keeper")
            await deployment.ready("keeper")
            await ask(deployment, "settle")
            counted = await ask(deployment, "count", decisions=sorted(journaled))
            assert counted["shipped"] == len(journaled)
            assert deployment.kill("keeper", 15) == 0
            verified = await asyncio.to_thread(deployment.run, "verify")
            assert verified.returncode == 0, verified.stdout
        finally:
            client.stopping = True
            deployment.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["spool", "best_effort"])
async def test_a_worker_killed_in_another_mode_keeps_what_that_mode_says_and_counts_the_rest(tmp_path, mode):
    async with Upstream(sometimes_slow) as upstream:
        deployment = Deployment(tmp_path, upstream.url, route={"evidence": mode})
        client = Client(deployment)
        try:
            deployment.start("gateway")
            await deployment.ready("gateway")
            calling = asyncio.create_task(client.run())
            await kill_again_and_again(deployment, client, max(1, KILLS // 5))
            client.stopping = True
            await asyncio.wait_for(calling, 60)
            assert deployment.kill("gateway", 15) == 0

            assert set(client.received.values()) == {""}, "a receipt speaks of what is durable"
            journaled = deployment.journaled()
            assert [decision for decision, times in journaled.items() if times != 1] == []
            missing = set(client.received) - set(journaled)
            if mode == "spool":
                assert not missing, "what was written outlives the process"
            counters = deployment.counters("gateway-0")
            assert counters.open == 0
            assert counters.accepted == counters.closed + counters.lost
            kinds = Counter(entry["kind"] for entry in deployment.entries())
            assert {entry["mode"] for entry in deployment.entries() if entry["kind"] == "decision"} == {mode}
            assert counters.closed == kinds["decision"] == len(journaled)
            assert counters.lost == sum(entry["lost"] for entry in deployment.entries() if entry["kind"] == "gap")
            assert counters.lost >= len(missing), "what an application has and the ledger has not is stated as lost"

            for name in ("settle", "verify"):
                await ask(deployment, name)
        finally:
            client.stopping = True
            deployment.close()


@pytest.mark.timeout(3600)
async def test_a_keeper_killed_50_times_ships_everything_exactly_once(tmp_path):
    async with Upstream(sometimes_slow) as upstream:
        deployment = Deployment(tmp_path, upstream.url)
        client = Client(deployment, concurrency=4)
        try:
            deployment.start("gateway")
            await deployment.ready("gateway")
            calling = asyncio.create_task(client.run())
            for number in range(KILLS):
                deployment.start("keeper", "--no-desk")
                # at another moment of its life each time: opening, recovering, shipping, extracting, signing
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), 0.4 + 2.4 * (number % 17) / 16)
                await asyncio.to_thread(deployment.kill, "keeper")
            client.stopping = True
            await asyncio.wait_for(calling, 60)
            assert client.broken == 0
            assert set(client.statuses) == {200}
            assert deployment.kill("gateway", 15) == 0

            deployment.start("keeper")
            await deployment.ready("keeper")
            await ask(deployment, "settle")
            counted = await ask(deployment, "count", decisions=sorted(client.received))
            assert counted["shipped"] == len(client.received)
            assert deployment.kill("keeper", 15) == 0
            verified = await asyncio.to_thread(deployment.run, "verify")
            assert verified.returncode == 0, verified.stdout
        finally:
            client.stopping = True
            deployment.close()
