"""Ten minutes of everything at once: `python -m load_tests.soak [--seconds N] [--server]` (`make soak`).

A whole host (`answerable serve`: two workers, keeper, desk) before model endpoints in six protocols, applications that
call at a steady pace and give up at every stage, and faults: model processes killed and cutting answers, the keeper
killed, ClickHouse refusing and killed (`--server`: a ClickHouse HTTP interface in front of a chDB of its own). No
worker is killed. Then SIGTERM while applications still call, and everything that was promised is counted: in the
watermarks, in ClickHouse, by `answerable verify`. A fault that never came about is a failure too. Exit codes as
`python -m load_tests`: 0 all holds, 1 something does not, 2 it could not run.
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
from load_tests.soakcalls import STAGES, Calls
from storage import applications, watermark
from tests.support.clickhouse_http import Server

PER_S = 120.0  # calls: two cores also carry the applications, the models and the database
WORKERS = 24
READY_S = 60.0
SAMPLE_S = 2.0
CALLED_ON_S = 2.0  # after SIGTERM
DRAIN_S = 120.0  # workers have 30, then the keeper has 30 for what is left
SETTLED_S = 600.0
GROWTH_MAX = 1.10  # last third of the run against the second
SAMPLES_MIN = 5  # of a role in a third of the run
COUNTED_AT_ONCE = 1_000
SHORT_S = 120.0  # below it, it only shows that the soak works
GATEWAYS = ("gateway-0", "gateway-1")
KEEPER = "keeper"
GREEDY_PER_S = 1.0  # what the application that asks for more may have
MODELS_KILLED, KEEPER_KILLED = "model processes killed", "keeper killed"
DATABASE_REFUSES, DATABASE_KILLED = "ClickHouse refusing", "ClickHouse killed"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often what fails, in a run of so many seconds."""

    seconds: float

    @property
    def models_every_s(self) -> float:
        return min(20.0, self.seconds / 5)

    @property
    def keeper_every_s(self) -> float:
        return min(12.0, self.seconds / 7)

    @property
    def keeper_until_s(self) -> float:
        """From here on it lives, so that its memory can be looked at."""
        return self.seconds / 3

    @property
    def database_every_s(self) -> float:
        return min(25.0, self.seconds / 7)

    @property
    def database_until_s(self) -> float:
        return self.seconds * 5 / 6

    @property
    def refuses_s(self) -> float:
        return min(8.0, self.seconds / 10)


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
    rss_mib: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # with the second of the run
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

    def sample(self, at_s: float) -> None:
        """What each process holds now."""
        for role, pid in self.processes().items():
            self.rss_mib.setdefault(role, []).append((at_s, machine.rss_bytes(pid) / 2**20))


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


async def _faults(host: Host, pace: Pace) -> None:
    """Kill and cut by the clock."""
    begun = time.monotonic()
    models_at, keeper_at, database_at = pace.models_every_s / 2, pace.keeper_every_s, pace.database_every_s
    while (now := time.monotonic() - begun) < pace.seconds:
        await asyncio.to_thread(host.sample, now)
        if now >= models_at:
            assert host.models is not None
            os.killpg(host.models.pid, signal.SIGKILL)
            host.faults[MODELS_KILLED] += 1
            await asyncio.sleep(1)
            await asyncio.to_thread(host.start_models)
            models_at = now + pace.models_every_s
        keeper = host.processes().get(KEEPER)
        if keeper_at <= now < pace.keeper_until_s and keeper is not None:
            os.kill(keeper, signal.SIGKILL)
            host.faults[KEEPER_KILLED] += 1
            keeper_at = now + pace.keeper_every_s
        if host.server is not None and database_at <= now < pace.database_until_s:
            await _cut_database(host, host.server, pace)
            database_at = time.monotonic() - begun + pace.database_every_s
        await asyncio.sleep(min(SAMPLE_S, pace.seconds / 30))


async def _cut_database(host: Host, server: Server, pace: Pace) -> None:
    """Once it refuses, once it is killed."""
    if host.faults[DATABASE_REFUSES] == host.faults[DATABASE_KILLED]:
        await asyncio.to_thread(server.refuse, pace.refuses_s)
        host.faults[DATABASE_REFUSES] += 1
        await asyncio.to_thread(server.wait_until_up, pace.refuses_s + 30)
    else:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(min(3.0, pace.refuses_s))
        await asyncio.to_thread(server.start)
        host.faults[DATABASE_KILLED] += 1


async def _loaded(host: Host, calls: Calls, pace: Pace) -> int:
    """Load and faults, then SIGTERM while applications go on calling; the host's exit code."""
    assert host.supervisor is not None
    calling = asyncio.create_task(calls.run(per_s=PER_S, workers=WORKERS))
    try:
        await _faults(host, pace)
        say("draining, still called")
        ending = asyncio.create_task(asyncio.to_thread(host.supervisor.stop, within_s=DRAIN_S))
        await asyncio.sleep(CALLED_ON_S)
    finally:
        calls.stopping = True
    code = await ending
    await asyncio.wait_for(calling, 120)
    return code


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
        "callers": {
            "mode": "keys",
            "limits": {
                "default": {"rate_per_s": 100_000, "quota_calls": 10**9},
                "apps": {"greedy": {"rate_per_s": GREEDY_PER_S}},
            },
        },
        "storage": storage,
        "routes": [
            route("chat", "/chat", protocol="openai"),
            route("claude", "/claude", protocol="anthropic"),
            route("v2", "/v2r", protocol="inference-v2"),
            route("v1", "/v1r", protocol="kserve-v1", evidence="spool", batch="rows"),
            route("flow", "/flow", protocol="mlflow", evidence="best_effort", batch="rows"),
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


def _memory(host: Host, pace: Pace) -> list[Claim]:
    """Nothing in a short run: processes that have just begun still grow."""
    if pace.seconds < SHORT_S:
        return []
    third_s = pace.seconds / 3
    claims = []
    for role in (*GATEWAYS, KEEPER):
        samples = host.rss_mib.get(role, [])
        second = [mib for at_s, mib in samples if third_s <= at_s < 2 * third_s]
        last = [mib for at_s, mib in samples if at_s >= 2 * third_s]
        is_seen = min(len(second), len(last)) >= SAMPLES_MIN
        growth = statistics.median(last) / statistics.median(second) if is_seen else float("inf")
        claims.append(Claim(f"memory of {role}, last third ÷ second", growth, GROWTH_MAX, at_most=True))
    return claims


def _happened(host: Host, calls: Calls) -> list[Claim]:
    """What must have come about for the rest to mean anything."""
    wanted = [MODELS_KILLED, KEEPER_KILLED, *([DATABASE_REFUSES, DATABASE_KILLED] if host.server is not None else [])]
    counts = {name: host.faults[name] for name in wanted}
    counts |= {f"callers gone {stage}": calls.outcomes[f"given up {stage}"] for stage in STAGES}
    counts["calls refused for the rate (429)"] = calls.outcomes["429"]
    return [Claim(name, count, 1) for name, count in counts.items()]


def _results(
    host: Host, calls: Calls, counters: dict[str, int], shipped: Shipped, *, pace: Pace, verified: bool
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
        *_happened(host, calls),
        *_memory(host, pace),
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
            "rss_mib": {role: [round(mib, 1) for _, mib in samples] for role, samples in host.rss_mib.items()},
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
        storage = {"profile": "server", "url": database.url, "database": "soak", "allow_broad_grants": True}
    port, models_port = free_port(), free_port()
    host = Host(base, port, models_port, _configuration(base, port, models_port, storage), database, stack)
    key, greedy = (
        applications.create(base / "data", app=app, tenant="default", now_ns=time.time_ns())
        for app in ("soak", "greedy")
    )
    host.start_models()
    host.start()
    calls = Calls(port, key, greedy, random.Random(1))
    say(f"{seconds:g} s of load and faults")
    code = asyncio.run(_loaded(host, calls, Pace(seconds)))
    assert host.supervisor is not None
    if code != 0:
        raise BrokenError(f"the host did not end in order within {DRAIN_S:g} s: {host.supervisor.last_words()}")
    counters = _counters(host)
    say("shipping and counting")
    shipped = asyncio.run(_shipped(host, sorted(calls.received)))
    say("verifying")
    verified = _verify(host)
    if verified.returncode:
        say(verified.stdout.decode(errors="replace")[-4000:])
    return _results(host, calls, counters, shipped, pace=Pace(seconds), verified=verified.returncode == 0)


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
