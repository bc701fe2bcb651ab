"""Our own gateway as a side: strict evidence, an application's key checked on every call, all parts sealed.

One worker is `answerable gateway`, as an operator starts it where roles run apart. The keeper is not started: it
works on other cores and catches up when it may, and no figure here depends on it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests import compiled
from load_tests.process import BrokenError, Process, free_port
from storage import applications, watermark

READY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A shard's counters after its worker ended; calls."""

    accepted: int
    closed: int
    open: int
    lost: int


@dataclass(slots=True)
class Gateway:
    """Workers of one host on one port, and the key that their caller holds."""

    base: Path
    port: int
    key: str
    workers: list[Process] = field(default_factory=list)

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def tally(self) -> Tally:
        """What the ended workers' watermarks say, summed.

        Raises:
            BrokenError: a watermark cannot be read.
        """
        marks = [watermark.read(path) for path in sorted(self.base.glob("data/journal/*/watermark"))]
        counters = [mark.counters for mark in marks if mark is not None]
        if len(counters) != len(self.workers):
            raise BrokenError(f"{len(self.workers)} workers ran and {len(counters)} watermarks can be read")
        accepted = sum(each.accepted for each in counters)
        closed = sum(each.closed for each in counters)
        lost = sum(each.lost for each in counters)
        return Tally(accepted=accepted, closed=closed, open=accepted - closed - lost, lost=lost)


def start(
    base: Path,
    stack: ExitStack,
    *,
    upstream_port: int,
    cores: tuple[int, ...],
    workers: int = 1,
    route: Mapping[str, Any] | None = None,
    is_compiled: bool = True,
) -> Gateway:
    """Start `workers` gateway workers on `cores` before the upstream, ready to be called on return.

    `route` says what its one route has besides, or in place of what all have. With `is_compiled` it is the compiled
    form, where that was built.

    Raises:
        BrokenError: a worker did not start.
    """
    base.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = base / "answerable.yaml"
    configuration.write_text(_configuration(port, upstream_port, workers, route or {}))
    data = base / "data"
    key = applications.create(data, app="bench", tenant="default", now_ns=time.time_ns())
    gateway = Gateway(base, port, key)
    stack.callback(gateway.stop)
    for number in range(workers):
        shard = f"gateway-{number}"
        argv = [sys.executable, "-m", "gateway.cli", "gateway", "--config", str(configuration), "--shard", shard]
        environment = compiled.environment() if is_compiled else {}
        worker = Process(argv, cores=cores, log=base / f"{shard}.log", env=environment, cwd=base)
        gateway.workers.append(worker)
        worker.wait_for_port(port, within_s=READY_S)
        _wait_for_shard(worker, data / "journal" / shard)
    return gateway


def _wait_for_shard(worker: Process, journal: Path) -> None:
    """Another worker may already listen on the shared port: this one is up when it has said so in its log."""
    deadline = time.monotonic() + READY_S
    while b"worker_listens" not in worker.log.read_bytes():
        if not worker.alive() or time.monotonic() > deadline:
            raise BrokenError(f"{journal.name} did not start: {worker.last_words()}")
        time.sleep(0.05)


def _configuration(port: int, upstream_port: int, workers: int, route: Mapping[str, Any]) -> str:
    return json.dumps(  # JSON is YAML
        {
            "deployment": "bench",
            "data": "data",
            "gateway": {"port": port, "workers": workers},
            "callers": {"mode": "keys"},
            "log": {"exchanges": True},
            "routes": [
                {
                    "name": "chat",
                    "prefix": "/",
                    "upstream": f"http://127.0.0.1:{upstream_port}",
                    "evidence": "strict",
                    "protocol": "openai",
                    "explain": {"when": "never"},
                    **route,
                }
            ],
        },
        indent=2,
    )
