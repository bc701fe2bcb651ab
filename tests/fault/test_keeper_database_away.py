"""ClickHouse over HTTP refuses connections under load: decisions and explanations go on, all is shipped afterwards."""

import asyncio
import os
from pathlib import Path

import orjson
import pytest

from gateway.keeper import counting
from gateway.keeper.keeper import Keeper
from storage import queries
from tests.support.clickhouse_http import Server
from tests.support.keeping import Gateway, kept, settled, until, written
from tests.support.loans import Loans

AWAY_S = float(os.environ.get("ANSWERABLE_AWAY_S", "12"))  # the acceptance run says 60
MEMORY_BYTES_MAX = 60 * 1024 * 1024  # growth while away: held batches and caches, whatever the backlog


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def load(gateway: Gateway, stop: asyncio.Event, waits_s: list[float]) -> int:
    """Decisions one after the other, and how long each waited for its durability."""
    loop = asyncio.get_running_loop()
    number = 0
    while not stop.is_set():
        began_s = loop.time()
        await gateway.decide(number)
        waits_s.append(loop.time() - began_s)
        number += 1
        await asyncio.sleep(0.02)
    return number


def explained(keeper: Keeper, origin: str) -> int:
    return keeper.schedule.settled_below(origin)


async def test_while_the_database_is_away_the_backlog_is_on_disk_and_explanations_go_on(
    tmp_path: Path, loans: Loans
) -> None:
    with Server(tmp_path / "clickhouse") as server:
        storage = {"profile": "server", "url": server.url, "database": "away", "allow_broad_grants": True}
        configuration = written(tmp_path, loans=loans, storage=storage)
        gateway = await Gateway.open(configuration, loans)
        async with kept(configuration) as keeper:
            await gateway.decide(0)
            await settled(keeper)
            stop, waits_s = asyncio.Event(), []
            loading = asyncio.create_task(load(gateway, stop, waits_s))
            await asyncio.to_thread(server.refuse, AWAY_S)
            await until(lambda: keeper.parts.shipping.problem is not None)
            before_bytes, before = resident_bytes(), explained(keeper, gateway.journal.origin)
            shipped = keeper.parts.shipping.shipped_below(gateway.journal.origin)

            def went_on() -> bool:
                return explained(keeper, gateway.journal.origin) > before + 50

            await until(went_on, within_s=AWAY_S)
            assert keeper.parts.shipping.shipped_below(gateway.journal.origin) == shipped
            assert keeper.problems()
            await asyncio.to_thread(server.wait_until_up, AWAY_S + 30)
            grown_bytes = resident_bytes() - before_bytes
            stop.set()
            decided = await loading + 1
            await settled(keeper)
            assert keeper.problems() == []
            totals = counting.totals(keeper.parts.database)
            assert totals == {
                "shipped": decided,
                "closings": decided,
                "projected": decided,
                "explained": decided,
                "failed": 0,
            }
            kinds = queries.counts_by_kind(keeper.parts.database)
            assert (kinds["decision"], kinds["explanation"]) == (decided, decided)
            assert grown_bytes < MEMORY_BYTES_MAX
            assert max(waits_s) < 5  # no decision waited for the database
        await gateway.close()


async def test_a_keeper_starts_while_its_database_is_away_and_explains(tmp_path: Path, loans: Loans) -> None:
    server = Server(tmp_path / "clickhouse")  # not started
    storage = {"profile": "server", "url": server.url, "database": "away", "allow_broad_grants": True}
    configuration = written(tmp_path, loans=loans, storage=storage)
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        appended = await gateway.decide(3)
        await until(lambda: explained(keeper, appended.origin) > appended.seq)
        assert "ClickHouse" in keeper.problems()[0]
        with server:
            await settled(keeper)
            row = queries.decision(keeper.parts.database, orjson.loads(appended.entry)["id"])
            assert row is not None
            assert row.explanation == "ready"
    await gateway.close()


@pytest.mark.parametrize(
    ("fault", "table"),
    [("die_before", "entries"), ("die_after", "parts"), ("cut_after", "entries"), ("die_after", "explanations")],
)
async def test_an_insert_of_unknown_outcome_leaves_every_row_once(
    tmp_path: Path, loans: Loans, fault: str, table: str
) -> None:
    with Server(tmp_path / "clickhouse") as server:
        storage = {"profile": "server", "url": server.url, "database": "away", "allow_broad_grants": True}
        configuration = written(tmp_path, loans=loans, storage=storage)
        gateway = await Gateway.open(configuration, loans)
        async with kept(configuration) as keeper:
            await settled(keeper)
            server.fault(fault, table=table)
            for number in range(3):
                await gateway.decide(number)
            if fault.startswith("die"):
                await asyncio.to_thread(server.process.wait)
                await asyncio.to_thread(server.start)
            await settled(keeper)
            ((rows, distinct),) = keeper.parts.database.rows("SELECT count(), uniqExact(origin, seq) FROM entries")
            assert rows == distinct
            assert counting.totals(keeper.parts.database) == {
                "shipped": 3, "closings": 3, "projected": 3, "explained": 3, "failed": 0
            }  # fmt: skip
        await gateway.close()
