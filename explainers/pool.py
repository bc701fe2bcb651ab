"""The explainer workers as the keeper sees them: requests in, results out, whatever happens to a worker.

Each worker is a process of its own with one job at a time, reached over a socketpair it inherits. A worker that dies is
replaced and its job tried again (`jobs`); one that hangs is killed and its job fails. A request is answered exactly
once. The pool starts without waiting for its workers: they import shap, which takes seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from config import processes
from explainers.base import ExplanationRequest, ExplanationResult, failed
from explainers.errors import PoolClosedError, RefusedError
from explainers.features import encodable
from explainers.jobs import Job
from explainers.messages import Decoder, Frame, FrameError, encode, failure_of, plan_frame, prepare_frame, result_of

READ_BYTES = 1 << 18
BACKOFF_S = (0.0, 0.2, 1.0, 5.0, 15.0)  # before the next start, by starts that failed in a row
_INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "XDG_CACHE_HOME")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

log = structlog.get_logger("explainers.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How long a worker may take, and how much may wait."""

    start_timeout_s: float = 60.0  # importing shap took 1.5 s on an idle core, ten times that on a busy one
    prepare_timeout_s: float = 60.0  # loading the largest artifact
    explain_timeout_s: float = 30.0  # 5,000 baseline rows and 500 deep trees take about 1 s
    stop_timeout_s: float = 2.0  # a worker between jobs ends at once when its socket is closed
    pending_max: int = 1_000  # further callers of `explain` wait their turn


@dataclass(slots=True)
class _Pending:
    """One request on its way to a result."""

    request: ExplanationRequest
    job: Job
    done: asyncio.Future[ExplanationResult]

    def settle(self, result: ExplanationResult) -> None:
        """Hand the result to the caller, if he still waits; the job is over."""
        assert self.job.final
        if not self.done.done():
            self.done.set_result(result)


@dataclass(slots=True)
class _Worker:
    """One running worker process; `prepared` are the registrations that it has loaded."""

    process: subprocess.Popen[bytes]
    writer: asyncio.StreamWriter
    received: asyncio.Queue[Frame | None]
    reading: asyncio.Task[None]
    prepared: set[str] = field(default_factory=set)


class WorkerDiedError(Exception):
    """The worker's socket ended, or carried something else than the frame that was due."""


class Pool:
    """Worker processes, `workers` of them; implements `base.Executor`."""

    def __init__(self, data: Path, *, workers: int = 1, limits: PoolLimits | None = None) -> None:
        """A pool over the artifacts in `data`, not started yet."""
        self._data = data
        self._count = workers
        self._limits = limits or PoolLimits()
        self._waiting: asyncio.Queue[_Pending] = asyncio.Queue()
        self._room = asyncio.Semaphore(self._limits.pending_max)
        self._open: set[asyncio.Future[ExplanationResult]] = set()
        self._slots: list[asyncio.Task[None]] = []
        self._workers: dict[int, _Worker] = {}
        self._ready = asyncio.Event()
        self._running = 0
        self._closed = False
        self._problem: str | None = None

    async def start(self) -> None:
        """Begin to start the workers; requests may come at once."""
        self._slots = [asyncio.create_task(self._slot(i), name=f"explainer-{i}") for i in range(self._count)]

    async def ready(self) -> None:
        """Return once a worker has said hello."""
        await self._ready.wait()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers that are up."""
        return tuple(worker.process.pid for worker in self._workers.values())

    @property
    def pending(self) -> int:
        """Requests that no worker has taken yet."""
        return self._waiting.qsize()

    @property
    def running(self) -> int:
        """Requests that are with a worker now."""
        return self._running

    @property
    def problem(self) -> str | None:
        """Why no worker is up although it should be, for a readiness page; None if all is well or still starting."""
        return None if self._workers else self._problem

    async def explain(self, request: ExplanationRequest) -> ExplanationResult:
        """Explain one decision; what cannot be explained, hangs or kills its workers is a failed result.

        Raises:
            PoolClosedError: the pool closed before there was a result.
        """
        try:
            encodable(request.features)
            encode(plan_frame(request, timeout_s=self._limits.explain_timeout_s))
        except (RefusedError, FrameError) as error:
            return failed(request, error.code, error.message)
        async with self._room:
            if self._closed:
                raise PoolClosedError("the explainers are closed")
            done: asyncio.Future[ExplanationResult] = asyncio.get_running_loop().create_future()
            self._open.add(done)
            done.add_done_callback(self._open.discard)
            self._waiting.put_nowait(_Pending(request, Job(id=request.job), done))
            return await done

    async def close(self) -> None:
        """End all workers and wait for them; callers that wait for a result get PoolClosedError."""
        self._closed = True
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for done in tuple(self._open):
            done.set_exception(PoolClosedError("the explainers closed before there was a result"))

    async def _slot(self, index: int) -> None:
        """Keep one worker running; this task alone starts, asks and ends it."""
        failures = 0
        while True:
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            worker: _Worker | None = None
            try:
                worker = await self._start_worker()
                self._workers[index] = worker
                self._ready.set()
                failures = 0
                await self._serve(worker)
            except (WorkerDiedError, TimeoutError, OSError) as error:
                failures += 1
                self._problem = f"explainer worker {index} ended: {str(error) or 'it did not answer in time'}"
                log.warning("explainer worker ended", slot=index, error=repr(error))
            finally:
                self._workers.pop(index, None)
                if worker is not None:
                    await self._end(worker)

    async def _start_worker(self) -> _Worker:
        """A worker that has said hello.

        Raises:
            WorkerDiedError, TimeoutError, OSError: it did not get that far; nothing of it is left.
        """
        worker = await self._spawn()
        try:
            async with asyncio.timeout(self._limits.start_timeout_s):
                hello = await _receive(worker, "hello")
        except BaseException:  # cancelled or failed: either way the process must not outlive this call
            await self._end(worker)
            raise
        log.info("explainer worker ready", pid=worker.process.pid, versions=hello.fields.get("versions"))
        return worker

    async def _spawn(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-P", "-m", "explainers.worker", "--fd", str(theirs.fileno())]
            argv += ["--data", str(self._data)]
            started = asyncio.ensure_future(
                asyncio.to_thread(
                    processes.start,
                    argv,
                    env=worker_environment(os.environ),
                    pass_fds=(theirs.fileno(),),
                    stdout=subprocess.DEVNULL,
                )
            )
            try:
                process = await asyncio.shield(started)
            except asyncio.CancelledError:
                ours.close()
                await _reap(await started)
                raise
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        received: asyncio.Queue[Frame | None] = asyncio.Queue()
        reading = asyncio.create_task(_read(reader, received))
        return _Worker(process=process, writer=writer, received=received, reading=reading)

    async def _serve(self, worker: _Worker) -> None:
        """Give `worker` one request after the other until it dies, hangs or this task is cancelled."""
        while True:
            taking = asyncio.create_task(self._waiting.get())
            try:
                await asyncio.wait({taking, worker.reading}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not taking.done():
                    taking.cancel()
            if not taking.done():
                raise WorkerDiedError("it ended while it had nothing to do")
            pending = taking.result()
            if pending.done.done():  # the caller is gone
                continue
            await self._run(worker, pending)

    async def _run(self, worker: _Worker, pending: _Pending) -> None:
        """One attempt at one request: afterwards it has its result or waits again.

        Raises:
            WorkerDiedError, TimeoutError: the worker is of no more use.
        """
        pending.job = pending.job.after("start")
        self._running += 1
        try:
            result = await self._ask(worker, pending.request)
        except TimeoutError:
            pending.job = pending.job.after("time_out")
            worker.process.kill()
            message = f"not explained within {self._limits.explain_timeout_s:g} s; the worker was ended"
            pending.settle(failed(pending.request, "timeout", message))
            raise
        except (WorkerDiedError, FrameError, OSError) as error:
            pending.job = pending.job.after("worker_died")
            if pending.job.final:
                message = f"{pending.job.attempts} workers ended while explaining it"
                pending.settle(failed(pending.request, "worker_died", message))
            else:
                self._waiting.put_nowait(pending)
            raise WorkerDiedError(str(error)) from error
        finally:
            self._running -= 1
        pending.job = pending.job.after("finish" if result.state == "ready" else "fail")
        pending.settle(result)

    async def _ask(self, worker: _Worker, request: ExplanationRequest) -> ExplanationResult:
        limits = self._limits
        if request.registration_digest not in worker.prepared:
            async with asyncio.timeout(limits.prepare_timeout_s):
                await _send(worker, prepare_frame(request, timeout_s=limits.prepare_timeout_s))
                answer = await _receive(worker, "result", "failure", job=request.job)
            if answer.type == "failure":
                why = failure_of(answer)
                return failed(request, why.code, why.message)
            worker.prepared.add(request.registration_digest)
        async with asyncio.timeout(limits.explain_timeout_s):
            await _send(worker, plan_frame(request, timeout_s=limits.explain_timeout_s))
            answer = await _receive(worker, "result", "failure", job=request.job)
        return result_of(answer)

    async def _end(self, worker: _Worker) -> None:
        """True on return, and when cancelled: the process is gone and its socket closed."""
        ending = asyncio.create_task(_ended(worker, patience_s=self._limits.stop_timeout_s))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:  # the pool closes while a dead worker is being put away
            await ending
            raise


async def _ended(worker: _Worker, *, patience_s: float) -> None:
    worker.reading.cancel()
    worker.writer.transport.abort()  # closing would first send what a hanging worker will never read
    with contextlib.suppress(OSError):
        await worker.writer.wait_closed()
    await _reap(worker.process, patience_s=patience_s)


async def _reap(process: subprocess.Popen[bytes], *, patience_s: float = 0.0) -> None:
    try:
        await asyncio.to_thread(process.wait, patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


async def _read(reader: asyncio.StreamReader, received: asyncio.Queue[Frame | None]) -> None:
    """Put each frame into `received`, and None once there will be no more."""
    decoder = Decoder()
    try:
        while data := await reader.read(READ_BYTES):
            for frame in decoder.feed(data):
                received.put_nowait(frame)
    except (OSError, FrameError) as error:
        log.warning("explainer worker cannot be read", error=str(error))
    finally:
        received.put_nowait(None)


async def _send(worker: _Worker, frame: Frame) -> None:
    worker.writer.write(encode(frame))
    await worker.writer.drain()


async def _receive(worker: _Worker, *types: str, job: str = "") -> Frame:
    frame = await worker.received.get()
    if frame is None:
        raise WorkerDiedError("its socket ended")
    if frame.type not in types or frame.job != job:
        raise WorkerDiedError(f"it sent {frame.type} for job {frame.job!r}")
    return frame


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker inherits: no secret that the keeper was given, and one thread for each numeric library."""
    kept = {name: environ[name] for name in _INHERITED if name in environ}
    return kept | dict.fromkeys(_ONE_THREAD, "1")
