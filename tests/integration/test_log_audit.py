"""Verification against the log of logs: a dropped, cut, silent or foreign shard is named, and so is a changed log."""

import copy
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from storage.audit import audit
from storage.clickhouse import Database
from storage.findings import Report, Verdict
from storage.ledger import Ledger
from storage.logoflogs import LogOfLogs, Source
from storage.profiles import Profile
from storage.proofs import Tiles
from storage.segment import SegmentHeader
from storage.typed import TABLES
from tests.integration.test_audit import GATEWAY, KEEPER, Deployment, named, unknown
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_shipper import ship_all, shipper
from tests.support.batches import START_NS, Shard
from tests.support.database import opened

LOG = "acme/log"
SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS


class Logged(Deployment):
    """A deployment with its log of logs: some rounds for either shard."""

    def settle(self, *, sign: bool = True) -> None:
        super().settle(sign=sign)
        self.log_round(START_NS)

    def log_round(self, now_ns: int, *shards: Shard) -> None:
        log = LogOfLogs(self.data / "ship", "acme", key=KEY)
        log.publish(self.database)
        log.round([source(self.data, one) for one in shards or (self.gateway, self.keeper)], now_ns=now_ns)
        log.publish(self.database)

    def look(self, *, data: bool = True, now_ns: int | None = None) -> Report:
        return audit(self.database, public=PUBLIC, data=self.data if data else None, now_ns=now_ns)

    def forget(self, shard: str, *, published: bool = True) -> None:
        """Leave nothing of a shard behind, neither in the database nor on this host."""
        for table in ("entries", "parts", "keys", "segment_keys", "tiles", *(("checkpoints",) if published else ())):
            self.change(f"ALTER TABLE {table} DELETE WHERE origin = '{shard}'")
        for table in TABLES:
            self.change(f"ALTER TABLE {table} DELETE WHERE origin = '{shard}'")
        shutil.rmtree(self.data / "journal" / shard.split("/")[1])
        for path in (self.data / "ship").glob(f"{shard.replace('/', '_')}.*"):
            path.unlink()


def source(data: Path, shard: Shard) -> Source:
    def header(first: int) -> SegmentHeader | None:
        return SegmentHeader.from_bytes(shard.headers[first]) if first in shard.headers else None

    return Source(ledger=Ledger(data / "ship", shard.origin, key=KEY), header=header)


@pytest.fixture(scope="module")
def template(embedded_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    profile = Profile(kind="chdb", database=f"logged{os.getpid()}", path=embedded_path)
    with opened(profile) as database:
        made = Logged(database, tmp_path_factory.mktemp("template"))
        made.record(5)
        made.settle()
        yield made


@pytest.fixture
def deployment(template: Logged, embedded: Database, tmp_path: Path) -> Logged:
    database = template.database.profile.database
    for table in (*TABLES, "entries", "parts", "keys", "segment_keys", "checkpoints", "tiles", "log"):
        embedded.command(f"INSERT INTO {table} SELECT * FROM `{database}`.{table}")
    shutil.copytree(template.data, tmp_path, dirs_exist_ok=True)
    made = copy.copy(template)
    made.database, made.data = embedded, tmp_path
    made.gateway, made.keeper = copy.deepcopy((template.gateway, template.keeper))
    return made


def claims(report: Report, verdict: Verdict, origin: str) -> dict[str, str]:
    return {one.name: one.detail for one in report.claims if one.origin == origin and one.verdict is verdict}


def test_a_sound_deployment_passes_with_its_log(database: Database, tmp_path: Path) -> None:
    made = Logged(database, tmp_path)
    report = made.look(now_ns=START_NS + 60 * SECOND_NS)
    assert report.exit_code == 0, [one for one in report.claims if one.verdict is not Verdict.PASS]
    assert claims(report, Verdict.PASS, LOG)["log"] == "5 leaves about 2 shards"
    assert {"log", "tree", "checkpoints", "tiles"} == set(claims(report, Verdict.PASS, LOG))
    assert "log" in claims(report, Verdict.PASS, GATEWAY)


@pytest.mark.parametrize("published", [True, False], ids=["with its checkpoints", "without"])
def test_a_dropped_shard_is_missed(deployment: Logged, published: bool) -> None:
    deployment.forget(GATEWAY, published=published)
    assert ("entries", GATEWAY, 0) in named(deployment.look())
    assert ("entries", GATEWAY, 0) in named(deployment.look(data=False))


def test_the_tail_cut_off_after_the_last_checkpoint_that_is_left_is_missed(deployment: Logged) -> None:
    stored = len(deployment.gateway.entries)
    deployment.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq >= 82")
    for table in ("parts", "keys"):
        deployment.change(f"ALTER TABLE {table} DELETE WHERE origin = '{GATEWAY}' AND at >= 82")
    deployment.change(f"ALTER TABLE checkpoints DELETE WHERE origin = '{GATEWAY}' AND size > 82")
    for table in TABLES:
        deployment.change(f"ALTER TABLE {table} DELETE WHERE origin = '{GATEWAY}' AND seq >= 82")
    shutil.rmtree(deployment.data / "journal")
    for path in (deployment.data / "ship").glob("acme_gateway*"):
        path.unlink()
    report = deployment.look()
    assert ("checkpoints", GATEWAY, stored) in named(report) or ("entries", GATEWAY, 82) in named(report)
    deployment.change("TRUNCATE TABLE log")  # without the log nobody would know
    deployment.change("ALTER TABLE checkpoints DELETE WHERE origin = 'acme/log'")
    (deployment.data / "ship" / "acme_log.checkpoint").unlink()
    assert ("entries", GATEWAY, 82) not in named(deployment.look())


def test_a_silent_shard_is_a_finding_and_a_closed_one_is_not(deployment: Logged) -> None:
    later = START_NS + HOUR_NS
    deployment.keeper.commit([deployment.keeper.draft("report", fields={})])
    Deployment.settle(deployment)
    deployment.log_round(later, deployment.keeper)
    report = deployment.look()
    assert (report.exit_code, unknown(report)) == (2, {("log", GATEWAY)})
    assert "silent for 3600 s" in claims(report, Verdict.UNKNOWN, GATEWAY)["log"]
    deployment.gateway.heartbeat(closes=True)
    Deployment.settle(deployment)
    deployment.log_round(later, deployment.gateway)
    deployment.keeper.commit([deployment.keeper.draft("report", fields={})])
    Deployment.settle(deployment)
    deployment.log_round(later + HOUR_NS, deployment.keeper)
    assert deployment.look().exit_code == 0


def test_a_log_that_is_silent_itself_is_a_finding_while_shards_are_open(deployment: Logged) -> None:
    report = deployment.look(now_ns=START_NS + HOUR_NS)
    assert unknown(report) == {("log", LOG)}
    for shard in (deployment.gateway, deployment.keeper):
        shard.heartbeat(closes=True)
    deployment.settle()
    assert deployment.look(now_ns=START_NS + HOUR_NS).exit_code == 0


def test_a_shard_that_the_log_does_not_know_was_forged(deployment: Logged) -> None:
    forged = Shard(origin="acme/gateway-9/1")
    forged.heartbeat()
    forged.write(deployment.data / "journal" / "gateway-9")
    ship_all(shipper(deployment.database, deployment.data, forged), forged)
    ledger = Ledger(deployment.data / "ship", forged.origin, key=KEY)
    ledger.apply(forged.batches)
    ledger.sign(now_ns=START_NS - HOUR_NS)
    ledger.publish(deployment.database)
    Tiles(deployment.database, forged.origin).grow(ledger.size)
    assert named(deployment.look()) == {("log", forged.origin, None)}
    deployment.change(
        f"ALTER TABLE checkpoints UPDATE ts = toDateTime64('2030-01-01', 9) WHERE origin = '{forged.origin}'"
    )
    assert ("log", forged.origin, None) not in named(deployment.look())  # just begun: the next round has it


def test_without_any_log_old_shards_cannot_be_told(deployment: Logged) -> None:
    deployment.change("TRUNCATE TABLE log")
    deployment.change(f"ALTER TABLE checkpoints DELETE WHERE origin = '{LOG}'")
    (deployment.data / "ship" / "acme_log.checkpoint").unlink()
    deployment.keeper.commit([deployment.keeper.draft("report", fields={})])
    deployment.settle = lambda **_: None  # type: ignore[method-assign]
    ledger = Ledger(deployment.data / "ship", KEEPER, key=KEY)
    deployment.keeper.write(deployment.data / "journal" / "keeper")
    ship_all(shipper(deployment.database, deployment.data, deployment.keeper), deployment.keeper)
    ledger.apply(deployment.keeper.batches)
    ledger.sign(now_ns=START_NS + HOUR_NS)
    ledger.publish(deployment.database)
    assert {("log", GATEWAY), ("log", KEEPER)} <= unknown(deployment.look())


CHANGES = {
    "a byte of a leaf": ("entry = concat(substring(entry, 1, length(entry) - 1), ' ')", {"log"}),
    "leaf bytes and hash": (
        "entry = concat(entry, ' '), leaf = SHA256(concat(unhex('00'), entry, ' '))",
        {"tree"},
    ),
    "only the hash": ("leaf = SHA256('x')", {"log", "tree"}),
    "only the kind beside it": ("kind = 'close'", {"log"}),
    "only the shard beside it": ("shard = 'acme/gateway-7/1'", {"log"}),
    "only the size beside it": ("size = size + 1", {"log"}),
    "only the time beside it": ("ts = ts + 1", {"log"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_leaf_is_named(deployment: Logged, change: str) -> None:
    sql, expected = CHANGES[change]
    deployment.change(f"ALTER TABLE log UPDATE {sql} WHERE seq = 1")
    found = named(deployment.look())
    assert {name for name, origin, _ in found if origin == LOG} >= expected
    if "log" in expected:
        assert ("log", LOG, 1) in found
    assert named(deployment.look(data=False)) >= {one for one in found if one[0] == "tree"}


def test_a_deleted_leaf_is_named(deployment: Logged) -> None:
    deployment.change("ALTER TABLE log DELETE WHERE seq = 1")
    assert ("log", LOG, 1) in named(deployment.look())


def test_a_doubled_leaf_is_named(deployment: Logged) -> None:
    deployment.change("INSERT INTO log SELECT * FROM log WHERE seq = 1")
    assert ("log", LOG, 1) in named(deployment.look())


def test_the_end_of_the_log_cut_off_with_its_checkpoint_is_missed(deployment: Logged) -> None:
    ((last,),) = deployment.database.rows("SELECT max(size) FROM checkpoints WHERE origin = 'acme/log'")
    deployment.change("ALTER TABLE log DELETE WHERE seq >= 2")
    assert ("log", LOG, 2) in named(deployment.look(data=False))
    deployment.change("ALTER TABLE checkpoints DELETE WHERE origin = 'acme/log' AND size > 2")
    assert ("log", LOG, 2) in named(deployment.look())  # the second place says so
    assert last > 2
    report = deployment.look(data=False)
    assert ("log", LOG) in unknown(report)


def test_a_forged_leaf_behind_the_end_is_named(deployment: Logged) -> None:
    ((size,),) = deployment.database.rows("SELECT count() FROM log")
    one = "(SELECT * FROM log WHERE seq = 1)"
    deployment.change(f"INSERT INTO log SELECT * REPLACE (toUInt64({size}) AS seq) FROM {one}")
    assert ("log", LOG, size) in named(deployment.look())
    assert ("log", LOG) in unknown(deployment.look(data=False))


def test_a_log_checkpoint_with_another_root_is_named(deployment: Logged) -> None:
    deployment.change("ALTER TABLE checkpoints UPDATE root = SHA256('x') WHERE origin = 'acme/log' AND size = 5")
    assert {name for name, origin, _ in named(deployment.look()) if origin == LOG} == {"checkpoints"}


def test_a_log_checkpoint_by_another_key_is_named(deployment: Logged) -> None:
    deployment.change(
        "ALTER TABLE checkpoints UPDATE note = (SELECT any(note) FROM checkpoints WHERE origin = 'acme/keeper/1')"
        " WHERE origin = 'acme/log' AND size = 5"
    )
    assert ("checkpoints", LOG, 4) in named(deployment.look())


def test_a_second_place_that_says_otherwise_of_a_shard_is_named(deployment: Logged) -> None:
    path = deployment.data / "ship" / "acme_log.checkpoint"
    value = orjson.loads(path.read_bytes())
    value["shards"][GATEWAY][0] += 1
    path.write_bytes(orjson.dumps(value))
    found = named(deployment.look())
    assert {name for name, origin, _ in found if origin == LOG} == {"log"}


def test_an_erasure_that_the_log_does_not_know_is_named(deployment: Logged) -> None:
    deployment.gateway.commit([deployment.gateway.draft("erasure", fields={"keys": []})])
    seq = len(deployment.gateway.entries) - 1
    deployment.settle()
    assert deployment.look().exit_code == 0
    leaf = "SELECT max(seq) FROM log WHERE kind = 'erasure'"
    ((place,),) = deployment.database.rows(leaf)
    deployment.change(f"ALTER TABLE log UPDATE entry = replace(entry, 'erasure', 'prune') WHERE seq = {place}")
    assert ("log", GATEWAY, seq) in named(deployment.look())


def test_what_was_written_over_the_log_ends_no_verification(deployment: Logged) -> None:
    row = "'acme/log', {seq}, now64(9), '{kind}', '{shard}', 18446744073709551615, '{entry}', SHA256('x')"
    for seq, kind, shard, entry in (
        (1, "checkpoint", GATEWAY, "{}"),
        (2**63, "open", "", "not json"),
        (7, "close", "x", "[[["),
    ):
        deployment.change(f"INSERT INTO log VALUES ({row.format(seq=seq, kind=kind, shard=shard, entry=entry)})")
    deployment.change("INSERT INTO tiles VALUES ('acme/log', 0, 0, 'short'), ('zz/log', 3, 9, 'x')")
    report = deployment.look()
    assert report.exit_code == 1
    assert {LOG, "zz/log"} <= {origin for _, origin, _ in named(report)}
