"""The table "Every refusal is counted" of gateway/README.md, row by row: answer, counters, what the journal says."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.keeper.socket import command
from storage import applications
from storage.pressure import Level
from tests.support.disks import Disk
from tests.support.evidence import Evidence, balanced
from tests.support.journals import until
from tests.support.upstreams import Upstream, dead_url, good, silent
from tests.support.workers import Client, Got, configuration, working

GIB = 2**30
BEFORE_ADMISSION = [  # bytes, status, code
    (b"nonsense\r\n\r\n", 400, "request_malformed"),
    (b"GET /m/../x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path_malformed"),
    (b"GET /m/x HTTP/1.1\r\nHost: a\r\nAnswerable-Purpose: ?\r\n\r\n", 400, "capture_invalid"),
    (b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", 404, "route_unknown"),
    (b"POST /m/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413, "body_too_large"),
    (b"GET /m/x HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417, "expectation_failed"),
    (b"GET /m/x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
    (
        b"GET /m/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        501,
        "protocol_not_supported",
    ),
]


async def test_each_refusal_is_a_closing_entry_or_is_counted_and_stated(tmp_path: Path):
    disk = Disk()
    async with Upstream(good) as model:
        made = configuration(
            tmp_path,
            model.url,
            gateway={"body_bytes_max": 2_000},
            routes=[
                {"name": "dead", "prefix": "/dead", "upstream": dead_url()},
                {"name": "passes", "prefix": "/passes", "upstream": model.url, "disk_full": "pass"},
                {"name": "effort", "prefix": "/effort", "upstream": model.url, "evidence": "best_effort"},
            ],
        )
        async with working(made, syscalls=disk) as worker:
            refused: Counter[str] = Counter()
            for sent, status, code in BEFORE_ADMISSION:
                async with Client.to(worker) as c:
                    await c.send(sent)
                    got = await c.answer()
                    assert (got.status, got.code) == (status, code)
                    refused[code] += 1
            assert worker.journal.counters.accepted == 0
            async with Client.to(worker) as c:  # after admission: a closing entry with the true state
                got = await c.ask(target="/dead/x")
                assert (got.status, got.code) == (502, "upstream_unreachable")
                (closing,) = Evidence.of(worker).entries("decision")
                assert (closing["error"], closing["id"]) == ("upstream_unreachable", got.header("Decision-Id"))
                disk.told = (0, 100 * GIB)
                await until(lambda: worker.journal.pressure is Level.REFUSE)
                got = await c.ask()
                assert (got.status, got.code) == (503, "journal_full")
                assert got.header("Retry-After") == "5"
                refused["journal_full"] += 1
                for target in ("/passes/x", "/effort/x"):
                    assert (await c.ask(target=target)).status == 200
                await until(lambda: worker.journal.counters.lost == 2)
                worker._state()
                await until(lambda: Evidence.of(worker).entries("metric") != [])
            stated: Counter[str] = Counter()
            for entry in Evidence.of(worker).entries("metric"):
                stated.update(entry["counts"])
            assert stated == refused
            counters = worker.journal.counters
            assert counters.refused == refused.total()
            assert (counters.accepted, counters.closed, counters.lost, counters.shed) == (3, 1, 2, 2)
            gaps = {(gap["route"], gap["why"], gap["lost"], gap["shed"]) for gap in Evidence.of(worker).entries("gap")}
            assert gaps == {("passes", "disk_full", 1, 1), ("effort", "shed", 1, 1)}
            assert len(model.seen) == 2, "what was refused never reached the model"
    for name in ("settle", "verify"):  # a ledger with gaps is sound: it says what it lacks
        last = [line async for line in command(made.data, name, {}, configuration=made)][-1]
        assert last["exit"] == 0, last


async def test_who_is_refused_for_who_they_are_or_for_want_of_a_place_is_counted_too(tmp_path: Path):
    async with Upstream(silent) as model:
        breaks = {"breaker": {"failures": 1, "open_s": 600}}
        one_at_a_time = {"concurrency": {"calls_max": 1, "waiting_max": 0, "wait_s": 1}}
        made = configuration(
            tmp_path,
            model.url,
            gateway={"body_bytes_max": 2**20, "pending_bytes_max": 2**20, "header_timeout_s": 0.5, "drain_s": 0.1},
            callers={"mode": "keys", "limits": {"apps": {"greedy": {"rate_per_s": 0.001, "burst": 1}}}},
            routes=[
                {"name": "scoped", "prefix": "/scoped", "upstream": model.url, "scopes": ["score"]},
                {"name": "dead", "prefix": "/dead", "upstream": dead_url(), **breaks},
                {"name": "one", "prefix": "/one", "upstream": model.url, **one_at_a_time},
            ],
        )
        now_ns = time.time_ns()
        some, greedy = (
            {"Authorization": f"Bearer {applications.create(made.data, app=app, tenant='t', now_ns=now_ns)}"}
            for app in ("some", "greedy")
        )
        async with working(made) as worker, AsyncExitStack() as stack:

            async def client() -> Client:
                return await stack.enter_async_context(Client.to(worker))

            c, busy, large = await client(), await client(), await client()
            refused: Counter[str] = Counter()

            async def expect(status: int, code: str, got: Got) -> None:
                assert (got.status, got.code) == (status, code)
                refused[code] += 1

            await expect(401, "credential_missing", await c.ask())
            await expect(401, "key_refused", await c.ask(headers={"Authorization": "Bearer ans_no"}))
            await expect(403, "scope_missing", await c.ask(target="/scoped/x", headers=some))
            assert (await c.ask(target="/dead/x", headers=greedy)).status == 502
            await expect(429, "rate_limited", await c.ask(target="/dead/x", headers=greedy))
            await expect(503, "upstream_open", await c.ask(target="/dead/x", headers=some))
            await busy.request(target="/one/x", headers=some)
            await until(lambda: len(model.seen) == 1)
            await expect(503, "route_busy", await c.ask(target="/one/x", headers=some))
            await large.request(body=b"x" * 700_000, headers=some)
            await until(lambda: len(model.seen) == 2)
            await expect(503, "memory_full", await c.ask(body=b"x" * 700_000, headers=some))
            slow = await client()
            await slow.send(b"POST /m/x HTTP/1.1\r\nHo")
            await expect(408, "request_timeout", await slow.answer())

            counters = worker.journal.counters
            assert (counters.accepted, counters.refused) == (3, refused.total())
            worker._state()
            await until(lambda: Evidence.of(worker).entries("metric") != [])
            (stated,) = Evidence.of(worker).entries("metric")
            assert stated["counts"] == refused
            assert len(model.seen) == 2, "what was refused never reached the model"
        balanced(worker)
        calls = Evidence.of(worker).entries("decision")
        assert sorted(call["route"] for call in calls) == ["dead", "m", "one"], "each with its true state"
        assert all(call["error"] for call in calls)
