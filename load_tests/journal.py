"""How fast a journal is: records a second at 1, 8, 64 and 512 callers, and where the time of one goes.

``python -m load_tests.journal [--seconds S] [--data DIR] [--sync-ms MS] [--callers N …]``. Each record is a decision
entry with one sealed part of 2 KB; each caller appends the next when the last is durable. In turn with it run

- ``plain``: the same journal without leaf hashes, trees and signatures: what integrity costs;
- ``bare``: as many bytes, group commit and fdatasync, nothing else: what the disk and the loop alone would give.

``--sync-ms`` adds to each fdatasync, for a machine whose disk is faster than those that matter: group commit pays where
a sync is dear. Prints one JSON line a measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from storage import frames, writer
from storage.batch import BatchWriter, Committed
from storage.durable import Syscalls
from storage.entries import Draft
from storage.journal import Journal, JournalLimits
from storage.keys import Keyring
from storage.merkle import Tree
from storage.segment import Commit, Counters

CALLERS = (1, 8, 64, 512)
BODY = json.dumps({"applicant": {f"feature_{number}": number * 1.37 for number in range(92)}}).encode()[:2048]
FIELDS = {
    "app": "bench",
    "call": {"method": "POST", "path": "/v1/score", "request_id": "0123456789abcdef"},
    "case": "2026-11-23.dGhpcyBpcyBhIHBzZXVkb255bSBvZiBhIGNhc2U",
    "subject": "2026-11-23.dGhpcyBpcyBhIHBzZXVkb255bSBvZiBhIHBlcnM",
    "purpose": "underwriting",
    "model": {"name": "credit", "version": "7", "digest": "d" * 64, "source": "announced"},
    "status": 200,
    "error": None,
    "timing": {"received_ns": "1795421882376936700", "upstream_first_us": 812, "upstream_us": 830, "total_us": 1200},
    "mode": "strict",
    "stream": {"state": "complete", "streamed": False, "bytes": 2048},
    "retention": "default",
}


def decide(journal: Journal) -> Awaitable[object]:
    """What a gateway does for one decision, from the sealed body to the future."""
    journal.admit("acme", "credit")
    key = journal.new_key()
    part, stored = key.sealer.seal("request", "application/json", BODY, 0)
    decision = journal.new_id()
    draft = Draft(
        kind="decision",
        tenant="acme",
        route="credit",
        actor="app:bench",
        id=decision,
        ts_ns=time.time_ns(),
        decision=decision,
        config="c" * 64,
        parts=(part,),
        fields=FIELDS,
    )
    return journal.append(draft, parts=(stored,), key=key, closes=True)


class PlainBatch(BatchWriter):
    """A batch without integrity: no leaf hash, no tree, no signature; only checksums."""

    def leaf(self, entry: bytes) -> bytes:  # noqa: ARG002 - the signature of what it stands in for
        """Count an entry that nothing commits to."""
        self._frontier.size += 1
        self._leaves.append(b"")
        return b""

    def finish(
        self,
        *,
        now_ns: int,
        counters: Counters,
        key: bytes,
        sign: Callable[[bytes], bytes],  # noqa: ARG002 - the signature of what it stands in for
        durable_end: int | None = None,
        deferred: bool = False,
    ) -> tuple[bytes, Committed]:
        """End it with a COMMIT that says nothing."""
        unsynced = 0 if durable_end is None else self._begin - durable_end
        nothing = Commit(
            begin=self._begin, unsynced=unsynced, deferred=deferred, first=self._first, count=self.count,
            batch_root=bytes(32), size=self._frontier.size,
            root=bytes(32), counters=counters, key_id=key, signature=bytes(64),
        )  # fmt: skip
        self.frame(frames.COMMIT, now_ns, nothing.to_payload())
        return b"".join(self._frames), Committed(self._header.origin, nothing, Tree([]))


class SlowDisk(Syscalls):
    """The kernel, with a longer fdatasync."""

    def __init__(self, sync_ms: float) -> None:
        self._sync_s = sync_ms / 1000

    def datasync(self, fd: int) -> None:
        """Sync, then wait."""
        super().datasync(fd)
        if self._sync_s:
            time.sleep(self._sync_s)


class Bare:
    """Group commit without integrity: what the disk and the loop alone would give."""

    def __init__(self, path: Path, calls: Syscalls) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls = calls
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(self._fd, 0, 64 * 1024 * 1024)
        os.fsync(self._fd)
        self._offset = 0
        self._queue: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def append(self, data: bytes) -> asyncio.Future[None]:
        """A future that is done once the bytes are durable."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((data, future))
        return future

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            taken = [first]
            with contextlib.suppress(queue.Empty):
                while len(taken) < 1024 and (item := self._queue.get_nowait()) is not None:
                    taken.append(item)
            data = b"".join([data for data, _ in taken])
            if self._offset + len(data) > 64 * 1024 * 1024:
                self._offset = 0
            os.pwrite(self._fd, data, self._offset)
            self._calls.datasync(self._fd)
            self._offset += len(data)
            self._loop.call_soon_threadsafe(_wake, [future for _, future in taken])


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


async def rate_and_cpu(one: Callable[[], Awaitable[object]], callers: int, seconds: float) -> tuple[float, float]:
    """Records a second, and the processor time of one (µs, all threads)."""
    done, cpu = 0, time.process_time()
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await one()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - started), (time.process_time() - cpu) / max(done, 1) * 1e6


def fdatasync_us(directory: Path) -> float:
    """What the disk takes for 4 KB, median of 100."""
    fd = os.open(directory / "probe", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 1024 * 1024)
    os.fsync(fd)
    times = []
    for number in range(100):
        os.pwrite(fd, bytes(4096), number * 4096)
        started = time.perf_counter()
        os.fdatasync(fd)
        times.append(time.perf_counter() - started)
    os.close(fd)
    return sorted(times)[50] * 1e6


def steps_ns(journal: Journal, repeat: int = 3000) -> dict[str, int]:
    """What the event loop spends on one append, step by step, while the writer waits for none of them."""
    from storage.entries import document, finish

    key = journal.new_key()
    part, stored = key.sealer.seal("request", "application/json", BODY, 0)
    draft = Draft(
        kind="decision", tenant="acme", route="credit", actor="app:bench", id=key.key_id, ts_ns=1, decision=key.key_id,
        config="c" * 64, parts=(part,), fields=FIELDS,
    )  # fmt: skip
    made = document(draft, journal.origin)
    steps: dict[str, Callable[[], object]] = {
        "new_key": journal.new_key,
        "new_key_and_seal_2kb": lambda: journal.new_key().sealer.seal("request", "application/json", BODY, 0),
        "document": lambda: document(draft, journal.origin),
        "encode": lambda: finish(made, seq=1, scope_seq=1),
        "part_payload": stored.to_payload,
    }
    found = {}
    for name, step in steps.items():
        started = time.perf_counter_ns()
        for _ in range(repeat):
            step()
        found[name] = (time.perf_counter_ns() - started) // repeat
    return found


async def main(data: Path, seconds: float, sync_ms: float, callers: Sequence[int] = CALLERS) -> None:
    """All measurements, one JSON line each; the two journals and the bare one take turns, medians of three rounds."""
    print(json.dumps({"fdatasync_us": round(fdatasync_us(data)), "sync_ms_added": sync_ms}))
    keys, calls = Keyring.open(data, create=True).journal_keys(), SlowDisk(sync_ms)
    journal = await Journal.open(
        data / "journal" / "gateway-0", origin_base="bench/gateway-0", keys=keys, syscalls=calls
    )
    plain = await Journal.open(
        data / "journal" / "plain",
        origin_base="bench/plain",
        keys=keys,
        syscalls=calls,
        limits=JournalLimits(segment_bytes=1024 * 1024 * 1024),  # it has no tree to begin a second segment with
    )
    bare = Bare(data / "bare", calls)
    print(json.dumps({"loop_steps_ns": steps_ns(journal)}))
    record = bytes(len(BODY) + 1600)
    alone = 0.0
    for count in callers:
        rounds: list[tuple[float, ...]] = []
        for _ in range(3):
            whole, cpu_us = await rate_and_cpu(lambda: decide(journal), count, seconds)
            writer.__dict__["BatchWriter"] = PlainBatch
            without, _ = await rate_and_cpu(lambda: decide(plain), count, seconds)
            writer.__dict__["BatchWriter"] = BatchWriter
            raw, _ = await rate_and_cpu(lambda: bare.append(record), count, seconds)
            rounds.append((whole, without, raw, cpu_us, whole / without))
        whole, without, raw, cpu_us, ratio = (statistics.median(column) for column in zip(*rounds, strict=True))
        alone = alone or whole
        line = {"callers": count, "records_s": round(whole), "plain_records_s": round(without)}
        line |= {"bare_records_s": round(raw), "cpu_us_a_record": round(cpu_us)}
        print(json.dumps({**line, "to_plain": round(ratio, 2), "to_one_caller": round(whole / alone, 1)}), flush=True)
    bare.close()
    await plain.close()
    await journal.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sync-ms", type=float, default=0)
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.data) as directory:
        uvloop.run(main(Path(directory), arguments.seconds, arguments.sync_ms, arguments.callers))
