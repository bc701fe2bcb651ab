"""Damage that the keeper meets: it is named, what is sound before and beside it goes on, nothing is repaired."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.load import Configuration
from gateway.keeper import counting
from gateway.keeper.commands import Commands
from gateway.keeper.keeper import Keeper
from storage import queries
from storage.reading import SegmentTail
from storage.segment import segment_name
from tests.support.keeping import Gateway, flip, kept, settled, until, written
from tests.support.loans import Loans


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


async def wrote(configuration: Configuration, loans: Loans, shard: str, count: int) -> Gateway:
    gateway = await Gateway.open(configuration, loans, shard=shard)
    for number in range(count):
        await gateway.decide(number)
    return gateway


def damaged(configuration: Configuration, shard: str, number: int) -> int:
    """Flip a bit in the batch of this number; the first entry that is not readable any more."""
    directory = configuration.data / "journal" / shard
    tail = SegmentTail(directory)
    batch = list(tail.batches())[number]
    tail.close()
    flip(directory / segment_name(batch.segment), batch.begin + 60)
    return batch.first


async def asked(keeper: Keeper, name: str) -> dict[str, Any]:
    return [line async for line in Commands(keeper.parts, keeper).table()[name]({})][-1]


async def incidents(keeper: Keeper) -> list[dict[str, Any]]:
    rows = keeper.parts.database.rows("SELECT entry FROM entries WHERE kind = 'incident' ORDER BY origin, seq")
    return [orjson.loads(entry) for (entry,) in rows]


async def test_a_damaged_shard_stops_alone_and_is_named(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    await (await wrote(configuration, loans, "gateway-0", 10)).close()
    sound = await wrote(configuration, loans, "gateway-1", 5)
    first_lost = damaged(configuration, "gateway-0", 7)
    async with kept(configuration) as keeper:
        await until(lambda: any("test/gateway-0/1" in problem for problem in keeper.problems()))
        await sound.decide(6)
        await settled(keeper)
        shipping = keeper.parts.shipping
        await until(lambda: shipping.shipped_below("test/gateway-0/1") == first_lost)
        await settled(keeper)
        (incident,) = await incidents(keeper)
        assert incident["event"] == "shard_damaged"
        assert incident["source"] == {"origin": "test/gateway-0/1"}
        told = await asked(keeper, "doctor")
        assert told["exit"] == 1
        assert any(c["name"] == "shard test/gateway-0/1" and c["state"] == "fail" for c in told["result"]["checks"])
        verified = await asked(keeper, "verify")
        assert verified["exit"] == 1
        assert any(c["origin"] == "test/gateway-0/1" and c["verdict"] == "FAIL" for c in verified["result"]["claims"])
    await sound.close()


async def test_a_new_epoch_goes_on_beside_the_one_in_quarantine(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    async with kept(configuration) as keeper:
        first = await wrote(configuration, loans, "gateway-0", 6)
        await settled(keeper)
        await first.close()
        await settled(keeper)
        shipped = keeper.parts.shipping.shipped_below("test/gateway-0/1")
        damaged(configuration, "gateway-0", 3)
        second = await wrote(configuration, loans, "gateway-0", 4)  # recovery set the damaged epoch aside
        assert second.journal.origin == "test/gateway-0/2"
        await settled(keeper)
        assert keeper.parts.shipping.shipped_below("test/gateway-0/1") == shipped
        assert counting.totals(keeper.parts.database) == {
            "shipped": 10,
            "closings": 10,
            "projected": 10,
            "explained": 10,
            "failed": 0,
        }
        sound = [shelf.origin for shelf in keeper.parts.library.shelves if shelf.damage is None]
        assert "test/gateway-0/2" in sound
    async with kept(configuration) as keeper:
        await second.decide(9)
        await settled(keeper)
        assert counting.totals(keeper.parts.database)["explained"] == 11
        assert queries.origins(keeper.parts.database).keys() >= {"test/gateway-0/1", "test/gateway-0/2"}
    await second.close()


async def test_an_old_copy_of_a_journal_is_refused_and_never_signed(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await wrote(configuration, loans, "gateway-0", 3)
    await gateway.close()
    journal = configuration.data / "journal" / "gateway-0"
    shutil.copytree(journal, tmp_path / "backup")
    gateway = await wrote(configuration, loans, "gateway-0", 3)
    await gateway.close()
    async with kept(configuration) as keeper:
        await settled(keeper)
    shutil.rmtree(journal)
    shutil.copytree(tmp_path / "backup", journal)
    async with kept(configuration) as keeper:
        await until(lambda: any("test/gateway-0/1" in problem for problem in keeper.problems()))
        assert (await asked(keeper, "doctor"))["exit"] == 1


async def test_segments_are_deleted_once_nobody_needs_them_and_a_restart_goes_on(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, keeper={"lag_bytes": 0, "lag_hours": 0})
    gateway = await Gateway.open(configuration, loans, segment_bytes=64 * 1024)
    directory = configuration.data / "journal" / "gateway-0"
    streaming = await gateway.stream(1)
    async with kept(configuration) as keeper:
        for number in range(60):
            await gateway.decide(number)
        await settled(keeper)
        await asyncio.sleep(0)
        await keeper.upkeep.save()
        assert len(list(directory.glob("*.jrn"))) > 2  # the open stream's first chunks are in the first of them
        await streaming.end()
        await settled(keeper)
        await until(lambda: len(list(directory.glob("*.jrn"))) == 1, within_s=30)
    async with kept(configuration) as keeper:
        await gateway.decide(61)
        await settled(keeper)
        totals = counting.totals(keeper.parts.database)
        assert totals == {"shipped": 62, "closings": 62, "projected": 62, "explained": 62, "failed": 0}
        verified = await asked(keeper, "verify")
        assert verified["exit"] == 0, [c for c in verified["result"]["claims"] if c["verdict"] != "PASS"]
    await gateway.close()


async def test_with_snapshot_and_own_segments_gone_clickhouse_tells_what_was_done(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, keeper={"lag_bytes": 0, "lag_hours": 0})
    gateway = await wrote(configuration, loans, "gateway-0", 4)
    own = configuration.data / "journal" / "keeper"
    for _ in range(2):  # each start begins an own segment, so that the first one may go
        async with kept(configuration) as keeper:
            await settled(keeper)
            await until(lambda: len(list(own.glob("*.jrn"))) == 1, within_s=30)
    (configuration.data / "ship" / "progress.json").unlink()
    async with kept(configuration) as keeper:
        await gateway.decide(5)
        await settled(keeper)
        assert counting.totals(keeper.parts.database)["explained"] == 5
        ((rows,),) = keeper.parts.database.rows("SELECT count() FROM entries WHERE kind = 'explanation'")
        assert rows == 5
    await gateway.close()
