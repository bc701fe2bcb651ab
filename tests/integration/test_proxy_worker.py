# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from config.processes import start
from gateway.proxy import app, readiness
from gateway.proxy.app import run
from gateway.proxy.recording import Recorder
from storage.errors import EntryTooLarge
from storage.keys import Keyring
from tests.support.evidence import Evidence
from tests.support.journals import Failing, entries_of, open_journal, read_all, until
from tests.support.upstreams import Exchange, Upstream, events, good
from tests.support.workers import Client, configuration, working
from tests.unit.test_exchange import answered, asked

PROGRAM = """
import sys, os
from pathlib import Path
import uvloop
from config.load import load
from gateway.proxy.app import run
from gateway.proxy.recording import Recorder
from storage.errors import EntryTooLarge
from storage.keys import Keyring
sys.exit(uvloop.run(run(load(Path(sys.argv[1]), os.environ), "gateway-0")))
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(20):
        while process.poll() is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.transport.abort()
                return
    raise AssertionError("it ended instead")


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


async def test_a_worker_process_finishes_its_calls_on_sigterm_and_all_processes_metrics_are_added_up(
    tmp_path: Path, environment: dict[str, str]
):
    port, asked, go_on = free_port(), asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        if exchange.asked.target == "/slow":
            asked.set()
            await go_on.wait()
        await good(exchange)

    async with Upstream(slow) as model:
        made = configuration(tmp_path, model.url, gateway={"port": port})
        tree = made.settings.model_dump(mode="json", by_alias=True)
        made.path.write_text(yaml.safe_dump(tree))
        metrics = tmp_path / "data" / "metrics"
        metrics.mkdir(parents=True)
        process = start(
            [sys.executable, "-c", PROGRAM, str(made.path)],
            env={**environment, "PROMETHEUS_MULTIPROC_DIR": str(metrics)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await listening(port, process)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            client = Client(reader, writer)
            assert (await client.ask()).status == 200
            text = (await client.ask("GET", "/-/metrics", b"")).body.decode()
            assert 'answerable_answers_total{route="m",status="200"} 1.0' in text
            await client.request(target="/m/slow")
            await asyncio.wait_for(asked.wait(), 5)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            go_on.set()
            got = await client.answer()
            assert (got.status, got.header("Connection")) == (200, "close")
            writer.transport.abort()
            assert await asyncio.to_thread(process.wait, 20) == app.EXIT_OK
        finally:
            process.kill()
            process.wait()
        evidence = Evidence(tmp_path / "data" / "journal" / "gateway-0", tmp_path / "data")
        assert len(evidence.entries("decision")) == 2
        assert evidence.batches()[-1].closes


async def test_a_port_in_use_or_a_shard_in_use_is_refused_at_the_start(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        same_shard = configuration(tmp_path, model.url)
        assert await run(same_shard, "gateway-0", reuse_port=False) == app.EXIT_REFUSED
        same_port = configuration(tmp_path, model.url, gateway={"port": worker.port})
        assert await run(same_port, "gateway-1", reuse_port=False) == app.EXIT_REFUSED


async def test_a_journal_that_cannot_write_any_more_cuts_what_streams_refuses_what_comes_and_ends_the_worker(
    tmp_path: Path,
):
    broken = False
    calls = Failing("datasync", lambda _number, *_: errno.EIO if broken else None)
    gate = asyncio.Semaphore(1)
    first = b'data: {"object":"chat.completion.chunk"}\n\n'
    async with Upstream(events(first, b"data: [DONE]\n\n", gate=gate)) as model:
        async with working(configuration(tmp_path, model.url), syscalls=calls) as worker:
            async with Client.to(worker) as c, Client.to(worker) as other:
                await c.request()
                await c.head()
                assert await c.chunk() == first
                broken = True
                model.behaviour = good
                got = await other.ask()
                assert (got.status, got.code) == (503, "journal_stopped")
                asked = len(model.seen)
                got = await other.ask()
                assert (got.status, got.code) == (503, "journal_stopped")
                assert len(model.seen) == asked, "refused before the model is called"
                gate.release()
                gate.release()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await c.chunk()
                ready = await other.ask("GET", "/-/readyz", b"")
                assert (ready.status, "journal" in ready.json()["problems"][0]) == (503, True)


async def test_a_stream_whose_begin_entry_cannot_be_written_is_503_and_the_model_is_left(tmp_path: Path):
    broken = False
    calls = Failing("datasync", lambda _number, *_: errno.EIO if broken else None)
    left = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await exchange.reader.read()
        left.set()

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url), syscalls=calls) as worker, Client.to(worker) as c:
            broken = True
            got = await c.ask()
            assert (got.status, got.code) == (503, "journal_stopped")
            await asyncio.wait_for(left.wait(), 5)
            assert worker._budget.held_bytes == 0
            assert worker.counts.refusals() == {}, "it was admitted: what becomes of it is no refusal"


async def test_a_call_that_is_open_though_nobody_handles_it_makes_the_worker_unready(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        assert (await c.ask()).status == 200
        worker.journal.admit("default", "m", bytes_expected=0, may_pass=False)
        async with asyncio.timeout(readiness.UNATTENDED_S + 5):
            while not (problems := (await c.ask("GET", "/-/readyz", b"")).json()["problems"]):
                await asyncio.sleep(0.1)
        assert problems == ["1 calls are open in the journal and 0 are under way: an entry is owed"]
        worker.journal.lose()
        async with asyncio.timeout(5):
            while (await c.ask("GET", "/-/readyz", b"")).status != 200:
                await asyncio.sleep(0.1)


async def test_a_call_whose_entry_cannot_be_written_counts_as_lost_and_a_gap_says_so(tmp_path: Path):
    keyring = Keyring.open(tmp_path, create=True)
    directory = tmp_path / "journal" / "gateway-0"
    journal = await open_journal(directory, keyring.journal_keys())
    recorder = Recorder(journal, keyring, config="c0")
    recording = recorder.admit(asked(decision=journal.new_id()), b"", media="text/plain", target="/x", may_pass=False)
    assert recording is not None
    too_much = os.urandom(400_000)  # more than half of these small segments
    with pytest.raises(EntryTooLarge):
        await recording.close(answered(), too_much, media="text/plain")
    given_up = recorder.admit(
        asked(decision=journal.new_id()), too_much, media="text/plain", target="/x", may_pass=False
    )
    assert given_up is not None
    given_up.lose(answered(state="gateway_lost"))
    given_up.lose(answered(state="gateway_lost"))
    given_up.begin()
    await until(lambda: journal.counters.lost == 2)
    await journal.close()
    gaps = [entry for entry in entries_of(read_all(directory)) if entry["kind"] == "gap"]
    assert sum(gap["lost"] for gap in gaps) == 2


async def test_a_call_that_was_begun_is_closed_once_also_over_a_restart(tmp_path: Path):
    keyring = Keyring.open(tmp_path, create=True)
    directory = tmp_path / "journal" / "gateway-0"
    for killed in (True, False):
        journal = await open_journal(directory, keyring.journal_keys())
        recorder = Recorder(journal, keyring, config="c0")
        for closes in (True, False) if killed else ():
            call = asked(decision=journal.new_id(), record="call")
            recording = recorder.admit(call, b"{}", media="text/plain", target="/x", may_pass=False)
            assert recording is not None
            await recording.begun()
            if closes:
                await recording.close(answered(), b"ok", media="text/plain")
        await journal.close()
    kinds = [entry["kind"] for entry in entries_of(read_all(directory)) if entry["tenant"] == "acme"]
    assert kinds == ["begin", "call", "begin", "call"]
