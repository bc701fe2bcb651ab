"""Claims on idempotency keys: from the loop to a thread of their own, which alone touches the database.

Jobs that wait at the same time are one transaction, with one sync. A claim that finds no room in the queue, or whose
transaction fails, is refused with 503; calls without a key never come here. A claim ends once: kept, settled or
released. Where the database refuses even that, it is owed, and tried again each second: a key is not to look as if
its call were under way when it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from gateway.proxy.errors import RepeatsUnavailable
from gateway.proxy.exchange import Caller
from gateway.proxy.headers import RawHeaders
from gateway.proxy.idempotency import is_kept, judge
from gateway.proxy.limits import Budget
from storage.errors import StorageError
from storage.firsts import ANSWER_BYTES_MAX, NS, Asking, First, State
from storage.repeats import Repeats

WAITING_MAX = 1024  # claims in the queue: half a second's work; beyond it they are refused
BATCH_MAX = 64  # jobs in one transaction
PATIENCE_S = 5.0  # nobody waits longer for the thread
EXPIRE_S = 60.0
OWED_MAX = 10_000  # ends that could not be written; what is beyond them counts as under way until the lease is over
FAULTS = (sqlite3.Error, OSError, StorageError)

_log = structlog.get_logger(__name__)


Run = Callable[[Repeats], Any]


class Job(NamedTuple):
    """Something to do in the thread, and who waits for it."""

    run: Run
    future: asyncio.Future[Any]


class Claim:
    """A key that belongs to this call now; it ends by `keep`, `settle` or `release`, else by `end`."""

    def __init__(self, claims: Claims, decision: str) -> None:
        self.decision = decision
        self._claims = claims
        self._ended = False
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    async def keep(self, status: int, headers: RawHeaders, head: bytes, body: bytes | None = None) -> None:
        """The answer is kept on return, or cannot be; without a body it is that of the pieces.

        One by which the model says that it did not take the call leaves the key free. `head` has no framing.
        """
        if not is_kept(status, headers):
            await self.release()
            return
        whole = b"".join(self._pieces) if body is None else body
        if self._held_bytes < 0 or len(head) + len(whole) > ANSWER_BYTES_MAX:
            await self.settle("too_large")
            return
        decision, now_ns = self.decision, self._claims.clock_ns()
        try:
            await self._over(
                lambda table: table.keep(decision, status, head, whole, now_ns=now_ns),
                lambda table: table.settle(decision, "unkept"),  # what is owed is to hold no answers
            )
        finally:
            self._drop()

    def piece(self, data: bytes) -> None:
        """Hold a piece of a streamed answer, as long as all of them together can be kept."""
        if self._held_bytes < 0:
            return
        if self._held_bytes + len(data) > ANSWER_BYTES_MAX or self._claims.budget.full:
            self._drop()
            self._held_bytes = -1
            return
        self._pieces.append(data)
        self._held_bytes += len(data)
        self._claims.budget.add(len(data))

    async def settle(self, state: State) -> None:
        """There is an outcome without an answer that could be repeated."""
        self._drop()
        await self._over(lambda table: table.settle(self.decision, state))

    async def release(self) -> None:
        """The call never reached the model: a repeat may run."""
        self._drop()
        await self._over(lambda table: table.release(self.decision))

    def end(self, *, ran: bool) -> None:
        """Whoever claimed has done; nothing where it has ended. `ran`: the model may have run."""
        self._drop()
        if self._ended:
            return
        self._ended = True
        if ran:
            self._claims.end(self.decision, lambda table: table.settle(self.decision, "lost"))
        else:
            self._claims.end(self.decision, lambda table: table.release(self.decision))

    async def _over(self, run: Run, otherwise: Run | None = None) -> None:
        """Return when it is written down, or is owed, or has taken so long that the caller waits no more."""
        self._ended = True
        await asyncio.wait((self._claims.end(self.decision, run, otherwise),), timeout=PATIENCE_S)

    def _drop(self) -> None:
        if self._held_bytes > 0:
            self._claims.budget.give_back(self._held_bytes)
            self._held_bytes = 0
        self._pieces = []


class Claims:
    """The claims of one worker; `start` and `close` are its life."""

    def __init__(self, data: Path, shard: str, budget: Budget, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Nothing is opened yet. The worker holds its shard's lock from before `start` to after `close`."""
        self.budget = budget
        self.clock_ns = clock_ns
        self._data, self._shard = data, shard
        self._incarnation = os.urandom(16)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting = 0  # claims whose answer is yet to come
        self._owed: dict[str, Run] = {}
        self._expire_at = 0.0
        self._over = False  # the thread has ended
        self._table: Repeats | None = None  # the thread's
        self._thread = threading.Thread(target=self._work, name="idempotency", daemon=True)

    def start(self) -> None:
        """Start the thread, which opens the database and states as lost what this shard left running."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._put(lambda _: None)

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    async def close(self) -> None:
        """Everything that was asked for is done, or has failed, on return."""
        if self.started:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def tick(self, now: float) -> None:
        """Try again what is owed, and delete what has expired; called each second."""
        if self._thread.ident is None:
            return
        owed, self._owed = self._owed, {}
        for decision, run in owed.items():
            self.end(decision, run)
        if now >= self._expire_at:
            self._expire_at = now + EXPIRE_S
            now_ns = self.clock_ns()
            self._put(lambda table: table.expire(now_ns=now_ns))

    async def claim(
        self, caller: Caller, key: bytes, content: tuple[bytes, ...], *, decision: str, lease_s: float
    ) -> Claim | First:
        """The key is this call's from here on; or its first call, whose answer is kept.

        Raises:
            KeyReused, NotRepeated: 422, 409 (`idempotency.judge`).
            RepeatsUnavailable: 503.
        """
        if self._waiting >= WAITING_MAX:
            raise RepeatsUnavailable(f"{self._waiting} calls wait for their idempotency key already")
        now_ns = self.clock_ns()
        asking = Asking(
            scope=(caller.tenant.encode(), caller.actor.encode(), key),  # persons without an application are several
            content=content,
            decision=decision,
            now_ns=now_ns,
            lease_ns=now_ns + int(lease_s * NS),
        )
        self._waiting += 1
        claimed = self._put(lambda table: table.claim(asking))
        try:
            async with asyncio.timeout(PATIENCE_S):
                first: First | None = await asyncio.shield(claimed)
        except (asyncio.CancelledError, TimeoutError) as error:
            # the thread may claim it all the same, and nobody runs it
            claimed.add_done_callback(lambda done: self._abandoned(done, decision))
            if isinstance(error, asyncio.CancelledError):
                raise
            raise RepeatsUnavailable(f"what is known of idempotency keys took over {PATIENCE_S:g} s") from error
        except FAULTS as error:
            _log.error("idempotency_unavailable", problem=str(error))
            raise RepeatsUnavailable("what is known of idempotency keys cannot be read or written") from error
        finally:
            self._waiting -= 1
        return Claim(self, decision) if first is None else judge(first, now_ns=now_ns)

    def end(self, decision: str, run: Run, otherwise: Run | None = None) -> asyncio.Future[None]:
        """Write down how a claim ended; done when it is durable, or owed: then `otherwise` in its place."""
        ended: asyncio.Future[None] = self._loop.create_future()

        def settled(done: asyncio.Future[Any]) -> None:
            if done.exception() is not None:
                _log.error("idempotency_owed", decision=decision, problem=str(done.exception()))
                if len(self._owed) < OWED_MAX:
                    self._owed[decision] = otherwise or run
            ended.set_result(None)

        self._put(run).add_done_callback(settled)
        return ended

    def _abandoned(self, done: asyncio.Future[First | None], decision: str) -> None:
        if done.exception() is None and done.result() is None:
            self.end(decision, lambda table: table.release(decision))

    def _put(self, run: Run) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(_seen)
        if self._over:
            future.set_exception(_has_ended())
        else:
            self._jobs.put(Job(run, future))
        return future

    # in the thread

    def _work(self) -> None:
        jobs: list[Job] = []
        last = False
        try:
            while not last:
                jobs, last = self._next()
                outcomes = self._done(jobs) if jobs else []
                self._loop.call_soon_threadsafe(_tell, jobs, outcomes)
        finally:  # as asked, or by a fault of ours: then nobody is to wait for what it had in hand
            self._loop.call_soon_threadsafe(self._end_all, jobs)
            if self._table is not None:
                self._table.close()

    def _end_all(self, jobs: list[Job]) -> None:
        self._over = True
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                jobs = [*jobs, job] if job is not None else jobs
        _tell(jobs, [(None, _has_ended()) for _ in jobs])

    def _next(self) -> tuple[list[Job], bool]:
        """What waits, at least one job; and whether nothing comes after it."""
        jobs: list[Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == BATCH_MAX:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _done(self, jobs: list[Job]) -> list[tuple[Any, BaseException | None]]:
        """The outcome of each; where they fail together, each is tried by itself."""
        try:
            return [(result, None) for result in self._transact(jobs)]
        except FAULTS as error:
            if len(jobs) == 1 or self._table is None or _is_busy(error):
                return [(None, error)] * len(jobs)
        return [self._done([job])[0] for job in jobs]

    def _transact(self, jobs: list[Job]) -> list[Any]:
        table = self._table
        if table is None:
            table = self._table = Repeats.open(self._data, shard=self._shard, incarnation=self._incarnation)
        try:
            with table.transaction():
                return [job.run(table) for job in jobs]
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError):  # damaged, or no database: look again the next time
                table.close()
                self._table = None
            raise


def _has_ended() -> StorageError:
    return StorageError("the thread that keeps idempotency keys has ended", code="idempotency_unavailable")


def _is_busy(error: BaseException) -> bool:
    """Whether somebody else has held the database for as long as anybody waits: nobody else need wait again."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the extended codes' primary one
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _tell(jobs: list[Job], outcomes: list[tuple[Any, BaseException | None]]) -> None:
    for job, (result, error) in zip(jobs, outcomes, strict=True):
        future = job.future
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _seen(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()
