"""The keeper's life, from the lock on the data to the last snapshot.

    lock → keys → database handle → own journal → configuration and models stated → what was done is recollected
    → loops (watch, recollect, ship, extract, schedule, upkeep), commands, desk → on SIGTERM the desk and the socket
    close, what is durable is extracted and shipped, the journal is closed, the lock is let go

A loop that ends by an exception ends the process: the supervisor starts it again, and it goes on from its journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from config.errors import AnswerableError
from config.load import Configuration
from gateway.keeper.commands import Commands
from gateway.keeper.hosting import Host, listening
from gateway.keeper.keeper import Keeper
from gateway.keeper.lock import DataHeld, DataLock
from gateway.keeper.parts import Parts
from gateway.keeper.socket import Listener
from gateway.keeper.writing import Writer
from gateway.series import PaceSeries
from gateway.states import States
from storage.journal import Journal

DESK_SHARD = "desk"
THREADS = 16  # the loops' reads and the desk's questions: all of them wait more than they work
LOCK_POLL_S = 0.2
STATE_S = 1.0
DRAIN_S = 10.0  # after SIGTERM, for what is closed to be extracted and shipped; the rest is on disk
EXIT_OK, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

_log = structlog.get_logger(__name__)


async def run_keeper(configuration: Configuration, *, desk: bool) -> int:
    """Run the keeper of a host until SIGTERM or SIGINT; with `desk` the desk listens in this process.

    Returns 0 when ended as asked, 1 when the disk or a broken invariant stopped it, 2 when it could not start: the
    data is held, the desk's port is taken, a model's registration is faulty, the database cannot hold evidence (the
    message is on standard error).
    """
    stop = _stop_signal()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="keeper"))
    try:
        lock = await _locked(configuration.data, stop)
    except AnswerableError as error:
        return _refused(error)
    if lock is None:
        return EXIT_OK
    try:
        return await _kept(configuration, stop, desk=desk)
    except AnswerableError as error:
        return _refused(error)
    except OSError as error:
        return _refused(
            AnswerableError(f"the keeper cannot start: {error}", advice="Look at the address and the disk.")
        )
    finally:
        lock.release()


async def _locked(data: Path, stop: asyncio.Event) -> DataLock | None:
    """The data lock; waits while a command holds it (decisions go on meanwhile); None if told to stop before.

    Raises:
        DataHeld: another keeper has it.
    """
    told = False
    while not stop.is_set():
        try:
            return DataLock.take(data, keeper=True)
        except DataHeld as held:
            if held.by_keeper:
                raise
            if not told:
                _log.warning("waiting_for_data", held_by=held.pid)
                told = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOCK_POLL_S)
    return None


async def run_desk(configuration: Configuration) -> int:
    """Run the desk alone beside a ClickHouse server until SIGTERM or SIGINT; exit codes as `run_keeper`.

    It writes access entries into a journal of its own (shard ``desk``), which the keeper of the host ships.
    """
    stop = _stop_signal()
    parts: Parts | None = None
    journal: Journal | None = None
    try:
        parts = await Parts.open(configuration)
        journal = await Journal.open(
            configuration.data / "journal" / DESK_SHARD,
            origin_base=f"{configuration.settings.deployment}/{DESK_SHARD}",
            keys=parts.keyring.journal_keys(),
            config=configuration.digest,
        )
        host = Host(
            configuration=configuration,
            database=parts.database,
            keyring=parts.keyring,
            writer=Writer(journal, config=configuration.digest),
            job=lambda _: None,  # jobs are the keeper's; what it wrote is read from the database
            problems=_no_problems,
        )
        desk = host.desk()
        runner = await listening(desk, configuration)
        journal.stopped.add_done_callback(lambda _: stop.set())
        stating = asyncio.create_task(_state(configuration, journal))
        await stop.wait()
        stating.cancel()
        await runner.cleanup()
        await desk.close()
        return EXIT_FAILED if journal.stopped.done() else EXIT_OK
    except AnswerableError as error:
        return _refused(error)
    except OSError as error:
        return _refused(AnswerableError(f"the desk cannot start: {error}", advice="Look at the address and the disk."))
    finally:
        if journal is not None:
            await journal.close()
        if parts is not None:
            await parts.close()


async def _kept(configuration: Configuration, stop: asyncio.Event, *, desk: bool) -> int:
    """Everything between taking and releasing the lock."""
    async with contextlib.AsyncExitStack() as stack:
        parts = await Parts.open(configuration)
        stack.push_async_callback(parts.close)
        await parts.shipping.connect()
        keeper = await Keeper.open(parts)
        stack.push_async_callback(keeper.close)
        listener = Listener(configuration.data, Commands(parts, keeper).table())
        await listener.start()
        stack.push_async_callback(listener.close)
        runner: web.AppRunner | None = None
        if desk:
            runner = await listening(keeper.desk, configuration)
            stack.push_async_callback(runner.cleanup)
        await keeper.start()
        _log.info("keeper_ready", origin=keeper.writer.origin, desk=desk)
        failure = await _until(stop, keeper)
        if failure is not None:
            _log.error("keeper_failed", error=repr(failure), exc_info=failure)
            return EXIT_FAILED
        if runner is not None:
            await runner.cleanup()
        await keeper.drain(DRAIN_S)
    return EXIT_OK


async def _until(stop: asyncio.Event, keeper: Keeper) -> BaseException | None:
    """None once `stop` is set; what failed, if that comes first."""
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(keeper.failed())
    try:
        await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
        return failing.result() if failing.done() else None
    finally:
        stopping.cancel()
        failing.cancel()


async def _state(configuration: Configuration, journal: Journal) -> None:
    """A lone desk's gauges and the pace of its journal, once a second."""
    registry = CollectorRegistry()  # the keeper's metrics, which are none of a desk's, have the library's own
    states, pace = States(DESK_SHARD, registry), PaceSeries(registry)
    states.configured(configuration.settings.deployment, configuration.digest)
    while True:
        states.ready(ready=not journal.stopped.done())
        pace.feed(DESK_SHARD, journal.pace)
        await asyncio.sleep(STATE_S)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _no_problems() -> Sequence[str]:
    return ()


def _refused(error: AnswerableError) -> int:
    sys.stderr.write(f"answerable: {error.message}\n{error.advice}\n")
    return EXIT_REFUSED
