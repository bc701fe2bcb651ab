"""Verification: everything sound passes, and every way to tamper is named by origin and sequence number."""

import copy
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from storage import verify
from storage.audit import audit
from storage.clickhouse import Database
from storage.entries import decode, leaf_hash
from storage.errors import StorageUnavailable
from storage.freight import ENTRY_COLUMNS, Packer
from storage.ledger import Ledger
from storage.profiles import Profile
from storage.projections import Projector
from storage.proofs import Tiles
from storage.segment import StoredPart
from storage.typed import TABLES
from storage.verify import Report, Verdict
from storage.walk import Progress
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_shipper import ship_all, shipper
from tests.support.batches import START_NS, Shard, described, write_keys
from tests.support.database import opened

GATEWAY, KEEPER = "acme/gateway-0/1", "acme/keeper/1"


class Deployment:
    """Two shards in a data directory, shipped, signed, projected."""

    def __init__(self, database: Database, tmp_path: Path, *, decisions: int = 40, rounds: int = 1) -> None:
        self.database, self.data = database, tmp_path
        self.gateway, self.keeper = Shard(origin=GATEWAY), Shard(origin=KEEPER)
        write_keys(tmp_path)
        self.gateway.heartbeat()
        self.record(decisions)
        self.gateway.roll()
        self.gateway.heartbeat()
        for _ in range(rounds):
            self.record(decisions)
        self.settle()

    def record(self, count: int) -> None:
        batch = self.gateway.decisions(count, size=30)
        ids = [decode(record.entry)["id"] for record in batch.records]
        drafts = [self.keeper.extraction(batch), *map(self.keeper.explanation, ids), self.keeper.access(ids[0])]
        self.keeper.commit(drafts)

    def settle(self, *, sign: bool = True) -> None:
        """Write the journals, ship, sign, grow tiles, project."""
        ends = {}
        for shard in (self.gateway, self.keeper):
            shard.write(self.data / "journal" / shard.origin.split("/")[1])
            ship = shipper(self.database, self.data, shard)
            ship_all(ship, shard)
            ends[shard.origin] = ship.next_seq
            if sign:
                ledger = Ledger(self.data / "ship", shard.origin, key=KEY)
                ledger.apply(shard.batches)
                ledger.sign(now_ns=START_NS)
                ledger.publish(self.database)
                Tiles(self.database, shard.origin).grow(ledger.size)
        projector = Projector(self.database, self.data / "ship")
        for origin in ends:
            while projector.step(origin, ends) is not None:
                pass

    def verify(self, *, journal: bool = True, data: bool = True) -> Report:
        if not journal:
            shutil.rmtree(self.data / "journal", ignore_errors=True)
        return audit(self.database, public=PUBLIC, data=self.data if data else None)

    def change(self, sql: str) -> None:
        settings = {"mutations_sync": 2} if sql.startswith("ALTER") else {}
        self.database.command(sql, settings=settings)


@pytest.fixture(scope="module")
def template(embedded_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A sound deployment, made once and copied by each test."""
    profile = Profile(kind="chdb", database=f"template{os.getpid()}", path=embedded_path)
    with opened(profile) as database:
        yield Deployment(database, tmp_path_factory.mktemp("template"))


@pytest.fixture
def deployment(template: Deployment, embedded: Database, tmp_path: Path) -> Deployment:
    source = template.database.profile.database
    for table in (*TABLES, "entries", "parts", "keys", "segment_keys", "checkpoints", "tiles"):
        embedded.command(f"INSERT INTO {table} SELECT * FROM `{source}`.{table}")
    shutil.copytree(template.data, tmp_path, dirs_exist_ok=True)
    made = copy.copy(template)
    made.database, made.data = embedded, tmp_path
    made.gateway, made.keeper = copy.deepcopy((template.gateway, template.keeper))
    return made


def named(report: Report) -> set[tuple[str, str, int | None]]:
    return {(claim.name, claim.origin, claim.seq) for claim in report.broken}


def test_a_sound_deployment_passes_every_claim(database: Database, tmp_path: Path) -> None:
    deployment = Deployment(database, tmp_path)
    told: list[Progress] = []
    report = audit(database, public=PUBLIC, data=tmp_path, progress=told.append)
    assert report.exit_code == 0, report.broken
    assert report.checked == {GATEWAY: len(deployment.gateway.entries), KEEPER: len(deployment.keeper.entries)}
    assert report.entries == sum(report.checked.values())
    assert "82 checked" in {claim.detail for claim in report.claims if claim.name == "entries"}
    names = {claim.name for claim in report.claims}
    assert names >= {
        "entries",
        "tree",
        "checkpoints",
        "counters",
        "scopes",
        "ship log",
        "extraction",
        "tiles",
        "parts",
        "keys",
        "segments",
        "journal",
        "projections",
    }
    assert [(one.origin, one.done) for one in told] == [(GATEWAY, 82), (KEEPER, 84)]
    assert all(claim.as_json()["verdict"] == "PASS" for claim in report.claims)


def unknown(report: Report) -> set[tuple[str, str]]:
    return {(claim.name, claim.origin) for claim in report.claims if claim.verdict is Verdict.UNKNOWN}


def test_without_the_data_directory_nobody_can_tell_whose_keys_they_are(deployment: Deployment) -> None:
    report = deployment.verify(data=False)
    assert report.exit_code == 2
    both = {(name, origin) for name in ("segments", "ship log") for origin in (GATEWAY, KEEPER)}
    assert unknown(report) == {("keys", GATEWAY), *both}


def test_keys_are_proven_by_the_journal_or_by_the_master_key_and_else_unknown(deployment: Deployment) -> None:
    (deployment.data / "keys" / "master.key").unlink()
    assert deployment.verify().exit_code == 0
    report = deployment.verify(journal=False)
    assert unknown(report) == {("keys", GATEWAY)}
    write_keys(deployment.data)
    assert deployment.verify(journal=False).exit_code == 0


def test_what_is_not_shipped_yet_is_no_finding(deployment: Deployment) -> None:
    deployment.gateway.decisions(3, size=10)
    deployment.gateway.write(deployment.data / "journal" / "gateway-0")
    ledger = Ledger(deployment.data / "ship", GATEWAY, key=KEY)
    ledger.apply(deployment.gateway.batches)
    ledger.sign(now_ns=START_NS)
    ledger.publish(deployment.database)  # signed from the journal, ahead of shipping
    report = deployment.verify()
    assert report.exit_code == 0
    assert "82 checked; 3 more stand in the journal and are not shipped yet" in {one.detail for one in report.claims}


CHANGED = "replaceOne(entry, '\"status\":200', '\"status\":201')"
NEW_LEAF = f"SHA256(concat(char(0), {CHANGED}))"
OF_GATEWAY = f"FROM checkpoints WHERE origin = '{GATEWAY}'"
OF_GATEWAYS = f"WHERE origin = '{GATEWAY}'"
SEVENTH = f"SELECT id FROM entries WHERE origin = '{GATEWAY}' AND seq = 7"
FORGED_NOTE = "replaceOne(note, '82', '81')"
TAMPERING: dict[str, tuple[str, set[str], str, int]] = {
    "flip a byte of an entry": (
        f"ALTER TABLE entries UPDATE entry = {CHANGED} WHERE origin = '{GATEWAY}' AND seq = 7",
        {"entries"},
        GATEWAY,
        7,
    ),
    "change an entry and its leaf": (
        f"ALTER TABLE entries UPDATE entry = {CHANGED}, leaf = {NEW_LEAF} WHERE origin = '{GATEWAY}' AND seq = 7",
        {"entries"},
        GATEWAY,
        7,
    ),
    "change a leaf": (
        f"ALTER TABLE entries UPDATE leaf = toFixedString('x', 32) WHERE origin = '{GATEWAY}' AND seq = 7",
        {"entries"},
        GATEWAY,
        7,
    ),
    "delete a row": (f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq = 7", {"entries"}, GATEWAY, 7),
    "delete a row lightly": (f"DELETE FROM entries WHERE origin = '{GATEWAY}' AND seq = 7", {"entries"}, GATEWAY, 7),
    "delete the last row": (
        f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq = 81",
        {"entries"},
        GATEWAY,
        81,
    ),
    "duplicate a row": (
        f"INSERT INTO entries SELECT * FROM entries WHERE origin = '{GATEWAY}' AND seq = 7",
        {"entries"},
        GATEWAY,
        7,
    ),
    "file an entry under another decision": (
        f"ALTER TABLE entries UPDATE decision = generateUUIDv4() WHERE origin = '{GATEWAY}' AND seq = 7",
        {"entries"},
        GATEWAY,
        7,
    ),
    "write what is no entry": (
        f"ALTER TABLE entries UPDATE entry = 'x' WHERE origin = '{GATEWAY}' AND seq = 7",
        {"entries"},
        GATEWAY,
        7,
    ),
    "drop a whole shard": (f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}'", {"entries"}, GATEWAY, 0),
    "replace a part": (
        "ALTER TABLE parts UPDATE bytes = reverse(bytes), sha256 = SHA256(reverse(bytes)) WHERE at = 1 AND part = 1",
        {"parts"},
        GATEWAY,
        7,
    ),
    "change the digest beside a part": (
        "ALTER TABLE parts UPDATE sha256 = toFixedString('x', 32) WHERE at = 1 AND part = 1",
        {"parts"},
        GATEWAY,
        7,
    ),
    "delete parts": ("ALTER TABLE parts DELETE WHERE at = 1 AND part = 0", {"parts"}, GATEWAY, 7),
    "duplicate parts": ("INSERT INTO parts SELECT * FROM parts WHERE at = 1", {"parts"}, GATEWAY, 7),
    "delete keys without an erasure": ("ALTER TABLE keys DELETE WHERE at = 1", {"keys"}, GATEWAY, 7),
    "add second keys": (
        "INSERT INTO keys SELECT * REPLACE ('x' AS wrapped) FROM keys WHERE at = 1",
        {"keys"},
        GATEWAY,
        7,
    ),
    "replace keys": ("ALTER TABLE keys UPDATE wrapped = reverse(wrapped) WHERE at = 1", {"keys"}, GATEWAY, 7),
    "replace keys by what is none": ("ALTER TABLE keys UPDATE wrapped = 'x' WHERE at = 1", {"keys"}, GATEWAY, 7),
    "change the counters of keys": ("ALTER TABLE keys UPDATE counter = counter + 1 WHERE at = 1", {"keys"}, GATEWAY, 7),
    "file keys under another segment": ("ALTER TABLE keys UPDATE segment = 41 WHERE at = 1", {"keys"}, GATEWAY, 7),
    "duplicate a segment's header": (
        f"INSERT INTO segment_keys SELECT * FROM segment_keys WHERE origin = '{GATEWAY}' AND first_seq = 41",
        {"segments"},
        GATEWAY,
        41,
    ),
    "change the root beside a checkpoint": (
        f"ALTER TABLE checkpoints UPDATE root = toFixedString('x', 32) WHERE origin = '{GATEWAY}'",
        {"checkpoints"},
        GATEWAY,
        81,
    ),
    "change the time beside a checkpoint": (
        f"ALTER TABLE checkpoints UPDATE ts = ts + 1 WHERE origin = '{GATEWAY}'",
        {"checkpoints"},
        GATEWAY,
        81,
    ),
    "duplicate a checkpoint": (
        f"INSERT INTO checkpoints SELECT * FROM checkpoints WHERE origin = '{GATEWAY}'",
        {"checkpoints"},
        GATEWAY,
        81,
    ),
    "add a part of no entry": (
        f"INSERT INTO parts SELECT * REPLACE (generateUUIDv4() AS key_id) FROM parts {OF_GATEWAYS} LIMIT 1",
        {"parts"},
        GATEWAY,
        1,
    ),
    "add a part that its entry does not name": (
        f"INSERT INTO parts SELECT * REPLACE (9 AS part) FROM parts {OF_GATEWAYS} AND key_id IN ({SEVENTH}) LIMIT 1",
        {"parts"},
        GATEWAY,
        7,
    ),
    "add a key of no entry": (
        f"INSERT INTO keys SELECT * REPLACE (generateUUIDv4() AS key_id) FROM keys WHERE origin = '{GATEWAY}' LIMIT 1",
        {"parts"},
        GATEWAY,
        1,
    ),
    "add a part behind the last entry": (
        f"INSERT INTO parts SELECT * REPLACE (7777 AS at) FROM parts WHERE origin = '{GATEWAY}' LIMIT 1",
        {"parts"},
        GATEWAY,
        7777,
    ),
    "write a number that no ledger reaches": (
        f"INSERT INTO entries SELECT * REPLACE (18446744073709551615 AS seq) FROM entries {OF_GATEWAYS} LIMIT 1",
        {"entries"},
        GATEWAY,
        82,
    ),
    "write a number far off": (
        f"INSERT INTO entries SELECT * REPLACE (1000000000000 AS seq) FROM entries WHERE origin = '{GATEWAY}' LIMIT 1",
        {"entries"},
        GATEWAY,
        82,
    ),
    "delete a segment's header": (
        f"ALTER TABLE segment_keys DELETE WHERE origin = '{GATEWAY}' AND first_seq = 0",
        {"keys"},
        GATEWAY,
        7,
    ),
    "damage a segment's header": (
        f"ALTER TABLE segment_keys UPDATE header = reverse(header) WHERE origin = '{GATEWAY}' AND first_seq = 41",
        {"segments"},
        GATEWAY,
        41,
    ),
    "change a label": (
        "ALTER TABLE decisions UPDATE label = 'approved' WHERE seq = 7",
        {"projections"},
        GATEWAY,
        7,
    ),
    "change a score a little": (
        "ALTER TABLE decisions UPDATE score = 0.2500001 WHERE seq = 7",
        {"projections"},
        GATEWAY,
        7,
    ),
    "delete a decision's row": ("ALTER TABLE decisions DELETE WHERE seq = 7", {"projections"}, GATEWAY, 7),
    "duplicate a decision's row": (
        "INSERT INTO decisions SELECT * FROM decisions WHERE seq = 7",
        {"projections"},
        GATEWAY,
        7,
    ),
    "change a reason": (
        "ALTER TABLE explanations UPDATE codes = ['R99'] WHERE seq = 3",
        {"projections"},
        KEEPER,
        3,
    ),
    "hide a look": ("ALTER TABLE accesses DELETE WHERE seq = 41", {"projections"}, KEEPER, 41),
    "forge a typed row": (
        "INSERT INTO explanations SELECT * REPLACE (999 AS seq) FROM explanations LIMIT 1",
        {"projections"},
        KEEPER,
        999,
    ),
    "forge a typed row of nowhere": (
        "INSERT INTO explanations SELECT * REPLACE ('acme/none/1' AS origin, 5 AS seq) FROM explanations LIMIT 1",
        {"projections"},
        "acme/none/1",
        5,
    ),
    "forge a checkpoint": (
        f"INSERT INTO checkpoints SELECT * REPLACE ({FORGED_NOTE} AS note, 81 AS size) {OF_GATEWAY}",
        {"checkpoints"},
        GATEWAY,
        80,
    ),
    "file a checkpoint under another size": (
        f"INSERT INTO checkpoints SELECT * REPLACE (50 AS size) FROM checkpoints WHERE origin = '{GATEWAY}'",
        {"checkpoints"},
        GATEWAY,
        49,
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_named_by_origin_and_sequence_number(deployment: Deployment, name: str) -> None:
    sql, claims, origin, seq = TAMPERING[name]
    deployment.change(sql)
    report = deployment.verify()
    assert report.exit_code == 1
    assert claims & {claim for claim, where, _ in named(report) if where == origin}
    assert (origin, seq) in {(where, at) for _, where, at in named(report)}
    without = deployment.verify(journal=False)
    if name == "change an entry and its leaf":
        assert ("tree", GATEWAY, 0) in named(without)  # no full tile: the tree says between which checkpoints
    else:
        assert (origin, seq) in {(where, at) for _, where, at in named(without)}


def test_a_full_tile_names_an_entry_that_was_changed_with_its_leaf(embedded: Database, tmp_path: Path) -> None:
    deployment = Deployment(embedded, tmp_path, decisions=260)
    deployment.change(TAMPERING["change an entry and its leaf"][0])
    report = deployment.verify(journal=False)
    assert ("entries", GATEWAY, 7) in named(report)
    assert not {name for name, _, _ in named(report)} - {"entries", "projections", "extraction"}


def test_an_entry_its_leaf_and_its_tile_changed_together_break_the_signed_root(
    embedded: Database, tmp_path: Path
) -> None:
    deployment = Deployment(embedded, tmp_path, decisions=260)
    deployment.change(TAMPERING["change an entry and its leaf"][0])
    where = {"origin": GATEWAY, "seq": 7}
    ((leaf,),) = embedded.rows("SELECT leaf FROM entries WHERE origin = {origin:String} AND seq = {seq:UInt64}", where)
    ((hashes,),) = embedded.rows("SELECT hashes FROM tiles WHERE origin = {origin:String} AND n = 0", where)
    forged = (hashes[: 7 * 32] + leaf + hashes[8 * 32 :]).hex()
    deployment.change(f"ALTER TABLE tiles UPDATE hashes = unhex('{forged}') WHERE origin = '{GATEWAY}' AND n = 0")
    with_journal = deployment.verify()
    assert {("entries", GATEWAY, 7), ("tiles", GATEWAY, 7)} <= named(with_journal)
    without = deployment.verify(journal=False)
    assert ("tree", GATEWAY, 0) in named(without)


def test_swapped_numbers_are_named_both(deployment: Deployment) -> None:
    rows = deployment.database.rows(f"SELECT * FROM entries WHERE origin = '{GATEWAY}' AND seq IN (7, 8) ORDER BY seq")
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq IN (7, 8)")
    swapped = [(a[0], b[1], *a[2:]) for a, b in (rows, rows[::-1])]
    columns = [
        name
        for (name,) in deployment.database.rows(
            "SELECT name FROM system.columns WHERE database = {db:String} AND table = 'entries' ORDER BY position",
            {"db": deployment.database.profile.database},
        )
    ]
    deployment.database.insert("entries", columns, swapped, token="swapped")
    assert {("entries", GATEWAY, 7), ("entries", GATEWAY, 8)} <= named(deployment.verify())


def forged_row(deployment: Deployment, seq: int) -> None:
    """An entry that says all that an entry of this place would say."""
    identifier = deployment.gateway.ids.new()
    said = decode(deployment.gateway.entries[7])
    said |= {"seq": seq, "scope_seq": seq - 2, "id": identifier, "decision": identifier, "parts": []}
    entry = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    row = list(Packer(GATEWAY).pack(deployment.gateway.batches[1:2], month=202603).entries.rows[6])
    row[ENTRY_COLUMNS.index("seq")] = seq
    row[ENTRY_COLUMNS.index("id")] = row[ENTRY_COLUMNS.index("decision")] = UUID(identifier)
    row[-2:] = [entry, leaf_hash(entry)]
    deployment.database.insert("entries", ENTRY_COLUMNS, [row], token="forged")


def test_a_forged_row_at_the_end_is_one_that_the_journal_never_recorded(deployment: Deployment) -> None:
    forged_row(deployment, 82)
    assert ("entries", GATEWAY, 82) in named(deployment.verify())


def test_a_forged_row_at_the_end_cannot_be_told_without_journal_and_logs(deployment: Deployment) -> None:
    forged_row(deployment, 82)
    report = deployment.verify(data=False)
    assert report.exit_code == 2
    assert ("tail", 82) in [(c.name, c.seq) for c in report.claims if c.verdict is Verdict.UNKNOWN]


def test_the_last_rows_after_the_last_checkpoint_are_compared_with_the_journal(deployment: Deployment) -> None:
    deployment.gateway.decisions(5, size=10)
    deployment.settle(sign=False)
    assert deployment.verify().exit_code == 0
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq >= 85")
    assert ("entries", GATEWAY, 85) in named(deployment.verify())


def test_a_damaged_journal_is_told_from_a_damaged_database(deployment: Deployment) -> None:
    path = deployment.data / "journal" / "gateway-0" / f"{41:020d}.jrn"
    raw = bytearray(path.read_bytes())
    raw[6_000] ^= 1
    path.write_bytes(raw)
    report = deployment.verify()
    assert {name for name, _, _ in named(report)} == {"journal"}


def test_a_segment_of_another_writer_in_the_journals_place_is_found(deployment: Deployment) -> None:
    other = Shard(origin=GATEWAY)
    other.heartbeat()
    for _ in range(2):
        other.decisions(40, size=30)
    directory = deployment.data / "journal" / "gateway-0"
    for path in directory.iterdir():
        path.unlink()
    other.write(directory)
    assert ("entries", GATEWAY, 7) in named(deployment.verify())


def test_a_checkpoint_by_another_key_is_broken(deployment: Deployment) -> None:
    report = audit(deployment.database, public=b"\x01" * 32)
    assert ("checkpoints", GATEWAY, 81) in named(report)


def test_a_damaged_second_place_is_told(deployment: Deployment) -> None:
    (deployment.data / "ship" / "acme_gateway-0_1.checkpoint").write_bytes(b"{}")
    assert ("checkpoints", GATEWAY, None) in named(deployment.verify())


def test_an_old_backup_of_the_database_is_found_by_the_second_place(deployment: Deployment) -> None:
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq > 40")
    deployment.change(f"ALTER TABLE checkpoints DELETE WHERE origin = '{GATEWAY}'")
    assert ("entries", GATEWAY, 41) in named(deployment.verify(journal=False))


def test_content_is_erased_only_where_an_entry_says_so(deployment: Deployment) -> None:
    key = decode(deployment.gateway.entries[7])["parts"][0]["key"]
    for table in ("keys", "parts"):
        deployment.change(f"ALTER TABLE {table} DELETE WHERE key_id = '{key}'")
    assert {name for name, _, _ in named(deployment.verify())} == {"keys", "parts"}
    deployment.keeper.commit([deployment.keeper.draft("erasure", fields={"keys": [key]})])
    deployment.settle()
    assert deployment.verify().exit_code == 0


def test_a_part_in_many_chunks_from_an_earlier_batch_is_checked_whole(deployment: Deployment) -> None:
    shard = deployment.gateway
    identifier = shard.ids.new()
    draft, stored, key = shard.decision()
    chunks = [StoredPart(key.key_id, 2, number, bytes([number]) * 5_000) for number in range(3)]
    shard.commit(parts=chunks[:2])
    shard.heartbeat()
    joined = StoredPart(key.key_id, 2, 0, b"".join(chunk.data for chunk in chunks))
    part = described("stream", joined, chunks=3, dek=shard.deks[key.key_id])
    parts = (*draft.parts, part)
    fields: Any = draft.fields
    closing = shard.draft("decision", id=identifier, decision=identifier, route="mortgage", parts=parts, fields=fields)
    shard.commit([closing], [*stored, chunks[2]], [key])
    deployment.settle()
    assert deployment.verify().exit_code == 0
    deployment.change(
        "ALTER TABLE parts UPDATE bytes = reverse(concat('x', substring(bytes, 2))) WHERE part = 2 AND chunk = 1"
    )
    assert ("parts", GATEWAY, len(shard.entries) - 1) in named(deployment.verify())
    deployment.change("ALTER TABLE parts DELETE WHERE part = 2 AND chunk = 1")
    assert ("parts", GATEWAY, len(shard.entries) - 1) in named(deployment.verify())


def test_calls_that_were_closed_without_an_entry_break_the_count(deployment: Deployment) -> None:
    deployment.gateway.heartbeat(closed=85, accepted=85)
    deployment.gateway.heartbeat(accepted=80, closed=85)
    deployment.settle()
    assert {("counters", GATEWAY, 82), ("counters", GATEWAY, 83)} <= named(deployment.verify())


def test_findings_are_bounded_and_the_rest_is_counted(embedded: Database, tmp_path: Path) -> None:
    deployment = Deployment(embedded, tmp_path, decisions=80)
    deployment.change(f"ALTER TABLE entries UPDATE leaf = toFixedString('x', 32) WHERE origin = '{GATEWAY}'")
    entries = [claim for claim in deployment.verify().broken if claim.name == "entries"]
    assert len(entries) == verify.FINDINGS_MAX + 1
    assert entries[-1].detail == f"and {162 - verify.FINDINGS_MAX} more"


def test_large_entries_are_read_in_small_windows(deployment: Deployment) -> None:
    for _ in range(3):
        drafts = [deployment.keeper.draft("report", fields={"text": "x" * 60_000}) for _ in range(200)]
        deployment.keeper.commit(drafts)
    deployment.settle()
    told: list[Progress] = []
    report = audit(deployment.database, public=PUBLIC, data=deployment.data, progress=told.append)
    assert report.exit_code == 0
    assert len([one for one in told if one.origin == KEEPER]) > 3


def test_a_database_that_is_away_is_an_error_and_no_verdict(deployment: Deployment) -> None:
    away = Database.open(deployment.database.profile)
    away.close()
    with pytest.raises(StorageUnavailable):
        audit(away, public=PUBLIC, data=deployment.data)


def test_an_empty_deployment_is_sound(embedded: Database, tmp_path: Path) -> None:
    assert audit(embedded, public=PUBLIC, data=tmp_path).exit_code == 0
