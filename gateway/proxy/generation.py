"""What a configuration decides of a worker: callers, limits, routes, upstreams and who handles their calls.

A generation is made whole before it serves, so that a configuration that cannot work changes nothing. The one that it
replaces finishes what it has begun, under the terms that it was begun under, and is then let go.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.load import Configuration
from gateway.exposition import Scrapers
from gateway.proxy.callers import Applications, Callers
from gateway.proxy.claims import Claims
from gateway.proxy.counts import Counts
from gateway.proxy.exchangelog import ExchangeLog
from gateway.proxy.front import Front
from gateway.proxy.handler import Handler
from gateway.proxy.intake import Bounds, Intake
from gateway.proxy.lanes import Models, lanes
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.own import Own
from gateway.proxy.pool import Upstreams
from gateway.proxy.quotas import Quotas
from gateway.proxy.readiness import Readiness
from gateway.proxy.recording import Recorder
from gateway.proxy.routes import Routes
from gateway.proxy.tracing import Tracing

POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What a worker has for its life, whatever its configurations say."""

    data: Path
    shard: str
    recorder: Recorder
    known: Applications
    models: Models
    budget: Budget
    gauge: Gauge
    counts: Counts
    claims: Claims
    log: ExchangeLog | None
    tracing: Tracing | None
    readiness: Callable[[], Readiness]
    pseudonym: Callable[[str, str, str], str]  # of tenant, kind, value
    tls: ssl.SSLContext | None  # towards https upstreams, in place of the system's trust


class Generation:
    """One configuration at work: `start`, then `retire` or `close`."""

    def __init__(self, configuration: Configuration, lasting: Lasting) -> None:
        """Make all of it; nothing is asked or told yet.

        Raises:
            AnswerableError: credentials, certificates or keys are not as they must be.
            OSError: the table of limits cannot be opened.
        """
        settings = configuration.settings
        gateway = settings.gateway
        self.configuration = configuration
        self._tasks: list[asyncio.Task[None]] = []
        self._callers = Callers(
            settings.callers,
            tenant=settings.tenant,
            known=lasting.known,
            base=configuration.base,
            pseudonym=lasting.pseudonym,
        )
        self._upstreams = Upstreams(tls=lasting.tls)
        self.lanes = lanes(configuration, self._upstreams, lasting.budget, lasting.counts)
        for lane in self.lanes:
            lane.tracing = lasting.tracing
            if lasting.log is not None:
                lane.tell += (lasting.log.tell,)
        limits = settings.callers.limits
        self._quotas = None if limits is None else Quotas(lasting.data, lasting.shard, limits)
        bounds = Bounds(
            header_bytes_max=gateway.header_bytes_max,
            body_bytes_max=gateway.body_bytes_max,
            body_timeout_s=gateway.body_timeout_s,
        )
        self.handler = Handler(
            intake=Intake(bounds, lasting.budget),
            callers=self._callers,
            routes=Routes(settings.routes),
            lanes=self.lanes,
            models=lasting.models,
            recorder=lasting.recorder,
            budget=lasting.budget,
            gauge=lasting.gauge,
            counts=lasting.counts,
            quotas=self._quotas,
            log=lasting.log,
            own=Own(lasting.data, lasting.counts, lasting.readiness, scrapers=Scrapers(settings.metrics.allow)),
            claims=lasting.claims,
        )

    @property
    def claims_keys(self) -> bool:
        """Whether a route looks at idempotency keys."""
        return any(route.idempotency != "off" for route in self.configuration.settings.routes)

    def start(self) -> None:
        """Keep deadlines and look after replicas from now on."""
        self._upstreams.start()
        checks = [check for lane in self.lanes for check in lane.watching()]
        self._tasks = [asyncio.create_task(check, name="health") for check in checks]

    async def retire(self, front: Front) -> None:
        """Finish what was begun here, however long that takes, and close; `front` hands over what waits, no more."""
        await asyncio.sleep(POLL_S)
        front.forget(self.handler)
        while self.handler.under_way:  # noqa: ASYNC110 - polled a few times after a reload
            await asyncio.sleep(POLL_S)
        await self.close()

    async def close(self) -> None:
        """Let go of connections, keys and tables; no call is under way here."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upstreams.close()
        await self._callers.close()
        if self._quotas is not None:
            self._quotas.close()
            self._quotas = None
