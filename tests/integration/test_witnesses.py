"""Witnesses: cosignatures are asked for, verified and kept; rollbacks and forks come to light through them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from config.ledger import Witnesses
from gateway.keeper.logrounds import LogRounds
from gateway.keeper.witnessing import Witnessing
from storage import anchors, cosignatures
from storage.clickhouse import Database
from storage.cosignatures import parse_witness
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_log_of_logs import Site, shard
from tests.support.witness import Witness

LOG = "acme/log"


@pytest.fixture
def witnesses() -> Iterator[Callable[..., Witness]]:
    made: list[Witness] = []

    def one(name: str = "w1", **given: Any) -> Witness:
        made.append(Witness(f"witness.example/{name}", {LOG: PUBLIC}, **given))
        return made[-1]

    yield one
    for witness in made:
        witness.close()


class Anchoring:
    """A log of logs that grows by hand, and its witnesses asked by hand."""

    def __init__(self, folder: Path, database: Database, *asked: Witness, quorum: int = 1) -> None:
        self.shard = shard()
        self.site = Site(folder, self.shard)
        self.database = database
        self.rounds = LogRounds(folder / "ship", "acme", key=KEY, every_s=0.001)
        self.witnessing: Any = None
        if asked:
            settings = {"quorum": quorum, "every_s": 0.001, "witnesses": [one.settings() for one in asked]}
            self.witnessing = Witnessing(Witnesses.model_validate(settings), self.rounds, database)
        self.rounds.held = False

    def grow(self, count: int = 1) -> None:
        for _ in range(count):
            self.shard.decisions(1, size=10)
            self.site.sign()
            self.rounds.step(self.site.sources, self.database, now=True)

    async def ask(self) -> None:
        async with aiohttp.ClientSession() as session:
            for one in self.witnessing.asked:
                one.due_s = 0
            await self.witnessing.round(session)


async def test_every_checkpoint_that_is_sent_continues_the_last_and_its_cosignature_is_kept(
    database: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one, two = witnesses("w1"), witnesses("w2")
    made = Anchoring(tmp_path, database, one, two, quorum=2)
    for count in (1, 2, 5, 1):
        made.grow(count)
        await made.ask()
    size = made.witnessing.cosigned
    assert size == made.rounds.signed.checkpoint.size  # type: ignore[union-attr]
    assert [status for status, _ in one.requests] == [200] * 4
    assert [old for _, old in one.requests] == [0, 2, 4, 9]
    note = anchors.best_note(database, LOG, 0)
    assert note is not None
    assert set(cosignatures.cosigned(note, map(parse_witness, (one.vkey, two.vkey)))) == {one.name, two.name}
    assert all(asked.problem is None for asked in made.witnessing.asked)


async def test_a_restart_learns_from_the_witness_what_it_knows(
    embedded: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one = witnesses()
    made = Anchoring(tmp_path, embedded, one)
    made.grow(3)
    await made.ask()
    again = Anchoring(tmp_path, embedded, one)
    again.shard, again.site = made.shard, made.site
    again.grow(2)
    await again.ask()
    assert one.requests == [(200, 0), (409, 0), (200, 4)]
    assert again.witnessing.cosigned == 6


async def test_a_witness_that_is_away_delays_nothing_and_is_asked_again_later(
    embedded: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one, two = witnesses("w1"), witnesses("w2")
    two.away = True
    made = Anchoring(tmp_path, embedded, one, two, quorum=2)
    made.grow()
    await made.ask()
    first, second = made.witnessing.asked
    assert (first.cosigned, second.cosigned, made.witnessing.cosigned) == (2, 0, 0)
    assert "503" in (second.problem or "")
    assert second.failures == 1
    made.grow()  # the log goes on
    two.away = False
    await made.ask()
    assert (made.witnessing.cosigned, second.problem, second.failures) == (3, None, 0)
    two.close()
    made.grow()
    await made.ask()
    assert second.problem
    assert made.rounds.problem is None


async def test_a_cosignature_that_does_not_verify_is_not_kept(
    embedded: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one, impostor = witnesses("w1"), witnesses("w1")
    made = Anchoring(tmp_path, embedded, one)
    made.witnessing.asked[0].url = impostor.url
    made.grow()
    await made.ask()
    assert made.witnessing.cosigned == 0
    assert "without a cosignature of its own" in (made.witnessing.asked[0].problem or "")
    assert anchors.of_size(embedded, LOG, 2, anchors.COSIGNATURE) == {}


async def test_a_backup_restored_whole_is_refused_because_a_witness_knows_more(
    embedded: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one = witnesses()
    made = Anchoring(tmp_path / "a", embedded, one)
    made.grow(2)
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    made.grow(2)
    await made.ask()
    old = Anchoring(tmp_path / "backup", embedded, one)
    settings = {"mutations_sync": 2}
    embedded.command("ALTER TABLE log DELETE WHERE seq >= 3", settings=settings)
    embedded.command("ALTER TABLE checkpoints DELETE WHERE origin = 'acme/log' AND size > 3", settings=settings)
    embedded.command("TRUNCATE TABLE anchors")
    old.rounds.held = True
    old.rounds.step(list, embedded)  # opened, and not grown before the witness was asked
    await old.ask()
    assert "rolled back" in (old.rounds.problem or "")
    assert old.rounds.published is None
    old.grow()
    assert old.rounds.signed.checkpoint.size == 3  # type: ignore[union-attr]


async def test_a_split_view_is_refused_by_the_witness_and_stops_the_second_log(
    embedded: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one = witnesses()
    shown = Anchoring(tmp_path / "shown", embedded, one)
    shown.grow(3)
    await shown.ask()
    for table in ("log", "checkpoints", "anchors", "tiles"):
        embedded.command(f"TRUNCATE TABLE {table}")
    for more in (0, 2):  # of the same size, and of a larger one
        other = Anchoring(tmp_path / f"other{more}", embedded, one)
        other.grow(3 + more)
        await other.ask()
        assert one.requests[-1][0] == 422
        assert "forked" in (other.rounds.problem or "")
        assert "422" in (other.witnessing.asked[0].problem or "")
        assert other.witnessing.cosigned == 0
        for table in ("log", "checkpoints", "anchors", "tiles"):
            embedded.command(f"TRUNCATE TABLE {table}")


async def test_a_witness_that_only_claims_cannot_stop_the_log(
    embedded: Database, tmp_path: Path, witnesses: Callable[..., Witness]
) -> None:
    one = witnesses(shows=False)
    made = Anchoring(tmp_path, embedded, one)
    one.latest[LOG] = (1_000_000, bytes(32), b"")
    made.grow()
    await made.ask()
    assert "says to know a tree of 1000000 leaves" in (made.witnessing.asked[0].problem or "")
    assert made.rounds.problem is None
    one.shows = True
    one.latest[LOG] = (1_000_000, bytes(32), b"acme/log\n1000000\nAAAA\n\n\xe2\x80\x94 acme/log AAAAAAAA\n")
    await made.ask()
    assert "says to know a tree of 1000000 leaves" in (made.witnessing.asked[0].problem or "")
    assert [status for status, _ in one.requests] == [409, 409]
    assert made.rounds.problem is None
    made.grow()
    assert made.rounds.signed.checkpoint.size == 3  # type: ignore[union-attr]
    one.latest.clear()  # it came to its senses
    await made.ask()
    assert (made.witnessing.cosigned, made.witnessing.asked[0].problem) == (3, None)
