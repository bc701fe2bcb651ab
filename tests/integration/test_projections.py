"""Typed tables: made from entries alone, once, and again the same."""

import math
from pathlib import Path
from typing import Any

import pytest

from storage import typed
from storage.clickhouse import Database
from storage.entries import decode
from storage.errors import JournalCorrupt, Unverifiable
from storage.projections import FILE, Projector
from tests.integration.test_shipper import CrashError, Crashing, ship_all, shipper
from tests.support.batches import START_NS, Shard


def table(database: Database, name: str) -> list[tuple[Any, ...]]:
    columns = ", ".join(f"`{column}`" for column in typed.COLUMNS[name])
    return sorted(database.rows(f"SELECT {columns} FROM {name}"), key=repr)


def tables(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    return {name: table(database, name) for name in typed.TABLES}


class Deployment:
    """A gateway's and a keeper's shard, shipped to one database."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        self.database, self.tmp_path = database, tmp_path
        self.gateway, self.keeper = Shard(), Shard(origin="acme/keeper/1", now_ns=START_NS + 10**12)

    def record(self, count: int = 3) -> list[str]:
        """Record decisions, extract and explain them; returns their ids."""
        batch = self.gateway.decisions(count, size=20)
        ids = [decode(record.entry)["id"] for record in batch.records]
        explanations = [self.keeper.explanation(identifier) for identifier in ids]
        lifecycle = self.keeper.draft("lifecycle", fields={"event": "model_registered", "object": "model", "name": "m"})
        self.keeper.commit([self.keeper.extraction(batch), *explanations, self.keeper.access(ids[0]), lifecycle])
        return ids

    def ship(self) -> dict[str, int]:
        ends = {}
        for shard in (self.gateway, self.keeper):
            ship = shipper(self.database, self.tmp_path, shard)
            ship_all(ship, shard)
            ends[shard.origin] = ship.next_seq
        return ends

    def project(self, shipped: dict[str, int], projector: Projector | None = None) -> dict[str, int]:
        projector = projector or Projector(self.database, self.tmp_path / "ship")
        totals = dict.fromkeys(typed.TABLES, 0)
        for origin in shipped:
            while (done := projector.step(origin, shipped)) is not None:
                for name, rows in done.rows.items():
                    totals[name] += rows
        return totals


@pytest.fixture
def deployment(database: Database, tmp_path: Path) -> Deployment:
    return Deployment(database, tmp_path)


@pytest.fixture
def local(embedded: Database, tmp_path: Path) -> Deployment:
    return Deployment(embedded, tmp_path)


def test_entries_become_typed_rows_that_name_their_source(deployment: Deployment) -> None:
    ids = deployment.record()
    assert deployment.project(deployment.ship()) == {"decisions": 3, "explanations": 3, "accesses": 1, "lifecycle": 1}
    rows = [dict(zip(typed.COLUMNS["decisions"], row, strict=True)) for row in table(deployment.database, "decisions")]
    assert sorted(str(row["decision"]) for row in rows) == sorted(ids)
    for row in rows:
        assert (row["label"], row["favourable"], row["score"], row["case"]) == ("denied", 0, 0.25, "p1.case")
        assert (row["model_name"], row["status"], row["stream"], row["total_us"]) == ("m", 200, "complete", 3)
        assert (row["origin"], row["extraction_origin"], row["extraction_seq"]) == (
            "acme/gateway-0/1",
            "acme/keeper/1",
            0,
        )
        assert row["leaf"] == typed_leaf(deployment, row["seq"])


def typed_leaf(deployment: Deployment, seq: int) -> bytes:
    from storage.entries import leaf_hash

    return leaf_hash(deployment.gateway.entries[seq])


def test_an_extraction_waits_until_its_decisions_are_shipped(local: Deployment) -> None:
    local.record()
    ship = shipper(local.database, local.tmp_path, local.keeper)
    ship_all(ship, local.keeper)
    shipped = {local.keeper.origin: ship.next_seq, local.gateway.origin: 2}
    assert local.project(shipped)["decisions"] == 0
    assert local.project(local.ship())["decisions"] == 3


def test_rebuilding_makes_the_same_rows_again(local: Deployment) -> None:
    for _ in range(4):
        local.record()
        local.project(local.ship())
    before = tables(local.database)
    assert len(before["decisions"]) == 12
    local.database.command("ALTER TABLE decisions UPDATE label = 'approved' WHERE 1", settings={"mutations_sync": 2})
    totals = Projector(local.database, local.tmp_path / "ship").rebuild(now_ns=7)
    assert totals == {name: len(rows) for name, rows in before.items()}
    assert tables(local.database) == before
    assert local.project(local.ship()) == dict.fromkeys(typed.TABLES, 0)


def test_projecting_in_one_go_or_in_steps_gives_the_same_rows(local: Deployment) -> None:
    for _ in range(3):
        local.record()
        local.project(local.ship())
    stepwise = tables(local.database)
    Projector(local.database, local.tmp_path / "ship").rebuild(now_ns=9)
    assert tables(local.database) == stepwise


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
def test_a_crash_while_projecting_repeats_the_step_and_doubles_nothing(local: Deployment, persisted: bool) -> None:
    for at in range(1, 50):
        local.record()
        shipped = local.ship()
        crashing = Crashing(at, persisted=persisted)
        try:
            local.project(shipped, Projector(local.database, local.tmp_path / "ship", crashing))
        except CrashError:
            local.project(shipped)
        rows = table(local.database, "decisions")
        assert len(rows) == len({row[0] for row in rows}) == 3 * at
        if crashing.count < at:
            break
    assert at > 3


def test_a_lost_cursor_finds_its_rows_instead_of_making_them_twice(local: Deployment) -> None:
    local.record()
    shipped = local.ship()
    local.project(shipped)
    before = tables(local.database)
    (local.tmp_path / "ship" / FILE).unlink()
    local.project(shipped)
    assert tables(local.database) == before


def test_rows_that_went_missing_are_made_again_when_their_step_is_repeated(local: Deployment) -> None:
    local.record()
    shipped = local.ship()
    local.project(shipped)
    before = tables(local.database)
    (local.tmp_path / "ship" / FILE).unlink()
    for name in typed.TABLES:
        local.database.command(f"ALTER TABLE {name} DELETE WHERE seq % 2 = 0", settings={"mutations_sync": 2})
    local.project(shipped)
    assert tables(local.database) == before


def test_a_forged_row_in_the_range_of_a_step_stops_it(local: Deployment) -> None:
    local.record()
    shipped = local.ship()
    local.project(shipped)
    (local.tmp_path / "ship" / FILE).unlink()
    forge = "INSERT INTO explanations SELECT * REPLACE (generateUUIDv4() AS id) FROM explanations LIMIT 1"
    local.database.command(forge)
    with pytest.raises(Unverifiable):
        local.project(shipped)


def test_a_damaged_cursor_is_refused_with_advice(local: Deployment) -> None:
    local.record()
    local.project(local.ship())
    (local.tmp_path / "ship" / FILE).write_bytes(b"{")
    with pytest.raises(JournalCorrupt) as raised:
        Projector(local.database, local.tmp_path / "ship")
    assert "rebuild" in raised.value.advice


def test_a_decision_that_is_gone_is_counted_and_the_others_are_projected(local: Deployment) -> None:
    local.record()
    shipped = local.ship()
    local.database.command(
        "ALTER TABLE entries DELETE WHERE seq = 1 AND kind = 'decision'", settings={"mutations_sync": 2}
    )
    projector = Projector(local.database, local.tmp_path / "ship")
    done = projector.step(local.keeper.origin, shipped)
    assert done is not None
    assert (done.rows["decisions"], done.missing) == (2, 1)


def test_what_an_entry_does_not_say_is_empty_and_odd_numbers_are_kept(local: Deployment) -> None:
    bare = {"model": None, "timing": None, "stream": None, "status": None, "app": None}
    batch = local.gateway.decisions(1, size=10, **bare)
    said = decode(batch.records[0].entry)
    rows = [[said["id"], "x", None, None, "NaN", None, None, "label: no match"]]
    extraction = local.keeper.extraction(batch, rows=rows)
    failed = local.keeper.explanation(said["id"], state="failed", error="model_not_registered", codes=None, model=None)
    local.keeper.commit([extraction, failed])
    local.project(local.ship())
    ((score, favourable, label, error),) = local.database.rows(
        "SELECT score, favourable, label, extraction_error FROM decisions"
    )
    assert math.isnan(score)
    assert (favourable, label, error) == (None, "", "label: no match")
    assert local.database.rows("SELECT state, error, codes FROM explanations") == [
        ("failed", "model_not_registered", [])
    ]


def test_decisions_of_two_months_are_found_in_both(local: Deployment) -> None:
    first = local.gateway.decisions(2, size=10)
    local.gateway.now_ns += 40 * 86_400 * 10**9
    second = local.gateway.decisions(2, size=10)
    local.keeper.commit([local.keeper.extraction(first), local.keeper.extraction(second)])
    assert local.project(local.ship())["decisions"] == 4
    assert local.database.rows("SELECT uniqExact(toYYYYMM(ts)), count() FROM decisions") == [(2, 4)]
