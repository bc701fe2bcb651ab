"""One gateway worker, from start to end, read from the top down.

Keys, journal (recovery comes first), callers, routes, the listening socket; then serving; on SIGTERM or SIGINT the
socket closes, connections end after their answers, what was accepted is finished within `drain_s`, and the journal
is closed. A journal that cannot write any more ends the worker with an error: the supervisor starts it again, which
recovers.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl
from typing import TYPE_CHECKING, Any

import structlog

from config.errors import AnswerableError, ConfigError
from config.load import Configuration
from gateway import logs
from gateway.exposition import Scrapers
from gateway.lines import LineWriter
from gateway.proxy import modes
from gateway.proxy.callers import Applications, Callers
from gateway.proxy.claims import Claims
from gateway.proxy.counts import Counts
from gateway.proxy.exchangelog import ExchangeLog
from gateway.proxy.gauges import Gauges, Held
from gateway.proxy.handler import Handler
from gateway.proxy.intake import Bounds, Intake
from gateway.proxy.lanes import Models, lanes
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.listening import Listener
from gateway.proxy.own import Own
from gateway.proxy.pool import Upstreams
from gateway.proxy.quotas import Quotas
from gateway.proxy.readiness import Watch
from gateway.proxy.recording import Recorder
from gateway.proxy.routes import Routes
from gateway.proxy.server import DataPlane
from gateway.proxy.tracing import Tracing
from storage import durable
from storage.journal import Journal
from storage.keys import Keyring
from storage.writer import JournalLimits

if TYPE_CHECKING:  # imports OpenTelemetry
    from gateway.spans import SpanExport

TICK_S = 0.25  # how late a trickling head or an old chunk may be noticed
LOOK_S = 1.0  # how often files of the host are looked at: keys and models
STATE_S = 60.0  # refusals are stated in one entry a minute, so that nobody fills the disk with them
BACKLOG = 1024
GC_THRESHOLD = 20_000  # objects more than at the last look; the library's 700 are there with 64 calls under way
POLL_S = 0.02
CUT_S = 0.5  # for handlers to close their calls after the drain has ended
EXIT_OK, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

_log = structlog.get_logger(__name__)


class Worker:
    """One worker process' parts, made by `start` and ended by `stop`."""

    def __init__(
        self,
        configuration: Configuration,
        shard: str,
        *,
        tls: ssl.SSLContext | None = None,
        writer: LineWriter | None = None,
        syscalls: durable.Syscalls = durable.KERNEL,
    ) -> None:
        """Nothing runs yet.

        `tls` is used towards https upstreams in place of the system's trust; exchanges are logged to `writer`.
        """
        self._configuration = configuration
        self._shard = shard
        self._tls = tls
        self._writer = writer
        log = configuration.settings.log
        self._log = (
            None
            if writer is None or not log.exchanges
            else ExchangeLog(writer, shard, below_warning=log.level in ("debug", "info"))
        )
        self._syscalls = syscalls
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.port = 0

    async def start(self, *, reuse_port: bool = True) -> None:
        """Recover the journal, then listen; `port` is where.

        Raises:
            AnswerableError: keys, journal or credentials are not as they must be.
            OSError: the address cannot be listened on.
        """
        configuration = self._configuration
        settings = configuration.settings
        gateway = settings.gateway
        data = configuration.data
        keyring = Keyring.open(data, create=True)
        self.counts = Counts()
        self._gauge = Gauge(gateway.connections_max)
        self._budget = Budget(gateway.pending_bytes_max)
        self._known = Applications(data)
        self._models = Models(data)
        self._listener = None if gateway.tls is None else Listener(gateway.tls, configuration)
        self._callers = Callers(
            settings.callers,
            tenant=settings.tenant,
            known=self._known,
            base=configuration.base,
            pseudonym=keyring.pseudonym,
        )
        limits = settings.callers.limits
        self._quotas = None if limits is None else Quotas(data, self._shard, limits)
        self._upstreams = Upstreams(tls=self._tls)
        self._lanes = lanes(configuration, self._upstreams, self._budget, self.counts)
        if self._log is not None:
            for lane in self._lanes:
                lane.tell += (self._log.tell,)
        self.journal = await Journal.open(
            data / "journal" / self._shard,
            origin_base=f"{settings.deployment}/{self._shard}",
            keys=keyring.journal_keys(),
            limits=JournalLimits(pending_bytes_max=gateway.pending_bytes_max),
            config=configuration.digest,
            syscalls=self._syscalls,
        )
        self._recorder = Recorder(self.journal, keyring, config=configuration.digest, kinds=modes.KINDS)
        self._gauges = Gauges(
            self._shard, self.counts, self._lanes, deployment=settings.deployment, config=configuration.digest
        )
        self._watch = Watch(
            data,
            journal=self.journal,
            gauge=self._gauge,
            budget=self._budget,
            known=self._known,
            listener=self._listener,
            lanes=self._lanes,
            draining=lambda: self._stopping,
        )
        self._spans: SpanExport | None
        self._spans, tracing = _traced(configuration, self._shard)
        for lane in self._lanes:
            lane.tracing = tracing
        self._tracing = tracing
        self._claims = Claims(data, self._shard, self._budget)
        bounds = Bounds(
            header_bytes_max=gateway.header_bytes_max,
            body_bytes_max=gateway.body_bytes_max,
            body_timeout_s=gateway.body_timeout_s,
        )
        self._handler = Handler(
            intake=Intake(bounds, self._budget),
            callers=self._callers,
            routes=Routes(settings.routes),
            lanes=self._lanes,
            models=self._models,
            recorder=self._recorder,
            budget=self._budget,
            gauge=self._gauge,
            counts=self.counts,
            quotas=self._quotas,
            log=self._log,
            own=Own(data, self.counts, self._watch.now, scrapers=Scrapers(settings.metrics.allow)),
            claims=self._claims,
        )
        self._plane = DataPlane(
            self._handler,
            header_bytes_max=gateway.header_bytes_max,
            connections_max=gateway.connections_max,
            on_refusal=self._handler.refused,
            seen=self._handler.seen,
            trusted_proxies=gateway.trusted_proxies,
            proxy_header=gateway.proxy_header,
        )
        await self._watch.look()
        try:
            await self._listen(reuse_port=reuse_port)
        except OSError:
            await self.journal.close()
            raise

    async def stop(self) -> None:
        """Finish what was accepted, within `drain_s`, then close everything; nothing accepted is lost."""
        if self._stopping:
            return
        self._stopping = True
        drain_s = self._configuration.settings.gateway.drain_s
        self._handler.draining = True
        self._server.close()
        self._plane.close_idle()
        await self._calls_ended(drain_s)
        await self._plane.shutdown(CUT_S)
        await self._calls_ended(CUT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upstreams.close()
        await self._claims.close()
        await self._callers.close()
        if self._quotas is not None:
            self._quotas.close()
        self._state()
        await self.journal.close()
        if self._log is not None:
            self._log.flush()
        if self._tracing is not None and self._spans is not None:
            self._tracing.flush()
            await asyncio.to_thread(self._spans.close)
        self._publish()  # the last counts are not lost with the process

    async def _calls_ended(self, within_s: float) -> None:
        """Return when no call is under way, or `within_s` have passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self._gauge.now and loop.time() < deadline:  # noqa: ASYNC110 - polled once in a process's life
            await asyncio.sleep(POLL_S)

    async def _listen(self, *, reuse_port: bool) -> None:
        gateway = self._configuration.settings.gateway
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self._listener is not None:
            tls = {"ssl": self._listener.context, "ssl_handshake_timeout": gateway.header_timeout_s}
        self._server = await loop.create_server(
            self._plane, gateway.host, gateway.port, reuse_port=reuse_port, backlog=BACKLOG, **tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._upstreams.start()
        if any(route.idempotency != "off" for route in self._configuration.settings.routes):
            self._claims.start()
        self._tasks = [
            asyncio.create_task(self._tick(), name="deadlines"),
            asyncio.create_task(self._look(), name="files"),
            *(asyncio.create_task(check, name="health") for lane in self._lanes for check in lane.watching()),
        ]

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        header_timeout_s = self._configuration.settings.gateway.header_timeout_s
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            self._plane.tick(now, header_timeout_s)
            self._recorder.tick(now)
            if self._log is not None:
                self._log.flush()
            if self._tracing is not None:
                self._tracing.flush()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        stated = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            await self._known.refresh()
            self._claims.tick(loop.time())
            await asyncio.to_thread(self._models.look)
            if self._listener is not None:
                await asyncio.to_thread(self._listener.look)
            await self._watch.look()
            self._publish()
            if loop.time() - stated >= STATE_S:
                stated = loop.time()
                self._state()

    def _publish(self) -> None:
        """What was counted, and what is held now, to where a scrape finds it."""
        journal = self.journal
        if self._log is not None:
            self._log.second()
        if self._writer is not None:
            self.counts.dropped(self._shard, self._writer.dropped)
        if self._spans is not None:
            self.counts.untraced(self._shard, self._spans.dropped)
        self.counts.publish()
        self.counts.pace(self._shard, journal.pace)
        self._gauges.set(
            Held(
                ready=self._watch.now().status != "unready",
                under_way=self._gauge.now,
                unattended=self._watch.unattended,
                memory_bytes=self._budget.held_bytes,
                pending_bytes=journal.pending_bytes,
                space_ratio=journal.used_share,
            )
        )

    def _state(self) -> None:
        if not self.journal.stopped.done():
            self._recorder.state_refusals(self.counts.refusals())


def _traced(configuration: Configuration, shard: str) -> tuple[SpanExport, Tracing] | tuple[None, None]:
    """Where spans go, if anywhere; without telemetry nothing of OpenTelemetry is imported.

    Raises:
        ConfigError: the extra is not installed, or a secret is not there.
    """
    otlp = configuration.settings.telemetry.otlp
    if otlp is None:
        return None, None
    try:
        from gateway.spans import SpanExport  # noqa: PLC0415 (see above)
    except ImportError as error:
        raise ConfigError(
            f"{configuration.path}: telemetry.otlp needs OpenTelemetry, which is not installed ({error})",
            advice="Install the extra: pip install 'answerable[otel]'.",
        ) from error
    export = SpanExport(configuration, otlp, shard)
    return export, Tracing(ratio=otlp.sample_ratio, put=export.put)


async def run(configuration: Configuration, shard: str, *, reuse_port: bool = True) -> int:
    """Run one worker until SIGTERM or SIGINT, or until its journal stops; returns the exit code.

    0: ended as asked. 1: the journal failed, start again. 2: it could not start; standard error says why.
    """
    with logs.off_loop(configuration.settings.log.level) as writer:
        return await _run(configuration, shard, writer, reuse_port=reuse_port)


async def _run(configuration: Configuration, shard: str, writer: LineWriter, *, reuse_port: bool) -> int:
    worker = Worker(configuration, shard, writer=writer)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    try:
        await worker.start(reuse_port=reuse_port)
    except (AnswerableError, OSError) as error:
        _log.error("worker_refused_to_start", shard=shard, problem=str(error))
        return EXIT_REFUSED
    # what is there now stays: the collector need not look at it again and again, nor look so often, since a call
    # leaves hardly any cycles behind
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    _log.info("worker_listens", shard=shard, host=configuration.settings.gateway.host, port=worker.port)
    asked = asyncio.create_task(ending.wait())
    both: set[asyncio.Future[Any]] = {asked, worker.journal.stopped}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    failed = worker.journal.stopped.done()
    asked.cancel()
    await worker.stop()
    _log.info("worker_ended", shard=shard, failed=failed)
    return EXIT_FAILED if failed else EXIT_OK
