# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
"""Evidence modes as callers and readers meet them: a whole worker, a disk that stops and one that fills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.proxy import app, modes
from gateway.proxy.app import Worker
from gateway.proxy.recording import Recording
from storage.pressure import WAIT_SHED_S, Level
from tests.support.disks import Disk
from tests.support.evidence import Evidence, balanced
from tests.support.journals import until
from tests.support.upstreams import Upstream, events, good
from tests.support.workers import Client, configuration, working

GIB = 2**30
FIRST = b'data: {"object":"chat.completion.chunk","n":1}\n\n'
DONE = b"data: [DONE]\n\n"
ROUTES = ("strict", "spool", "best_effort")


@pytest.fixture
async def disk() -> AsyncIterator[Disk]:
    made = Disk()
    yield made
    made.go()


def three(folder: Path, url: str, **more: object):
    """A route for each mode, under its name."""
    routes = [
        {"name": mode.replace("_", "-"), "prefix": f"/{mode}", "upstream": url, "evidence": mode, **more}
        for mode in ROUTES[1:]
    ]
    first = {"name": "strict", "prefix": "/strict", "evidence": "strict", **more}
    return configuration(folder, url, route=first, routes=routes)


def gaps(worker: Worker) -> list[tuple[str, str | None, str, int, int]]:
    entries = Evidence.of(worker).entries("gap")
    return [(e["tenant"], e["route"], e["why"], e["lost"], e["shed"]) for e in entries]


async def shed(worker: Worker, count: int) -> None:
    await until(lambda: worker.journal.counters.shed == count)


@pytest.mark.parametrize("mode", ROUTES)
async def test_each_entry_states_its_mode_and_only_a_strict_answer_carries_a_receipt(tmp_path: Path, mode: str):
    async with Upstream(good) as model, working(three(tmp_path, model.url)) as worker, Client.to(worker) as c:
        got = await c.ask(target=f"/{mode}/x")
        assert got.status == 200
        assert (got.header("Decision-Receipt") is not None) is (mode == "strict")
        await until(lambda: worker.journal.counters.closed == 1)
        (entry,) = Evidence.of(worker).calls()
        assert entry["id"] == got.header("Decision-Id")
        assert (entry["mode"], entry["route"]) == (mode, mode.replace("_", "-"))
        balanced(worker)


@pytest.mark.parametrize("mode", ROUTES)
async def test_a_streamed_answer_states_its_mode_in_both_entries_and_a_receipt_only_if_strict(
    tmp_path: Path, mode: str
):
    gate = asyncio.Semaphore(0)
    async with Upstream(events(FIRST, DONE, gate=gate)) as model:
        async with working(three(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.request(target=f"/{mode}/x")
            got = await c.head()
            for _ in range(3):
                gate.release()
            assert [await c.chunk(), await c.chunk(), await c.chunk()] == [FIRST, DONE, None]
            assert (got.header("Decision-Receipt") is not None) is (mode == "strict")
            await until(lambda: worker.journal.counters.closed == 1)
            entries = Evidence.of(worker).calls()
            assert [entry["mode"] for entry in entries] == [mode, mode]
            assert {entry["decision"] for entry in entries} == {got.header("Decision-Id")}
            assert Evidence.of(worker).part(entries[1], "response") == FIRST + DONE
            balanced(worker)


@pytest.mark.parametrize("streams", [False, True])
async def test_while_the_disk_stands_still_a_best_effort_answer_ends_and_a_strict_one_does_not(
    tmp_path: Path, disk: Disk, streams: bool
):
    behaviour = events(FIRST, DONE) if streams else good
    async with Upstream(behaviour) as model:
        async with working(three(tmp_path, model.url), syscalls=disk) as worker:
            async with Client.to(worker) as held, Client.to(worker) as free:
                disk.stop()
                strict = asyncio.create_task(held.ask(target="/strict/x"))
                await until(lambda: worker.journal.counters.accepted == 1)
                got = await asyncio.wait_for(free.ask(target="/best_effort/x"), 5)
                assert got.status == 200
                assert got.header("Decision-Id")
                assert not strict.done()
                disk.go()
                assert (await strict).status == 200
                await until(lambda: worker.journal.counters.closed == 2)
                balanced(worker)


async def test_a_spooled_answer_ends_before_its_sync_and_its_decision_is_readable_after_it(tmp_path: Path, disk: Disk):
    async with Upstream(good) as model, working(three(tmp_path, model.url), syscalls=disk) as worker:
        async with Client.to(worker) as c:
            disk.stop()
            got = await asyncio.wait_for(c.ask(target="/spool/x"), 5)
            assert got.header("Decision-Id")
            assert Evidence.of(worker).calls() == []
            assert worker._watch.unattended == 0
            disk.go()
            await until(lambda: worker.journal.counters.closed == 1)
            assert [entry["id"] for entry in Evidence.of(worker).calls()] == [got.header("Decision-Id")]


async def test_under_pressure_only_best_effort_calls_are_shed_and_a_gap_names_tenant_and_route(
    tmp_path: Path, disk: Disk
):
    async with Upstream(good) as model, working(three(tmp_path, model.url), syscalls=disk) as worker:
        async with Client.to(worker) as c:
            disk.told = (GIB // 2, 100 * GIB)  # 12 % of the headroom of 4 GiB is left
            await until(lambda: worker.journal.pressure is Level.SHED)
            for mode in ROUTES * 3:
                got = await c.ask(target=f"/{mode}/x")
                assert got.status == 200
                assert (got.header("Decision-Id") is None) is (mode == "best_effort")
            await shed(worker, 3)
            counters = worker.journal.counters
            assert (counters.accepted, counters.closed, counters.lost, counters.shed) == (9, 6, 3, 3)
            assert gaps(worker) == [("default", "best-effort", "shed", 3, 3)]
            ready = await c.ask("GET", "/-/readyz", b"")
            assert ready.status == 200
            assert ready.json()["status"] == "degraded"
            assert "best_effort calls are shed" in ready.json()["checks"]["disk"]["problem"]
            disk.told = (3 * GIB, 100 * GIB)
            await until(lambda: worker.journal.pressure is Level.CALM)
            assert (await c.ask(target="/best_effort/x")).header("Decision-Id")
            assert "best_effort" not in str((await c.ask("GET", "/-/readyz", b"")).json()["checks"]["disk"])


async def test_a_full_file_system_refuses_with_503_and_lets_pass_what_may_and_what_is_best_effort(
    tmp_path: Path, disk: Disk
):
    async with Upstream(good) as model:
        made = configuration(
            tmp_path,
            model.url,
            route={"evidence": "strict"},
            routes=[
                {"name": "passes", "prefix": "/passes", "upstream": model.url, "disk_full": "pass"},
                {"name": "effort", "prefix": "/effort", "upstream": model.url, "evidence": "best_effort"},
                {"name": "spool", "prefix": "/spool", "upstream": model.url, "evidence": "spool"},
            ],
        )
        async with working(made, syscalls=disk) as worker, Client.to(worker) as c:
            disk.told = (0, 100 * GIB)
            await until(lambda: worker.journal.pressure is Level.REFUSE)
            for target in ("/m/x", "/spool/x"):
                got = await c.ask(target=target)
                assert (got.status, got.code) == (503, "journal_full")
                assert got.header("Retry-After")
            for target in ("/passes/x", "/effort/x"):
                got = await c.ask(target=target)
                assert (got.status, got.header("Decision-Id")) == (200, None)
            await shed(worker, 2)
            counters = worker.journal.counters
            assert (counters.accepted, counters.refused, counters.lost) == (2, 2, 2)
            assert sorted(gaps(worker)) == [
                ("default", "effort", "shed", 1, 1),
                ("default", "passes", "disk_full", 1, 1),
            ]
            ready = await c.ask("GET", "/-/readyz", b"")
            assert (ready.status, ready.json()["checks"]["disk"]["status"]) == (503, "unready")


async def test_a_disk_that_does_not_answer_sheds_best_effort_calls_at_their_end_and_holds_strict_ones(
    tmp_path: Path, disk: Disk
):
    gate = asyncio.Event()

    async def slow(exchange):
        await gate.wait()
        await good(exchange)

    async with Upstream(slow) as model, working(three(tmp_path, model.url), syscalls=disk) as worker:
        async with Client.to(worker) as held, Client.to(worker) as free:
            free_call = asyncio.create_task(free.ask(target="/best_effort/x"))
            strict = asyncio.create_task(held.ask(target="/strict/x"))
            await until(lambda: worker.journal.counters.open == 2)
            disk.stop()
            worker.journal.heartbeat()  # what the disk is busy with
            await asyncio.sleep(0)
            await until(lambda: worker.journal.pressure is Level.SHED, timeout_s=WAIT_SHED_S + 5)
            gate.set()
            got = await asyncio.wait_for(free_call, 5)
            assert got.status == 200
            disk.go()
            assert (await strict).header("Decision-Receipt")
            await until(lambda: worker.journal.counters.open == 0)
            counters = worker.journal.counters
            # by then both had been open for more than a second: begun, and so owed their closing entries
            begun = got.header("Decision-Id") is not None
            assert (counters.closed, counters.shed) == ((2, 0) if begun else (1, 1))


@pytest.mark.sources
async def test_a_stream_that_is_shed_passes_whole_and_leaves_no_part_behind(tmp_path: Path, disk: Disk):
    async with Upstream(events(FIRST, DONE)) as model:
        async with working(three(tmp_path, model.url), syscalls=disk) as worker, Client.to(worker) as c:
            assert (await c.ask("GET", "/-/readyz", b"")).status == 200
            real = worker.journal.admit

            def admit_then_press(*args, **named):
                taken = real(*args, **named)
                worker.journal._space.disk_share = 0.9  # between admission and the head of the answer
                return taken

            worker.journal.admit = admit_then_press
            got = await c.ask(target="/best_effort/x")
            assert got.body == FIRST + DONE
            assert got.header("Decision-Id") is None
            await shed(worker, 1)
            assert Evidence.of(worker).calls() == []
            assert gaps(worker) == [("default", "best-effort", "shed", 1, 1)]


def test_only_the_class_of_best_effort_calls_can_shed():
    assert {mode: kind.sheds for mode, kind in modes.KINDS.items()} == {
        "strict": False,
        "spool": False,
        "best_effort": True,
    }
    for kind in (Recording, modes.Spooled):
        assert not any("shed" in name and name != "sheds" for name in dir(kind))
    assert app.modes is modes
