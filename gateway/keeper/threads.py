"""Long work in a thread that tells how far it is, as lines of a command."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Tell = Callable[[Mapping[str, Any]], None]

TELL_EVERY_S = 0.2  # a person reads no faster, and lines cost


class AbandonedError(Exception):
    """Whoever asked is gone; raised out of `tell` so that the work ends at its next step."""


class Told(Generic[Result]):
    """Runs `work(tell)` in a thread; iterate for what it tells, then take `result`."""

    def __init__(self, work: Callable[[Tell], Result]) -> None:
        self._work = work
        self._told: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(maxsize=0)
        self._abandoned = threading.Event()
        self._last_s = 0.0
        self._outcome: list[Result] = []

    @property
    def result(self) -> Result:
        """What `work` returned; there once the iteration has ended."""
        return self._outcome[0]

    async def lines(self) -> AsyncGenerator[dict[str, Any], None]:
        """``{"progress": …}`` lines until the work ends; raises what it raised."""
        loop = asyncio.get_running_loop()

        def tell(progress: Mapping[str, Any]) -> None:
            if self._abandoned.is_set():
                raise AbandonedError
            now_s = time.monotonic()
            if now_s - self._last_s >= TELL_EVERY_S:
                self._last_s = now_s
                loop.call_soon_threadsafe(self._told.put_nowait, dict(progress))

        def run() -> None:
            try:
                self._outcome.append(self._work(tell))
            except AbandonedError:
                pass
            finally:
                loop.call_soon_threadsafe(self._told.put_nowait, None)

        running = asyncio.ensure_future(asyncio.to_thread(run))
        try:
            while (progress := await self._told.get()) is not None:
                yield {"progress": progress}
            await running
        finally:
            self._abandoned.set()
