"""The log of logs: what is stated of shards, and that it neither forks nor goes back."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from storage import merkle, notes
from storage.clickhouse import Database
from storage.durable import KERNEL, Syscalls
from storage.errors import Unverifiable
from storage.ids import b64
from storage.ledger import Ledger, RolledBackError
from storage.logoflogs import LogOfLogs, Source
from storage.merkle import leaf_hash
from storage.segment import SegmentHeader
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_shipper import CrashError, Crashing
from tests.support.batches import START_NS, Shard


class Site:
    """Shards of one deployment, their ledgers, and the log over them."""

    def __init__(self, folder: Path, *shards: Shard, calls: Syscalls = KERNEL) -> None:
        self.ship, self.shards = folder / "ship", shards
        self.ledgers = {shard.origin: Ledger(self.ship, shard.origin, key=KEY) for shard in shards}
        self.log = LogOfLogs(self.ship, "acme", key=KEY, calls=calls)
        self.aside: set[str] = set()

    def sources(self) -> list[Source]:
        def header(shard: Shard) -> Any:
            return lambda first: SegmentHeader.from_bytes(shard.headers[first]) if first in shard.headers else None

        return [
            Source(ledger=self.ledgers[shard.origin], header=header(shard), is_set_aside=shard.origin in self.aside)
            for shard in self.shards
        ]

    def sign(self, now_ns: int = START_NS) -> None:
        for shard in self.shards:
            self.ledgers[shard.origin].apply(shard.batches)
            self.ledgers[shard.origin].sign(now_ns=now_ns)

    def round(self, database: Database, now_ns: int = START_NS) -> bool:
        self.sign(now_ns)
        made = self.log.round(self.sources(), now_ns=now_ns)
        self.log.publish(database)
        return made


def shard(name: str = "gateway-0", *, batches: int = 1) -> Shard:
    made = Shard(origin=f"acme/{name}/1")
    made.heartbeat()
    for _ in range(batches):
        made.decisions(2, size=10)
    return made


def leaves(database: Database) -> list[dict[str, Any]]:
    return [orjson.loads(entry) for (entry,) in database.rows("SELECT entry FROM log ORDER BY seq")]


def told(database: Database) -> list[tuple[str, str, int]]:
    return [(one["kind"], one["origin"].split("/")[1], one["size"]) for one in leaves(database)]


def test_every_shard_is_opened_with_its_key_and_its_checkpoints_are_leaves(database: Database, tmp_path: Path) -> None:
    one, two = shard(), shard("gateway-1")
    site = Site(tmp_path, one, two)
    assert site.round(database)
    assert not site.round(database)
    one.decisions(2, size=10)
    assert site.round(database)
    assert told(database) == [
        ("open", "gateway-0", 0),
        ("checkpoint", "gateway-0", 3),
        ("open", "gateway-1", 0),
        ("checkpoint", "gateway-1", 3),
        ("checkpoint", "gateway-0", 5),
    ]
    first, second, *_, last = leaves(database)
    assert first["process_key"] == b64(one.header.process_key)
    assert first["vouch"] == b64(one.header.vouch)
    assert notes.verified_checkpoint(second["note"].encode(), origin=one.origin, public=PUBLIC).size == 3
    signed = site.ledgers[one.origin].signed
    assert signed is not None
    assert last["note"].encode() == signed.note
    ((note,),) = database.rows("SELECT note FROM checkpoints WHERE origin = 'acme/log' ORDER BY size DESC LIMIT 1")
    head = notes.verified_checkpoint(note.encode(), origin="acme/log", public=PUBLIC)
    stored = [leaf_hash(entry) for (entry,) in database.rows("SELECT entry FROM log ORDER BY seq")]
    assert (head.size, head.root) == (5, merkle.root_of(stored))


def test_a_writer_that_ended_is_closed_and_the_next_one_is_opened(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    site = Site(tmp_path, one)
    site.round(embedded)
    one.roll(same_process=True)  # a full segment is no news
    one.decisions(1, size=10)
    site.round(embedded)
    one.heartbeat(closes=True)
    one.roll()
    one.heartbeat()
    one.heartbeat(closes=True)
    site.round(embedded)
    assert [(kind, size) for kind, _, size in told(embedded)] == [
        ("open", 0),
        ("checkpoint", 3),
        ("checkpoint", 4),
        ("close", 5),
        ("open", 5),
        ("close", 7),
        ("checkpoint", 7),
    ]
    assert leaves(embedded)[4]["process_key"] == b64(one.header.process_key)
    assert not site.log.state.of(one.origin).is_open


def test_erasures_and_prunes_are_leaves_with_their_place(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    one.commit([one.draft("erasure", fields={"keys": []}), one.draft("prune", fields={"x": '"kind":"erasure"'})])
    site = Site(tmp_path, one)
    site.round(embedded)
    found = [(leaf["kind"], leaf["seq"], leaf["leaf"]) for leaf in leaves(embedded) if "leaf" in leaf]
    assert found == [("erasure", 3, b64(leaf_hash(one.entries[3]))), ("prune", 4, b64(leaf_hash(one.entries[4])))]


def test_an_epoch_in_quarantine_is_stated_once(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    site = Site(tmp_path, one)
    site.round(embedded)
    site.aside.add(one.origin)
    assert site.round(embedded)
    assert not site.round(embedded)
    assert told(embedded)[-1] == ("quarantine", "gateway-0", 3)


def test_a_restart_states_what_was_signed_meanwhile_and_nothing_twice(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    Site(tmp_path, one).round(embedded)
    one.commit([one.draft("erasure", fields={"keys": []})])
    one.heartbeat(closes=True)
    Site(tmp_path, one).sign()  # and ends before the log of logs hears of it
    one.roll()
    one.heartbeat()
    again = Site(tmp_path, one)
    again.log.publish(embedded)
    assert again.round(embedded)
    assert [kind for kind, *_ in told(embedded)] == ["open", "checkpoint", "erasure", "close", "open", "checkpoint"]
    last = Site(tmp_path, one)
    last.log.publish(embedded)
    assert not last.round(embedded)


def test_a_round_waits_until_the_last_one_is_published(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    site = Site(tmp_path, one)
    site.sign()
    site.log.round(site.sources(), now_ns=START_NS)
    one.decisions(1, size=10)
    site.sign()
    with pytest.raises(Unverifiable, match="not published"):
        site.log.round(site.sources(), now_ns=START_NS)
    again = Site(tmp_path, one)  # which finds the round in its second place
    again.log.refuse_rollback(embedded)
    again.log.publish(embedded)
    assert len(leaves(embedded)) == 2


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
def test_a_crash_in_a_round_never_forks_the_log(embedded: Database, tmp_path: Path, persisted: bool) -> None:
    for at in range(1, 20):
        one, folder = shard(), tmp_path / f"{persisted}{at}"
        for table in ("log", "checkpoints"):
            embedded.command(f"TRUNCATE TABLE {table}")
        crashing = Crashing(at, persisted=persisted)
        try:
            Site(folder, one, calls=crashing).round(embedded)
        except CrashError:
            one.decisions(1, size=10)
        again = Site(folder, one)
        again.log.refuse_rollback(embedded)
        again.log.publish(embedded)
        again.round(embedded)
        stored = [leaf_hash(entry) for (entry,) in embedded.rows("SELECT entry FROM log ORDER BY seq")]
        assert again.log.signed is not None
        assert again.log.signed.checkpoint.root == merkle.root_of(stored)
        for size, note in embedded.rows("SELECT size, note FROM checkpoints WHERE origin = 'acme/log'"):
            head = notes.verified_checkpoint(note.encode(), origin="acme/log", public=PUBLIC)
            assert head.root == merkle.root_of(stored[:size])
        if crashing.count < at:
            return
    pytest.fail("a round took more steps than were tried")


def test_two_keepers_cannot_write_one_log(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    first, second = Site(tmp_path, one), Site(tmp_path / "x", one)
    second.log = LogOfLogs(tmp_path / "ship", "acme", key=KEY)
    first.round(embedded)
    second.sign()
    with pytest.raises(Unverifiable, match="another process"):
        second.log.round(second.sources(), now_ns=START_NS)


def test_an_older_second_place_is_a_rollback(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    site = Site(tmp_path, one)
    site.round(embedded)
    old = site.log.path.read_bytes()
    one.decisions(1, size=10)
    site.round(embedded)
    site.log.refuse_rollback(embedded)
    site.log.path.write_bytes(old)
    with pytest.raises(RolledBackError, match="published"):
        Site(tmp_path, one).log.refuse_rollback(embedded)
    site.log.path.unlink()
    with pytest.raises(RolledBackError, match="published"):
        Site(tmp_path, one).log.refuse_rollback(embedded)


def test_an_older_database_is_a_rollback(embedded: Database, tmp_path: Path) -> None:
    one = shard()
    site = Site(tmp_path, one)
    for _ in range(2):
        site.round(embedded)
        one.decisions(1, size=10)
    settings = {"mutations_sync": 2}
    embedded.command("ALTER TABLE checkpoints DELETE WHERE size > 2", settings=settings)
    site.log.refuse_rollback(embedded)  # what the second place still holds can be published again
    embedded.command("ALTER TABLE log DELETE WHERE seq >= 1", settings=settings)
    with pytest.raises(RolledBackError, match="the database has 1 leaves"):
        Site(tmp_path, one).log.refuse_rollback(embedded)


def test_two_roots_for_one_size_are_found(embedded: Database, tmp_path: Path) -> None:
    one, other = shard(), shard()
    Site(tmp_path / "other", other).round(embedded)
    site = Site(tmp_path, one)
    site.sign()
    site.log.round(site.sources(), now_ns=START_NS)
    with pytest.raises(Unverifiable, match="two roots"):
        site.log.refuse_rollback(embedded)
    with pytest.raises(Unverifiable):
        site.log.publish(embedded)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"note":1}'])
def test_a_damaged_second_place_is_refused(embedded: Database, tmp_path: Path, damage: bytes) -> None:
    one = shard()
    site = Site(tmp_path, one)
    site.round(embedded)
    site.log.path.write_bytes(damage)
    with pytest.raises(Unverifiable, match="damaged"):
        LogOfLogs(tmp_path / "ship", "acme", key=KEY)


@pytest.mark.parametrize("change", ["tree", "leaves"])
def test_a_second_place_that_contradicts_itself_is_refused(embedded: Database, tmp_path: Path, change: str) -> None:
    one = shard()
    site = Site(tmp_path, one)
    site.round(embedded)
    old = orjson.loads(site.log.path.read_bytes())
    one.decisions(1, size=10)
    site.round(embedded)
    mixed = {**orjson.loads(site.log.path.read_bytes()), change: old[change]}
    site.log.path.write_bytes(orjson.dumps(mixed))
    with pytest.raises(Unverifiable, match="not the one that was signed"):
        LogOfLogs(tmp_path / "ship", "acme", key=KEY)


def test_the_log_has_tiles_of_its_own(embedded: Database, tmp_path: Path) -> None:
    many = [shard(f"gateway-{number}", batches=0) for number in range(130)]
    site = Site(tmp_path, *many)
    site.round(embedded)
    assert site.log.size == 260
    assert embedded.rows("SELECT origin, level, n FROM tiles") == [("acme/log", 0, 0)]
