"""The whole path while ClickHouse refuses connections: no request fails, memory stays flat, all arrives afterwards."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.keeper.socket import command
from tests.support.clickhouse_http import Server
from tests.support.deployment import Client, Deployment, sometimes_slow
from tests.support.upstreams import Upstream

AWAY_S = float(os.environ.get("ANSWERABLE_AWAY_S", "15"))  # `make chaos` says 60
GROWTH_BYTES_MAX = 64 * 1024 * 1024


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def result(deployment: Deployment, name: str, **arguments: object) -> dict:
    lines = [line async for line in command(deployment.data, name, arguments)]
    assert lines[-1].get("exit") == 0, lines[-1]
    return lines[-1]["result"]


@pytest.mark.timeout(600)
async def test_no_request_fails_while_clickhouse_refuses_connections_and_all_is_shipped_afterwards(tmp_path):
    with Server(tmp_path / "clickhouse") as server:
        async with Upstream(sometimes_slow) as upstream:
            storage = {"profile": "server", "url": server.url, "database": "away", "allow_broad_grants": True}
            deployment = Deployment(tmp_path / "host", upstream.url, storage=storage)
            client = Client(deployment, concurrency=8)
            try:
                gateway, keeper = deployment.start("gateway"), deployment.start("keeper")
                await deployment.ready("gateway")
                await deployment.ready("keeper")
                calling = asyncio.create_task(client.run())
                await asyncio.sleep(3)  # past the growth of a start
                await asyncio.to_thread(server.refuse, AWAY_S)
                await asyncio.sleep(AWAY_S / 3)
                before = resident_bytes(gateway.pid), resident_bytes(keeper.pid)
                sent_before = len(client.received)
                await asyncio.to_thread(server.wait_until_up, AWAY_S + 30)
                after = resident_bytes(gateway.pid), resident_bytes(keeper.pid)
                assert len(client.received) > sent_before + 100
                client.stopping = True
                await asyncio.wait_for(calling, 60)

                assert client.broken == 0
                assert set(client.statuses) == {200}
                assert max(late - early for late, early in zip(after, before, strict=True)) < GROWTH_BYTES_MAX
                await result(deployment, "settle")
                counted = await result(deployment, "count", decisions=sorted(client.received))
                assert counted["shipped"] == len(client.received)
                verified = await asyncio.to_thread(deployment.run, "verify")
                assert verified.returncode == 0, verified.stdout
            finally:
                client.stopping = True
                deployment.close()
