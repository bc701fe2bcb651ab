"""The pool with real worker processes: same bytes from any, one answer for each request, whatever a worker does."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.processes import start
from explainers.base import Executor, ExplanationRequest, ExplanationResult
from explainers.errors import PoolClosedError
from explainers.inline import Inline
from explainers.listing import Registered
from explainers.messages import Decoder, Frame, encode, plan_frame
from explainers.pool import Pool, PoolLimits, worker_environment
from explainers.registry import register
from tests.support.tree_models import NAMES, Files, adverse_case, features_of, make_model, request, served

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def registered(files: Files, data: Path) -> Registered:
    return register(files.registration, data)


@pytest.fixture
async def pool(data: Path, registered: Registered) -> AsyncIterator[Pool]:
    assert registered.name
    running = Pool(data, workers=1, limits=PoolLimits(explain_timeout_s=5.0))
    await running.start()
    yield running
    await running.close()


def asked(files: Files, registered: Registered, number: int = 0) -> ExplanationRequest:
    features = features_of(NAMES, files.rows[number])
    return request(
        registered, features, score=served(files, features), job=f"job-{number}", decision=f"decision-{number}"
    )


async def answer(executor: Executor, given: ExplanationRequest) -> ExplanationResult:
    async with asyncio.timeout(WITHIN_S):
        return await executor.explain(given)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_two_worker_processes_and_this_one_give_the_same_bytes(
    files: Files, registered: Registered, data: Path
) -> None:
    bodies: list[list[bytes]] = []
    pids: set[int] = set()
    for _ in range(2):
        pool = Pool(data, workers=1)
        await pool.start()
        bodies.append([(await answer(pool, asked(files, registered, i))).body for i in range(8)])
        pids |= set(pool.pids)
        await pool.close()
    bodies.append([(await answer(Inline(data), asked(files, registered, i))).body for i in range(8)])
    assert bodies[0] == bodies[1] == bodies[2]
    assert len(pids) == 2
    assert all(orjson.loads(body)["binding"] == "announced" for body in bodies[0])
    assert all(gone(pid) for pid in pids)


async def test_requests_may_come_before_a_worker_is_up_and_each_gets_its_own_result(
    pool: Pool, files: Files, registered: Registered
) -> None:
    assert pool.pids == ()
    results = await asyncio.gather(*(answer(pool, asked(files, registered, i)) for i in range(30)))
    assert [result.job for result in results] == [f"job-{i}" for i in range(30)]
    assert {result.state for result in results} == {"ready"}
    scores = [orjson.loads(result.body)["output"]["recorded"] for result in results]
    assert scores == [asked(files, registered, i).answer.score for i in range(30)]
    assert (pool.problem, pool.pending) == (None, 0)


async def test_a_failure_comes_back_as_a_failure_and_the_worker_lives_on(
    pool: Pool, files: Files, registered: Registered
) -> None:
    features, score = adverse_case(files)
    bad = await answer(pool, request(registered, {**features, "income": "3"}, score=score))
    assert bad.error is not None
    assert (bad.state, bad.error.code, "income" in bad.error.message) == ("failed", "feature_unusable", True)
    infinite = await answer(pool, request(registered, {**features, "income": float("inf")}, score=score))
    assert infinite.error is not None
    assert "income" in infinite.error.message
    pids = pool.pids
    unknown = await answer(pool, request(registered, features, score=score, registration_digest="0" * 64))
    assert unknown.error is not None
    assert unknown.error.code == "artifact_missing"
    assert (await answer(pool, asked(files, registered))).state == "ready"
    assert pool.pids == pids


async def test_more_than_64_mib_of_features_is_a_failed_result_and_never_sent(
    pool: Pool, registered: Registered
) -> None:
    result = await answer(pool, request(registered, {"income": "x" * (65 * 1024 * 1024)}, score=0.5))
    assert result.error is not None
    assert (result.state, result.error.code) == ("failed", "frame_invalid")


async def stopped_in_mid_job(pool: Pool, given: ExplanationRequest) -> tuple[int, "asyncio.Task[ExplanationResult]"]:
    """A worker that has stopped (SIGSTOP) while `given` was under way at it, and the caller that waits."""
    async with asyncio.timeout(WITHIN_S):
        await pool.ready()
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.create_task(pool.explain(given))
    async with asyncio.timeout(WITHIN_S):
        while pool.running != 1:
            await asyncio.sleep(0)
    return pid, waiting


async def test_a_worker_killed_in_mid_job_is_replaced_and_the_result_arrives_once(
    pool: Pool, files: Files, registered: Registered, data: Path
) -> None:
    given = asked(files, registered)
    pid, waiting = await stopped_in_mid_job(pool, given)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        result = await waiting
    assert result.state == "ready"
    assert result.body == (await answer(Inline(data), given)).body
    assert pool.pids != (pid,)
    assert (pool.pending, pool.running) == (0, 0)
    assert gone(pid)


async def test_a_job_whose_workers_die_three_times_fails_and_the_next_one_is_explained(
    pool: Pool, files: Files, registered: Registered
) -> None:
    pid, waiting = await stopped_in_mid_job(pool, asked(files, registered))
    seen = {pid}
    os.kill(pid, signal.SIGKILL)
    while len(seen) < 3:
        async with asyncio.timeout(WITHIN_S):
            while not (fresh := set(pool.pids) - seen):
                await asyncio.sleep(0)
        (pid,) = fresh
        os.kill(pid, signal.SIGKILL)
        seen.add(pid)
    async with asyncio.timeout(WITHIN_S):
        result = await waiting
    assert result.error is not None
    assert (result.state, result.error.code) == ("failed", "worker_died")
    assert (await answer(pool, asked(files, registered, 1))).state == "ready"


async def test_a_hanging_job_times_out_as_a_failure_and_the_pool_stays_alive(
    files: Files, registered: Registered, data: Path
) -> None:
    pool = Pool(data, limits=PoolLimits(explain_timeout_s=0.3, prepare_timeout_s=WITHIN_S))
    await pool.start()
    try:
        assert (await answer(pool, asked(files, registered))).state == "ready"  # prepared, so the short limit counts
        pid, waiting = await stopped_in_mid_job(pool, asked(files, registered, 1))
        async with asyncio.timeout(WITHIN_S):
            result = await waiting
        assert result.error is not None
        assert (result.state, result.error.code, result.summary["error"]) == ("failed", "timeout", "timeout")
        assert (await answer(pool, asked(files, registered, 2))).state == "ready"
        assert gone(pid)
    finally:
        await pool.close()


async def test_a_worker_that_does_not_even_read_its_job_times_out_too(
    files: Files, registered: Registered, data: Path
) -> None:
    pool = Pool(data, limits=PoolLimits(explain_timeout_s=0.3, prepare_timeout_s=WITHIN_S))
    await pool.start()
    try:
        assert (await answer(pool, asked(files, registered))).state == "ready"
        larger_than_any_socket_buffer = dict.fromkeys(NAMES, "x" * 2000000)
        _, waiting = await stopped_in_mid_job(pool, request(registered, larger_than_any_socket_buffer, score=0.5))
        async with asyncio.timeout(WITHIN_S):
            result = await waiting
        assert result.error is not None
        assert result.error.code == "timeout"
    finally:
        async with asyncio.timeout(WITHIN_S):
            await pool.close()


async def test_a_worker_that_dies_while_idle_is_replaced_at_once(pool: Pool) -> None:
    async with asyncio.timeout(WITHIN_S):
        await pool.ready()
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        while pool.pids in {(), (pid,)}:
            await asyncio.sleep(0.01)
    assert gone(pid)


async def test_a_caller_that_gives_up_costs_nobody_else_his_result(
    pool: Pool, files: Files, registered: Registered
) -> None:
    waiting = [asyncio.create_task(pool.explain(asked(files, registered, i))) for i in range(4)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), WITHIN_S)
    assert isinstance(results[1], asyncio.CancelledError)
    assert [r.state for r in results if isinstance(r, ExplanationResult)] == ["ready"] * 3


async def test_closing_ends_the_workers_and_tells_every_caller_that_waits(
    files: Files, registered: Registered, data: Path
) -> None:
    pool = Pool(data, workers=2, limits=PoolLimits(stop_timeout_s=0.2))
    await pool.start()
    async with asyncio.timeout(WITHIN_S):
        while len(pool.pids) < 2:
            await asyncio.sleep(0.01)
    pids = pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # not even that keeps them
    waiting = [asyncio.create_task(pool.explain(asked(files, registered, i))) for i in range(5)]
    await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN_S):
        await pool.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {PoolClosedError}
    assert all(gone(pid) for pid in pids)
    with pytest.raises(PoolClosedError):
        await pool.explain(asked(files, registered))


async def test_a_pool_closed_while_its_worker_starts_leaves_no_process(data: Path) -> None:
    pool = Pool(data)
    await pool.start()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(WITHIN_S):
        await pool.close()
    assert pool.pids == ()


def test_a_worker_inherits_no_secret_and_one_thread() -> None:
    environment = worker_environment(
        {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "ANSWERABLE_KEY": "y", "OMP_NUM_THREADS": "8"}
    )
    assert environment["PATH"] == "/bin"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert set(environment) <= {
        "PATH",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    }


class Worker:
    """One worker process spoken to directly, frame by frame."""

    def __init__(self, data: Path) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(WITHIN_S)
        with theirs:
            argv = [sys.executable, "-P", "-m", "explainers.worker", "--fd", str(theirs.fileno()), "--data", str(data)]
            self.process = start(argv, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE)
        self.decoder = Decoder()

    def receive(self) -> Frame:
        frames: list[Frame] = []
        while not frames:
            data = self.ours.recv(1 << 16)
            assert data, "the worker closed its socket"
            frames = self.decoder.feed(data)
        (frame,) = frames
        return frame

    def ended(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            text = stderr.read().decode()
        return self.process.wait(WITHIN_S), text

    def close(self) -> None:
        self.ours.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@pytest.fixture
def worker(data: Path, registered: Registered) -> Iterator[Worker]:
    assert registered.name
    running = Worker(data)
    hello = running.receive()
    assert hello.type == "hello"
    assert hello.fields["versions"]["shap"]
    yield running
    running.close()


def raw(header: dict[str, Any]) -> bytes:
    head = orjson.dumps(header)
    return struct.pack("<II", 4 + len(head), len(head)) + head


@pytest.mark.parametrize(
    "data_sent",
    [
        raw({"v": 1, "type": "reboot", "job": "", "arrays": []}),
        raw({"v": 2, "type": "plan", "job": "", "arrays": []}),
        encode(Frame(type="result")),
        encode(Frame(type="plan", fields={"timeout_s": 1})),
        encode(Frame(type="prepare", fields={"registration": "x"})),
        struct.pack("<I", 2**31),
    ],
    ids=["unknown type", "unknown version", "a type for keepers", "no request", "no time limit", "too long"],
)
def test_what_is_no_frame_for_a_worker_ends_it_with_an_error(worker: Worker, data_sent: bytes) -> None:
    worker.ours.sendall(data_sent)
    code, text = worker.ended()
    assert code == 3
    assert text.startswith("explainer worker: ")


def test_a_worker_fed_byte_by_byte_answers_the_same(worker: Worker, files: Files, registered: Registered) -> None:
    frame = encode(plan_frame(asked(files, registered), timeout_s=WITHIN_S))
    worker.ours.sendall(frame)
    at_once = worker.receive()
    worker.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for byte in frame:
        worker.ours.sendall(bytes([byte]))
    assert worker.receive() == at_once
    assert at_once.type == "result"


def test_a_worker_ends_when_its_keeper_is_gone(worker: Worker) -> None:
    worker.ours.close()
    code, text = worker.ended()
    assert (code, text) == (0, "")
