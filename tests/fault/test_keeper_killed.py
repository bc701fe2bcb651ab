"""A keeper killed anywhere, while a gateway goes on writing: everything arrives once."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import orjson
import pytest

from config.load import Configuration
from gateway.keeper.socket import command
from storage import watermark
from storage.clickhouse import SWEEP, Database
from storage.profiles import Profile
from tests.support.keeping import Gateway, apart, written
from tests.support.loans import Loans

WRITE_EVERY_S = 0.02


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


async def writing(gateway: Gateway, decided: list[str], streams: list[str], stop: asyncio.Event) -> None:
    """Decisions, every tenth of them streamed over a while, until `stop`."""
    open_streams: list = []
    number = 0
    while not stop.is_set():
        decided.append(orjson.loads((await gateway.decide(number)).entry)["id"])
        if number % 10 == 0:
            open_streams.append(await gateway.stream(number))
        if len(open_streams) > 5:
            ended = orjson.loads((await open_streams.pop(0).end()).entry)["id"]
            decided.append(ended)
            streams.append(ended)
        number += 1
        await asyncio.sleep(WRITE_EVERY_S)
    decided.extend([orjson.loads((await one.end()).entry)["id"] for one in open_streams])


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=[pytest.mark.chaos, pytest.mark.timeout(3600)])])
async def test_a_keeper_killed_at_random_points_ships_extracts_and_explains_everything_once(
    tmp_path: Path, loans: Loans, rounds: int
) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    decided: list[str] = []
    streams: list[str] = []
    stop = asyncio.Event()
    writer = asyncio.create_task(writing(gateway, decided, streams, stop))
    chance = random.Random(2)
    log = tmp_path / "keeper.log"
    for _ in range(rounds):
        with apart(configuration, log=log) as keeper:
            # from before its lock to well into its work: it needs about 2 s to be up on this machine
            await asyncio.sleep(chance.uniform(0.2, 5.0))
            assert keeper.poll() is None, log.read_text()[-2000:]
            keeper.kill()
            await asyncio.to_thread(keeper.wait)
    stop.set()
    await writer
    await gateway.close()
    assert len(streams) > 5

    lines = [line async for line in command(configuration.data, "settle", {}, configuration=configuration)]
    assert lines[-1].get("exit") == 0, lines[-1]
    counted = lines[-1]["result"]
    closed = watermark.read(configuration.data / "journal" / "gateway-0" / watermark.NAME).counters
    assert closed.accepted == closed.closed == len(decided)
    all_of_them = len(decided)
    assert counted["decisions"] == {
        **dict.fromkeys(("shipped", "closings", "projected", "explained"), all_of_them), "failed": 0
    }  # fmt: skip
    assert counted["calls"]["closed"] == len(decided)
    verified = [line async for line in command(configuration.data, "verify", {}, configuration=configuration)][-1]
    assert verified["exit"] == 0, [claim for claim in verified["result"]["claims"] if claim["verdict"] != "PASS"]
    check_once(configuration, decided)


def check_once(configuration: Configuration, decided: list[str]) -> None:
    """Counted in ClickHouse, row by row: nothing is missing and nothing is there twice."""
    profile = Profile.of(configuration.settings.storage, data=configuration.data)
    with Database.open(profile) as database:
        decisions = database.rows("SELECT toString(id) FROM entries WHERE kind = 'decision'", caps=SWEEP)
        assert Counter(one for (one,) in decisions) == Counter(decided)
        extracted: Counter[str] = Counter()
        for (entry,) in database.rows("SELECT entry FROM entries WHERE kind = 'extraction'", caps=SWEEP):
            said = orjson.loads(entry)
            extracted.update(row[0] for row in said["rows"])
            assert all(row[7] is None for row in said["rows"])
        assert extracted == Counter(decided)
        keys = Counter(
            orjson.loads(entry)["key"]
            for (entry,) in database.rows("SELECT entry FROM entries WHERE kind = 'explanation'", caps=SWEEP)
        )
        assert set(keys.values()) == {1}
        assert len(keys) == len(decided)
        for table in ("decisions", "explanations"):
            ((rows, distinct),) = database.rows(f"SELECT count(), uniqExact(decision) FROM {table}", caps=SWEEP)
            assert rows == distinct == len(decided)
