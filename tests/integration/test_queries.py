"""The questions of the desk: by id, by case, by filter, page after page."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from storage import queries
from storage.clickhouse import Database
from storage.entries import decode
from storage.errors import QueryError
from storage.ids import uuid7
from storage.queries import EVER, PAGE_ROWS_MAX, Filter, Span
from tests.integration.test_ledger import published
from tests.integration.test_projections import Deployment
from tests.support.batches import START_NS

UNKNOWN = uuid7(START_NS, bytes(8))


@pytest.fixture
def deployment(database: Database, tmp_path: Path) -> Deployment:
    return Deployment(database, tmp_path)


@pytest.fixture
def local(embedded: Database, tmp_path: Path) -> Deployment:
    return Deployment(embedded, tmp_path)


def wanted(**over: object) -> Filter:
    return Filter(**{"tenant": "acme", "span": EVER, **over})


def test_a_decision_is_found_with_its_explanation(deployment: Deployment) -> None:
    ids = deployment.record()
    deployment.project(deployment.ship())
    row = queries.decision(deployment.database, ids[1])
    assert row is not None
    assert (row.id, row.tenant, row.route, row.label, row.favourable, row.score) == (
        *(ids[1], "acme", "mortgage"),
        *("denied", False, 0.25),
    )
    assert (row.case, row.corrects, row.error, row.explanation, row.verdict) == (
        "p1.case",
        None,
        None,
        "ready",
        "sound",
    )
    assert row.leaf == queries.entry(deployment.database, row.origin, row.seq).leaf  # type: ignore[union-attr]
    assert queries.decision(deployment.database, UNKNOWN) is None


def test_what_is_no_id_of_ours_is_not_found(embedded: Database) -> None:
    for name in ("", "x", "00000000-0000-0000-0000-000000000000", "' OR 1 --"):
        with pytest.raises(QueryError) as raised:
            queries.decision(embedded, name)
        assert raised.value.status == 404


def test_pages_follow_each_other_newest_first_and_end(deployment: Deployment) -> None:
    ids = [identifier for _ in range(4) for identifier in deployment.record()]
    deployment.project(deployment.ship())
    seen: list[str] = []
    cursor, pages = None, 0
    while True:
        page = queries.page(deployment.database, wanted(), limit=5, cursor=cursor)
        seen += [row.id for row in page.rows]
        pages += 1
        cursor = page.cursor
        if cursor is None:
            break
    assert (seen, pages) == (ids[::-1], 3)


def test_filters_narrow_a_page(local: Deployment) -> None:
    first = local.record()
    denied = local.gateway.decisions(2, size=10, route="claims", case="p1.other", corrects=first[0])
    approved = local.gateway.decisions(2, size=10)
    rows = [(denied, "denied"), (approved, "approved")]
    local.keeper.commit([local.keeper.extraction(batch, label=label) for batch, label in rows])
    local.project(local.ship())
    second = [decode(record.entry)["id"] for record in denied.records]
    third = [decode(record.entry)["id"] for record in approved.records]

    def found(**over: object) -> set[str]:
        return {row.id for row in queries.page(local.database, wanted(**over), limit=50).rows}

    assert found() == {*first, *second, *third}
    assert found(routes=["claims"]) == set(second)
    assert found(labels=["approved"]) == found(favourable=True) == set(third)
    assert found(favourable=False) == {*first, *second}
    assert found(cases=["p1.other", "p0.other"]) == found(corrects=first[0]) == set(second)
    assert found(subjects=["p1.subject"]) == {*first, *second, *third}
    assert found(model_version="2") == found(tenant="other") == found(subjects=["none"]) == set()
    assert found(reason="R07") == found(state="ready") == set(first)
    assert found(state="none") == {*second, *third}
    assert found(state="failed") == found(reason="R99") == set()
    low, high = (row.ts_ns for row in queries.page(local.database, wanted(cases=["p1.other"]), limit=2).rows[::-1])
    assert found(span=Span(low, high)) == {second[0]}


def test_a_strange_cursor_is_refused(embedded: Database) -> None:
    for cursor in ("", "x", "AAAA", "OjE", "é"):
        with pytest.raises(QueryError) as raised:
            queries.page(embedded, wanted(), limit=5, cursor=cursor)
        assert raised.value.code == "cursor_invalid"


def test_a_page_has_at_most_five_hundred_rows(local: Deployment) -> None:
    for _ in range(2):
        local.record(300)
    local.project(local.ship())
    page = queries.page(local.database, wanted(), limit=10_000)
    assert len(page.rows) == PAGE_ROWS_MAX
    assert page.cursor is not None


def test_a_later_extraction_supersedes_an_earlier_one(local: Deployment) -> None:
    batch = local.gateway.decisions(2, size=10)
    local.keeper.commit([local.keeper.extraction(batch)])
    local.keeper.commit([local.keeper.extraction(batch, label="approved")])
    local.project(local.ship())
    rows = queries.page(local.database, wanted(), limit=10).rows
    assert [row.label for row in rows] == ["approved", "approved"]
    one = queries.decision(local.database, rows[0].id)
    assert one is not None
    assert one.label == "approved"


def test_filters_look_at_the_newest_extraction_of_a_decision_only(local: Deployment) -> None:
    batch = local.gateway.decisions(3, size=10)
    ids = [decode(record.entry)["id"] for record in batch.records]
    local.keeper.commit([local.keeper.extraction(batch)])
    local.keeper.commit([local.keeper.extraction(batch, label="approved")])
    local.project(local.ship())

    def found(**over: object) -> list[str]:
        return [row.id for row in queries.page(local.database, wanted(**over), limit=2).rows]

    assert found(labels=["denied"]) == found(favourable=False) == []
    assert found(labels=["approved"]) == found(favourable=True) == found(labels=["denied", "approved"]) == ids[:0:-1]


def test_of_two_extractions_the_one_of_the_later_epoch_counts_whatever_its_number(local: Deployment) -> None:
    batch = local.gateway.decisions(1, size=10)
    for _ in range(4):
        local.keeper.commit([local.keeper.access(local.keeper.ids.new())])
    local.keeper.commit([local.keeper.extraction(batch)])
    local.project(local.ship())
    # as a keeper of the tenth epoch makes it: its ledger begins at 0 again
    local.database.command(
        "INSERT INTO decisions SELECT * REPLACE ('acme/keeper/10' AS extraction_origin, 0 AS extraction_seq,"
        " 'approved' AS label) FROM decisions"
    )
    (row,) = queries.page(local.database, wanted(), limit=10).rows
    assert row.label == "approved"
    assert queries.decision(local.database, row.id) == row
    assert queries.page(local.database, wanted(labels=["denied"]), limit=10).rows == ()


def test_filters_look_at_the_newest_explanation_of_a_decision_only(local: Deployment) -> None:
    ids = local.record()
    again = local.keeper.explanation(ids[0], codes=["R09"])
    failed = local.keeper.explanation(ids[1], state="failed", error="timeout", codes=[], verdict="failed")
    local.keeper.commit([again, failed])
    local.project(local.ship())

    def found(**over: object) -> list[str]:
        return [row.id for row in queries.page(local.database, wanted(**over), limit=10).rows]

    assert found(state="ready") == [ids[2], ids[0]]
    assert found(state="failed") == [ids[1]]
    assert found(reason="R07") == [ids[2]]
    assert found(reason="R09") == [ids[0]]
    assert found(state="none") == []


def test_a_page_behind_many_superseded_rows_goes_on_by_its_cursor(local: Deployment) -> None:
    first = local.gateway.decisions(3, size=10)
    local.keeper.commit([local.keeper.extraction(first)])
    for _ in range(5):
        batch = local.gateway.decisions(400, size=10)
        local.keeper.commit([local.keeper.extraction(batch)])
        local.keeper.commit([local.keeper.extraction(batch, label="approved")])
    local.project(local.ship())
    denied = wanted(labels=["denied"])
    page, pages = queries.page(local.database, denied, limit=10), 1
    while page.cursor is not None:
        assert page.rows == ()
        page, pages = queries.page(local.database, denied, limit=10, cursor=page.cursor), pages + 1
    assert [row.id for row in page.rows] == [decode(record.entry)["id"] for record in reversed(first.records)]
    assert pages == 2


def test_explanations_accesses_and_changes_are_listed_newest_first(deployment: Deployment) -> None:
    ids = deployment.record()
    again = deployment.keeper.explanation(ids[0], state="failed", error="timeout", codes=[], verdict="failed")
    refused = deployment.keeper.access(ids[1], outcome="refused", reason="no_ticket", rows=0, case=None)
    deployment.keeper.commit([again, refused])
    deployment.project(deployment.ship())
    database = deployment.database
    explained = queries.explanations(database, ids[0])
    assert [(row.state, row.error, row.codes) for row in explained] == [
        ("failed", "timeout", ()),
        ("ready", None, ("R01", "R07")),
    ]
    looks = queries.accesses(database, "acme", EVER)
    assert [(look.decision, look.outcome, look.rows) for look in looks] == [
        (ids[1], "refused", 0),
        (ids[0], "granted", 1),
    ]
    assert len(queries.accesses(database, "acme", EVER, decision=ids[0])) == 1
    assert len(queries.accesses(database, "acme", EVER, cases=["p1.case"])) == 1
    assert queries.accesses(database, "acme", EVER, actor="nobody") == queries.accesses(database, "other", EVER) == []
    changes = queries.lifecycle(database, event="model_registered")
    assert [(change.object, change.name, change.version) for change in changes] == [("model", "m", None)]
    assert queries.lifecycle(database, Span(0, 1)) == []


def test_entries_are_found_by_place_by_decision_and_by_kind(deployment: Deployment) -> None:
    ids = deployment.record()
    deployment.ship()
    database = deployment.database
    closing = queries.entry_of_decision(database, ids[0])
    assert closing is not None
    assert (closing.kind, closing.entry) == ("decision", deployment.gateway.entries[0])
    assert queries.entry(database, "acme/gateway-0/1", 99) is None
    assert queries.entry_of_decision(database, UNKNOWN) is None
    about = queries.entries_about_decision(database, ids[0])
    assert [row.kind for row in about] == ["decision", "explanation", "access"]
    latest = queries.latest_entries(database, "acme", ["decision"], EVER, routes=["mortgage"], limit=2)
    assert [row.id for row in latest] == ids[:0:-1]
    assert queries.latest_entries(database, "acme", ["decision"], EVER, routes=["none"]) == []


def test_statements_are_read_whole_page_by_page_and_oldest_first(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.record()
    deployment.ship()
    database = deployment.database
    kinds = ["decision", "explanation", "access", "extraction"]
    whole = queries.statements(database, "acme", kinds)
    assert len(whole) > 6
    assert [(row.ts_ns, row.origin, row.seq) for row in whole] == sorted((r.ts_ns, r.origin, r.seq) for r in whole)
    monkeypatch.setattr(queries, "PAGE", replace(queries.PAGE, rows_max=2))
    assert queries.statements(database, "acme", kinds) == whole
    assert queries.statements(database, "nobody", kinds) == []
    monkeypatch.setattr(queries, "STATEMENTS_MAX", 3)
    with pytest.raises(QueryError, match="more than 3 entries"):
        queries.statements(database, "acme", kinds)
    origin = whole[0].origin
    assert queries.shipped(database, origin) > max(row.seq for row in whole if row.origin == origin)
    assert queries.shipped(database, "acme/nowhere/1") == 0


def test_parts_keys_and_headers_of_an_entry(deployment: Deployment) -> None:
    ids = deployment.record()
    deployment.ship()
    database, batch = deployment.database, deployment.gateway.batches[0]
    parts = queries.parts(database, "acme/gateway-0/1", 0, [ids[0]])
    assert [(part.index, part.chunk, part.data) for part in parts] == [(p.index, 0, p.data) for p in batch.parts[:2]]
    (key,) = queries.wrapped_keys(database, "acme/gateway-0/1", 0, [ids[0]])
    assert (key.key_id, key.wrapped, key.segment) == (ids[0], batch.keys[0].wrapped, 0)
    assert queries.segment_header(database, "acme/gateway-0/1", 0) == deployment.gateway.headers[0]
    assert queries.segment_header(database, "acme/gateway-0/1", 5) is None
    assert queries.parts(database, "acme/gateway-0/1", 0, []) == queries.wrapped_keys(database, "x", 0, []) == []


def test_counts_and_origins(local: Deployment) -> None:
    local.record()
    local.project(local.ship())
    assert queries.origins(local.database) == {"acme/gateway-0/1": (3, 0, 3), "acme/keeper/1": (6, 0, 6)}
    counts = queries.counts_by_kind(local.database)
    assert counts == {"access": 1, "decision": 3, "explanation": 3, "extraction": 1, "lifecycle": 1}
    assert queries.counts_by_state(local.database) == {"ready": 3}


def test_the_newest_checkpoint_that_covers_an_entry(embedded: Database, tmp_path: Path) -> None:
    deployment = Deployment(embedded, tmp_path)
    deployment.gateway.decisions(4, size=10)
    published(embedded, tmp_path, deployment.gateway)
    found = queries.checkpoint_covering(embedded, deployment.gateway.origin, 3)
    assert found is not None
    assert (found.size, found.ts_ns) == (4, START_NS)


def test_every_statement_is_bounded() -> None:
    for file in ("queries.sql", "audit.sql"):
        assert len(queries.blocks(file)) > 10
    for name, sql in queries.blocks("queries.sql").items():
        assert "LIMIT" in sql, name


def test_random_case_names_never_break_a_statement(local: Deployment) -> None:
    names = [os.urandom(9).hex(), "'", "\\", "\n", "é🙂", "{case:String}", "%s"]
    assert queries.page(local.database, wanted(cases=names, routes=names, labels=names), limit=5).rows == ()
