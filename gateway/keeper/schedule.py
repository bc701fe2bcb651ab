"""Explanations: each decision that the policy chooses goes to the explainers once, and comes back as an entry.

Bounded: at most `WAITING_MAX` decisions or `WAITING_BYTES_MAX` of their features are in memory; the rest waits in the
journal. Adverse decisions go first among those. Works from the journal, never from ClickHouse, so a database that is
away delays no explanation.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from config.route import Route
from explainers.base import (
    Answer,
    Executor,
    ExplanationRequest,
    ExplanationResult,
    Failure,
    Level,
    ModelRef,
    explainer_config_digest,
    explanation_key,
)
from explainers.errors import PoolClosedError
from gateway.desk.context import Job, JobState
from gateway.keeper import metrics
from gateway.keeper.feed import Feed, Feeds
from gateway.keeper.models import Listed, Models
from gateway.keeper.policy import judge, urgency
from gateway.keeper.progress import Progress
from gateway.keeper.redacted import REDACTED, WITHHELD
from gateway.keeper.sheets import clipped
from gateway.keeper.study import Studied, Study
from gateway.keeper.tail import Library
from gateway.keeper.writing import Writer
from storage.entries import Ref
from storage.errors import JournalError
from storage.ids import b64

WAITING_MAX = 512  # some seconds of work for one worker: enough for order by urgency, small enough to forget
WAITING_BYTES_MAX = 32 * 1024 * 1024  # of features; a request body of 1 MiB is parsed at most
MESSAGE_BYTES_MAX = 400  # why an explanation failed, in the entry; names features, never values
PER_WORKER = 2  # given to the pool at once: one that runs and one that waits for it to end

WAKE_S = 0.05  # while something waits or runs
IDLE_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class _Waiting:
    urgency: int
    number: int  # of arrival
    studied: Studied = field(compare=False)
    size_bytes: int = field(compare=False)


class Schedule:
    """Chooses, orders and hands out; one per keeper, over the feeds of all shards."""

    def __init__(
        self,
        *,
        library: Library,
        own: str,
        routes: Mapping[str, Route],
        pool: Executor,
        workers: int,
        models: Models,
        study: Study,
        writer: Writer,
        progress: Progress,
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._at_once_max = max(1, workers) * PER_WORKER
        self._models = models
        self._study = study
        self._writer = writer
        self._progress = progress
        self.feeds = Feeds(library, own=own, begin=progress.begin, wanted=self._wanted)
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._told_paused = False
        self._arrivals = itertools.count()
        self._outstanding: dict[str, dict[int, None]] = {}  # origin → sequence numbers in rising order
        self._jobs: dict[str, Job] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._in_work: dict[str, int] = {}  # decision → when it was made
        self._broken: BaseException | None = None  # why an explanation could not be written
        self._free = asyncio.Event()
        self._free.set()

    def job(self, decision: str) -> Job | None:
        """Where the explanation of `decision` stands, while it is held here."""
        return self._jobs.get(decision)

    @property
    def waiting(self) -> int:
        """Decisions that wait in memory or run."""
        return len(self._waiting) + len(self._running)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest decision that waits in memory or runs was made (Unix ns); None where none does.

        What waits in the journal behind them is younger, but for what a shard that is read later holds.
        """
        waiting = [int(one.studied.entry["ts"]) for one in list(self._waiting)]  # copied at once: a thread asks
        return min([*waiting, *list(self._in_work.values())], default=None)

    @property
    def is_paused(self) -> bool:
        """While disk or memory is 85 % full: explanations can be made later, from the journal, where they left off."""
        return self._writer.is_pressed

    def _tell_pause(self) -> None:
        paused = self.is_paused
        if paused is not self._told_paused:
            self._told_paused = paused
            _log.warning("explanations_paused" if paused else "explanations_resumed", waiting=self.waiting)

    def settled_below(self, origin: str) -> int:
        """The sequence number below which every decision of `origin` is explained, failed or left out."""
        return self._progress.of(origin).low

    def _wanted(self, origin: str, seq: int, _entry: Mapping[str, Any]) -> bool:
        return seq not in self._progress.of(origin)

    async def run(self, library: Library) -> None:
        """Schedule for ever."""
        while True:
            version = library.version
            busy = await self.round()
            if busy:
                continue
            if not self.waiting:
                await library.news(version, within_s=IDLE_S)
                continue
            self._free.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAKE_S):
                    await self._free.wait()

    async def round(self) -> bool:
        """One step of every feed that there is room for, then hand out; true if there was anything to read."""
        if self._broken is not None:
            raise self._broken
        await self.feeds.refresh()
        self._tell_pause()
        busy = False
        for feed in self.feeds:
            try:
                busy = await self._step(feed) or busy
            except JournalError as error:
                self.feeds.damaged(feed, error)
        for feed in self.feeds:  # no pause from here on: what ends meanwhile is seen by the next round
            outstanding = self._outstanding.get(feed.origin, {})
            self._progress.of(feed.origin).raise_to(next(iter(outstanding), feed.read_below))
        self.hand_out()
        return busy

    async def _step(self, feed: Feed) -> bool:
        """Take the next decisions of one feed, if there is room in memory and on the disk."""
        if self.is_paused or len(self._waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            return False
        for studied in await self._study.of(await feed.next_decisions()):
            if judge(studied.entry, studied.extracted.favourable, self._routes.get(studied.route)) == "explain":
                self._add(studied)
        return feed.advanced

    def hand_out(self) -> None:
        """Give the most urgent decisions to the explainers, as many as they can hold, unless the disk fills."""
        while self._waiting and not self.is_paused and len(self._running) < self._at_once_max:
            waiting = heapq.heappop(self._waiting)
            self._waiting_bytes -= waiting.size_bytes
            task = asyncio.create_task(self._explain(waiting.studied))
            self._running.add(task)
            task.add_done_callback(self._ended)
        metrics.EXPLANATIONS_WAITING.set(self.waiting)

    async def close(self) -> None:
        """Forget what waits (it stands in the journal) and wait for nothing: the pool is closed by its owner."""
        self._waiting.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _add(self, studied: Studied) -> None:
        size_bytes = 1_024 + studied.size_bytes
        waiting = _Waiting(urgency(studied.extracted.favourable), next(self._arrivals), studied, size_bytes)
        heapq.heappush(self._waiting, waiting)
        self._waiting_bytes += size_bytes
        self._outstanding.setdefault(studied.origin, {})[studied.seq] = None
        self._jobs[studied.decision] = Job(JobState.PENDING)

    async def _explain(self, studied: Studied) -> None:
        self._jobs[studied.decision] = Job(JobState.RUNNING)
        self._in_work[studied.decision] = int(studied.entry["ts"])
        request = self._request(studied)
        try:
            result = request if isinstance(request, ExplanationResult) else await self._pool.explain(request)
        except PoolClosedError:
            return  # nothing was decided; the next start finds the decision in the journal
        except Exception as error:  # noqa: BLE001 (one decision must not stop all others; its entry says what happened)
            _log.exception("explanation_failed", decision=studied.decision)
            result = _refused(studied, "internal", f"the explainers failed: {type(error).__name__}")
        await self._write(studied, result)
        self._outstanding[studied.origin].pop(studied.seq, None)
        self._jobs.pop(studied.decision, None)
        self._in_work.pop(studied.decision, None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = error

    def _request(self, studied: Studied) -> ExplanationRequest | ExplanationResult:
        """What the explainers are asked, or why they cannot be."""
        model = studied.entry.get("model") or {}
        registered = self._models.find(model.get("name"), model.get("version"), model.get("digest"))
        if registered is None:
            said = f"{model.get('name')} {model.get('version') or 'of no stated version'}"
            return _refused(studied, "model_not_registered", f"{said} is not registered")
        if studied.extracted.features is None:
            why = studied.extracted.error or "the route says nothing of where the features stand"
            hidden = REDACTED in why or WITHHELD in why
            return _refused(studied, "features_redacted" if hidden else "features_missing", why)
        level: Level = "announced" if model.get("source") == "announced" else "declared"
        return self._asked(studied, registered, studied.extracted.features, level)

    @staticmethod
    def _asked(studied: Studied, registered: Listed, features: Mapping[str, Any], level: Level) -> ExplanationRequest:
        extracted = studied.extracted
        return ExplanationRequest(
            job=studied.decision,
            decision=studied.decision,
            leaf=b64(studied.leaf),
            route=studied.route,
            tenant=studied.tenant,
            model=ModelRef(name=registered.name, version=registered.version, digest=registered.digest, level=level),
            baseline_digest=registered.baseline,
            registration_digest=registered.registration,
            explainer_config=explainer_config_digest(registered.registration),
            features=features,
            answer=Answer(score=extracted.score, label=extracted.label, favourable=extracted.favourable),
        )

    async def _write(self, studied: Studied, result: ExplanationResult) -> None:
        """Append the explanation entry; true on return: it is durable."""
        fields = {
            **result.summary,
            "key": result.key,
            "state": result.state,
            "error": None if result.error is None else result.error.code,
            "message": None if result.error is None else clipped(result.error.message, MESSAGE_BYTES_MAX),
            "source": {"origin": studied.origin, "seq": studied.seq},
        }
        draft = self._writer.draft(
            "explanation",
            tenant=studied.tenant,
            route=studied.route,
            decision=studied.decision,
            prev=(Ref(studied.decision, studied.leaf),),
            fields=fields,
        )
        contents = [("explanation", "application/json", result.body)] if result.body else []
        await self._writer.append(draft, contents)
        metrics.EXPLANATIONS.labels(state=result.state).inc()
        metrics.EXPLAINED_LAG.observe(max(0.0, (time.time_ns() - int(studied.entry["ts"])) / 1e9))
        if result.error is not None:
            metrics.EXPLANATION_FAILURES.labels(code=result.error.code).inc()


def _refused(studied: Studied, code: str, message: str) -> ExplanationResult:
    """A failed result for what never reaches an explainer."""
    return ExplanationResult(
        job=studied.decision,
        key=explanation_key(studied.decision, explainer_config_digest("")),
        state="failed",
        error=Failure(code=code, message=message),
        summary={"method": None, "model": None, "verdict": "failed", "notice": "human"},
    )
