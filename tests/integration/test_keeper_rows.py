"""The rows of a call behind the gateway: extracted, explained, listed and verified one by one, counted as one call."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from gateway.keeper import counting
from gateway.keeper.hosting import open_stored
from storage import queries
from storage.audit import audit
from storage.clickhouse import Database
from storage.migrate import migrate, migrations
from storage.verify import Verdict
from tests.support.database import NOW_NS, fresh_profile, opened
from tests.support.keeping import ROUTE, kept, settled, written
from tests.support.loans import Loans, applicant
from tests.support.upstreams import Exchange, Upstream
from tests.support.workers import Client, working

OLD = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


@pytest.fixture
def embedded(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An embedded database before any migration."""
    with opened(fresh_profile("chdb", request), migrated=False) as database:
        yield database


async def test_each_row_is_extracted_explained_and_listed_and_the_whole_verifies(tmp_path: Path, loans: Loans) -> None:
    def answer(features: dict[str, Any]) -> dict[str, Any]:
        return loans.answer({name: value for name, value in features.items() if name != "case"})

    async def score(exchange: Exchange) -> None:
        asked = orjson.loads(exchange.asked.body)
        if len(asked) == 3:  # begun before it is answered
            await asyncio.sleep(1.3)
        await exchange.answer(orjson.dumps([answer(one) for one in asked][: 4 if len(asked) == 5 else None]))

    async with Upstream(score) as model:
        route = {**ROUTE, "upstream": model.url, "batch": "rows", "capture": {"subject": "case"}}
        configuration = written(tmp_path, loans=loans, routes=[route])
        got = {}
        async with working(configuration) as worker, Client.to(worker) as c:
            for rows in (1, 3, 7, 5):
                asked = [applicant(number) for number in range(rows)]
                got[rows] = await c.ask(target="/loans/score", body=orjson.dumps(asked))
        assert [got[rows].header("Decision-Rows") for rows in (1, 3, 7, 5)] == ["1", "3", "7", None]
        async with kept(configuration) as keeper:
            await settled(keeper)
            database, keyring = keeper.parts.database, keeper.parts.keyring
            assert counting.totals(database) == {
                "shipped": 12, "closings": 4, "projected": 12, "explained": 11, "failed": 1
            }  # fmt: skip
            for rows in (1, 3, 7):
                call = got[rows].header("Decision-Call") or ""
                wanted = queries.Filter(tenant="default", span=queries.EVER, call=call)
                found = sorted(queries.page(database, wanted, limit=100).rows, key=lambda row: row.row)
                assert [(row.call, row.row, row.rows) for row in found] == [(call, at, rows) for at in range(rows)]
                assert found[0].id == got[rows].header("Decision-Id")
                for number, row in enumerate(found):
                    features = applicant(number)
                    told = answer(features)
                    assert (row.label, row.score, row.extraction_error) == (told["decision"], told["score"], None)
                    assert row.case == keyring.pseudonym("default", "case", features["case"])
                    assert row.subject == keyring.pseudonym("default", "subject", features["case"])
                    assert row.explanation == "ready"
                    (explanation,) = queries.explanations(database, row.id)
                    stored = queries.entry(database, explanation.origin, explanation.seq)
                    assert stored is not None
                    body = orjson.loads(open_stored(database, keyring, stored.entry)["explanation"])
                    assert body["output"]["recorded"] == told["score"], "of the row's own features"
                    entry = queries.entry_of_decision(database, row.id)
                    assert entry is not None
                    parts = open_stored(database, keyring, entry.entry)
                    assert orjson.loads(parts["request"]) == [features]
                    assert orjson.loads(parts["response"]) == [told]
            whole = queries.decision(database, got[5].header("Decision-Id") or "")
            assert whole is not None
            assert (whole.row, whole.rows, whole.label) == (0, None, None)
            assert whole.extraction_error == "request: 5 rows, and none is named"
            public = keyring.log.public_key().public_bytes_raw()
            report = await asyncio.to_thread(audit, database, public=public, data=configuration.data)
            assert report.exit_code == 0, [claim for claim in report.claims if claim.verdict is not Verdict.PASS]


def test_decisions_from_before_rows_were_told_apart_are_the_only_row_of_their_call(embedded: Database) -> None:
    known = migrations()
    assert [migration.version for migration in known] == [1, 2, 3]
    migrate(embedded, now_ns=NOW_NS, known=known[:2])
    embedded.insert("decisions", ("decision", "ts"), [(UUID(OLD), NOW_NS)], token="old")
    assert migrate(embedded, now_ns=NOW_NS) == known[2:]
    assert embedded.rows("SELECT toString(call), row, rows FROM decisions") == [(OLD, 0, 1)]
