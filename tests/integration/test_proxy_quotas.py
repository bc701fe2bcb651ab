"""Limits of applications: over real sockets, over restarts, and counted together by processes."""

import asyncio
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from config.callers import CallLimits
from config.errors import ConfigError
from gateway.proxy import quotas
from gateway.proxy.errors import TooMany
from gateway.proxy.exchange import Caller
from gateway.proxy.quotas import LimitsError, Quotas
from storage import applications
from tests.support.upstreams import Upstream, good
from tests.support.workers import Client, configuration, working

A, B = Caller("t", "a", "app:a"), Caller("t", "b", "app:b")
DAY_NS = 86_400 * 10**9


def limits(**default: Any) -> CallLimits:
    return CallLimits.model_validate({"default": default})


def taken(table: Quotas, caller: Caller, now_ns: int, times: int) -> int:
    async def all_of_them() -> int:
        count = 0
        for _ in range(times):
            try:
                await table.take(caller, now_ns)
            except TooMany:
                continue
            count += 1
        return count

    return asyncio.run(all_of_them())


async def test_a_call_beyond_the_quota_is_told_when_to_come_again_and_is_counted_as_refused(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(
            tmp_path,
            model.url,
            callers={"limits": {"default": {"quota_calls": 2}, "apps": {"vip": {"rate_per_s": 1_000}}}},
        )
        keys = {
            app: {"Authorization": "Bearer " + applications.create(made.data, app=app, tenant="t", now_ns=1)}
            for app in ("a", "b", "vip")
        }
        async with working(made) as worker, Client.to(worker) as c:
            for app, expected in (("a", [200, 200, 429, 429]), ("b", [200, 200, 429]), ("vip", [200] * 5)):
                assert [(await c.ask(headers=keys[app])).status for _ in expected] == expected
            refused = await c.ask(headers=keys["a"])
            assert refused.code == "quota_exceeded"
            assert refused.header("RateLimit-Policy") == '"quota";q=2'
            seconds = int(refused.header("Retry-After") or "")
            assert 0 < seconds <= 86_400
            assert refused.header("RateLimit") == f'"quota";r=0;t={seconds}'
            assert worker.journal.counters.refused == 4
            assert worker.journal.counters.accepted == len(model.seen) == 9
        async with working(made) as again, Client.to(again) as c:
            assert (await c.ask(headers=keys["a"])).status == 429, "a restart forgives nothing"
            assert (await c.ask(headers=keys["vip"])).status == 200


async def test_a_rate_is_held_and_who_waits_as_told_gets_through(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, callers={"limits": {"default": {"rate_per_s": 4, "burst": 2}}})
        key = {"Authorization": "Bearer " + applications.create(made.data, app="a", tenant="t", now_ns=1)}
        async with working(made) as worker, Client.to(worker) as c:
            got = [await c.ask(headers=key) for _ in range(3)]
            assert [each.status for each in got] == [200, 200, 429]
            assert got[2].code == "rate_limited"
            assert got[2].header("RateLimit-Policy") == '"rate";q=2;w=1'
            await asyncio.sleep(int(got[2].header("Retry-After") or ""))
            assert (await c.ask(headers=key)).status == 200


def test_tenants_do_not_share_what_they_may(tmp_path: Path):
    table = Quotas(tmp_path, "gateway-0", limits(quota_calls=3))
    now_ns = time.time_ns()
    assert taken(table, A, now_ns, 5) == 3
    assert taken(table, A._replace(tenant="u"), now_ns, 5) == 3
    assert taken(table, A, now_ns + DAY_NS, 5) == 3, "tomorrow is another day"
    table.close()


def _worker(folder: Path, number: int, start: Any, counts: Any) -> None:
    table = Quotas(folder, f"gateway-{number}", limits(quota_calls=500, quota_per="month"))
    start.wait()
    counts.put(taken(table, A, 1_800_000_000 * 10**9, 400))
    table.close()


def test_processes_count_together_and_overshoot_by_less_than_their_number(tmp_path: Path):
    many = multiprocessing.get_context("spawn")
    start, counts = many.Barrier(4), many.Queue()
    workers = [many.Process(target=_worker, args=(tmp_path, number, start, counts)) for number in range(4)]
    for worker in workers:
        worker.start()
    through = sum(counts.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(30)
    assert 500 <= through < 500 + len(workers)
    again = Quotas(tmp_path, "gateway-2", limits(quota_calls=500, quota_per="month"))
    assert taken(again, A, 1_800_000_000 * 10**9, 10) == 0, "a worker that comes back finds its column"
    again.close()


def test_callers_beyond_the_rows_share_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas, "ROWS", 4)
    table = Quotas(tmp_path, "gateway-0", limits(quota_calls=1))
    through = [taken(table, Caller("t", f"a{n}", f"app:a{n}"), time.time_ns(), 2) for n in range(8)]
    assert through == [1, 1, 1, 1, 0, 0, 0, 0]
    table.close()


def test_more_workers_than_columns_are_refused_and_so_is_a_damaged_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quotas, "COLUMNS", 2)
    for number in (0, 1, 0):
        Quotas(tmp_path, f"gateway-{number}", limits(quota_calls=1)).close()
    with pytest.raises(LimitsError, match="2 workers have a column; gateway-2 finds none"):
        Quotas(tmp_path, "gateway-2", limits(quota_calls=1))
    (tmp_path / quotas.FILE).write_bytes(b"rubbish")
    with pytest.raises(LimitsError, match="is damaged"):
        Quotas(tmp_path, "gateway-0", limits(quota_calls=1))


def test_limits_that_limit_nothing_are_named(tmp_path: Path):
    for said, says in (({"burst": 3}, "burst: there is no rate_per_s"), ({}, "rate_per_s: a limit says")):
        with pytest.raises(ConfigError, match=says):
            configuration(tmp_path, "http://127.0.0.1:9", callers={"limits": {"default": said}})
