"""A deployment whose processes a test starts, kills and starts again, each on its own; and a client that remembers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from config.load import Configuration, load
from storage import applications, watermark
from storage.merkle import leaf_hash
from storage.reading import SegmentTail, shards
from storage.receipts import parse
from tests.support.upstreams import Exchange

EXTRACT = {
    "label": "decision",
    "favourable": ["approved"],
    "adverse": ["denied"],
    "score": "probability",
    "case": "case",
    "subject": "person",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """One host's configuration and processes; `close` ends whatever still runs."""

    def __init__(self, folder: Path, upstream: str, **settings: Any) -> None:
        self.folder = folder
        self.port, self.desk_port = free_port(), free_port()
        route = {"name": "credit", "prefix": "/credit", "upstream": upstream, "extract": EXTRACT}
        route |= settings.pop("route", {})
        tree = {
            "deployment": "test",
            "data": "data",
            "gateway": {"port": self.port, "drain_s": 5},
            "desk": {"port": self.desk_port, "development": True},
            "routes": [route],
            **settings,
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "answerable.yaml"
        path.write_text(yaml.safe_dump(tree))
        self.configuration: Configuration = load(path, {})
        self.key = applications.create(self.configuration.data, app="branch", tenant="default", now_ns=time.time_ns())
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def data(self) -> Path:
        return self.configuration.data

    def start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `answerable ROLE`; its output goes to ROLE.log."""
        with (self.folder / f"{role}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", role, "--config", str(self.configuration.path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ,
            )
        self._running[role] = process
        return process

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit code."""
        process = self._running.pop(role)
        process.send_signal(number)
        return process.wait(60)

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        self._running.clear()

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text(errors="replace")[-4000:]

    def run(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run an `answerable` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments, "--config", str(self.configuration.path)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    async def ready(self, role: str, within_s: float = 60) -> None:
        """Return when ROLE (gateway or keeper's desk) answers that it is ready."""
        url = (
            f"http://127.0.0.1:{self.port}/-/readyz"
            if role == "gateway"
            else f"http://127.0.0.1:{self.desk_port}/readyz"
        )
        deadline = time.monotonic() + within_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                process = self._running[role]
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{role} is not ready (exit {process.poll()}):\n{self.log(role)}")
                await asyncio.sleep(0.02)

    def counters(self, shard: str) -> Any:
        mark = watermark.read(self.data / "journal" / shard / watermark.NAME)
        assert mark is not None
        return mark.counters

    def journaled(self, shard: str = "gateway-0") -> Counter[str]:
        """How often each decision id stands in the journal as a decision entry."""
        return Counter(entry["decision"] for entry in self.entries(shard) if entry["kind"] == "decision")

    def entries(self, shard: str = "gateway-0") -> Iterator[dict[str, Any]]:
        """Everything that stands in the journal of one shard, in order."""
        for directory in shards(self.data):
            if directory.name != shard:
                continue
            tail = SegmentTail(directory)
            for batch in tail.batches():
                for record in batch.records:
                    yield orjson.loads(record.entry)
            tail.close()


@dataclass
class Client:
    """Callers that go on whatever happens, and keep what they received in full."""

    deployment: Deployment
    concurrency: int = 12
    received: dict[str, str] = field(default_factory=dict)  # decision id → receipt
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    in_flight: int = 0
    stopping: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.concurrency):
                tasks.create_task(self._call_again_and_again(number))

    async def _call_again_and_again(self, number: int) -> None:
        timeout = aiohttp.ClientTimeout(total=20)
        headers = {"Authorization": f"Bearer {self.deployment.key}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.deployment.port}/credit/score"
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            serial = 0
            while not self.stopping:
                serial += 1
                body = orjson.dumps({"case": f"{number}-{serial}", "person": f"p{number}", "income": 1000 + serial})
                self.in_flight += 1
                try:
                    async with session.post(url, data=body) as response:
                        await response.read()
                        self.statuses[response.status] += 1
                        if response.status == 200 and "Decision-Id" in response.headers:
                            receipt = response.headers.get("Decision-Receipt", "")  # which speaks of strict evidence
                            self.received[response.headers["Decision-Id"]] = receipt
                except (aiohttp.ClientError, TimeoutError, ConnectionError):
                    self.broken += 1
                    await asyncio.sleep(0.02)
                finally:
                    self.in_flight -= 1


async def sometimes_slow(exchange: Exchange) -> None:
    """Answers at once, after 30 ms, or in the middle of 120 ms; deterministic by the request's length and digits."""
    kind = sum(exchange.asked.body) % 4
    body = b'{"decision":"denied","probability":0.25}'
    if kind == 0:
        await exchange.answer(body, "200 OK", "Content-Type: application/json")
    elif kind == 1:
        await asyncio.sleep(0.03)
        await exchange.answer(body, "200 OK", "Content-Type: application/json")
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body[:10])
        await asyncio.sleep(0.06 * (kind - 1))
        await exchange.send(body[10:])


def receipts_agree(client: Client, deployment: Deployment, shard: str = "gateway-0") -> list[str]:
    """What is wrong between the receipts that the client holds and the journal; empty where nothing is."""
    faults = []
    entries: dict[int, tuple[str, bytes]] = {}
    tail = SegmentTail(deployment.data / "journal" / shard)
    keys: dict[bytes, Any] = {}
    for batch in tail.batches():
        header = tail.header()
        assert header is not None
        keys[batch.commit.key_id] = header.process_key
        for record in batch.records:
            entry = orjson.loads(record.entry)
            if entry["kind"] == "decision":
                entries[record.seq] = (entry["decision"], leaf_hash(record.entry))
    tail.close()
    for decision, text in client.received.items():
        receipt = parse(text)
        if receipt.seq not in entries:
            faults.append(f"{decision}: receipt for {receipt.origin} {receipt.seq}, which is not in the journal")
        elif entries[receipt.seq] != (decision, receipt.leaf):
            faults.append(f"{decision}: receipt for another entry")
        else:
            receipt.verify(keys[receipt.key_id])
    return faults
