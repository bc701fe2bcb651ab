"""A whole Answerable running beside this command: started, waited for, asked, and ended in order."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from config.errors import AnswerableError, ConfigError
from config.load import Configuration
from config.processes import start
from gateway.keeper.socket import command

READY_WITHIN_S = 90.0  # importing shap and creating a database on a slow disk
STOP_WITHIN_S = 45.0  # drains for up to 30 s, then ships
POLL_S = 0.1


class HostError(AnswerableError):
    """The processes beside this command did not start or did not answer; it exits 2."""

    code = "host_failed"
    advice = "The lines above come from the process that failed."


def free_or_refuse(port: int, flag: str) -> None:
    """True on return: `port` on loopback is free.

    Raises:
        ConfigError: somebody listens there; the message names the flag that changes it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} is in use", advice=f"Stop what listens there, or choose another with {flag} PORT."
            ) from error


@contextlib.asynccontextmanager
async def running(configuration: Configuration, log: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """`answerable serve` in a process of its own, ready on entry and ended in order on exit; logs go to `log`."""
    with log.open("ab") as output:
        process = start(
            [sys.executable, "-m", "gateway.cli", "serve", "--config", str(configuration.path)],
            env=os.environ,
            stdout=output,
            stderr=output,
        )
    try:
        await _ready(configuration, process, log)
        yield process
    finally:
        await asyncio.to_thread(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask `process` to end and wait; kill it when it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _ready(configuration: Configuration, process: subprocess.Popen[bytes], log: Path) -> None:
    settings = configuration.settings
    wanted = [
        f"http://127.0.0.1:{settings.gateway.port}/-/readyz",
        f"http://127.0.0.1:{settings.desk.port}/readyz",
    ]
    deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        for url in wanted:
            while not await _answers(session, url):
                if process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                    raise HostError(f"{url} did not become ready\n{_tail(log)}")
                await asyncio.sleep(POLL_S)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _tail(log: Path, bytes_max: int = 4096) -> str:
    return log.read_bytes()[-bytes_max:].decode("utf-8", "replace")


async def ask(configuration: Configuration, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The lines of a keeper command: progress, then the result.

    Raises:
        HostError: the command ended in an error.
    """
    async for line in command(configuration.data, name, arguments):
        if "error" in line:
            raise HostError(line["error"]["message"], advice=line["error"]["advice"])
        yield line


async def result_of(configuration: Configuration, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The last line of a keeper command, ``{"result": …, "exit": n}``.

    Raises:
        HostError: the command ended in an error.
    """
    last: dict[str, Any] = {}
    async for line in ask(configuration, name, arguments):
        last = line
    return last
