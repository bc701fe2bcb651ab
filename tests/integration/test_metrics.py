"""Metrics of whole hosts: real workers, a real keeper, scraped over HTTP and read by Prometheus' own parser."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from config.load import Configuration
from tests.integration.test_serve import UP_S, child, free_port, is_ready, served
from tests.support.keeping import ROUTE, written
from tests.support.loans import Loans, applicant
from tests.support.scrapes import documented, exposed, samples, total, value
from tests.support.upstreams import Exchange, Upstream
from tests.support.workers import Client, configuration, working

SETTLED_S = 30


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


class Host:
    """A host that runs, and ways to ask it."""

    def __init__(self, configuration: Configuration, supervisor: int, session: aiohttp.ClientSession) -> None:
        self.configuration = configuration
        self.supervisor = supervisor
        self.session = session
        self.url = f"http://127.0.0.1:{configuration.settings.gateway.port}"
        self.desk = f"http://127.0.0.1:{configuration.settings.desk.port}"

    async def post(self, path: str, number: int = 0) -> int:
        try:
            async with self.session.post(self.url + path, json=applicant(number)) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError:
            return 0

    async def scrape(self, url: str = "") -> str:
        async with self.session.get(url or f"{self.url}/-/metrics") as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return await response.text()

    async def until(self, holds: Callable[[str], bool]) -> str:
        """The first scrape of which this holds."""
        deadline_s, text = time.monotonic() + SETTLED_S, ""
        while time.monotonic() < deadline_s:
            try:
                text = await self.scrape()
                if holds(text):
                    return text
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        raise AssertionError(text)


@asynccontextmanager
async def hosted(folder: Path, loans: Loans, upstream: Upstream) -> AsyncIterator[Host]:
    live = ROUTE | {
        "upstream": upstream.url,
        "record": [{"path": "/health", "as": "none"}, {"path": "/**", "as": "decision"}],
    }
    dead = {
        "name": "dead",
        "prefix": "/dead",
        "upstream": f"http://127.0.0.1:{free_port()}",
        "breaker": {"failures": 2, "open_s": 600},
    }
    strange = ROUTE | {"name": "strange", "prefix": "/strange", "upstream": upstream.url}
    strange["model"] = {"name": "unknown", "version": "1"}
    rows = {"name": "rows", "prefix": "/rows", "upstream": upstream.url, "batch": "rows"}
    made = written(
        folder,
        loans=loans,
        gateway={"port": free_port(), "workers": 2},
        desk={"port": free_port(), "development": True},
        routes=[live, dead, strange, rows],
        ledger={"copies": "copies"},
        telemetry={"otlp": {"endpoint": f"http://127.0.0.1:{free_port()}", "sample_ratio": 0}},
    )
    log = folder / "serve.log"
    # a connection each: the kernel gives connections, not calls, to the workers of a port
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        with served(made, log) as process:
            host = Host(made, process.pid, session)
            async with asyncio.timeout(UP_S):
                while not (await is_ready(session, host.url) and await is_up(session, host.desk)):
                    assert process.poll() is None, log.read_text()
                    await asyncio.sleep(0.05)
            yield host


async def is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def model(loans: Loans) -> AsyncIterator[Upstream]:
    import orjson

    async def answer(exchange: Exchange) -> None:
        body = orjson.dumps(loans.answer(orjson.loads(exchange.asked.body))) if exchange.asked.body else b"{}"
        await exchange.answer(body, "200 OK", "Content-Type: application/json")

    async with Upstream(answer) as upstream:
        yield upstream


@pytest.mark.timeout(240)
async def test_a_host_exposes_what_the_readme_names_and_nothing_else_whoever_is_asked(tmp_path: Path, loans: Loans):
    async with model(loans) as upstream, hosted(tmp_path, loans, upstream) as host:
        assert [await host.post("/loans/score", number) for number in range(12)] == [200] * 12
        assert await host.post("/loans/health") == 200
        assert await host.post("/strange/score") == 200
        assert await host.post("/rows/score") == 200
        # the breakers are each worker's own: until both are open, some calls fail and some are refused
        assert {await host.post("/dead/score") for _ in range(24)} == {502, 503}
        text = await host.until(
            lambda text: (
                total(text, "answerable_explained_lag_seconds_count") >= 12
                and total(text, "answerable_explanation_failures_total", code="model_not_registered") == 1
                and total(text, "answerable_unshipped_entries") == 0
                and total(text, "answerable_checkpoint_age_seconds") == 0
                and total(text, "answerable_upstream_available", route="dead") == 0
                and total(text, "answerable_journal_commit_seconds_count", shard="keeper") > 0
                and total(text, "answerable_ready") == 3
            )
        )
        assert exposed(text) == documented()

        assert total(text, "answerable_journal_accepted_total") == total(text, "answerable_journal_closed_total")
        assert total(text, "answerable_call_seconds_count", route="loans") == 13
        assert value(text, "answerable_answers_total", route="loans", status="200") == 13
        assert value(text, "answerable_unrecorded_total", route="loans") == 1
        assert value(text, "answerable_unsplit_total", route="rows", why="unreadable") == 1
        assert total(text, "answerable_upstream_first_byte_seconds_count", route="loans") == 13
        failed = total(text, "answerable_failures_total", route="dead")
        assert total(text, "answerable_refused_total", code="upstream_open") == 24 - failed
        for shard in ("gateway-0", "gateway-1"):
            entries = total(text, "answerable_journal_batch_entries_sum", shard=shard)
            assert entries == total(text, "answerable_journal_commit_seconds_count", shard=shard) > 0
            assert total(text, "answerable_journal_sync_seconds_count", shard=shard) > 0
            assert total(text, "answerable_journal_bytes", shard=shard) >= 4096
        roles = ("gateway-0", "gateway-1", "keeper", "supervisor")
        assert [value(text, "answerable_process_up", role=role) for role in roles] == [1] * 4
        assert [value(text, "answerable_ready", role=role) for role in roles[:3]] == [1] * 3
        digest = host.configuration.digest
        for role in roles[:3]:
            assert value(text, "answerable_config_info", role=role, deployment="test", digest=digest) == 1
        assert (value(text, "answerable_control_age_seconds") or 0) < 30

        await asyncio.sleep(1.5)  # nothing is under way any more, and everything is published
        steady = [
            {
                key: number
                for key, number in samples(await host.scrape(url)).items()
                if "age_seconds" not in key[0] and dict(key[1]).get("shard") != "keeper" and "disk" not in key[0]
            }
            for url in ["", "", "", "", f"{host.desk}/metrics"]
        ]
        assert all(one == steady[0] for one in steady[1:])


@pytest.mark.timeout(240)
async def test_counters_survive_killed_workers_their_gauges_do_not_and_the_directory_stays_small(
    tmp_path: Path, loans: Loans
):
    async with model(loans) as upstream, hosted(tmp_path, loans, upstream) as host:
        assert [await host.post("/loans/score", number) for number in range(10)] == [200] * 10
        await host.until(lambda text: value(text, "answerable_answers_total", route="loans", status="200") == 10)
        directory = host.configuration.data / "metrics"
        before = sorted(path.name for path in directory.iterdir())
        for number in range(1, 4):
            victim = child(host.supervisor, "gateway-0")
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            text = await host.until(lambda text: value(text, "answerable_process_up", role="gateway-0") == 0)
            assert value(text, "answerable_calls_under_way", shard="gateway-0") is None, (
                "gauges of the dead say nothing"
            )
            assert value(text, "answerable_ready", role="gateway-0") is None
            assert value(text, "answerable_ready", role="gateway-1") == 1
            assert value(text, "answerable_answers_total", route="loans", status="200") == 10
            assert value(text, "answerable_process_ends_total", role="gateway-1") == 0
            text = await host.until(lambda text: value(text, "answerable_ready", role="gateway-0") == 1)
            assert value(text, "answerable_process_ends_total", role="gateway-0") == number
        assert [await host.post("/loans/score", number) for number in range(10)] == [200] * 10
        await host.until(lambda text: value(text, "answerable_answers_total", route="loans", status="200") == 20)
        assert sorted(path.name for path in directory.iterdir()) == before


async def test_metrics_are_given_to_named_addresses_only_and_not_through_a_proxy(tmp_path: Path):
    async def good(exchange: Exchange) -> None:
        await exchange.answer(b"{}", "200 OK")

    async with Upstream(good) as upstream:
        async with working(configuration(tmp_path, upstream.url)) as worker, Client.to(worker) as client:
            assert (await client.ask("GET", "/-/metrics", b"")).status == 200
            for header in ("X-Forwarded-For", "forwarded", "x-real-ip"):
                refused = await client.ask("GET", "/-/metrics", b"", headers={header: "127.0.0.1"})
                assert (refused.status, refused.code) == (403, "metrics_refused")
        elsewhere = configuration(tmp_path, upstream.url, metrics={"allow": ["10.0.0.0/8"]})
        async with working(elsewhere) as worker, Client.to(worker) as client:
            refused = await client.ask("GET", "/-/metrics", b"")
            assert (refused.status, refused.code) == (403, "metrics_refused")
            assert (await client.ask("GET", "/-/healthz", b"")).status == 200


def test_a_second_process_of_the_same_role_counts_for_itself_and_disturbs_nobody(tmp_path: Path):
    import subprocess

    program = (
        "import sys; from pathlib import Path; from gateway import metering\n"
        "print(metering.share(Path(sys.argv[1]), 'a_b'), flush=True)\n"
        "from prometheus_client import Counter, Gauge\n"
        "Counter('n', 'n').inc(); Gauge('g', 'g', multiprocess_mode='livemostrecent').set(1)\n"
        "from gateway.exposition import exposition\n"
        "from prometheus_client.parser import text_string_to_metric_families as read\n"
        "families = read(exposition(Path(sys.argv[1])).decode())\n"
        "print(sorted((one.name, one.samples[0].value) for one in families if one.name in 'ng'), flush=True)\n"
        "sys.stdin.readline()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout is not None
        assert [first.stdout.readline(), first.stdout.readline()] == ["True\n", "[('g', 1.0), ('n', 1.0)]\n"]
        second = subprocess.run(command, input="\n", capture_output=True, text=True, timeout=60, check=True)
        assert second.stdout == "False\n[('g', 1.0), ('n', 1.0)]\n"
        first.communicate("\n")
    third = subprocess.run(command, input="\n", capture_output=True, text=True, timeout=60, check=True)
    assert third.stdout == "True\n[('g', 1.0), ('n', 2.0)]\n"
