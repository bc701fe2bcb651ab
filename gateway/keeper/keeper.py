"""The keeper whole: the opened data, its own journal, and the loops over them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from config.route import Route
from explainers.pool import Pool
from gateway.desk.app import Desk
from gateway.keeper.anchoring import Anchoring
from gateway.keeper.auditing import Auditing
from gateway.keeper.extraction import Extraction
from gateway.keeper.figures import Figures
from gateway.keeper.hosting import Host
from gateway.keeper.lifecycle import activate, register_configured
from gateway.keeper.parts import SHARD, Parts
from gateway.keeper.recollection import Recollection
from gateway.keeper.schedule import Schedule
from gateway.keeper.settling import Target, Where
from gateway.keeper.study import Study
from gateway.keeper.upkeep import Upkeep
from gateway.keeper.writing import Writer
from storage.errors import StorageUnavailable
from storage.journal import Journal

RECOLLECT_RETRY_S = 1.0
REACHED_POLL_S = 0.05
LAST_SHIPMENT_S = 5.0  # for the keeper's own last entries, after its journal was closed

_log = structlog.get_logger(__name__)


class Keeper:
    """Made by `open`; `start` begins the loops, `close` ends everything in order."""

    def __init__(self, parts: Parts, journal: Journal) -> None:
        configuration = parts.configuration
        settings = configuration.settings
        self.parts = parts
        self.journal = journal
        self.writer = Writer(journal, config=configuration.digest)
        self.recollection = Recollection(configuration.data, library=parts.library, shard=SHARD)
        progress = self.recollection.progress
        routes: dict[str, Route] = {route.name: route for route in settings.routes}
        study = Study(routes, keyring=parts.keyring, limits=settings.gateway)
        workers = settings.keeper.explainers
        self.extraction = Extraction(
            library=parts.library, own=SHARD, study=study, writer=self.writer, progress=progress
        )
        self.pool = Pool(configuration.data, workers=workers)
        self.schedule = Schedule(
            library=parts.library,
            own=SHARD,
            routes=routes if workers else {},  # without explainers this host leaves all decisions out
            pool=self.pool,
            workers=workers,
            models=parts.models,
            study=study,
            writer=self.writer,
            progress=progress,
        )
        self.upkeep = Upkeep(
            parts,
            writer=self.writer,
            recollection=self.recollection,
            feeds=(self.extraction.feeds, self.schedule.feeds),
            figures=Figures(parts, journal=journal, schedule=self.schedule, problems=self.problems),
        )
        self.desk: Desk = Host(
            configuration=configuration,
            database=parts.database,
            keyring=parts.keyring,
            writer=self.writer,
            job=self.schedule.job,
            problems=self.problems,
        ).desk()
        self.anchoring = Anchoring.of(configuration, parts.shipping.rounds, parts.database)
        self.auditing = Auditing(settings.ledger.audit, parts, self.writer)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, parts: Parts) -> Keeper:
        """Open the own journal (recovered, if the last process died) over `parts`; nothing runs yet.

        Raises:
            JournalHeld, JournalFull, OSError: the journal cannot be written.
        """
        configuration = parts.configuration
        journal = await Journal.open(
            configuration.data / "journal" / SHARD,
            origin_base=f"{configuration.settings.deployment}/{SHARD}",
            keys=parts.keyring.journal_keys(),
            config=configuration.digest,
        )
        return cls(parts, journal)

    def problems(self) -> Sequence[str]:
        """What keeps the keeper from doing all of its work, in words; nothing on a good day."""
        found = [] if self.parts.shipping.problem is None else [f"ClickHouse: {self.parts.shipping.problem}"]
        if self.parts.shipping.rounds.problem is not None:
            found.append(f"log of logs: {self.parts.shipping.rounds.problem}")
        damages = [shelf.damage for shelf in self.parts.library.shelves if shelf.damage is not None]
        return [*found, *(f"{damage.origin}: {damage.message}" for damage in damages)]

    async def start(self) -> None:
        """State configuration and models, recollect what was done, begin the loops.

        Raises:
            ConfigError: a model's registration is faulty.
        """
        parts = self.parts
        await activate(parts.configuration, self.writer)
        await register_configured(parts.configuration, self.writer, parts.models)
        await self._recollect()
        await self.pool.start()
        loops = {
            "watch": parts.library.watch(),
            "recollect": self.recollection.run(),
            "ship": parts.shipping.run(),
            "extract": self.extraction.run(parts.library),
            "schedule": self.schedule.run(parts.library),
            "upkeep": self.upkeep.run(),
        }
        loops |= self.anchoring.loops() | self.auditing.loops()
        self._tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]

    @property
    def is_running(self) -> bool:
        """Whether the loops were started."""
        return bool(self._tasks)

    async def failed(self) -> BaseException:
        """Return once a loop has ended by an exception, or the own journal has stopped: what it was."""
        tasks: list[asyncio.Task[None]] = list(self._tasks)
        stopped = asyncio.create_task(self._journal_stopped())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        errors = [error for task in done if (error := task.exception()) is not None]
        return errors[0] if errors else RuntimeError("a loop ended, which none does")

    async def _journal_stopped(self) -> None:
        raise await asyncio.shield(self.journal.stopped)

    async def target(self) -> Target:
        """What is durable in every readable journal now."""
        await self.parts.library.look(discover=True)
        return Target.of(self.parts.library.shelves, own=SHARD)

    def where(self) -> Where:
        """How far each loop is."""
        return Where(self.parts, extraction=self.extraction, schedule=self.schedule)

    async def reached(self, condition: Callable[[Where], bool]) -> None:
        """Return once `condition` holds of the loops' places; raises what a loop ended with, if one does."""
        where = self.where()
        while not condition(where):  # five loops move these places; none of them knows who waits
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(REACHED_POLL_S)

    async def drain(self, within_s: float) -> None:
        """Extract and ship what is durable now, as far as that goes within `within_s`."""
        target = await self.target()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.reached(lambda where: where.is_shipped(target))

    async def close(self) -> None:
        """End the loops, write what they hold, close the journal, ship its last entries if the database is there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.auditing.close()
        await self.desk.close()
        await self.schedule.close()
        await self.pool.close()
        if not self.journal.stopped.done():
            if self._tasks:
                await self.extraction.write_due(everything=True)
                await self.upkeep.save()
            await self.journal.close()
        if self._tasks and self.parts.shipping.problem is None:
            await self._ship_the_last()
        self.recollection.close()
        self.extraction.feeds.close()
        self.schedule.feeds.close()

    async def _ship_the_last(self) -> None:
        target = await self.target()
        with contextlib.suppress(TimeoutError, StorageUnavailable):
            async with asyncio.timeout(LAST_SHIPMENT_S):
                while not self.where().has_all_shipped(target):
                    await self.parts.shipping.step()
                    await asyncio.sleep(0.05)
                await self.parts.shipping.finish()

    async def _recollect(self) -> None:
        """True on return: everything that was done is known. Only then may anything be decided again."""
        while True:
            await self.parts.library.look(discover=True)
            try:
                return await self.recollection.catch_up(self.parts.database)
            except StorageUnavailable as error:
                _log.warning("waiting_for_database", error=error.message)
                await asyncio.sleep(RECOLLECT_RETRY_S)
