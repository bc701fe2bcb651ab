"""A command where no keeper runs: this process opens the data itself, under the lock, for as long as it takes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from config.load import Configuration
from gateway.keeper.commands import NEEDS_JOURNAL, NEEDS_LOOPS, Commands, unknown
from gateway.keeper.keeper import Keeper
from gateway.keeper.lifecycle import last_active
from gateway.keeper.lock import DataLock
from gateway.keeper.parts import Parts


async def run_alone(
    data: Path, name: str, arguments: Mapping[str, Any], lock: DataLock, configuration: Configuration | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Run one command on the data that `lock` holds, and let it go; yields the command's lines.

    Only commands that must write open the keeper's journal, and only those that wait for work start its loops.

    Raises:
        AnswerableError: the command's, or the data cannot be opened.
    """
    try:
        async with contextlib.AsyncExitStack() as stack:
            parts = await Parts.open(configuration or last_active(data))
            stack.push_async_callback(parts.close)
            keeper = None
            if name in NEEDS_JOURNAL | NEEDS_LOOPS:
                keeper = await Keeper.open(parts)
                stack.push_async_callback(keeper.close)
            if keeper is not None and name in NEEDS_LOOPS:
                await keeper.start()
            command = Commands(parts, keeper).table().get(name)
            if command is None:
                raise unknown(name)
            async with contextlib.aclosing(command(arguments)) as lines:
                async for line in lines:
                    yield line
    finally:
        lock.release()
