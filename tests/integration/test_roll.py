"""Segments closed on demand: the keeper says so in control.json, workers do it, and nothing is lost."""

import asyncio
import os
import time
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import control
from gateway.keeper.rolling import roll_all
from gateway.keeper.socket import command
from storage import watermark
from storage.keys import Keyring
from tests.integration.test_serve import UP_S, free_port, served
from tests.support.journals import entries_of, read_all, until
from tests.support.keeping import Gateway, kept, written
from tests.support.loans import Loans
from tests.support.upstreams import Upstream, good
from tests.support.workers import Client, configuration, working

ORIGIN = "test/gateway-0/1"


def being_written(directory: Path) -> int:
    mark = watermark.read(directory / watermark.NAME)
    assert mark is not None
    return mark.slot.segment


def publish(data: Path, key: Ed25519PrivateKey, *, seq: int, roll: dict[str, int], deployment: str = "test") -> None:
    said = {"deployment": deployment, "seq": seq, "ts_ns": time.time_ns(), "config": ""}
    raw = control.render(**said, sign=key.sign, roll=roll)
    fresh = data / "control.json.new"
    fresh.write_bytes(raw)
    fresh.replace(data / control.FILE)


async def test_a_worker_closes_what_its_keeper_names_and_believes_nobody_else(tmp_path: Path) -> None:
    async with Upstream(good) as upstream, working(configuration(tmp_path, upstream.url)) as worker:
        data = tmp_path / "data"
        directory = data / "journal" / "gateway-0"
        keyring = Keyring.open(data)
        await until(lambda: worker.journal._space.is_ready)
        async with Client.to(worker) as client:
            assert (await client.ask()).status == 200
            publish(data, keyring.host, seq=50, roll={ORIGIN: 0})  # signed by another key
            await asyncio.sleep(1.5)
            assert being_written(directory) == 0
            publish(data, keyring.control, seq=51, roll={ORIGIN: 0}, deployment="shop")
            await asyncio.sleep(1.5)
            assert being_written(directory) == 0
            publish(data, keyring.control, seq=52, roll={"test/gateway-1/1": 0, ORIGIN: 0})
            await until(lambda: being_written(directory) > 0)
            second = being_written(directory)
            publish(data, keyring.control, seq=51, roll={ORIGIN: second})  # an older file, put back
            await asyncio.sleep(1.5)
            assert being_written(directory) == second
            (data / control.FILE).write_bytes(os.urandom(100))
            await asyncio.sleep(1.5)
            publish(data, keyring.control, seq=53, roll={ORIGIN: second})
            await until(lambda: being_written(directory) > second)
            assert (await client.ask()).status == 200
    entries = entries_of(read_all(directory))
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    assert sum(entry["kind"] == "decision" for entry in entries) == 2


async def test_the_command_closes_the_segments_of_a_host_under_load(tmp_path: Path) -> None:
    """Two workers and a keeper: every segment is closed within seconds, all calls are answered, the ledger is sound."""
    async with Upstream(good) as upstream:
        port = free_port()
        route = {"name": "m", "prefix": "/m", "upstream": upstream.url}
        loaded = written(tmp_path, gateway={"port": port, "workers": 2}, routes=[route], desk={"port": free_port()})
        with served(loaded, tmp_path / "serve.log"):
            async with aiohttp.ClientSession() as session:
                await ready(session, f"http://127.0.0.1:{port}/-/readyz")
                ended, statuses = asyncio.Event(), []

                async def call() -> None:
                    while not ended.is_set():
                        async with session.post(f"http://127.0.0.1:{port}/m", json={}) as answer:
                            await answer.read()
                            statuses.append(answer.status)

                calls = [asyncio.create_task(call()) for _ in range(4)]
                await asyncio.sleep(2)
                shards = ("gateway-0", "gateway-1", "keeper")
                before = {name: being_written(loaded.data / "journal" / name) for name in shards}
                last = [line async for line in command(loaded.data, "roll", {})][-1]
                assert last["exit"] == 0, last
                assert len(last["result"]["closed"]) == 3, last
                assert all(being_written(loaded.data / "journal" / name) > first for name, first in before.items())
                ended.set()
                await asyncio.gather(*calls)
                assert set(statuses) == {200}
                done = [line async for line in command(loaded.data, "settle", {})][-1]
                assert done["exit"] == 0
                sound = [line async for line in command(loaded.data, "verify", {})][-1]
                assert sound["exit"] == 0, sound


async def test_a_segment_that_nobody_writes_stays_open_and_is_named(tmp_path: Path) -> None:
    loaded = written(tmp_path)
    gateway = await Gateway.open(loaded, Loans(tmp_path))  # a journal alone: nothing here reads control.json
    async with kept(loaded) as keeper:
        await until(lambda: keeper.writer._journal._space.is_ready)
        rolled = await roll_all(keeper.parts.library, keeper.upkeep, keeper.writer, timeout_s=3)
        assert rolled.open == (gateway.journal.origin,)
        assert rolled.closed == (keeper.writer.origin,)
        path = loaded.data / control.FILE
        public = keeper.parts.keyring.control_public
        said = control.parse(path.read_bytes(), deployment="test", public=public)
        assert said.roll == {gateway.journal.origin: 0}
        await gateway.close()
        rolled = await roll_all(keeper.parts.library, keeper.upkeep, keeper.writer, timeout_s=3)
        assert (rolled.open, rolled.before) == ((), (gateway.journal.origin,))


async def ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(UP_S):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)
