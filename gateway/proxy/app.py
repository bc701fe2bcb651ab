"""One gateway worker, from start to end, read from the top down.

Keys, journal (recovery comes first), callers, routes, the listening socket; then serving; on SIGTERM or SIGINT the
socket closes, connections end after their answers, what was accepted is finished within `drain_s`, and the journal
is closed. A journal that cannot write any more ends the worker with an error: the supervisor starts it again, which
recovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
from typing import TYPE_CHECKING, Any

import structlog

from config import changes
from config.errors import AnswerableError, ConfigError
from config.load import Configuration
from gateway import activation, logs
from gateway.lines import LineWriter
from gateway.proxy import modes
from gateway.proxy.callers import Applications
from gateway.proxy.claims import Claims
from gateway.proxy.controlled import Controlled
from gateway.proxy.counts import Counts
from gateway.proxy.exchangelog import ExchangeLog
from gateway.proxy.front import Front
from gateway.proxy.gauges import Gauges, Held
from gateway.proxy.generation import Generation, Lasting
from gateway.proxy.lanes import Models
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.listening import Listener
from gateway.proxy.readiness import Watch
from gateway.proxy.recording import Recorder
from gateway.proxy.reloading import Reloading
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
        self._retiring: dict[Generation, asyncio.Task[None]] = {}
        self._generation: Generation
        self._next: Generation | None = None  # made, and not yet in force
        self._server: asyncio.Server | None = None
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self.port = 0

    async def start(self, *, reuse_port: bool = True) -> None:
        """Recover the journal, state the configuration, then listen; `port` is where.

        Raises:
            AnswerableError: keys, journal or credentials are not as they must be.
            OSError: the address cannot be listened on.
        """
        configuration = self._configuration
        gateway = configuration.settings.gateway
        keyring = Keyring.open(configuration.data, create=True)
        self.counts = Counts()
        self._gauge = Gauge(gateway.connections_max)
        self._budget = Budget(gateway.pending_bytes_max)
        self._known = Applications(configuration.data)
        self._models = Models(configuration.data)
        self._listener = None if gateway.tls is None else Listener(gateway.tls, configuration)
        self._spans: SpanExport | None
        self._tracing: Tracing | None
        self._spans, self._tracing = _traced(configuration, self._shard)
        self.journal = await Journal.open(
            configuration.data / "journal" / self._shard,
            origin_base=f"{configuration.settings.deployment}/{self._shard}",
            keys=keyring.journal_keys(),
            limits=JournalLimits(pending_bytes_max=gateway.pending_bytes_max),
            config=configuration.digest,
            syscalls=self._syscalls,
        )
        try:
            self._make(keyring)
            await self._state_configuration(configuration)
            await self._watch.look()
            await self._listen(reuse_port=reuse_port)
        except BaseException:
            await self.journal.close()
            raise

    def _make(self, keyring: Keyring) -> None:
        """The parts behind the journal, for the configuration that the worker starts with."""
        configuration = self._configuration
        settings, data = configuration.settings, configuration.data
        gateway = settings.gateway
        self._recorder = Recorder(self.journal, keyring, config=configuration.digest, kinds=modes.KINDS)
        self._claims = Claims(data, self._shard, self._budget)
        self._controlled = Controlled(
            data,
            deployment=settings.deployment,
            public=keyring.control_public,
            origin=self.journal.origin,
            roll=self.journal.roll,
        )
        self._watch = Watch(
            data,
            journal=self.journal,
            gauge=self._gauge,
            budget=self._budget,
            known=self._known,
            listener=self._listener,
            lanes=lambda: self._generation.lanes,
            draining=self._stopping.is_set,
        )
        self._lasting = Lasting(
            data=data,
            shard=self._shard,
            recorder=self._recorder,
            known=self._known,
            models=self._models,
            budget=self._budget,
            gauge=self._gauge,
            counts=self.counts,
            claims=self._claims,
            log=self._log,
            tracing=self._tracing,
            readiness=self._watch.now,
            pseudonym=keyring.pseudonym,
            tls=self._tls,
        )
        self._generation = Generation(configuration, self._lasting)
        self._gauges = Gauges(
            self._shard,
            self.counts,
            self._generation.lanes,
            deployment=settings.deployment,
            config=configuration.digest,
        )
        self._front = Front(self._generation.handler)
        self._plane = DataPlane(
            self._front,
            header_bytes_max=gateway.header_bytes_max,
            connections_max=gateway.connections_max,
            on_refusal=self._front.refused,
            seen=self._front.seen,
            direct=self._front.direct,
        )
        self._plane.trust(gateway.trusted_proxies, gateway.proxy_header)

    def prepare(self, configuration: Configuration) -> None:
        """Make all that `configuration` needs; what serves goes on as it is until `commit`.

        Raises:
            AnswerableError, OSError: it cannot work here; nothing has changed.
        """
        changes.check(self._configuration, configuration)
        self._next = Generation(configuration, self._lasting)

    async def commit(self) -> None:
        """Serve under what was prepared; calls that are under way end as they began. The statement of it is durable.

        Raises:
            storage.errors.StorageError: the journal could not state it; what served goes on.
        """
        made = self._next
        assert made is not None
        await self._state_configuration(made.configuration)
        if made.claims_keys and not self._claims.started:
            self._claims.start()
        before, self._next = self._generation, None
        gateway = made.configuration.settings.gateway
        self._configuration, self._generation = made.configuration, made
        self._recorder.config = made.configuration.digest
        self.journal.configured(made.configuration.digest)
        self._gauges.configured(made.configuration.settings.deployment, made.configuration.digest, made.lanes)
        made.start()
        self._plane.trust(gateway.trusted_proxies, gateway.proxy_header)
        self._front.replace(made.handler)
        self._retiring[before] = asyncio.create_task(before.retire(self._front), name="retiring")
        self._retiring[before].add_done_callback(lambda _: self._retiring.pop(before))

    async def abort(self) -> None:
        """Forget what was prepared; nothing where nothing was."""
        made, self._next = self._next, None
        if made is not None:
            await made.close()

    def hurry(self) -> None:
        """Wait for no load balancer any more; calls under way still have `drain_s`."""
        self._hurried.set()

    async def stop(self) -> None:
        """Finish what was accepted, within `drain_s`, then close everything; nothing accepted is lost.

        Readiness says 503 from now on, and for `drain_notice_s` new calls are served as ever.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        gateway = self._configuration.settings.gateway
        if gateway.drain_notice_s and not self.journal.stopped.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), gateway.drain_notice_s)
        for generation in (self._generation, *self._retiring):
            generation.handler.draining = True
        if self._server is not None:
            self._server.close()
        self._plane.close_idle()
        await self._calls_ended(gateway.drain_s)
        await self._plane.shutdown(CUT_S)
        await self._calls_ended(CUT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.abort()
        await self._generation.close()
        if self._retiring:
            await asyncio.wait(self._retiring.values(), timeout=CUT_S)
        await self._claims.close()
        self._state()
        await self.journal.close()
        if self._log is not None:
            self._log.flush()
        if self._tracing is not None and self._spans is not None:
            self._tracing.flush()
            await asyncio.to_thread(self._spans.close)
        self._publish()  # the last counts are not lost with the process

    async def _state_configuration(self, configuration: Configuration) -> None:
        """Have an entry that holds the configuration, unless it is known to be in force; durable on return."""
        if not await asyncio.to_thread(activation.is_stated, configuration):
            await self._recorder.state_configuration(configuration)

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
        self._generation.start()
        if self._generation.claims_keys:
            self._claims.start()
        self._tasks = [
            asyncio.create_task(self._tick(), name="deadlines"),
            asyncio.create_task(self._look(), name="files"),
        ]

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            self._plane.tick(now, self._configuration.settings.gateway.header_timeout_s)
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
            self._controlled.take(await asyncio.to_thread(self._controlled.read))
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


async def run(
    configuration: Configuration, shard: str, *, reuse_port: bool = True, link: socket.socket | None = None
) -> int:
    """Run one worker until SIGTERM or SIGINT, or until its journal stops; returns the exit code.

    With `link` its configuration is replaced when the other end says so (`gateway.handover`), else on SIGHUP, by what
    its file says then. 0: ended as asked. 1: the journal failed, start again. 2: it could not start; standard error
    says why.
    """
    with logs.off_loop(configuration.settings.log.level) as writer:
        return await _run(configuration, shard, writer, reuse_port=reuse_port, link=link)


async def _run(
    configuration: Configuration, shard: str, writer: LineWriter, *, reuse_port: bool, link: socket.socket | None
) -> int:
    worker = Worker(configuration, shard, writer=writer)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked_to_end() -> None:
        if ending.is_set():
            worker.hurry()
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the default would end it; before it listens there is nothing
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
    reloading = Reloading(worker, configuration.path, link)
    asked = asyncio.create_task(ending.wait())
    both: set[asyncio.Future[Any]] = {asked, worker.journal.stopped}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    failed = worker.journal.stopped.done()
    asked.cancel()
    await reloading.close()
    await worker.stop()
    _log.info("worker_ended", shard=shard, failed=failed)
    return EXIT_FAILED if failed else EXIT_OK
