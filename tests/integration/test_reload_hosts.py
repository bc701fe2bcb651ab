"""Whole hosts: reloaded on SIGHUP under load without a dropped connection, and drained without a lost call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import yaml

from config.load import Configuration
from gateway.keeper.socket import command
from storage import watermark
from storage.reading import SegmentTail
from tests.integration.test_serve import SERVE, UP_S, child, free_port, is_ready, served
from tests.support.keeping import until, written
from tests.support.upstreams import Exchange, Upstream

SHARDS = ("gateway-0", "gateway-1")


async def model(exchange: Exchange) -> None:
    """Streams where asked to, is slow where asked to, else answers at once."""
    asked = orjson.loads(exchange.asked.body)
    await asyncio.sleep(asked.get("wait_s", 0))
    if not asked.get("events"):
        await exchange.answer(b'{"decision":"approved"}', "200 OK", "Content-Type: application/json")
        return
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(asked["events"]):
        await exchange.chunk(b"data: %d\n\n" % number)
        await asyncio.sleep(asked["pace_s"])
    await exchange.send(b"0\r\n\r\n")


@dataclass
class Host:
    """Two workers and a keeper, as processes."""

    configuration: Configuration
    supervisor: int
    log: Path
    url: str
    outcomes: Counter[str] = field(default_factory=Counter)
    decisions: list[str] = field(default_factory=list)

    async def call(self, session: aiohttp.ClientSession, **said: Any) -> str:
        """One call, to its end; remembers how it went."""
        try:
            async with session.post(f"{self.url}/m/x", json=said) as answer:
                body = await answer.read()
                outcome = str(answer.status)
                if said.get("events") and answer.status == 200:
                    outcome = "200" if body.count(b"data:") == said["events"] else "cut short"
                self.decisions.append(answer.headers.get("Decision-Id", ""))
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1
        return outcome

    def rewrite(self, **changes: Any) -> None:
        tree = yaml.safe_load(self.configuration.path.read_text()) | changes
        self.configuration.path.write_text(yaml.safe_dump(tree))

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [event for line in lines if (event := orjson.loads(line))["event"] == name]

    async def reload(self, event: str = "reloaded") -> dict[str, Any]:
        """SIGHUP, and what the log says of it."""
        before = len(self.events(event))
        os.kill(self.supervisor, signal.SIGHUP)
        await until(lambda: len(self.events(event)) > before, within_s=UP_S)
        return self.events(event)[before]

    def entries(self, shard: str) -> list[dict[str, Any]]:
        tail = SegmentTail(self.configuration.data / "journal" / shard)
        try:
            return [orjson.loads(record.entry) for batch in tail.batches() for record in batch.records]
        finally:
            tail.close()

    def counters(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for shard in SHARDS:
            mark = watermark.read(self.configuration.data / "journal" / shard / watermark.NAME)
            assert mark is not None
            total.update(mark.counters.as_json())
        return total


@asynccontextmanager
async def hosted(folder: Path, upstream: Upstream, **gateway: Any) -> AsyncIterator[Host]:
    port = free_port()
    route = {"name": "m", "prefix": "/m", "upstream": upstream.url, "explain": {"when": "never"}}
    made = written(folder, gateway={"port": port, "workers": 2, **gateway}, desk={"port": free_port()}, routes=[route])
    log = folder / "serve.log"
    with served(made, log) as process:
        host = Host(made, process.pid, log, f"http://127.0.0.1:{port}")
        async with aiohttp.ClientSession() as session, asyncio.timeout(UP_S):
            while not (await is_ready(session, host.url) and (made.data / "keeper.sock").exists()):
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.05)
        yield host


async def ended(host: Host, within_s: float = 60) -> None:
    await until(lambda: not Path(f"/proc/{host.supervisor}").exists() or _is_zombie(host.supervisor), within_s=within_s)


async def verified(host: Host) -> None:
    """Ship and check what the host has left behind."""
    for name in ("settle", "verify"):
        last = [line async for line in command(host.configuration.data, name, {})][-1]
        assert last["exit"] == 0, orjson.dumps(last).decode()[-4000:]


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


@pytest.mark.timeout(240)
async def test_reloads_under_load_drop_no_connection_and_every_entry_names_what_was_stated(tmp_path: Path) -> None:
    async with Upstream(model) as upstream, hosted(tmp_path, upstream) as host:
        workers = [child(host.supervisor, shard) for shard in SHARDS]
        keeper = child(host.supervisor, "keeper")
        route = yaml.safe_load(host.configuration.path.read_text())["routes"][0]
        stopping = asyncio.Event()
        connects = 0

        async def count(*_: Any) -> None:
            nonlocal connects
            connects += 1

        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_start.append(count)

        async def calling(**said: Any) -> None:
            # a session with one connection: a dropped one would be seen
            connector = aiohttp.TCPConnector(limit=1)
            async with aiohttp.ClientSession(connector=connector, trace_configs=[tracing]) as session:
                while not stopping.is_set():
                    await host.call(session, **said)

        callers = [asyncio.create_task(calling()) for _ in range(10)]
        callers += [asyncio.create_task(calling(events=20, pace_s=0.05)) for _ in range(4)]
        digests = []
        for number in range(6):
            await asyncio.sleep(0.4)
            host.rewrite(routes=[route | {"extract": {"label": "decision", "favourable": [f"approved {number}"]}}])
            digests.append((await host.reload())["digest"])
        await asyncio.sleep(0.5)
        stopping.set()
        await asyncio.gather(*callers)
        assert set(host.outcomes) == {"200"}, host.outcomes
        assert connects == len(callers), "no caller had to connect again"
        assert [child(host.supervisor, shard) for shard in SHARDS] == workers
        await until(lambda: child(host.supervisor, "keeper") not in (None, keeper), within_s=UP_S)
        seen: set[str] = set()
        for shard in SHARDS:
            stated = []
            for entry in host.entries(shard):
                if entry["kind"] == "lifecycle":
                    stated.append(entry["digest"])
                elif entry["kind"] in ("begin", "decision", "call"):
                    assert entry["config"] in stated, "a call before the statement of its configuration"
                    seen.add(entry["config"])
            assert stated[-6:] == digests
        assert seen >= set(digests[:-1])
        os.kill(host.supervisor, signal.SIGTERM)
        await ended(host)
        counters = host.counters()
        assert counters["accepted"] == counters["closed"] == len(host.decisions)
    await verified(host)


@pytest.mark.timeout(240)
async def test_what_cannot_be_reloaded_is_refused_by_name_in_all_workers_and_a_restarted_one_runs_what_is_in_force(
    tmp_path: Path,
) -> None:
    async with Upstream(model) as upstream, hosted(tmp_path, upstream) as host, aiohttp.ClientSession() as session:
        text = host.configuration.path.read_text()
        route = yaml.safe_load(text)["routes"][0]
        host.configuration.path.write_text("routes: [")
        assert "not YAML" in (await host.reload("reload_refused"))["problem"]
        host.configuration.path.write_text(text)
        host.rewrite(gateway={"port": 1, "workers": 3})
        refused = await host.reload("reload_refused")
        assert "gateway.port, gateway.workers: changed, which needs a restart" in refused["problem"]
        host.configuration.path.write_text(text)
        host.rewrite(routes=[route | {"upstream_auth": {"secret": "file:secret"}}])
        refused = await host.reload("reload_refused")
        assert "secret" in refused["problem"]
        assert refused["role"] in SHARDS
        assert await host.call(session) == "200"
        assert upstream.seen[-1].header("Authorization") is None

        (tmp_path / "secret").write_text("first")
        await host.reload()
        assert await host.call(session) == "200"
        assert upstream.seen[-1].header("Authorization") == "Bearer first"
        (tmp_path / "secret").write_text("second")
        await host.reload()  # of an unchanged file: what it refers to has changed
        assert await host.call(session) == "200"
        assert upstream.seen[-1].header("Authorization") == "Bearer second"
        host.configuration.path.write_text("no: such")  # and a worker that dies runs what is in force
        for shard in SHARDS:
            victim = child(host.supervisor, shard)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(UP_S):
            while await host.call(session) != "200":
                await asyncio.sleep(0.1)
        assert upstream.seen[-1].header("Authorization") == "Bearer second"


@pytest.mark.timeout(240)
async def test_a_drain_tells_first_then_ends_streams_and_slow_calls_and_loses_nothing(tmp_path: Path) -> None:
    async with Upstream(model) as upstream, hosted(tmp_path, upstream, drain_s=20, drain_notice_s=2) as host:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            under_way = [asyncio.create_task(host.call(session, events=40, pace_s=0.1)) for _ in range(10)]
            under_way += [asyncio.create_task(host.call(session, wait_s=4)) for _ in range(10)]
            await asyncio.sleep(0.5)
            begun_s = time.monotonic()
            os.kill(host.supervisor, signal.SIGTERM)
            async with asyncio.timeout(1.5):
                while await is_ready(session, host.url):
                    await asyncio.sleep(0.02)
            assert [await host.call(session) for _ in range(20)] == ["200"] * 20, "unready, and serving"
            os.kill(host.supervisor, signal.SIGTERM)  # enough of that
            async with asyncio.timeout(5):
                while await host.call(session) == "200":
                    await asyncio.sleep(0.05)
            assert [await call for call in under_way] == ["200"] * 20
            await ended(host)
            assert time.monotonic() - begun_s < 19
        counters = host.counters()
        assert counters["accepted"] == counters["closed"] == host.outcomes["200"]
        assert counters["lost"] == 0
        assert not host.events("process_killed")


@pytest.mark.timeout(240)
async def test_what_does_not_end_in_time_is_cut_and_closed_with_its_true_state(tmp_path: Path) -> None:
    async with Upstream(model) as upstream, hosted(tmp_path, upstream, drain_s=1) as host:
        async with aiohttp.ClientSession() as session:
            under_way = [asyncio.create_task(host.call(session, events=1_000, pace_s=0.1)) for _ in range(4)]
            under_way += [asyncio.create_task(host.call(session, wait_s=50)) for _ in range(4)]
            await asyncio.sleep(1.5)
            os.kill(host.supervisor, signal.SIGTERM)
            outcomes = [await call for call in under_way]
        await ended(host)
        assert "200" not in outcomes
        counters = host.counters()
        assert counters["accepted"] == counters["closed"] == 8
        assert not host.events("process_killed")
        closing = [entry for shard in SHARDS for entry in host.entries(shard) if entry["kind"] == "decision"]
        states = Counter(entry["stream"]["state"] for entry in closing)
        assert sum(states.values()) == 8
        assert "complete" not in states, states
    await verified(host)


@pytest.mark.timeout(120)
async def test_a_terminal_that_is_closed_ends_what_was_started_in_it(tmp_path: Path) -> None:
    async with Upstream(model) as upstream:
        route = {"name": "m", "prefix": "/m", "upstream": upstream.url}
        made = written(tmp_path, gateway={"port": free_port()}, desk={"port": free_port()}, routes=[route])
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", SERVE, str(made.path)])
        try:
            reading = asyncio.create_task(asyncio.to_thread(_read_all, terminal))
            await until((made.data / "keeper.sock").exists, within_s=UP_S)
        finally:
            os.close(terminal)
            reading.cancel()
        async with asyncio.timeout(60):
            while not _is_zombie(pid):
                await asyncio.sleep(0.1)
        os.waitpid(pid, 0)


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            pass
