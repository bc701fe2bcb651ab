"""The log of a real worker process: a line for each exchange on standard error, and a full pipe stops nobody."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from config.load import Configuration
from tests.integration.test_serve import free_port
from tests.support.scrapes import value
from tests.support.upstreams import Exchange, Upstream
from tests.support.workers import configuration

UP_S = 30
SECRET = "8811223344"


@asynccontextmanager
async def process(made: Configuration) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """A gateway whose standard error is a small pipe that nobody reads unless the test does."""
    made.path.write_text(yaml.safe_dump(made.settings.model_dump(mode="json", by_alias=True)))
    command = [sys.executable, "-m", "gateway.cli", "gateway", "--config", str(made.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as worker:
        assert worker.stderr is not None
        fcntl.fcntl(worker.stderr, fcntl.F_SETPIPE_SZ, 4096)
        url = f"http://127.0.0.1:{made.settings.gateway.port}"
        try:
            async with asyncio.timeout(UP_S), aiohttp.ClientSession() as session:
                while True:
                    try:
                        async with session.get(f"{url}/-/readyz") as answer:
                            if answer.status == 200:
                                break
                    except aiohttp.ClientError:
                        await asyncio.sleep(0.05)
            yield worker, url
        finally:
            worker.kill()


async def good(exchange: Exchange) -> None:
    if exchange.asked.target.startswith("/bad"):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        exchange.close()
        return
    await exchange.answer(b'{"ok": true}', "200 OK", "Content-Type: application/json")


def made(tmp_path: Path, upstream: Upstream, **more: Any) -> Configuration:
    rules = [
        {"path": "/health", "as": "none"},
        {"path": "/customers/*/score", "as": "decision"},
        {"path": "/**", "as": "call"},
    ]
    return configuration(tmp_path, upstream.url, gateway={"port": free_port()}, route={"record": rules}, **more)


async def test_each_exchange_has_a_line_that_names_no_person(tmp_path: Path):
    headers = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "Answerable-Subject": SECRET,
        "X-Forwarded-For": SECRET,
    }
    async with Upstream(good) as upstream, process(made(tmp_path, upstream)) as (worker, url):
        async with aiohttp.ClientSession() as session:
            path = f"{url}/m/customers/{SECRET}/score?q={SECRET}"
            async with session.post(path, data=SECRET, headers=headers) as got:
                assert got.status == 200
                decision = got.headers["Decision-Id"]
            async with session.get(f"{url}/m/health") as got:
                assert got.status == 200
            async with session.post(f"{url}/m/bad", data=b"x") as got:
                assert got.status == 502
            async with session.get(f"{url}/elsewhere/{SECRET}") as got:
                assert got.status == 404
                request_id = (await got.json())["error"]["request_id"]
        worker.send_signal(signal.SIGTERM)
        _, raw = await asyncio.to_thread(worker.communicate, timeout=UP_S)
        assert worker.returncode == 0
    assert SECRET.encode() not in raw
    lines = [orjson.loads(line) for line in raw.splitlines()]
    scored, health, bad = [line for line in lines if line["event"] == "exchange"]
    assert (scored["decision"], scored["path"], scored["trace"]) == (
        decision,
        "/m/customers/*/score",
        "4bf92f3577b34da6a3ce929d0e0e4736",
    )
    assert (scored["status"], scored["request_bytes"], scored["response_bytes"]) == (200, len(SECRET), 12)
    assert scored["total_us"] >= scored["upstream_us"] >= scored["first_byte_us"] >= 0
    assert (health["path"], "decision" in health) == ("/m/health", False)
    assert (bad["level"], bad["status"], bad["error"], bad["state"]) == (
        "warning",
        502,
        "upstream_cut",
        "upstream_aborted",
    )
    (refusal,) = [line for line in lines if line["event"] == "refusal"]
    assert (refusal["error"], refusal["status"], refusal["request"]) == ("route_unknown", 404, request_id)
    assert {"worker_listens", "worker_ended"} <= {line["event"] for line in lines}


async def test_addresses_stand_in_the_log_only_where_the_configuration_says_so(tmp_path: Path):
    async with Upstream(good) as upstream, process(made(tmp_path, upstream, log={"addresses": True})) as (worker, url):
        async with aiohttp.ClientSession() as session, session.post(f"{url}/m/x", data=b"x") as got:
            assert got.status == 200
        worker.send_signal(signal.SIGTERM)
        _, raw = await asyncio.to_thread(worker.communicate, timeout=UP_S)
    (line,) = [line for line in map(orjson.loads, raw.splitlines()) if line["event"] == "exchange"]
    assert line["address"] == "127.0.0.1"


async def test_calls_go_on_behind_a_full_pipe_and_what_is_dropped_is_counted(tmp_path: Path):
    calls = 12_000  # more lines than wait, of about 400 bytes each
    async with Upstream(good) as upstream, process(made(tmp_path, upstream)) as (worker, url):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as session:

            async def some(count: int) -> int:
                good_ones = 0
                for _ in range(count):
                    async with session.get(f"{url}/m/health") as got:
                        good_ones += got.status == 200
                return good_ones

            answered = sum(await asyncio.gather(*[some(calls // 24) for _ in range(24)]))
            assert answered == calls
            await asyncio.sleep(1.5)
            async with session.get(f"{url}/-/metrics") as got:
                text = await got.text()
        dropped = value(text, "answerable_log_lines_dropped_total", role="gateway-0")
        assert dropped is not None
        assert 0 < dropped < calls
        assert worker.stderr is not None
        os.set_blocking(worker.stderr.fileno(), True)
        worker.send_signal(signal.SIGTERM)
        _, raw = await asyncio.to_thread(worker.communicate, timeout=UP_S)
        assert worker.returncode == 0
    told = [line for line in map(orjson.loads, raw.splitlines()) if line["event"] == "exchange"]
    assert len(told) + dropped >= calls - 300, "what was neither dropped nor told was gathered last"
    assert len(told) < calls


async def test_a_worker_whose_log_nobody_reads_ends_all_the_same(tmp_path: Path):
    async with Upstream(good) as upstream, process(made(tmp_path, upstream)) as (worker, url):
        async with aiohttp.ClientSession() as session:
            for _ in range(100):
                async with session.get(f"{url}/m/health") as got:
                    assert got.status == 200
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, UP_S) == 0
