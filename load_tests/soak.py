"""Ten minutes of everything at once: `python -m load_tests.soak [--seconds N] [--server]` (`make soak`).

A whole host (`answerable serve`: two workers, keeper, desk) before model endpoints in six protocols, applications that
call at a steady pace and give up at every stage, and faults: model processes killed and cutting answers, the keeper
killed, ClickHouse refusing and killed (`--server`: a ClickHouse HTTP interface in front of a chDB of its own). No
worker is killed. Then SIGTERM, and everything that was promised is counted: in the watermarks, in ClickHouse, by
`answerable verify`. Exit codes as `python -m load_tests`: 0 all holds, 1 something does not, 2 it could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.processes import start
from gateway.keeper.socket import command
from load_tests import machine, plan, report
from load_tests.percentile import percentile
from load_tests.process import BrokenError, Process, free_port
from load_tests.report import Claim, Results, Row, say
from load_tests.soakcalls import Calls
from storage import applications, watermark
from tests.support.clickhouse_http import Server

PER_S = 120.0  # calls: two cores also carry the applications, the models and the database
WORKERS = 24
READY_S = 60.0
SAMPLE_S = 2.0
MODELS_EVERY_S, KEEPER_EVERY_S, DATABASE_EVERY_S = 20.0, 12.0, 25.0
REFUSES_S = 8.0
DRAIN_S = 120.0  # workers have 30, then the keeper has 30 for what is left
SETTLED_S = 600.0
GROWTH_MAX = 1.10  # last third of the run against the second
FLOOR_MIB = 8.0  # what a page cache of Python's allocator may move without being growth
COUNTED_AT_ONCE = 1_000
SHORT_S = 120.0  # below it, it only shows that the soak works
GATEWAYS = ("gateway-0", "gateway-1")


@dataclass(slots=True)
class Host:
    """The host under load and what it stands between."""

    base: Path
    port: int
    models_port: int
    config: Path
    server: Server | None
    stack: ExitStack
    supervisor: Process | None = None
    models: Process | None = None
    faults: Counter[str] = field(default_factory=Counter)
    rss_mib: dict[str, list[float]] = field(default_factory=dict)
    seed: int = 0

    def start_models(self) -> None:
        """The model endpoints, on the port that the routes name."""
        self.seed += 1
        argv = [sys.executable, "-m", "load_tests.models", str(self.models_port), str(self.seed)]
        self.models = Process(argv, cores=machine.cores().all, log=self.base / "models.log")
        self.stack.callback(self.models.stop)
        self.models.wait_for_port(self.models_port, within_s=READY_S)

    def start(self) -> None:
        """`answerable serve`, ready to be called."""
        argv = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(self.config)]
        self.supervisor = Process(argv, cores=machine.cores().all, log=self.base / "serve.log")
        self.stack.callback(self.supervisor.stop)
        self.supervisor.wait_for_port(self.port, within_s=READY_S)

    def processes(self) -> dict[str, int]:
        """The pids of the supervisor's children by role."""
        assert self.supervisor is not None
        found = {}
        for pid in _children(self.supervisor.pid):
            words = _cmdline(pid)
            if "gateway.serve" in words:
                found[words[words.index("gateway.serve") + 1]] = pid
        return found

    def sample(self) -> None:
        """What each process holds now."""
        for role, pid in self.processes().items():
            self.rss_mib.setdefault(role, []).append(machine.rss_bytes(pid) / 2**20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What ClickHouse has: of the ids that applications received, rows of these, closing entries in all."""

    received: int
    rows: int
    closings: int


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def _cmdline(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


async def _faults(host: Host, *, until: float, keeper_until: float) -> None:
    """Kill and cut by the clock; the keeper only at first, so that its memory can be looked at afterwards."""
    now = time.monotonic()
    models_at, keeper_at, database_at = now + MODELS_EVERY_S / 2, now + KEEPER_EVERY_S, now + DATABASE_EVERY_S
    is_killing_database = False
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE_S)
        now = time.monotonic()
        await asyncio.to_thread(host.sample)
        if now >= models_at:
            assert host.models is not None
            os.killpg(host.models.pid, signal.SIGKILL)
            host.faults["model processes killed"] += 1
            await asyncio.sleep(1)
            await asyncio.to_thread(host.start_models)
            models_at = time.monotonic() + MODELS_EVERY_S
        keeper = next((pid for role, pid in host.processes().items() if role.startswith("keeper")), None)
        if now >= keeper_at and now < keeper_until and keeper is not None:
            os.kill(keeper, signal.SIGKILL)
            host.faults["keeper killed"] += 1
            keeper_at = now + KEEPER_EVERY_S
        if host.server is not None and now >= database_at and now < keeper_until:
            if is_killing_database:
                await asyncio.to_thread(host.server.kill)
                await asyncio.sleep(3)
                await asyncio.to_thread(host.server.start)
                host.faults["ClickHouse killed"] += 1
            else:
                await asyncio.to_thread(host.server.refuse, REFUSES_S)
                host.faults["ClickHouse refusing for 8 s"] += 1
                await asyncio.to_thread(host.server.wait_until_up, REFUSES_S + 30)
            is_killing_database = not is_killing_database
            database_at = time.monotonic() + DATABASE_EVERY_S


async def _loaded(host: Host, calls: Calls, seconds: float) -> None:
    until = time.monotonic() + seconds
    calling = asyncio.create_task(calls.run(per_s=PER_S, workers=WORKERS))
    try:
        await _faults(host, until=until, keeper_until=time.monotonic() + seconds / 3)
    finally:
        calls.stopping = True
    await asyncio.wait_for(calling, 120)


async def _asked(data: Path, name: str, **arguments: object) -> dict[str, Any]:
    lines = [line async for line in command(data, name, arguments)]
    if lines[-1].get("exit") != 0:
        raise BrokenError(f"{name}: {lines[-1]}")
    return dict(lines[-1]["result"])


async def _shipped(host: Host, decisions: list[str]) -> Shipped:
    """What stands in ClickHouse once all is shipped."""
    data = host.base / "data"
    argv = [sys.executable, "-m", "gateway.cli", "keeper", "--config", str(host.config)]
    keeper = Process(argv, cores=machine.cores().all, log=host.base / "keeper.log")
    try:
        deadline = time.monotonic() + SETTLED_S
        while True:
            try:
                await _asked(data, "settle")
                break
            except (OSError, BrokenError, ValueError) as problem:
                if time.monotonic() > deadline:
                    raise BrokenError(f"not settled after {SETTLED_S:g} s: {problem}") from problem
                await asyncio.sleep(1)
        there = rows = 0
        for at in range(0, len(decisions), COUNTED_AT_ONCE):
            counted = await _asked(data, "count", decisions=decisions[at : at + COUNTED_AT_ONCE])
            there += int(counted["shipped"])
            rows += int(counted["rows"])
        totals = (await _asked(data, "status"))["decisions"]
        return Shipped(received=there, rows=rows, closings=int(totals["closings"]))
    finally:
        keeper.stop()


def _verify(host: Host) -> subprocess.CompletedProcess[bytes]:
    with tempfile.TemporaryFile() as said:
        argv = [sys.executable, "-m", "gateway.cli", "verify", "--config", str(host.config), "--json"]
        process = start(argv, stdout=said, stderr=said)
        code = process.wait(SETTLED_S)
        said.seek(0)
        return subprocess.CompletedProcess(argv, code, said.read())


def _configuration(base: Path, port: int, models_port: int, storage: dict[str, object]) -> Path:
    upstream = f"http://127.0.0.1:{models_port}"

    def route(name: str, prefix: str, **more: object) -> dict[str, object]:
        return {"name": name, "prefix": prefix, "upstream": upstream, "explain": {"when": "never"}, **more}

    detect = {"detect": ["card", "iban"]}
    label = {"label": "decision", "favourable": ["approved"], "adverse": ["denied"]}
    rules = [
        {"path": "/health", "as": "none"},
        {"path": "/embeddings", "as": "call"},
        {"path": "/**", "as": "decision"},
    ]
    tree = {
        "deployment": "soak",
        "data": "data",
        "gateway": {"port": port, "workers": len(GATEWAYS), "drain_s": 30},
        "desk": {"port": free_port(), "development": True},
        "callers": {"mode": "keys", "limits": {"default": {"rate_per_s": 100_000, "quota_calls": 10**9}}},
        "storage": storage,
        "routes": [
            route("chat", "/chat", protocol="openai"),
            route("claude", "/claude", protocol="anthropic"),
            route("v2", "/v2r", protocol="inference-v2"),
            route("v1", "/v1r", protocol="kserve-v1", evidence="spool"),
            route("flow", "/flow", protocol="mlflow", evidence="best_effort"),
            route("score", "/score", record=rules, extract=label, capture={"case": "case"}),
            route("once", "/once", idempotency="required"),
            route("hidden", "/hidden", protocol="openai", redact=detect),
        ],
    }
    path = base / "answerable.yaml"
    path.write_text(json.dumps(tree, indent=1))  # JSON is YAML
    return path


def _counters(host: Host) -> dict[str, int]:
    total: Counter[str] = Counter()
    for shard in GATEWAYS:
        mark = watermark.read(host.base / "data" / "journal" / shard / watermark.NAME)
        if mark is None:
            raise BrokenError(f"the watermark of {shard} cannot be read")
        total.update(mark.counters.as_json())
    return dict(total)


def _memory(host: Host, seconds: float) -> list[Claim]:
    """Nothing in a short run: processes that have just begun still grow."""
    claims: list[Claim] = []
    if seconds < SHORT_S:
        return claims
    for role, samples in sorted(host.rss_mib.items()):
        third = len(samples) // 3
        if third < 3:
            continue
        second, last = statistics.median(samples[third : 2 * third]), statistics.median(samples[-third:])
        growth = 1.0 if last - second < FLOOR_MIB else last / second
        claims.append(Claim(f"memory of {role}, last third ÷ second", growth, GROWTH_MAX, at_most=True))
    return claims


def _results(
    host: Host, calls: Calls, counters: dict[str, int], shipped: Shipped, *, seconds: float, verified: bool
) -> Results:
    received = len(calls.received)
    unaccounted = counters["accepted"] - counters["closed"] - counters["lost"]
    claims = [
        Claim("calls accepted, and neither closed nor lost", unaccounted, 0, at_most=True),
        Claim("calls open after the drain", counters["open"], 0, at_most=True),
        Claim("calls lost", counters["lost"] - counters["shed"], 0, at_most=True),
        Claim("answers received whole that ClickHouse has ÷ all", shipped.received / max(received, 1), 1.0),
        Claim("closing entries of these that stand there twice", shipped.rows - shipped.received, 0, at_most=True),
        Claim("calls closed less closing entries shipped", abs(counters["closed"] - shipped.closings), 0, at_most=True),
        Claim("Decision-Ids that came twice without being repeats", calls.doubled, 0, at_most=True),
        Claim("answerable verify exits 0", float(verified), 1.0),
        *_memory(host, seconds),
    ]
    rows = [Row(key=name, label=name, cells=(str(count),)) for name, count in sorted(calls.sent.items())]
    rows += [Row(key=name, label=name, cells=(str(count),)) for name, count in sorted(host.faults.items())]
    rows += [Row(key=name, label=f"outcome {name}", cells=(str(n),)) for name, n in sorted(calls.outcomes.items())]
    return Results(
        name="soak-server" if host.server is not None else "soak",
        title="Soak: calls, faults, outcomes",
        columns=("what", "count"),
        rows=rows,
        claims=claims,
        absent=[],
        notes=[f"counters: {counters}; answers received whole: {received}"],
        measured={
            "counters": counters,
            "p50_ms": round(1e3 * percentile(calls.took_s, 50), 2),
            "p99_ms": round(1e3 * percentile(calls.took_s, 99), 2),
            "rss_mib": {role: [round(each, 1) for each in samples] for role, samples in host.rss_mib.items()},
        },
    )


def run(base: Path, stack: ExitStack, *, seconds: float, server: bool) -> Results:
    """One soak in the empty folder `base`.

    Raises:
        BrokenError: a process did not start, or the host did not settle.
    """
    database = stack.enter_context(Server(base / "clickhouse")) if server else None
    storage: dict[str, object] = {"profile": "chdb"}
    if database is not None:
        storage = {"profile": "server", "url": database.url, "database": "soak"}
    port, models_port = free_port(), free_port()
    host = Host(base, port, models_port, _configuration(base, port, models_port, storage), database, stack)
    key = applications.create(base / "data", app="soak", tenant="default", now_ns=time.time_ns())
    host.start_models()
    host.start()
    calls = Calls(port, key, random.Random(1))
    say(f"{seconds:g} s of load and faults")
    asyncio.run(_loaded(host, calls, seconds))
    assert host.supervisor is not None
    say("draining")
    if host.supervisor.stop(within_s=DRAIN_S) != 0:
        raise BrokenError(f"the host did not end in order within {DRAIN_S:g} s: {host.supervisor.last_words()}")
    counters = _counters(host)
    say("shipping and counting")
    shipped = asyncio.run(_shipped(host, sorted(calls.received)))
    say("verifying")
    verified = _verify(host)
    if verified.returncode:
        say(verified.stdout.decode(errors="replace")[-4000:])
    return _results(host, calls, counters, shipped, seconds=seconds, verified=verified.returncode == 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m load_tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--server", action="store_true", help="ClickHouse behind HTTP, killed and refusing too")
    parser.add_argument("--results", type=Path, help="folder for JSON and SVG; default load_tests/results")
    parser.add_argument("--keep", action="store_true", help="leave the data and logs where they are, and say where")
    wanted = parser.parse_args()
    work = machine.cache() / "work"
    work.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="soak-", dir=work))
    try:
        machine.check_space(work, short=wanted.seconds < SHORT_S)
        facts = machine.facts(work)
        with ExitStack() as stack:
            if not wanted.keep:
                stack.callback(shutil.rmtree, base, ignore_errors=True)
            results = run(base, stack, seconds=wanted.seconds, server=wanted.server)
    except (machine.UnfitError, BrokenError) as problem:
        say(f"soak: {problem}")
        return 2
    finally:
        if wanted.keep:
            say(f"kept: {base}")
    report.show(results, facts)
    is_short = wanted.seconds < SHORT_S
    written = (
        plan.short(only=frozenset(), install=False, results=wanted.results)
        if is_short
        else plan.full(only=frozenset(), rounds=1, seconds=0, install=False, results=wanted.results)
    )
    report.write(results, written, facts)
    return 0 if results.met else 1


if __name__ == "__main__":
    sys.exit(main())
