"""The keeper whole, with real journals, embedded ClickHouse and a real explainer worker."""

import asyncio
import time
from pathlib import Path

import orjson
import pytest

from gateway.keeper import counting
from gateway.keeper.hosting import open_stored
from storage import queries
from storage.reading import SegmentTail
from tests.support.keeping import Gateway, kept, settled, until, written
from tests.support.loans import Loans


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


def own_entries(folder: Path, kind: str) -> list[dict[str, object]]:
    tail = SegmentTail(folder / "data" / "journal" / "keeper")
    entries = [orjson.loads(record.entry) for batch in tail.batches() for record in batch.records]
    tail.close()
    return [entry for entry in entries if entry["kind"] == kind]


async def test_decisions_are_shipped_extracted_projected_explained_and_proven(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    before = [await gateway.decide(number) for number in range(5)]
    async with kept(configuration) as keeper:
        after = [await gateway.decide(number) for number in range(5, 10)]
        streaming = await gateway.stream(10)
        failed = await gateway.decide(11, status=502, error="upstream_cut", state="upstream_aborted")
        closed = await streaming.end()
        await settled(keeper)
        database = keeper.parts.database
        ids = [orjson.loads(one.entry)["id"] for one in (*before, *after, closed)]
        assert counting.totals(database) == {
            "shipped": 12,
            "closings": 12,
            "projected": 12,
            "explained": 11,
            "failed": 0,
        }
        assert counting.of_decisions(database, ids) == {
            "asked": 11,
            "shipped": 11,
            "rows": 11,
            "explained": 11,
            "failed": 0,
        }

        for number, identifier in zip([*range(10), 10], ids, strict=True):
            features, answer = (orjson.loads(body) for body in gateway.bodies(number))
            row = queries.decision(database, identifier)
            assert row is not None
            assert (row.label, row.score) == (answer["decision"], answer["score"])
            assert row.favourable is (answer["decision"] == "approved")
            assert row.case == keeper.parts.keyring.pseudonym("default", "case", features["case"])
            (explanation,) = queries.explanations(database, identifier)
            assert (explanation.state, explanation.binding) == ("ready", "output-matched")
            assert bool(explanation.codes) is (answer["decision"] == "denied")
            stored = queries.entry(database, explanation.origin, explanation.seq)
            assert stored is not None
            body = orjson.loads(open_stored(database, keeper.parts.keyring, stored.entry)["explanation"])
            assert body["output"]["recorded"] == answer["score"]
            decision = queries.entry_of_decision(database, identifier)
            assert decision is not None
            parts = open_stored(database, keeper.parts.keyring, decision.entry)
            assert (parts["request"], parts["response"]) == gateway.bodies(number)

        cut = queries.decision(database, orjson.loads(failed.entry)["id"])
        assert cut is not None
        assert (cut.label, cut.extraction_error) == (None, "no answer: upstream_cut")
        assert queries.explanations(database, cut.id) == []
    await gateway.close()


async def test_a_keeper_that_starts_again_does_nothing_twice(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    for round_ in range(3):
        async with kept(configuration) as keeper:
            for number in range(4):
                await gateway.decide(10 * round_ + number)
            await settled(keeper)
            explanations = own_entries(tmp_path, "explanation")
            rows = [row for entry in own_entries(tmp_path, "extraction") for row in entry["rows"]]
            assert len({entry["decision"] for entry in explanations}) == len(explanations) == 4 * (round_ + 1)
            assert len({row[0] for row in rows}) == len(rows) == 4 * (round_ + 1)
            assert counting.totals(keeper.parts.database)["explained"] == 4 * (round_ + 1)
    assert len([e for e in own_entries(tmp_path, "lifecycle") if e["event"] == "model_registered"]) == 1
    await gateway.close()


async def test_without_its_snapshot_a_keeper_knows_from_its_journal_what_it_did(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        for number in range(4):
            await gateway.decide(number)
        await settled(keeper)
    (configuration.data / "ship" / "progress.json").unlink()
    async with kept(configuration) as keeper:
        await gateway.decide(4)
        await settled(keeper)
        assert counting.totals(keeper.parts.database)["explained"] == 5
    assert len(own_entries(tmp_path, "explanation")) == 5
    await gateway.close()


async def test_labels_explanations_and_rows_come_within_the_times_that_are_promised(
    tmp_path: Path, loans: Loans
) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        await gateway.decide(0)
        await settled(keeper)  # the worker has imported shap, the tables are there
        began_s = time.monotonic()
        appended = await gateway.decide(1)
        origin, below = appended.origin, appended.seq + 1
        await until(lambda: keeper.extraction.covered_below(origin) >= below)
        extracted_s = time.monotonic() - began_s
        await until(lambda: keeper.schedule.settled_below(origin) >= below)
        explained_s = time.monotonic() - began_s
        identifier = orjson.loads(appended.entry)["id"]
        await until(lambda: queries.decision(keeper.parts.database, identifier))
        visible_s = time.monotonic() - began_s
    # goals: 1 s, 2 s, 3 s; the machine that runs tests may be doing other things
    assert extracted_s < 3
    assert explained_s < 6
    assert visible_s < 9
    await gateway.close()


async def test_a_model_that_is_not_registered_leaves_a_failed_explanation_that_says_so(
    tmp_path: Path, loans: Loans
) -> None:
    configuration = written(tmp_path)
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        appended = await gateway.decide(1)
        await settled(keeper)
        (row,) = queries.explanations(keeper.parts.database, orjson.loads(appended.entry)["id"])
        assert (row.state, row.error) == ("failed", "model_not_registered")
    (entry,) = own_entries(tmp_path, "explanation")
    assert entry["message"] == "loans 1.0 is not registered"
    await gateway.close()


async def test_the_configuration_in_force_is_a_part_of_its_lifecycle_entry(tmp_path: Path, loans: Loans) -> None:
    configuration = written(tmp_path)
    async with kept(configuration) as keeper:
        await settled(keeper)
        (entry,) = own_entries(tmp_path, "lifecycle")
        assert (entry["event"], entry["digest"]) == ("configuration_activated", configuration.digest)
        stored = queries.entry(keeper.parts.database, str(entry["origin"]), int(str(entry["seq"])))
        assert stored is not None
        parts = open_stored(keeper.parts.database, keeper.parts.keyring, stored.entry)
        assert parts["configuration"] == configuration.canonical
    async with kept(configuration):
        pass  # the same again states nothing new
    assert len(own_entries(tmp_path, "lifecycle")) == 1
    async with kept(written(tmp_path, tenant="other")):
        pass
    assert len(own_entries(tmp_path, "lifecycle")) == 2


async def test_control_json_is_published_and_signed(tmp_path: Path) -> None:
    import base64

    configuration = written(tmp_path)
    async with kept(configuration) as keeper:
        path = configuration.data / "control.json"
        await until(path.exists)
        line, signature, _ = path.read_bytes().split(b"\n")
        keeper.parts.keyring.control.public_key().verify(base64.b64decode(signature), line)
        assert orjson.loads(line)["config"] == configuration.digest


async def test_on_a_filling_disk_explanations_pause_and_go_on_where_they_were_while_decisions_are_still_shipped(
    tmp_path: Path, loans: Loans
) -> None:
    configuration = written(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        await gateway.decide(0)
        await settled(keeper)
        space = keeper.writer._journal._space
        real, space._look = space._look, lambda: None  # type: ignore[method-assign]  # the disk says what the test says
        space.disk_share = 0.9
        ids = [orjson.loads((await gateway.decide(number)).entry)["id"] for number in range(1, 6)]
        database = keeper.parts.database
        await until(lambda: counting.of_decisions(database, ids)["shipped"] == 5)
        await asyncio.sleep(2)  # without the pause the five are explained in half of that
        assert counting.of_decisions(database, ids)["explained"] == 0
        assert len(own_entries(tmp_path, "explanation")) == 1
        space._look, space.disk_share = real, 0.0  # type: ignore[method-assign]
        await settled(keeper)
        assert counting.of_decisions(database, ids) == {
            "asked": 5,
            "shipped": 5,
            "rows": 5,
            "explained": 5,
            "failed": 0,
        }
    await gateway.close()
