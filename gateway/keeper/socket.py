"""``DATA/keeper.sock``: commands to the process that has the data open.

HTTP/1.1 on both sides: ``POST /c/<command>`` with JSON arguments. The answer is JSON lines: any number of
``{"progress": {…}}``, then one last line, ``{"result": …, "exit": n}`` or the one error shape
``{"error": {code, message, advice, request_id}, "exit": n}``. Owning the socket (0600) gives no right to read a
person's data: such commands carry a desk token in their arguments.

The client, `command`, is for command lines: where no keeper runs it opens the data itself, under the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket as sockets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import structlog
from aiohttp import web

from config.errors import AnswerableError
from config.load import Configuration
from gateway.keeper.lock import DataHeld, DataLock, holder

ARGUMENTS_BYTES_MAX = 1024 * 1024  # a command names things; data does not travel here
LINE_BYTES_MAX = 32 * 1024 * 1024  # one result, e.g. a whole justification with its request and answer
SOCKET_WAIT_S = 5.0  # a keeper that just took the lock needs this long at most to listen
SOCKET_POLL_S = 0.1
ANSWER_S = 10.0  # a keeper that works takes a question at once, whatever it is busy with
SILENCE_S = 300.0  # between two lines of an answer
_PATH_BYTES_MAX = 100  # sockaddr_un holds 108 bytes on Linux, 104 elsewhere

Lines = AsyncGenerator[dict[str, Any], None]
Command = Callable[[Mapping[str, Any]], Lines]

_log = structlog.get_logger(__name__)


class KeeperUnreachable(AnswerableError):  # noqa: N818 (named after the state that the caller meets)
    """The data is held, yet nobody listens on its socket."""

    code = "keeper_unreachable"
    status = 503
    advice = "Look at that process: it is starting, stopping, stuck, or a command that has the data open itself."


def error_line(error: AnswerableError, request_id: str, exit_code: int = 2) -> dict[str, Any]:
    """The last line of a command that failed."""
    return {**error.as_json(request_id), "exit": exit_code}


class Listener:
    """The keeper's end: serves `commands` on ``DATA/keeper.sock`` between `start` and `close`."""

    def __init__(self, data: Path, commands: Mapping[str, Command]) -> None:
        self._path = data / "keeper.sock"
        self._commands = commands
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; the caller holds the data lock, so a socket file that is there belongs to nobody."""
        app = web.Application(client_max_size=ARGUMENTS_BYTES_MAX)
        app.router.add_post("/c/{command}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        self._path.unlink(missing_ok=True)
        listening = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        with _short(self._path) as path:
            mask = os.umask(0o177)  # the file is born 0600
            try:
                listening.bind(path)
            finally:
                os.umask(mask)
        await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        """Stop listening and remove the socket file."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._path.unlink(missing_ok=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        request_id = secrets.token_hex(8)
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        lines = self._answer(request, request_id)
        try:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    await response.write(orjson.dumps(line) + b"\n")
        except ConnectionError:
            _log.info("command_abandoned", command=request.match_info["command"])  # whoever asked is gone
        return response

    async def _answer(self, request: web.Request, request_id: str) -> Lines:
        name = request.match_info["command"]
        try:
            async with contextlib.aclosing(self._named(name)(_arguments(await request.read()))) as lines:
                async for line in lines:
                    yield line
        except AnswerableError as error:
            yield error_line(error, request_id)
        except Exception as error:  # noqa: BLE001 (a fault in one command must not end the keeper; it is logged whole)
            _log.exception("command_failed", command=name, request_id=request_id)
            fault = AnswerableError(
                f"{name} failed: {type(error).__name__}", advice=f"Look {request_id} up in the keeper's log."
            )
            yield error_line(fault, request_id)

    def _named(self, name: str) -> Command:
        if name not in self._commands:
            known = ", ".join(sorted(self._commands))
            raise AnswerableError(
                f"no command {name}", code="command_unknown", status=404, advice=f"The keeper knows: {known}."
            )
        return self._commands[name]


def _arguments(raw: bytes) -> Mapping[str, Any]:
    try:
        arguments = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise AnswerableError(f"arguments are not JSON: {error}", code="arguments_invalid", status=400) from error
    if not isinstance(arguments, dict):
        raise AnswerableError("arguments are not a JSON object", code="arguments_invalid", status=400)
    return arguments


async def command(
    data: Path, name: str, arguments: Mapping[str, Any], *, configuration: Configuration | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Run a keeper command and yield its lines; the last one has ``exit`` and ``result`` or ``error``.

    A running keeper is asked over its socket. Without one the data is opened here, under the lock, with
    `configuration` or else the one that was last active. Where another process holds the lock and does not
    listen, this waits `SOCKET_WAIT_S` and ends with ``keeper_unreachable``, exit 2, naming the process.
    """
    request_id = secrets.token_hex(8)
    try:
        lock = await _reach(data)
        if lock is None:
            async for line in ask(data, name, arguments):
                yield line
            return
        # imported here because whoever talks to a running keeper needs neither database nor numbers
        from gateway.keeper.alone import run_alone  # noqa: PLC0415

        async with contextlib.aclosing(run_alone(data, name, arguments, lock, configuration)) as lines:
            async for line in lines:
                yield line
    except AnswerableError as error:
        yield error_line(error, request_id)


async def ask(
    data: Path, name: str, arguments: Mapping[str, Any], *, answer_s: float = ANSWER_S
) -> AsyncIterator[dict[str, Any]]:
    """Ask the running keeper and yield its lines as they come.

    Raises:
        KeeperUnreachable: nobody listens or answers, or the keeper ended in mid-answer.
    """
    ended = False
    with _short(data / "keeper.sock") as path:
        # a rebuild takes what it takes, but it tells of it
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SOCKET_WAIT_S, sock_read=SILENCE_S)
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path), timeout=timeout, read_bufsize=LINE_BYTES_MAX
        ) as session:
            try:
                async with asyncio.timeout(answer_s):  # it answers before it begins to work
                    response = await session.post(f"http://keeper/c/{name}", data=orjson.dumps(arguments))
                async with response:
                    async for raw in response.content:
                        line: dict[str, Any] = orjson.loads(raw)
                        ended = "exit" in line
                        yield line
            except TimeoutError as error:
                raise KeeperUnreachable(f"the keeper of {data}, process {holder(data)}, does not answer") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise KeeperUnreachable(f"the keeper of {data} went away: {error}") from error
    if not ended:
        raise KeeperUnreachable(f"the keeper of {data} ended before its answer was complete")


async def _reach(data: Path) -> DataLock | None:
    """None where a keeper listens, else the data lock, taken."""
    deadline = time.monotonic() + SOCKET_WAIT_S
    while True:
        if _listens(data):
            return None
        try:
            return DataLock.take(data)
        except DataHeld as held:
            if time.monotonic() >= deadline:
                message = f"{data} is held by process {holder(data)}, which does not answer on keeper.sock"
                raise KeeperUnreachable(message) from held
        await asyncio.sleep(SOCKET_POLL_S)


def _listens(data: Path) -> bool:
    with _short(data / "keeper.sock") as path, sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(SOCKET_POLL_S)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """`path` in a form that fits a socket address, however deep the data directory lies."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX or not path.parent.is_dir():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
