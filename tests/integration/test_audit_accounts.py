"""Verification: what was written beside the entries to excuse damage excuses nothing, and the sums must be right."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import coverage
from storage.clickhouse import Database
from storage.entries import Draft, decode
from storage.segment import StoredPart, vouch_text
from storage.verify import Report, Verdict
from storage.windows import PIECES_MAX
from tests.integration.test_audit import (  # noqa: F401 - fixtures
    CHANGED,
    GATEWAY,
    KEEPER,
    OF_GATEWAYS,
    SEVENTH,
    TAMPERING,
    Deployment,
    deployment,
    named,
    template,
    unknown,
)
from tests.support.batches import HOST, Shard, described

LOG = "acme_gateway-0_1.log"
Tamper = Callable[[Deployment], None]


def line(**value: Any) -> bytes:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return b"%08x %s\n" % (google_crc32c.value(text), text)


def log_of(made: Deployment) -> Path:
    return made.data / "ship" / LOG


def names(report: Report, verdict: Verdict = Verdict.FAIL) -> set[tuple[str, str]]:
    return {(claim.name, claim.origin) for claim in report.claims if claim.verdict is verdict}


# --- how far it goes ------------------------------------------------------------------------------------------


def test_a_ship_log_that_says_less_does_not_shorten_the_verification(deployment: Deployment) -> None:  # noqa: F811
    log_of(deployment).write_bytes(line(op="base", origin=GATEWAY, number=1, end=1, stop=[0, 4096], month=202603))
    deployment.change(f"ALTER TABLE entries UPDATE entry = {CHANGED} WHERE origin = '{GATEWAY}' AND seq = 70")
    report = deployment.verify()
    assert report.checked[GATEWAY] == 82
    assert {("ship log", GATEWAY, None), ("entries", GATEWAY, 70)} <= named(report)


@pytest.mark.parametrize("at", range(5, 900, 60))
def test_any_damaged_byte_of_a_ship_log_is_told(deployment: Deployment, at: int) -> None:  # noqa: F811
    raw = bytearray(log_of(deployment).read_bytes())
    raw[at % (len(raw) - 1)] ^= 1
    log_of(deployment).write_bytes(bytes(raw))
    assert "ship log" in {claim for claim, _, _ in named(deployment.verify())}


def test_a_ship_log_that_is_gone_is_told(deployment: Deployment) -> None:  # noqa: F811
    log_of(deployment).unlink()
    assert ("ship log", GATEWAY, None) in named(deployment.verify())


def test_a_line_of_the_ship_log_that_is_just_being_written_is_no_damage(deployment: Deployment) -> None:  # noqa: F811
    with log_of(deployment).open("ab") as file:
        file.write(line(op="seal", origin=GATEWAY, number=2)[:20])
    assert deployment.verify().exit_code == 0


def test_a_ship_log_that_says_more_than_the_journal_holds_is_told(deployment: Deployment) -> None:  # noqa: F811
    log_of(deployment).write_bytes(line(op="base", origin=GATEWAY, number=1, end=90, stop=[41, 9000], month=202603))
    assert {("ship log", GATEWAY, None), ("entries", GATEWAY, 82)} <= named(deployment.verify())


def test_lines_of_a_ship_log_without_their_place_are_told(deployment: Deployment) -> None:  # noqa: F811
    whole = log_of(deployment).read_bytes()
    log_of(deployment).write_bytes(whole + line(op="shipped", origin=GATEWAY, number=9))
    assert ("ship log", GATEWAY, None) in named(deployment.verify())


def test_the_signed_size_says_how_far_entries_must_go_without_ship_log_and_journal(
    deployment: Deployment,  # noqa: F811
) -> None:
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq >= 60")
    for table in ("checkpoints", "tiles"):
        deployment.change(f"ALTER TABLE {table} DELETE WHERE origin = '{GATEWAY}'")
    log_of(deployment).write_bytes(line(op="base", origin=GATEWAY, number=1, end=60, stop=[41, 5000], month=202603))
    assert ("entries", GATEWAY, 60) in named(deployment.verify(journal=False))


def test_a_shard_that_is_dropped_from_all_entries_is_missed_by_its_checkpoints(deployment: Deployment) -> None:  # noqa: F811
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}'")
    assert ("checkpoints", GATEWAY) in names(deployment.verify(data=False))


# --- typed rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b'{"cursors": {}, "generation": 0, "v": 1}'])
def test_a_cursor_does_not_excuse_a_typed_row_that_was_changed(
    deployment: Deployment,  # noqa: F811
    content: bytes | None,
) -> None:
    path = deployment.data / "ship" / "projection.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert deployment.verify().exit_code == 0
    deployment.change("ALTER TABLE decisions UPDATE label = 'approved' WHERE seq = 7")
    assert ("projections", GATEWAY, 7) in named(deployment.verify())


def test_rows_that_the_projector_has_yet_to_make_are_counted_and_no_pass(deployment: Deployment) -> None:  # noqa: F811
    path = deployment.data / "ship" / "projection.json"
    path.write_bytes(orjson.dumps({"cursors": {GATEWAY: 82, KEEPER: 42}, "generation": 0, "v": 1}))
    deployment.change(f"ALTER TABLE explanations DELETE WHERE origin = '{KEEPER}' AND seq >= 42")
    report = deployment.verify()
    assert unknown(report) == {("projections", KEEPER)}
    assert [claim.detail[:13] for claim in report.claims if claim.verdict is Verdict.UNKNOWN] == ["40 typed rows"]
    deployment.change(f"ALTER TABLE explanations DELETE WHERE origin = '{KEEPER}' AND seq = 3")
    assert ("projections", KEEPER, 3) in named(deployment.verify())


def test_a_damaged_cursor_is_told(deployment: Deployment) -> None:  # noqa: F811
    (deployment.data / "ship" / "projection.json").write_bytes(b"{")
    assert ("projections", KEEPER, None) in named(deployment.verify())


def test_typed_rows_that_are_there_very_often_are_a_finding(deployment: Deployment) -> None:  # noqa: F811
    deployment.change("INSERT INTO decisions SELECT d.* FROM decisions AS d CROSS JOIN numbers(100) AS x")
    assert "projections" in {claim for claim, _, _ in named(deployment.verify())}


def test_entries_that_are_there_very_often_are_a_finding(deployment: Deployment) -> None:  # noqa: F811
    deployment.change(f"INSERT INTO entries SELECT e.* FROM ({SEVENTH_ROW}) AS e CROSS JOIN numbers(60000) AS x")
    report = deployment.verify()
    assert "there 60001 times" in {claim.detail for claim in report.broken if claim.seq == 7}


SEVENTH_ROW = f"SELECT * FROM entries WHERE origin = '{GATEWAY}' AND seq = 7"


# --- headers --------------------------------------------------------------------------------------------------


def forged_header(made: Deployment, **over: bytes) -> None:
    """Replace the first header by one that is sound in itself."""
    ((raw,),) = made.database.rows(
        "SELECT header FROM segment_keys WHERE origin = {o:String} AND first_seq = 0", {"o": GATEWAY}
    )
    header = bytearray(raw)
    places = {"process": 48, "sealed": 176}
    for name, value in over.items():
        at = places.get(name) or int(name.removeprefix("at"))
        header[at : at + len(value)] = value
    header[4092:] = struct.pack("<I", google_crc32c.value(bytes(header[:4092])))
    made.change(f"ALTER TABLE segment_keys DELETE WHERE origin = '{GATEWAY}' AND first_seq = 0")
    row = (GATEWAY, 0, bytes(header))
    made.database.insert("segment_keys", ("origin", "first_seq", "header"), [row], token="forged")


def vouched(host: Ed25519PrivateKey) -> bytes:
    """Process key, host key and vouch of another writer."""
    process = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return process + host.public_key().public_bytes_raw() + host.sign(vouch_text(GATEWAY, process))


def test_a_header_by_a_host_that_is_not_trusted_is_told_without_the_journal(deployment: Deployment) -> None:  # noqa: F811
    forged_header(deployment, process=vouched(Ed25519PrivateKey.generate()))
    assert ("segments", GATEWAY, 0) in named(deployment.verify(journal=False))


def test_a_header_that_the_journal_has_otherwise_is_told(deployment: Deployment) -> None:  # noqa: F811
    forged_header(deployment, process=vouched(HOST))  # with the stolen host key
    assert ("segments", GATEWAY, 0) in named(deployment.verify())


def test_another_sealed_segment_key_does_not_open_without_the_journal(deployment: Deployment) -> None:  # noqa: F811
    forged_header(deployment, sealed=bytes(80))
    assert ("segments", GATEWAY, 0) in named(deployment.verify(journal=False))


def test_a_header_that_only_the_journal_has_is_missed(deployment: Deployment) -> None:  # noqa: F811
    deployment.change(f"ALTER TABLE segment_keys DELETE WHERE origin = '{KEEPER}'")
    assert ("segments", KEEPER, 0) in named(deployment.verify())


# --- checkpoints and tiles ------------------------------------------------------------------------------------


def test_published_checkpoints_that_are_gone_cannot_be_told(deployment: Deployment) -> None:  # noqa: F811
    deployment.change(f"ALTER TABLE checkpoints DELETE WHERE origin = '{GATEWAY}'")
    assert unknown(deployment.verify()) == {("checkpoints", GATEWAY)}


@pytest.fixture
def tiled(embedded: Database, tmp_path: Path) -> Deployment:
    return Deployment(embedded, tmp_path, decisions=260)


def test_tiles_that_are_gone_cannot_be_told_and_others_are_broken(tiled: Deployment) -> None:
    of_two = f"origin = '{GATEWAY}' AND level = 0"
    assert tiled.verify().exit_code == 0
    tiled.change(f"INSERT INTO tiles SELECT * FROM tiles WHERE {of_two} AND n = 1")
    assert ("tiles", GATEWAY, None) in named(tiled.verify())
    tiled.change(f"ALTER TABLE tiles DELETE WHERE {of_two} AND n = 0")
    assert ("tiles", GATEWAY, None) in named(tiled.verify())
    tiled.change(f"ALTER TABLE tiles DELETE WHERE {of_two}")
    assert unknown(tiled.verify()) == {("tiles", GATEWAY)}
    tiled.change(f"INSERT INTO tiles VALUES ('{GATEWAY}', 3, 0, 'x')")
    assert ("tiles", GATEWAY, None) in named(tiled.verify())


def test_upper_tiles_are_made_of_those_below(embedded: Database, tmp_path: Path) -> None:
    made = Deployment(embedded, tmp_path, decisions=4)
    for _ in range(66):
        made.keeper.commit([made.keeper.draft("metric", tenant="*") for _ in range(1_000)])
    made.settle()
    assert made.verify(journal=False).exit_code == 0
    upper = f"origin = '{KEEPER}' AND level = 1"
    made.change(f"ALTER TABLE tiles UPDATE hashes = reverse(hashes) WHERE {upper}")
    assert ("tiles", KEEPER, 0) in named(made.verify(journal=False))
    made.change(f"ALTER TABLE tiles UPDATE hashes = 'x' WHERE origin = '{KEEPER}' AND level = 0 AND n = 3")
    assert ("tiles", KEEPER, None) in named(made.verify(journal=False))


def test_a_month_that_the_ship_log_has_not_come_to_is_told(deployment: Deployment) -> None:  # noqa: F811
    deployment.change(f"INSERT INTO entries SELECT * REPLACE (202604 AS month) FROM ({LAST_ROW})")
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq = 81 AND month != 202604")
    assert ("entries", GATEWAY, None) in named(deployment.verify())


LAST_ROW = f"SELECT * FROM entries WHERE origin = '{GATEWAY}' AND seq = 81"


def test_a_ship_log_of_another_origin_in_the_place_is_told(deployment: Deployment) -> None:  # noqa: F811
    log_of(deployment).write_bytes((deployment.data / "ship" / "acme_keeper_1.log").read_bytes())
    assert ("ship log", GATEWAY, None) in named(deployment.verify())


# --- where rows are filed ---------------------------------------------------------------------------------------


def moved(column: str, value: str) -> str:
    kept = f"SELECT * REPLACE ({value} AS {column}) FROM ({SEVENTH_ROW})"
    return f"INSERT INTO entries {kept}"


@pytest.mark.parametrize("month", [209912, 202602])
def test_a_month_that_goes_back_is_told(deployment: Deployment, month: int) -> None:  # noqa: F811
    deployment.change(moved("month", str(month)))
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq = 7 AND month != {month}")
    assert {("entries", GATEWAY, 7), ("entries", GATEWAY, 8)} & named(deployment.verify(journal=False))


def test_parts_of_another_class_than_their_entry_are_told(deployment: Deployment) -> None:  # noqa: F811
    deployment.change("INSERT INTO parts SELECT * REPLACE ('short' AS retention) FROM parts WHERE at = 1")
    deployment.change("ALTER TABLE parts DELETE WHERE at = 1 AND retention != 'short'")
    assert ("parts", GATEWAY, 7) in named(deployment.verify(journal=False))


@pytest.mark.parametrize(("at", "journal"), [(0, True), (60, False)])
def test_parts_and_keys_that_are_filed_elsewhere_are_told(
    deployment: Deployment,  # noqa: F811
    at: int,
    journal: bool,
) -> None:
    for table in ("parts", "keys"):
        first = f"SELECT * FROM {table} WHERE at = 1"
        deployment.change(f"INSERT INTO {table} SELECT * REPLACE ({at} AS at) FROM ({first})")
        deployment.change(f"ALTER TABLE {table} DELETE WHERE at = 1")
    found = named(deployment.verify(journal=journal))
    assert {("parts", GATEWAY, 7), ("keys", GATEWAY, 7)} <= found


def test_content_without_an_entry_may_be_of_a_lost_call_where_the_journal_is_gone(deployment: Deployment) -> None:  # noqa: F811
    deployment.gateway.commit([deployment.gateway.draft("gap", tenant="*", fields=GAP)])
    deployment.settle()
    deployment.change(
        f"INSERT INTO parts SELECT * REPLACE (generateUUIDv4() AS key_id) FROM parts {OF_GATEWAYS} LIMIT 1"
    )
    assert ("parts", GATEWAY) in names(deployment.verify())  # the journal knows of no such content
    report = deployment.verify(journal=False)
    assert (report.exit_code, unknown(report)) == (2, {("parts", GATEWAY)})


GAP = {"why": "running", "lost": 1, "shed": 0, "count": "known"}


def edited_header(made: Deployment, at: int, value: bytes) -> None:
    """Write into the first header, and make its checksum right."""
    forged_header(made, **{f"at{at}": value})


def test_bytes_that_mean_nothing_in_a_header_are_told(deployment: Deployment) -> None:  # noqa: F811
    edited_header(deployment, 300, b"x")
    assert ("segments", GATEWAY, 0) in named(deployment.verify(journal=False))


def test_a_header_behind_the_last_entry_is_told(deployment: Deployment) -> None:  # noqa: F811
    deployment.change(f"INSERT INTO segment_keys SELECT origin, 7777, header FROM segment_keys {OF_GATEWAYS} LIMIT 1")
    assert ("segments", GATEWAY, 7777) in named(deployment.verify(journal=False))


def test_more_chunks_than_are_looked_at_are_a_finding(deployment: Deployment) -> None:  # noqa: F811
    many = f"SELECT p.* REPLACE (toUInt32(x.number) AS chunk) FROM parts AS p CROSS JOIN numbers({PIECES_MAX + 1}) AS x"
    deployment.change(f"INSERT INTO parts {many} WHERE key_id IN ({SEVENTH}) AND part = 0")
    report = deployment.verify()
    assert ("parts", GATEWAY, 0) in named(report)
    assert ("parts", GATEWAY, 7) in named(report)


def test_entries_before_what_is_left_of_the_journal_must_lead_to_its_commits(deployment: Deployment) -> None:  # noqa: F811
    (deployment.data / "journal" / "gateway-0" / f"{0:020d}.jrn").unlink()
    assert deployment.verify().exit_code == 0
    deployment.change(TAMPERING["change an entry and its leaf"][0])
    assert {("tree", GATEWAY), ("journal", GATEWAY)} <= names(deployment.verify())


# --- streams --------------------------------------------------------------------------------------------------


def streamed(made: Deployment, *, lost: bool, **over: Any) -> Draft:
    """A call whose request stands with its begin entry, and whose answer comes in two chunks; its closing entry."""
    shard = made.gateway
    draft, stored, key = shard.decision(size=10)
    request = draft.parts[0]
    begin = shard.draft("begin", decision=draft.id, route="mortgage", parts=(request,), fields={"retention": "default"})
    shard.commit([begin], stored[:1], [key])
    chunks = [StoredPart(key.key_id, 1, number, bytes([number]) * 9) for number in range(2)]
    shard.commit(parts=chunks)
    shard.heartbeat(accepted=shard.closed + 1, open=1)
    joined = StoredPart(key.key_id, 1, 0, b"".join(chunk.data for chunk in chunks))
    answer = described("response", joined, chunks=2, dek=shard.deks[key.key_id])
    if not lost:
        return replace(draft, parts=(request, answer))
    found = [{name: part.as_json()[name] for name in FOUND} for part in (request, answer)]
    fields: Any = {**draft.fields, "error": "gateway_lost", "found": found, **over}
    return replace(draft, parts=(request,), fields={name: said for name, said in fields.items() if said is not None})


FOUND = ("key", "index", "chunks", "len", "sha256")


@pytest.mark.parametrize("lost", [True, False])
def test_a_stream_is_whole_while_it_is_open_and_when_it_is_closed(deployment: Deployment, lost: bool) -> None:  # noqa: F811
    closing = streamed(deployment, lost=lost)
    deployment.settle()
    assert deployment.verify().exit_code == 0
    deployment.gateway.commit([closing])
    deployment.settle()
    assert deployment.verify().exit_code == 0
    assert deployment.verify(journal=False).exit_code == 0
    deployment.change("ALTER TABLE parts DELETE WHERE part = 1 AND chunk = 1")
    assert ("parts", GATEWAY, 84) in named(deployment.verify(journal=False))


def test_content_that_a_lost_call_does_not_state_is_told_unless_it_states_none(deployment: Deployment) -> None:  # noqa: F811
    short = streamed(deployment, lost=True)
    found: Any = short.fields["found"]
    deployment.gateway.commit([replace(short, fields={**short.fields, "found": found[:1]})])
    deployment.gateway.commit([streamed(deployment, lost=True, found=None)])  # its entry had no room for it
    deployment.settle()
    report = deployment.verify()
    assert {(name, seq) for name, _, seq in named(report)} == {("parts", 84)}


# --- sums -----------------------------------------------------------------------------------------------------


def closing(shard: Shard) -> tuple[Draft, list[StoredPart], Any]:
    return shard.decision(size=10)


def closed_twice(made: Deployment) -> None:
    draft, parts, key = closing(made.gateway)
    made.gateway.commit([draft], parts, [key])
    made.gateway.commit([replace(draft, parts=())])


def closed_under_another_id(made: Deployment) -> None:
    draft, parts, key = closing(made.gateway)
    made.gateway.commit([replace(draft, id=made.gateway.ids.new())], parts, [key])


def lost_without_a_gap(made: Deployment) -> None:
    made.gateway.heartbeat(lost=5, accepted=made.gateway.closed + 5)


def a_gap_without_a_loss(made: Deployment) -> None:
    made.gateway.commit([made.gateway.draft("gap", tenant="*", fields=GAP)])
    made.gateway.heartbeat()


def a_heartbeat_of_another_place(made: Deployment) -> None:
    fields = {**decode(made.gateway.entries[0]), "at": 3}
    said = {name: fields[name] for name in ("at", "counters", "scopes", "sheet", "sheets")}
    made.gateway.commit([made.gateway.draft("heartbeat", tenant="*", fields=said)])


def shed_without_a_gap(made: Deployment) -> None:
    made.gateway.heartbeat(shed=1)


def a_number_of_the_scope_left_out(made: Deployment) -> None:
    made.gateway.scopes["acme", "mortgage"] += 1
    made.gateway.decisions(2, size=10)


def a_scope_that_heartbeats_do_not_state(made: Deployment) -> None:
    made.gateway.decisions(1, route="cards", size=10)
    del made.gateway.scopes["acme", "cards"]
    made.gateway.heartbeat()


def a_scope_that_heartbeats_overstate(made: Deployment) -> None:
    made.gateway.scopes["acme", "cards"] = 7
    made.gateway.heartbeat()


SUMS: dict[str, tuple[Tamper, str, int]] = {
    "closed twice": (closed_twice, "counters", 83),
    "closed under another id": (closed_under_another_id, "counters", 82),
    "lost without a gap": (lost_without_a_gap, "counters", 82),
    "a gap without a loss": (a_gap_without_a_loss, "counters", 83),
    "a heartbeat of another place": (a_heartbeat_of_another_place, "counters", 82),
    "shed without a gap": (shed_without_a_gap, "counters", 82),
    "a number of the scope left out": (a_number_of_the_scope_left_out, "scopes", 82),
    "a scope that heartbeats do not state": (a_scope_that_heartbeats_do_not_state, "scopes", 83),
    "a scope that heartbeats overstate": (a_scope_that_heartbeats_overstate, "scopes", 82),
}


@pytest.mark.parametrize("name", SUMS)
def test_what_a_writer_states_falsely_is_told(deployment: Deployment, name: str) -> None:  # noqa: F811
    tamper, claim, seq = SUMS[name]
    tamper(deployment)
    deployment.settle()
    assert (claim, GATEWAY, seq) in named(deployment.verify())


# --- extractions ----------------------------------------------------------------------------------------------


def extracted(made: Deployment, change: Callable[[list[list[Any]]], object], **over: Any) -> None:
    batch = made.gateway.decisions(3, size=10)
    draft = made.keeper.extraction(batch)
    rows = [list(row) for row in draft.fields["rows"]]  # type: ignore[attr-defined]  # a list of lists
    change(rows)
    made.keeper.commit([replace(draft, fields={**draft.fields, "rows": rows, **over})])
    made.settle()


def other_decision(rows: list[list[Any]]) -> None:
    rows[0][0] = "019cb39d-f7ab-7000-9da7-53fa721eb629"


def other_leaf(rows: list[list[Any]]) -> None:
    rows[0][1] = "A" * 43


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda _: None, None),
        (other_decision, (KEEPER, 84)),
        (other_leaf, (KEEPER, 84)),
        (lambda rows: rows.pop(1), (GATEWAY, 83)),
        (lambda rows: rows.reverse(), (KEEPER, 84)),
        (lambda rows: rows.append(rows[0]), (KEEPER, 84)),
    ],
)
def test_an_extraction_names_the_decisions_that_it_covers_and_no_others(
    deployment: Deployment,  # noqa: F811
    change: Callable[[list[list[Any]]], object],
    place: tuple[str, int] | None,
) -> None:
    extracted(deployment, change)
    found = {(where, seq) for name, where, seq in named(deployment.verify()) if name == "extraction"}
    assert found == set() if place is None else place in found


def test_decisions_between_two_extractions_are_missed(deployment: Deployment) -> None:  # noqa: F811
    deployment.gateway.decisions(2, size=10)
    extracted(deployment, lambda _: None)
    assert {("extraction", GATEWAY, 82), ("extraction", GATEWAY, 83)} <= named(deployment.verify())


def test_decisions_that_wait_for_their_extraction_are_no_finding(deployment: Deployment) -> None:  # noqa: F811
    deployment.gateway.decisions(2, size=10)
    deployment.settle()
    assert deployment.verify().exit_code == 0


def test_decisions_of_a_route_that_is_left_out_for_a_minute_are_missed(deployment: Deployment) -> None:  # noqa: F811
    deployment.gateway.decisions(2, route="cards", size=10)
    extracted(deployment, lambda _: None)
    assert deployment.verify().exit_code == 0  # the sheet of the other route may not be full yet
    deployment.keeper.now_ns += coverage.SETTLED_NS
    deployment.gateway.now_ns += coverage.SETTLED_NS
    extracted(deployment, lambda _: None)
    assert ("extraction", GATEWAY, 82) in named(deployment.verify())


def test_decisions_are_covered_again_by_another_extractor_only(deployment: Deployment) -> None:  # noqa: F811
    batch = deployment.gateway.batches[1]
    deployment.keeper.commit([deployment.keeper.extraction(batch, label="approved", extractor="f" * 64)])
    deployment.settle()
    assert deployment.verify().exit_code == 0
    deployment.keeper.commit([deployment.keeper.extraction(batch, label="approved", extractor="f" * 64)])
    deployment.settle()
    assert ("extraction", KEEPER, 85) in named(deployment.verify())


def test_the_places_in_these_tests_are_those_of_the_template(deployment: Deployment) -> None:  # noqa: F811
    assert (len(deployment.gateway.entries), len(deployment.keeper.entries)) == (82, 84)
    assert decode(deployment.gateway.entries[7])["kind"] == "decision"
