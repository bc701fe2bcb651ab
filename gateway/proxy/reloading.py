"""How a worker that runs gets another configuration: from the supervisor over its link, or alone, on SIGHUP.

What is asked is done one thing after the other. A configuration that cannot work is refused with its problem, and what
serves goes on; once all workers of a host have prepared it, they are told to commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import structlog

from config.errors import AnswerableError
from config.load import Configuration, load
from gateway import handover

_log = structlog.get_logger(__name__)


class Reloadable(Protocol):
    """A worker, as far as this is concerned."""

    def prepare(self, configuration: Configuration) -> None:
        """Make all that it needs."""

    async def commit(self) -> None:
        """Serve under what was prepared."""

    async def abort(self) -> None:
        """Forget what was prepared."""


class Reloading:
    """Listens until `close`; `path` is the configuration's file, for a worker without a supervisor."""

    def __init__(self, worker: Reloadable, path: Path, link: socket.socket | None) -> None:
        self._worker = worker
        self._path = path
        self._link = link
        self._asked: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._work(), name="reloading")
        if link is None:
            self._loop.add_signal_handler(signal.SIGHUP, self._asked.put_nowait, self._alone)
        else:
            link.setblocking(False)
            self._loop.add_reader(link, self._readable)

    async def close(self) -> None:
        """Listen no more; what is under way is given up."""
        if self._link is not None:
            self._loop.remove_reader(self._link)
            self._link.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _readable(self) -> None:
        link = self._link
        assert link is not None
        try:
            raw, descriptors, _, _ = socket.recv_fds(link, handover.MESSAGE_BYTES_MAX, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            raw, descriptors = b"", []
        word, number, _ = handover.parsed(raw)
        match word:
            case handover.PREPARE:
                self._asked.put_nowait(lambda: self._answer(number, self._prepare(descriptors[0])))
            case handover.COMMIT:
                self._asked.put_nowait(lambda: self._answer(number, self._worker.commit()))
            case handover.ABORT:
                self._asked.put_nowait(self._worker.abort)
            case _:  # the supervisor is gone, and its end sends SIGTERM
                self._loop.remove_reader(link)

    async def _work(self) -> None:
        while True:
            await (await self._asked.get())()

    async def _answer(self, number: int, doing: Awaitable[None]) -> None:
        problem = await _problem(doing)
        word = handover.DONE if problem is None else handover.FAILED
        assert self._link is not None
        await self._loop.sock_sendall(self._link, handover.message(word, number, problem or ""))

    async def _prepare(self, descriptor: int) -> None:
        await self._worker.abort()  # of an attempt that was never ended
        self._worker.prepare(handover.take_over(descriptor))

    async def _alone(self) -> None:
        problem = await _problem(self._reload())
        if problem is None:
            _log.info("reloaded", path=str(self._path))
        else:
            _log.error("reload_refused", problem=problem)

    async def _reload(self) -> None:
        self._worker.prepare(await asyncio.to_thread(load, self._path, os.environ))
        await self._worker.commit()


async def _problem(doing: Awaitable[None]) -> str | None:
    """What went wrong; None: it is done."""
    try:
        await doing
    except (AnswerableError, OSError) as error:
        return str(error)
    return None
