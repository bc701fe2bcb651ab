"""The supervisor of a host: real workers, a real keeper, killed, restarted and ended in order."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from config.errors import ConfigError
from config.load import Configuration
from config.processes import start
from gateway import ports
from gateway.keeper.socket import ask, command
from tests.support.keeping import until, written
from tests.support.upstreams import Exchange, Upstream

UP_S = 60
SERVE = """
import sys
from pathlib import Path
from config.load import load
from gateway import logs
from gateway.serve import serve

logs.configure()
raise SystemExit(serve(load(Path(sys.argv[1]), {})))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(configuration: Configuration, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`serve` in a process of its own; ended, children included, when the test ends."""
    with log.open("ab") as output:
        process = start(
            [sys.executable, "-c", SERVE, str(configuration.path)], env=os.environ, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                for child in children(process.pid):
                    os.kill(child, signal.SIGKILL)
                process.kill()
                process.wait()


def children(pid: int) -> dict[int, str]:
    """The direct children of a process and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(state[1]) == pid:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def child(pid: int, role: str) -> int | None:
    return next((one for one, line in children(pid).items() if f"gateway.serve {role} " in line), None)


async def answer(exchange: Exchange) -> None:
    await exchange.answer(b'{"decision": "approved", "score": 0.75}', "200 OK", "Content-Type: application/json")


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(answer) as one:
        yield one


async def called(session: aiohttp.ClientSession, url: str) -> int:
    try:
        async with session.post(f"{url}/loans/score", json={"income": 1, "debt": 2, "years": 3}) as response:
            await response.read()
            return response.status
    except aiohttp.ClientError:
        return 0  # the worker that had the connection was killed


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/-/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def result(configuration: Configuration, name: str) -> dict[str, Any]:
    return [line async for line in ask(configuration.data, name, {})][-1]["result"]


@pytest.mark.timeout(240)
async def test_what_dies_is_started_again_and_all_ends_in_order(tmp_path: Path, upstream: Upstream) -> None:
    port, log = free_port(), tmp_path / "serve.log"
    route = {"name": "loans", "prefix": "/loans", "upstream": f"http://127.0.0.1:{upstream.port}"}
    configuration = written(
        tmp_path,
        gateway={"port": port, "workers": 2},
        desk={"port": free_port()},
        routes=[route | {"extract": {"label": "decision", "favourable": ["approved"]}}],
    )
    url, socket_path = f"http://127.0.0.1:{port}", configuration.data / "keeper.sock"
    async with aiohttp.ClientSession() as session:
        with served(configuration, log) as process:
            async with asyncio.timeout(UP_S):
                while not (await is_ready(session, url) and socket_path.exists()):
                    assert process.poll() is None, log.read_text()
                    await asyncio.sleep(0.05)
            answered = sum([await called(session, url) == 200 for _ in range(10)])
            assert answered == 10
            for role in ("gateway-0", "keeper", "gateway-1"):
                victim = child(process.pid, role)
                assert victim is not None
                os.kill(victim, signal.SIGKILL)
                await until(
                    lambda role=role, victim=victim: (child(process.pid, role) or victim) != victim, within_s=UP_S
                )
                answered += sum([await called(session, url) == 200 for _ in range(10)])
            async with asyncio.timeout(UP_S):
                while not (await is_ready(session, url) and await _answers(configuration)):
                    await asyncio.sleep(0.05)
            answered += sum([await called(session, url) == 200 for _ in range(10)])
            status = await result(configuration, "settle")
            assert status["decisions"]["projected"] >= answered >= 40
            assert status["calls"]["accepted"] == status["calls"]["closed"] + status["calls"]["lost"]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 60) == 0
    assert not socket_path.exists()
    last = [line async for line in command(configuration.data, "verify", {})][-1]
    assert last["exit"] == 0


async def _answers(configuration: Configuration) -> bool:
    try:
        return [line async for line in ask(configuration.data, "status", {})][-1].get("exit") == 0
    except Exception as error:  # whatever it is, it is not up yet
        return error is None


async def test_when_the_supervisor_itself_is_killed_its_processes_end_too(tmp_path: Path) -> None:
    configuration = written(tmp_path, desk={"port": free_port()}, gateway={"port": free_port()})
    with served(configuration, tmp_path / "serve.log") as process:
        await until((configuration.data / "keeper.sock").exists, within_s=UP_S)
        orphans = children(process.pid)
        assert len(orphans) == 2
        process.kill()
        process.wait()
        await until(lambda: not any(Path(f"/proc/{one}").exists() for one in orphans), within_s=UP_S)


async def test_a_port_that_is_taken_ends_everything_with_2(tmp_path: Path, upstream: Upstream) -> None:
    log = tmp_path / "serve.log"
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = int(holder.getsockname()[1])
        configuration = written(tmp_path, desk={"port": taken}, gateway={"port": free_port()})
        with served(configuration, log) as process:
            assert await asyncio.to_thread(process.wait, UP_S) == 2
            assert children(process.pid) == {}
    assert f"{taken}" in log.read_text()


@pytest.mark.parametrize("role", ["serve", "gateway"])
def test_a_second_deployment_on_the_same_port_is_refused_and_names_it(tmp_path: Path, role: str) -> None:
    port = free_port()
    (tmp_path / "second").mkdir()
    first = written(tmp_path, gateway={"port": port})
    second = written(tmp_path / "second", desk={"port": free_port()}, gateway={"port": port})
    held = ports.take(first)
    try:
        command_line = [sys.executable, "-m", "gateway.cli", role, "--config", str(second.path)]
        got = subprocess.run(command_line, capture_output=True, text=True, timeout=UP_S, check=False)
    finally:
        held.release()
    assert got.returncode == 2
    told = " ".join(got.stderr.split())
    assert f":{port} cannot be listened on: the deployment " in told
    assert str(first.data) in told


def test_workers_of_one_deployment_share_its_port_and_another_program_on_it_is_noticed(tmp_path: Path) -> None:
    configuration = written(tmp_path, gateway={"port": free_port()})
    one, two = ports.take(configuration), ports.take(configuration)
    one.release()
    (tmp_path / "other").mkdir()
    other = written(tmp_path / "other", gateway={"port": configuration.settings.gateway.port})
    with pytest.raises(ConfigError, match=r"the deployment .* in "):
        ports.take(other)
    two.release()
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", configuration.settings.gateway.port))
        holder.listen()
        with pytest.raises(ConfigError, match=f"{configuration.settings.gateway.port} cannot be listened on"):
            ports.take(other)
    ports.take(other).release()
