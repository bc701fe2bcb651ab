"""`answerable demo`: the whole path on real mortgage applications, from the bank's clerk to the regulator.

Trains a model, serves it in its own process, puts Answerable before it, sends every held-out applicant through the
gateway with the bank's key, waits until all is shipped and explained, verifies the ledger, and hands out two links to
one denied applicant. What it reports is counted where it happened: sent at the client, recorded by the workers'
counters, shipped and explained in SQL, verified by `verify`'s exit code.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from config.load import Configuration
from config.processes import start
from gateway import development
from gateway.demo import bank
from gateway.demo.applicants import EXTRACT
from gateway.demo.attempt import interruption, signin_link, written
from gateway.demo.host import HostError, ask, end, free_or_refuse, result_of, running
from gateway.demo.model_server import VERSION_HEADER
from gateway.demo.train import NAME, Trained, train
from storage import applications

DENIED = "denied"
TOKEN_S = 3600
MODEL_READY_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Counted:
    """What happened, as the JSON line of `--exit` says it."""

    sent: int
    recorded: int
    shipped: int
    explained: int
    verified: bool
    decision_url: str

    @property
    def whole(self) -> bool:
        """Whether everything that was sent was recorded, shipped and explained, and the ledger is sound."""
        return self.sent == self.recorded == self.shipped == self.explained and self.verified

    def line(self) -> str:
        """One line of JSON."""
        return orjson.dumps({name: getattr(self, name) for name in self.__slots__}).decode()


async def show(*, port: int, desk_port: int, data: Path, leave: bool) -> int:
    """Run the demo; with `leave` stop when all is verified and print one JSON line, else stay up until Ctrl-C.

    Returns 0 where everything sent was recorded, shipped, explained and verified, else 1.

    Raises:
        ConfigError: a port is in use or `data` cannot be written.
        HostError: a process did not start or did not answer.
    """
    console = Console(stderr=leave, highlight=False)
    free_or_refuse(port, "--port")
    free_or_refuse(desk_port, "--desk-port")
    with _told(console, "Training a model on 1,392 real mortgage applications"):
        trained = await asyncio.to_thread(train, data / "model")
    console.print(_quality(trained), soft_wrap=True)
    async with _model_served(trained.registration, data) as upstream:
        configuration = written(_tree(trained, upstream, port=port, desk_port=desk_port), data)
        key = applications.create(
            configuration.data, app="branch-office", tenant=configuration.settings.tenant, now_ns=time.time_ns()
        )
        async with running(configuration, data / "serve.log"):
            counted = await _through(console, configuration, trained, key)
            interrupted = interruption()
            await _report(console, configuration, counted)
            if leave:
                print(counted.line())  # noqa: T201 (the command's output)
            else:
                await interrupted.wait()
    return 0 if counted.whole else 1


def _tree(trained: Trained, upstream: str, *, port: int, desk_port: int) -> dict[str, Any]:
    return {
        "deployment": "demo",
        "data": ".",
        "tenant": "first-boston",
        "gateway": {"port": port},
        "callers": {"mode": "keys"},
        "desk": {"port": desk_port, "development": True},
        "models": [f"model/{trained.registration.name}"],
        "routes": [
            {
                "name": "mortgage",
                "prefix": "/mortgage",
                "upstream": upstream,
                "record": [{"path": "/score", "as": "decision"}, {"path": "/**", "as": "call"}],
                "extract": EXTRACT,
                "model": {"name": NAME, "version_header": VERSION_HEADER},
            }
        ],
    }


@contextlib.asynccontextmanager
async def _model_served(registration: Path, data: Path) -> AsyncIterator[str]:
    """The model's address, served by a process of its own until the context ends."""
    with (data / "model.log").open("ab") as log:
        process = start(
            [sys.executable, "-m", "gateway.demo.model_server", "--registration", str(registration)],
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{await _announced_port(process, data / 'model.log')}"
    finally:
        await asyncio.to_thread(end, process)
        if process.stdout is not None:
            process.stdout.close()


async def _announced_port(process: subprocess.Popen[bytes], log: Path) -> int:
    if process.stdout is None:
        raise HostError("the model server was started without a pipe")
    try:
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), MODEL_READY_WITHIN_S)
        return int(orjson.loads(line)["port"])
    except (TimeoutError, orjson.JSONDecodeError, KeyError) as error:
        raise HostError(f"the model server did not start; see {log}") from error


async def _through(console: Console, configuration: Configuration, trained: Trained, key: str) -> Counted:
    """Send every held-out applicant and follow what becomes of them."""
    started_s = int(time.time())
    before = await _counters(configuration)
    bodies = [(applicant.case, applicant.body()) for applicant in trained.held_out]
    url = f"http://127.0.0.1:{configuration.settings.gateway.port}/mortgage/score"
    with _bar(console) as bars:
        sending = bars.add_task("sent through the gateway", total=len(bodies))
        answers = await bank.send(url, key, bodies, lambda: bars.advance(sending))
        explaining = bars.add_task("shipped and explained", total=len(bodies))
        ids = [answer.decision for answer in answers]
        async for line in ask(configuration, "settle", {}):
            if "progress" in line:
                counts = await result_of(configuration, "count", {"decisions": ids})
                bars.update(explaining, completed=min(counts["result"]["shipped"], counts["result"]["explained"]))
        found = (await result_of(configuration, "count", {"decisions": ids}))["result"]
        bars.update(explaining, completed=min(found["shipped"], found["explained"]))
        checking = bars.add_task("entries verified", total=None)
        verified: dict[str, Any] = {}
        async for verified in ask(configuration, "verify", {}):
            if "progress" in verified:
                bars.update(checking, completed=verified["progress"].get("entries", 0))
        bars.update(checking, total=bars.tasks[checking].completed)
    return Counted(
        sent=len(answers),
        recorded=await _counters(configuration) - before,
        shipped=found["shipped"],
        explained=found["explained"],
        verified=verified["exit"] == 0,
        decision_url=await _denied_with_reasons(configuration, started_s),
    )


async def _denied_with_reasons(configuration: Configuration, started_s: int) -> str:
    """The address of a denied applicant's decision whose reasons may be told; asked of the desk, as anybody would.

    Some denials are explained and yet go to a person, because their reasons are not certain enough.
    """
    desk = f"http://127.0.0.1:{configuration.settings.desk.port}"
    token = development.sign(
        configuration.data,
        subject="demo",
        roles=["compliance"],
        tenant=configuration.settings.tenant,
        expires_s=started_s + TOKEN_S,
    )
    headers = {"Authorization": f"Bearer {token}", "Answerable-Purpose": "audit"}
    span = {"label": DENIED, "from": _iso(started_s), "to": _iso(int(time.time()) + 1)}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{desk}/v1/decisions", params=span) as response,
    ):
        page = await response.json()
        if response.status != 200:
            raise HostError(f"the desk answered {response.status}: {page['error']['message']}")
    told = [row for row in page["decisions"] if row["explanation"]["state"] == "ready"]
    if not told:
        raise HostError("no denied applicant has reasons that may be told")
    return f"{desk}{told[-1]['links']['page']}"


def _iso(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _counters(configuration: Configuration) -> int:
    """How many decisions the gateway workers have closed, by their own counters."""
    status = (await result_of(configuration, "status", {}))["result"]
    return sum(shard["closed"] for shard in status["shards"])


async def _report(console: Console, configuration: Configuration, counted: Counted) -> None:
    target = urlsplit(counted.decision_url).path
    ticket = "DEMO-1"
    support = await signin_link(configuration, roles=["support"], purpose="complaint", ticket=ticket, target=target)
    compliance = await signin_link(configuration, roles=["compliance"], purpose="audit", ticket=ticket, target=target)
    console.print(
        f"\n[bold]{counted.sent}[/] applications sent, {counted.recorded} recorded before the answer left, "
        f"{counted.shipped} shipped, {counted.explained} explained; ledger "
        f"{'[green]sound[/]' if counted.verified else '[red]BROKEN[/]'}.",
        soft_wrap=True,
    )
    console.print("\nWhy was this applicant denied? Each link signs in once, within 10 minutes:", soft_wrap=True)
    console.print(f"  as support      {support}", soft_wrap=True)
    console.print(f"  as compliance   {compliance}", soft_wrap=True)
    console.print(f"\n[dim]Data, journal and log stay in {configuration.data}.[/]")
    command = Path(sys.argv[0]).with_name("answerable")  # the one beside this, whether or not it is on the path
    console.print(f"[dim]Check it yourself: {command} verify --data {configuration.path.parent}[/]", soft_wrap=True)
    if not counted.whole:
        console.print("[red]Something is missing: see serve.log in the data directory.[/]")


def _quality(trained: Trained) -> str:
    quality = trained.quality
    return (
        f"  {quality.held_out} applicants were held out: AUC {quality.auc:.2f} against the banks' real answers; "
        f"denied at a probability below {trained.cutoff:.2f}."
    )


@contextlib.contextmanager
def _told(console: Console, what: str) -> Iterator[None]:
    with console.status(what):
        started = time.monotonic()
        yield
    console.print(f"{what}: {time.monotonic() - started:.1f} s")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
