"""Running other people's clients and servers, and keeping the bytes between them."""

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from config.processes import start
from tests.contract.environment import python
from tests.support.protocol_vectors import Vector, load, save
from tests.support.upstreams import Exchange, Upstream

CLIENTS = Path(__file__).parent / "clients"
SERVERS = Path(__file__).parent / "servers"
WITHIN_S = 90.0  # a cold import of such a server takes ten seconds on two busy cores
RECORDING = os.environ.get("ANSWERABLE_RECORD_VECTORS") == "1"


async def understood(client: str, *arguments: str) -> dict:
    """What a client printed of its calls; it ends within `WITHIN_S`."""
    argv = [str(python("clients")), "-W", "ignore", str(CLIENTS / f"{client}.py"), *arguments]
    process = start(argv, env=_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = await asyncio.to_thread(process.communicate, timeout=WITHIN_S)
    finally:
        process.kill()
    assert process.returncode == 0, err.decode(errors="replace")
    return json.loads(out)


@asynccontextmanager
async def served(environment: str, server: list[str], port: int, ready: str) -> AsyncIterator[str]:
    """The address of somebody's server, once it answers 200 at `ready`; it has ended on return."""
    process = start(
        [str(python(environment)), *server], env=_environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await _until_ready(url + ready, process)
        yield url
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that was free a moment ago: these servers cannot choose one themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@asynccontextmanager
async def passed_on(url: str, kept: list[tuple[bytes, bytes]]) -> AsyncIterator[Upstream]:
    """A server in front of `url` that keeps the bodies of each POST and of its answer."""
    nothing_added = {"Accept", "Accept-Encoding", "Content-Type", "User-Agent"}
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=nothing_added) as session:

        async def pass_on(exchange: Exchange) -> None:
            asked = exchange.asked
            headers = {name: value for name, value in asked.headers if name.lower() not in {"host", "content-length"}}
            async with session.request(asked.method, url + asked.target, data=asked.body, headers=headers) as answer:
                body = await answer.read()
                if asked.method == "POST":
                    kept.append((asked.body, body))
                named = [
                    f"{n}: {v}"
                    for n, v in answer.headers.items()
                    if n.lower() in {"content-type", "content-encoding", "inference-header-content-length"}
                ]
                await exchange.answer(body, f"{answer.status} OK", *named)

        async with Upstream(pass_on) as upstream:
            yield upstream


def agree(vector: Vector) -> None:
    """True on return: the adapter finds in these bytes what the vector says, and the stored vector says the same."""
    assert vector.found() == vector.expected, vector.name
    if RECORDING:
        save(vector)
    stored = load(vector.name)
    assert (stored.protocol, stored.extract, stored.expected) == (vector.protocol, vector.extract, vector.expected)


async def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WITHIN_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            assert process.poll() is None, "the server ended by itself"
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise AssertionError(f"{url}: not ready within {WITHIN_S} s")


def _environ() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "NO_PROXY": "127.0.0.1", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"}
