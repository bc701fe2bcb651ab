"""`/-/readyz` of real workers: what is wrong, in sentences, and whether it is a reason to send calls elsewhere."""

import asyncio
import errno
import os
import time
from pathlib import Path
from typing import Any

from gateway.proxy.app import Worker
from storage import pressure
from tests.support.journals import Failing
from tests.support.upstreams import Exchange, Upstream, dead_url, good
from tests.support.workers import Client, configuration, working


async def asked(client: Client) -> tuple[int, dict[str, Any]]:
    got = await client.ask("GET", "/-/readyz", b"")
    shape = got.json()
    assert set(shape) == {"status", "problems", "checks"}
    assert all(one["status"] in ("ok", "info", "degraded", "unready") for one in shape["checks"].values())
    assert all((one["status"] == "ok") == ("problem" not in one) for one in shape["checks"].values())
    return got.status, shape


async def check(client: Client, name: str) -> tuple[int, str, str, str | None]:
    """Status, overall status, the check's status and its sentence."""
    code, shape = await asked(client)
    one = shape["checks"][name]
    return code, shape["status"], one["status"], one.get("problem")


async def until_looked(worker: Worker) -> None:
    await worker._watch.look()


async def test_models_that_are_away_degrade_and_take_no_worker_out(tmp_path: Path):
    async with Upstream(good) as model:
        url = model.url
    dead = dead_url()
    made = configuration(tmp_path, url, route={"replicas": [dead], "breaker": {"failures": 1, "open_s": 60}})
    async with working(made) as worker, Client.to(worker) as client:
        assert await check(client, "upstream/m") == (200, "ready", "ok", None)
        assert (await client.ask()).status == 502
        said = "no model endpoint of route m is well: its calls are refused, or are probes"
        assert await check(client, "upstream/m") == (200, "degraded", "degraded", said)
        assert (await asked(client))[1]["problems"] == [said]


async def test_one_replica_of_two_that_is_away_is_for_your_information(tmp_path: Path):
    async with Upstream(good) as model:
        route = {"replicas": [dead_url()], "breaker": {"failures": 1, "open_s": 60}}
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as client:
            name = worker._generation.lanes[0].steering.replicas[1].name  # type: ignore[union-attr]
            async with asyncio.timeout(10):
                while (found := await check(client, "upstream/m"))[2] == "ok":
                    assert (await client.ask()).status == 200
            assert found == (200, "ready", "info", f"{name} of route m gets no calls")


async def test_a_disk_without_room_warns_and_then_refuses(tmp_path: Path):
    full = Failing("fallocate", lambda number, *_: errno.ENOSPC if number > 1 else None)
    big = os.urandom(9_900_000)  # nothing that compresses
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, gateway={"body_bytes_max": 10_000_000})
        async with working(made, syscalls=full) as worker, Client.to(worker) as client:
            code, overall, status, _ = await check(client, "disk")
            assert (code, overall, status) == (200, "ready", "ok")
            statuses = []
            while statuses[-1:] != [503]:
                got = await client.ask(body=big)
                statuses.append(got.status)
                code, overall, status, problem = await check(client, "disk")
                if got.status == 200 and worker.journal.disk_share >= pressure.REFUSE_SHARE:
                    assert (code, overall, status) == (503, "unready", "unready")
                elif worker.journal.disk_share >= pressure.WARN_SHARE:
                    assert (code, overall, status) == (200, "degraded", "degraded")
                    assert problem is not None
                    assert "of the reserved journal space is used" in problem
            assert statuses.count(200) >= 3
            assert got.code == "journal_full"


async def test_memory_that_is_full_degrades_until_it_is_given_back(tmp_path: Path):
    go_on = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await go_on.wait()
        await good(exchange)

    async with Upstream(slow) as model:
        made = configuration(tmp_path, model.url, gateway={"pending_bytes_max": 1 << 20, "body_bytes_max": 1 << 20})
        async with working(made) as worker, Client.to(worker) as one, Client.to(worker) as two:
            await one.request(body=b"x" * (1 << 20))
            async with asyncio.timeout(5):
                while (found := await check(two, "memory"))[2] == "ok":
                    await asyncio.sleep(0.01)
            assert found[:3] == (200, "degraded", "degraded")
            assert (await two.ask(body=b"y")).code == "memory_full"
            go_on.set()
            assert (await one.answer()).status == 200
            assert (await check(two, "memory"))[2] == "ok"


async def test_a_keeper_that_is_silent_is_for_your_information(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url)
        async with working(made) as worker, Client.to(worker) as client:
            code, overall, status, problem = await check(client, "keeper")
            assert (code, overall, status) == (200, "ready", "info")
            assert problem is not None
            assert problem.startswith("no keeper has run here yet")
            control = made.data / "control.json"
            control.write_bytes(b"{}\n")
            await until_looked(worker)
            assert await check(client, "keeper") == (200, "ready", "ok", None)
            then = time.time() - 3600
            os.utime(control, (then, then))
            await until_looked(worker)
            code, overall, status, problem = await check(client, "keeper")
            assert (code, overall, status) == (200, "ready", "info")
            assert problem is not None
            assert problem.startswith("the keeper has published nothing for 360")


async def test_a_worker_that_drains_is_unready(tmp_path: Path):
    asked_for = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked_for.set()
        await go_on.wait()
        await good(exchange)

    async with (
        Upstream(slow) as model,
        working(configuration(tmp_path, model.url)) as worker,
        Client.to(worker) as client,
    ):
        await client.request()
        await asked_for.wait()
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        found = worker._watch.now()
        assert found.status == "unready"
        assert found.as_json()["checks"]["drain"] == {"status": "unready", "problem": "the worker is draining"}
        go_on.set()
        assert (await client.answer()).status == 200
        await stopping
