"""The desk beside a keeper, and alone beside a ClickHouse server: what it is given works, each look is an entry."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from config.load import Configuration
from config.processes import start
from gateway import development
from gateway.keeper.hosting import listening
from storage import notes
from tests.integration.test_serve import free_port
from tests.support.clickhouse_http import Server
from tests.support.keeping import Gateway, kept, settled, written
from tests.support.loans import Loans


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


def bearer(configuration: Configuration, role: str) -> dict[str, str]:
    token = development.sign(
        configuration.data, subject="ann", roles=[role], tenant="default", expires_s=int(time.time()) + 300
    )
    return {"Authorization": f"Bearer {token}"}


async def looked_up(session: aiohttp.ClientSession, base: str, case: str) -> dict[str, Any]:
    stated = {"reference": case, "kind": "case", "purpose": "complaint", "ticket": "T-1"}
    async with session.post(f"{base}/v1/lookup", json=stated) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def told(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_the_desk_of_a_keeper_finds_explains_and_proves(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, desk={"port": free_port(), "development": True})
    gateway = await Gateway.open(configuration, loans)
    base = f"http://127.0.0.1:{configuration.settings.desk.port}"
    async with kept(configuration) as keeper:
        appended = await gateway.decide(0)  # denied
        await settled(keeper)
        runner = await listening(keeper.desk, configuration)
        async with aiohttp.ClientSession(headers=bearer(configuration, "compliance")) as session:
            found = await looked_up(session, base, "L-0")
            case = await told(session, base + found["links"]["self"])
            identifier = orjson.loads(appended.entry)["id"]
            assert identifier in orjson.dumps(case).decode()
            whole = await told(session, f"{base}/v1/decisions/{identifier}?purpose=complaint&ticket=T-1")
            assert whole["integrity"]["state"] == "proven"
            assert whole["explanation"]["reasons"]
            async with session.get(f"{base}/v1/decisions/{identifier}/proof?purpose=complaint&ticket=T-1") as response:
                assert response.status == 200
        await runner.cleanup()
        await settled(keeper)
        rows = keeper.parts.database.rows("SELECT action, outcome, actor, ticket FROM accesses ORDER BY ts")
        assert [row[0] for row in rows] == ["lookup", "case", "decision", "proof"]
        assert {row[1:3] for row in rows} == {("granted", "answerable-development|ann")}
        hidden = keeper.parts.keyring.pseudonym("default", "ticket", "T-1")
        assert {row[3] for row in rows} == {hidden}
        public = keeper.parts.keyring.log.public_key().public_bytes_raw()
        (checkpoint,) = keeper.parts.database.rows(
            "SELECT note FROM checkpoints WHERE origin = {origin:String} ORDER BY size DESC LIMIT 1",
            {"origin": gateway.journal.origin},
        )
        assert notes.verified_checkpoint(checkpoint[0].encode(), origin=gateway.journal.origin, public=public)
    await gateway.close()


RUN = """
import asyncio, os, sys
from pathlib import Path
from config.load import load
from gateway.keeper.app import run_desk
raise SystemExit(asyncio.run(run_desk(load(Path(sys.argv[1]), {}))))
"""


@contextlib.contextmanager
def desk_alone(configuration: Configuration) -> Iterator[Any]:
    process = start([sys.executable, "-c", RUN, str(configuration.path)], env=os.environ)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def test_a_desk_alone_reads_from_the_server_and_its_looks_are_shipped(tmp_path: Path, loans: Loans) -> None:
    with Server(tmp_path / "clickhouse") as server:
        storage = {"profile": "server", "url": server.url, "database": "alone", "allow_broad_grants": True}
        desk = {"port": free_port(), "development": True}
        configuration = written(tmp_path, loans=loans, storage=storage, desk=desk)
        base = f"http://127.0.0.1:{configuration.settings.desk.port}"
        gateway = await Gateway.open(configuration, loans)
        async with kept(configuration) as keeper:
            await gateway.decide(0)
            await settled(keeper)
            with desk_alone(configuration) as process:
                async with aiohttp.ClientSession(headers=bearer(configuration, "support")) as session:
                    await up(session, base)
                    async with session.get(base, headers={"Accept": "text/html"}) as page:
                        assert "storage.allow_broad_grants" in await page.text()
                    found = await looked_up(session, base, "L-0")
                    await told(session, base + found["links"]["self"])
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 20) == 0
            await settled(keeper)
            rows = keeper.parts.database.rows("SELECT action, origin FROM accesses ORDER BY ts")
            assert rows == [("lookup", "test/desk/1"), ("case", "test/desk/1")]
        await gateway.close()


async def up(session: aiohttp.ClientSession, base: str) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{base}/healthz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
