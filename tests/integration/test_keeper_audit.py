"""The keeper's continuous audit: tampering becomes an incident, a metric, a line in doctor; its own work does not."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY

from gateway.keeper import health
from gateway.keeper.auditing import Pass
from gateway.keeper.keeper import Keeper
from storage.clickhouse import Database
from storage.errors import StorageUnavailable
from storage.findings import Claim, Report, Verdict
from storage.pace import Paced
from tests.support.keeping import Gateway, kept, settled, until, written
from tests.support.loans import Loans

QUICK = {"recent_s": 0.1, "share": 1.0}
CHANGED = "replaceOne(entry, '\"status\":200', '\"status\":201')"


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


def audits(keeper: Keeper) -> dict[str, health.Check]:
    checks = health.examine(keeper.parts, keeper.anchoring, keeper.auditing)
    return {check.name: check for check in checks if check.name.startswith("audit")}


def incidents(keeper: Keeper) -> list[dict[str, Any]]:
    rows = keeper.parts.database.rows("SELECT entry FROM entries WHERE kind = 'incident' ORDER BY seq")
    return [orjson.loads(entry) for (entry,) in rows]


def change(keeper: Keeper, sql: str) -> None:
    keeper.parts.database.command(sql, settings={"mutations_sync": 2})


async def test_tampering_with_recent_data_becomes_an_incident_a_metric_and_a_line_in_doctor(
    tmp_path: Path, loans: Loans
) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"audit": {"recent_s": 0.1, "share": 0.001}})
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        decided = [await gateway.decide(number) for number in range(5)]
        await settled(keeper)
        await until(lambda: audits(keeper)["audit, recent"].detail.endswith(" s ago"))
        assert audits(keeper)["audit, recent"].state == "ok"
        third = decided[2]
        place = f"origin = '{third.origin}' AND seq = {third.seq}"
        change(keeper, f"ALTER TABLE entries UPDATE entry = {CHANGED} WHERE {place}")
        check = await until(lambda: (one := audits(keeper)["audit, recent"]).state == "fail" and one)
        assert f" of {third.origin} entry {third.seq}: " in check.detail
        entry = await until(lambda: next((one for one in incidents(keeper) if one["claim"] == "entries"), None))
        assert entry["event"] == "evidence_damaged"
        assert entry["source"] == {"origin": third.origin, "seq": third.seq}
        assert entry["span"] == "recent"
        assert REGISTRY.get_sample_value("answerable_audit_findings") >= 1
        change(keeper, f"ALTER TABLE keys DELETE WHERE origin = '{decided[1].origin}' AND at = {decided[1].seq}")
        await until(lambda: {"entries", "keys"} <= {one["claim"] for one in incidents(keeper)})
        await asyncio.sleep(0.5)  # some passes later each is still stated once
        told = [(one["claim"], one["source"]["origin"], one["source"]["seq"]) for one in incidents(keeper)]
        assert len(told) == len(set(told))
    await gateway.close()


async def test_rows_that_no_file_or_entry_can_name_end_no_keeper(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"audit": QUICK})
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        decided = await gateway.decide(0)
        await settled(keeper)
        long = (
            f"replaceOne(entry, '\"origin\":\"{decided.origin}\"', concat('\"origin\":\"', repeat('x', 70000), '\"'))"
        )
        place = f"origin = '{decided.origin}' AND seq = {decided.seq}"
        forged = f"entry = {long}, leaf = SHA256(concat(char(0), {long}))"
        change(keeper, f"ALTER TABLE entries UPDATE {forged} WHERE {place}")
        change(keeper, "INSERT INTO tiles SELECT repeat('x', 300), 0, 0, 'x'")  # longer than a file's name may be
        change(keeper, "INSERT INTO tiles SELECT concat('a', char(0), '/b/1'), 0, 0, 'x'")
        told = await until(
            lambda: {"entries", "checkpoints"} <= {one["claim"] for one in incidents(keeper)} and incidents(keeper)
        )
        assert all(len(orjson.dumps(one)) < 5_000 for one in told)
        assert audits(keeper)["audit, recent"].state == "fail"
        for task in keeper._tasks:
            assert not task.done(), task
    await gateway.close()


async def test_a_pass_that_breaks_on_what_it_reads_is_told_as_failed_and_tried_again(
    tmp_path: Path, loans: Loans
) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"audit": QUICK})
    async with kept(configuration) as keeper:
        auditing = keeper.auditing
        real = auditing.recent.look

        def breaking() -> Report:
            raise KeyError("x" * 10_000)

        auditing.recent.look = breaking
        check = await until(lambda: (one := audits(keeper)["audit, recent"]).state == "fail" and one)
        assert "KeyError" in check.detail
        assert len(check.detail) < 600
        auditing.recent.look = real
        await until(lambda: audits(keeper)["audit, recent"].state == "ok")


async def test_a_whole_pass_finds_what_is_not_recent_and_ends_what_holds_again(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"audit": QUICK})
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        decided = await gateway.decide(0)
        await settled(keeper)
        none = "00000000-0000-4000-8000-000000000000"  # a key of no entry
        change(keeper, f"INSERT INTO keys SELECT * REPLACE (toUUID('{none}') AS key_id) FROM keys LIMIT 1")
        auditing = keeper.auditing
        assert await auditing._pass(auditing.whole)
        assert audits(keeper)["audit, whole"].state == "fail"
        assert [one["span"] for one in await until(lambda: incidents(keeper))] == ["whole"]
        place = f"origin = '{decided.origin}' AND seq = {decided.seq}"
        change(keeper, f"ALTER TABLE decisions UPDATE label = 'x' WHERE {place}")
        await until(lambda: auditing.recent.findings)
        change(keeper, f"ALTER TABLE decisions UPDATE label = '{label(keeper, decided.seq)}' WHERE {place}")
        change(keeper, f"ALTER TABLE keys DELETE WHERE key_id = '{none}'")
        await until(lambda: time.monotonic() - max(auditing.recent.seen_s.values()) > 0.5)  # is not found any more
        assert auditing.recent.findings  # and stays told until a whole pass has looked
        assert await auditing._pass(auditing.whole)
        assert not auditing.findings
        assert {check.state for check in audits(keeper).values()} == {"ok"}
        assert REGISTRY.get_sample_value("answerable_audit_findings") == 0
    await gateway.close()


def label(keeper: Keeper, seq: int) -> str:
    """What the extraction entry says of the decision."""
    rows = keeper.parts.database.rows("SELECT entry FROM entries WHERE kind = 'extraction'")
    said = [orjson.loads(entry) for (entry,) in rows]
    (found,) = {row[one["cols"].index("label")] for one in said for row in one["rows"]}
    return str(found)


async def test_a_keeper_that_ships_signs_and_projects_meanwhile_raises_no_alarm(tmp_path: Path, loans: Loans) -> None:
    configuration = written(
        tmp_path,
        loans=loans,
        ledger={"log_s": 0.1, "audit": {"recent_s": 0.01, "share": 1.0}},
        keeper={"checkpoint_s": 0.1},
    )
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        auditing, seen = keeper.auditing, 0
        await until(lambda: auditing.whole.finished_s)
        streaming = await gateway.stream(1)
        for number in range(150):
            await gateway.decide(number)
            if number % 50 == 10:
                assert await auditing._pass(auditing.whole)
            seen += auditing.recent.finished_s is not None
        await streaming.end()
        await settled(keeper)
        assert await auditing._pass(auditing.whole)
        await until(lambda: auditing.recent.entries > 150)
        assert seen
        assert not auditing.findings
        assert not incidents(keeper)
    await gateway.close()


async def test_clickhouse_away_is_told_and_the_audit_goes_on_afterwards(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans, ledger={"audit": QUICK})
    async with kept(configuration) as keeper:
        auditing = keeper.auditing
        await until(lambda: auditing.recent.finished_s)
        handle = auditing.recent.handle
        handle.close()  # as a server that is gone
        assert not await auditing._pass(auditing.recent)
        check = audits(keeper)["audit, recent"]
        assert (check.state, check.detail) == ("warn", "the database handle is closed")
        auditing.recent.handle = Paced(keeper.parts.database.profile, share=1.0, stop=threading.Event())
        assert await auditing._pass(auditing.recent)
        assert audits(keeper)["audit, recent"].state == "ok"


# --- the pieces -------------------------------------------------------------------------------------------------


def broken(seq: int) -> Claim:
    return Claim(name="entries", verdict=Verdict.FAIL, origin="a/b/1", seq=seq)


@pytest.fixture
def handle(embedded: Database) -> Iterator[Paced]:
    with Paced(embedded.profile, share=1.0, stop=threading.Event()) as handle:
        yield handle


def test_what_does_not_hold_is_looked_at_again_and_only_what_still_does_not_is_a_finding(handle: Paced) -> None:
    reports = iter([Report((broken(1), broken(2))), Report((broken(2), broken(3)))])
    looking = Pass(name="recent", handle=handle, look=lambda: next(reports))
    assert [claim.seq for claim in looking.confirmed().broken] == [2]


def test_what_holds_is_looked_at_once(handle: Paced) -> None:
    reports = iter([Report((), 7)])
    assert Pass(name="recent", handle=handle, look=lambda: next(reports)).confirmed().entries == 7


def test_a_reader_at_a_tenth_of_the_time_rests_nine_times_as_long_as_it_worked(embedded: Database) -> None:
    with Paced(embedded.profile, share=0.1, stop=threading.Event()) as handle:
        handle.rows("SELECT 1")  # connects
        handle.rested()
        handle.rows("SELECT 1")
        time.sleep(0.05)  # its work
        began_s = time.monotonic()
        handle.rows("SELECT 1")
        assert time.monotonic() - began_s >= 9 * 0.05


def test_a_reader_that_is_stopped_ends_its_rest_at_once(embedded: Database) -> None:
    stop = threading.Event()
    with Paced(embedded.profile, share=0.001, stop=stop) as handle:
        handle.rows("SELECT 1")
        time.sleep(0.05)
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(StorageUnavailable, match="is being stopped"):
            handle.rows("SELECT 1")
