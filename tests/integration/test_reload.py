"""A worker takes another configuration up: connections stay, calls end as they began, entries name what was stated."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.errors import ConfigError
from config.load import Configuration
from gateway.activation import PART
from gateway.proxy.app import Worker
from storage import applications
from tests.support.evidence import Evidence, balanced, settled
from tests.support.upstreams import Upstream, events, good
from tests.support.workers import Client, configuration, working


async def reload(worker: Worker, made: Configuration) -> None:
    worker.prepare(made)
    await worker.commit()


def stated_before_named(evidence: Evidence) -> list[str]:
    """The digests in the order of their statements, each of which comes before any call that names it."""
    stated: list[str] = []
    for entry in evidence.entries():
        if entry["kind"] == "lifecycle":
            assert entry["event"] == "configuration_activated"
            assert entry["config"] == entry["digest"]
            stated.append(entry["digest"])
        elif entry["kind"] in ("begin", "decision", "call"):
            assert entry["config"] in stated
    return stated


async def test_the_next_call_on_a_connection_is_served_under_what_was_reloaded(tmp_path: Path):
    async with Upstream(good) as first, Upstream(good) as second:
        before = configuration(tmp_path, first.url, route={"extract": {"label": "decision"}})
        after = configuration(tmp_path, second.url, route={"evidence": "spool"}, gateway={"body_bytes_max": 4096})
        async with working(before) as worker, Client.to(worker) as c:
            for _ in range(3):  # the third time the head is known by its bytes
                assert (await c.ask()).status == 200
            await reload(worker, after)
            for _ in range(3):
                assert (await c.ask()).status == 200
            assert (await c.ask(body=b"x" * 5000)).code == "body_too_large"
            evidence = Evidence.of(worker)
            async with asyncio.timeout(5):  # what is spooled is synced a moment later
                while len(evidence.calls()) < 6:
                    await asyncio.sleep(0.02)
            assert stated_before_named(evidence) == [before.digest, after.digest]
            calls = evidence.calls()
            assert [call["config"] for call in calls] == [before.digest] * 3 + [after.digest] * 3
            assert [call["mode"] for call in calls] == ["strict"] * 3 + ["spool"] * 3
            (_, entry) = evidence.entries("lifecycle")
            assert evidence.part(entry, PART) == after.canonical
        assert (len(first.seen), len(second.seen)) == (3, 3)
        balanced(worker)


async def test_a_stream_that_is_under_way_ends_under_the_terms_that_it_began_under(tmp_path: Path):
    gate = asyncio.Semaphore(0)
    async with Upstream(events(b"data: 1\n\n", b"data: 2\n\n", gate=gate)) as model:
        before = configuration(tmp_path, model.url)
        after = configuration(tmp_path, "http://127.0.0.1:9", route={"prefix": "/other"})
        async with working(before) as worker, Client.to(worker) as c, Client.to(worker) as other:
            await c.request()
            assert (await c.head()).status == 200
            gate.release()
            await asyncio.sleep(0.05)
            await reload(worker, after)
            assert (await other.ask()).code == "route_unknown"
            assert len(worker._retiring) == 1
            gate.release()
            gate.release()
            passed = b""
            while (piece := await c.chunk()) is not None:
                passed += piece
            assert passed == b"data: 1\n\ndata: 2\n\n"
            assert (await c.ask()).code == "route_unknown", "the connection goes on, under the new terms"
            await settled(worker, 1)
            async with asyncio.timeout(5):
                while worker._retiring:
                    await asyncio.sleep(0.02)
            begun, call = Evidence.of(worker).calls()
            assert begun["config"] == call["config"] == before.digest
            assert call["stream"]["state"] == "complete"


async def test_what_a_configuration_held_is_let_go_after_it(tmp_path: Path):
    async with Upstream(good) as model:
        made = [
            configuration(tmp_path, model.url, callers={"mode": "keys", "limits": {"default": {"quota_calls": most}}})
            for most in (1_000, 2_000)
        ]
        key = applications.create(made[0].data, app="a", tenant="t", now_ns=1)
        headers = {"Authorization": f"Bearer {key}"}
        async with working(made[0]) as worker, Client.to(worker) as c:
            for number in range(1, 9):
                assert (await c.ask(headers=headers)).status == 200
                await reload(worker, made[number % 2])
            async with asyncio.timeout(5):
                while worker._retiring:
                    await asyncio.sleep(0.02)
            assert (await c.ask(headers=headers)).status == 200
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert names.count("upstream-deadlines") == 1
            assert (
                sum(str(made[0].data / "limits") in line for line in Path("/proc/self/maps").read_text().splitlines())
                == 1
            )
            open_upstreams = [writer for writer in model._open if not writer.is_closing()]
            assert len(open_upstreams) == 1
            stated = stated_before_named(Evidence.of(worker))
            assert stated == [made[number % 2].digest for number in range(9)]


async def test_a_limit_that_was_used_up_is_not_given_anew(tmp_path: Path):
    async with Upstream(good) as model:

        def made(calls: int) -> Configuration:
            limits = {"default": {"quota_calls": calls, "quota_per": "month"}}
            return configuration(tmp_path, model.url, callers={"mode": "open", "limits": limits})

        async with working(made(2)) as worker, Client.to(worker) as c:
            assert [(await c.ask()).status for _ in range(3)] == [200, 200, 429]
            await reload(worker, made(3))
            assert [(await c.ask()).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"deployment": "other"}, "deployment: changed, which needs a restart"),
        ({"data": "elsewhere"}, "data: changed"),
        (
            {"gateway": {"workers": 3, "pending_bytes_max": 2**21}},
            "gateway.workers, gateway.pending_bytes_max: changed",
        ),
        ({"log": {"level": "debug"}}, "log: changed"),
        ({"route": {"upstream_auth": {"secret": "env:NOT_THERE"}}}, "NOT_THERE"),
        ({"route": {"upstream": "https://127.0.0.1:9", "upstream_tls": {"ca": "no.pem"}}}, "routes.m.upstream_tls"),
    ],
)
async def test_what_cannot_be_taken_up_is_named_and_changes_nothing(tmp_path: Path, change: dict[str, Any], says: str):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url)
        async with working(made) as worker, Client.to(worker) as c:
            with pytest.raises(ConfigError, match=says):
                worker.prepare(configuration(tmp_path, model.url, **change))
            await worker.abort()
            assert (await c.ask()).status == 200
            assert stated_before_named(Evidence.of(worker)) == [made.digest]


async def test_a_request_whose_head_was_known_before_the_change_is_answered_as_it_was_understood(tmp_path: Path):
    """Between the bytes and the task that handles them a reload may come: the handler who read them answers."""
    async with Upstream(good) as model, Upstream(good) as other:
        before = configuration(tmp_path, model.url)
        after = configuration(tmp_path, other.url)
        async with working(before) as worker, Client.to(worker) as c:
            for _ in range(3):
                assert (await c.ask()).status == 200
            worker.prepare(after)
            front, seen = worker._front, worker._front.seen
            made = worker._next
            assert made is not None

            def found_then_replaced(*asked: Any) -> Any:
                found = seen(*asked)
                front.replace(made.handler)
                return found

            (wire,) = worker._plane.wires
            wire._seen = found_then_replaced  # type: ignore[method-assign]
            assert (await c.ask()).status == 200
            wire._seen = seen  # type: ignore[method-assign]
            assert (await c.ask()).status == 200
            assert (len(model.seen), len(other.seen)) == (4, 1)
            front.replace(worker._generation.handler)
            await worker.abort()


async def test_a_restart_states_again_only_what_is_not_in_force(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url)
        async with working(made) as worker:
            pass
        (tmp_path / "data" / "configuration.json").write_bytes(orjson.dumps({"digest": made.digest}))
        async with working(made) as worker:
            assert len(Evidence.of(worker).entries("lifecycle")) == 1, "that of the first start"
