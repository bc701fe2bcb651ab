"""The ledger: the tree that is signed is the tree that the journal states, and it never goes back."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import merkle, notes
from storage.batch import Batch
from storage.clickhouse import Database
from storage.durable import KERNEL, Syscalls
from storage.entries import leaf_hash
from storage.errors import Unverifiable
from storage.ledger import Ledger, RolledBackError
from storage.proofs import Tiles, check_proof, prove
from storage.queries import checkpoint_covering
from tests.integration.test_shipper import CrashError, Crashing, ship_all, shipper
from tests.support.batches import START_NS, Shard

KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()


def ledger(tmp_path: Path, shard: Shard, calls: Syscalls = KERNEL) -> Ledger:
    return Ledger(tmp_path / "ship", shard.origin, key=KEY, calls=calls)


def grown(count: int = 3, each: int = 4) -> Shard:
    shard = Shard()
    for _ in range(count):
        shard.decisions(each, size=10)
    return shard


def root(shard: Shard, size: int) -> bytes:
    return merkle.root_of([leaf_hash(entry) for entry in shard.entries[:size]])


def test_what_is_signed_is_the_root_over_the_entries(tmp_path: Path) -> None:
    shard = grown()
    own = ledger(tmp_path, shard)
    assert own.sign(now_ns=START_NS) is None
    own.apply(shard.batches)
    signed = own.sign(now_ns=START_NS)
    assert signed is not None
    found = notes.verified_checkpoint(signed.note, origin=shard.origin, public=PUBLIC)
    assert (found.size, found.root) == (12, root(shard, 12))
    assert own.sign(now_ns=START_NS) is None


def test_a_restart_goes_on_from_the_last_checkpoint_over_segments(tmp_path: Path) -> None:
    shard = grown()
    first = ledger(tmp_path, shard)
    first.apply(shard.batches[:2])
    first.sign(now_ns=START_NS)
    first.apply(shard.batches[2:])  # and ends before it signs
    shard.roll()
    shard.decisions(5, size=10)
    again = ledger(tmp_path, shard)
    assert (again.size, again.position) != (12, None)
    again.apply(shard.batches)  # those before its place are passed over
    signed = again.sign(now_ns=START_NS)
    assert signed is not None
    assert (signed.checkpoint.size, signed.checkpoint.root) == (17, root(shard, 17))


def test_a_batch_that_does_not_follow_is_not_signed(tmp_path: Path) -> None:
    shard = grown()
    own = ledger(tmp_path, shard)
    with pytest.raises(Unverifiable, match="follows a tree of 0"):
        own.apply(shard.batches[1:])


def test_a_tree_that_its_commit_does_not_state_is_not_signed(tmp_path: Path) -> None:
    shard, other = grown(1), grown(1)
    mixed = Batch(
        **{name: getattr(shard.batches[0], name) for name in Batch.__slots__ if name != "records"},
        records=other.batches[0].records,
    )
    with pytest.raises(Unverifiable, match="COMMIT"):
        ledger(tmp_path, shard).apply([mixed])


def test_a_shorter_journal_than_was_signed_is_a_rollback(tmp_path: Path) -> None:
    shard = grown()
    own = ledger(tmp_path, shard)
    own.apply(shard.batches)
    own.sign(now_ns=START_NS)
    again = ledger(tmp_path, shard)
    again.refuse_rollback(journal_size=12)
    with pytest.raises(RolledBackError):
        again.refuse_rollback(journal_size=11)


def test_an_older_checkpoint_file_than_was_published_is_a_rollback(embedded: Database, tmp_path: Path) -> None:
    shard = grown()
    own = ledger(tmp_path, shard)
    own.apply(shard.batches[:1])
    own.sign(now_ns=START_NS)
    old = own.path.read_bytes()
    own.apply(shard.batches[1:])
    own.sign(now_ns=START_NS)
    own.publish(embedded)
    own.refuse_rollback(database=embedded)
    own.path.write_bytes(old)
    with pytest.raises(RolledBackError):
        ledger(tmp_path, shard).refuse_rollback(database=embedded)
    own.path.unlink()
    with pytest.raises(RolledBackError):
        ledger(tmp_path, shard).refuse_rollback(database=embedded)


def test_two_roots_for_one_size_are_found(embedded: Database, tmp_path: Path) -> None:
    shard, other = grown(), grown()
    own, strange = ledger(tmp_path, shard), ledger(tmp_path / "other", other)
    for one, of in ((own, shard), (strange, other)):
        one.apply(of.batches)
        one.sign(now_ns=START_NS)
    strange.publish(embedded)
    with pytest.raises(Unverifiable, match="two roots"):
        own.refuse_rollback(database=embedded)
    with pytest.raises(Unverifiable):
        own.publish(embedded)


def test_two_keepers_cannot_sign_one_ledger(tmp_path: Path) -> None:
    shard = grown()
    own, second = ledger(tmp_path, shard), ledger(tmp_path, shard)
    for one in (own, second):
        one.apply(shard.batches)
    own.sign(now_ns=START_NS)
    with pytest.raises(Unverifiable, match="another process"):
        second.sign(now_ns=START_NS)


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
def test_a_crash_while_signing_never_forks_the_ledger(tmp_path: Path, persisted: bool) -> None:
    for at in range(1, 20):
        shard = Shard(origin=f"acme/gateway-0/{at}")
        shard.decisions(2, size=10)
        crashing = Crashing(at, persisted=persisted)
        own = ledger(tmp_path, shard, crashing)
        own.apply(shard.batches)
        try:
            own.sign(now_ns=START_NS)
        except CrashError:
            shard.decisions(2, size=10)
        again = ledger(tmp_path, shard)
        again.apply(shard.batches)
        again.sign(now_ns=START_NS)
        assert again.signed is not None
        assert again.signed.checkpoint.root == root(shard, again.size) == root(shard, len(shard.entries))
        if crashing.count < at:
            return
    pytest.fail("signing took more steps than were tried")


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"note":1}'])
def test_a_damaged_checkpoint_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    shard = grown()
    own = ledger(tmp_path, shard)
    own.apply(shard.batches)
    own.sign(now_ns=START_NS)
    own.path.write_bytes(damage)
    with pytest.raises(Unverifiable):
        ledger(tmp_path, shard)


def test_a_checkpoint_file_with_another_tree_than_its_note_is_refused(tmp_path: Path) -> None:
    shard, other = grown(3), grown(2)
    files = []
    for name, of in (("a", shard), ("b", other)):
        one = ledger(tmp_path / name, of)
        one.apply(of.batches)
        one.sign(now_ns=START_NS)
        files.append(one.path)
    import orjson

    mixed = {**orjson.loads(files[0].read_bytes()), "tree": orjson.loads(files[1].read_bytes())["tree"]}
    files[0].write_bytes(orjson.dumps(mixed))
    with pytest.raises(Unverifiable, match="not the one that was signed"):
        ledger(tmp_path / "a", shard)


def test_a_published_checkpoint_is_there_once_however_often_it_is_published(database: Database, tmp_path: Path) -> None:
    shard = grown()
    own = ledger(tmp_path, shard)
    assert own.is_published
    own.publish(database)
    own.apply(shard.batches)
    own.sign(now_ns=START_NS)
    assert not own.is_published
    own.publish(database)
    again = ledger(tmp_path, shard)
    again.publish(database)
    assert again.is_published
    assert database.rows("SELECT origin, size, ts FROM checkpoints") == [(shard.origin, 12, START_NS)]
    covering = checkpoint_covering(database, shard.origin, 11)
    assert covering is not None
    assert notes.verified_checkpoint(covering.note.encode(), origin=shard.origin, public=PUBLIC).size == 12
    assert checkpoint_covering(database, shard.origin, 12) is None


def published(database: Database, tmp_path: Path, shard: Shard) -> None:
    ship_all(shipper(database, tmp_path, shard), shard)
    own = ledger(tmp_path, shard)
    own.apply(shard.batches)
    own.sign(now_ns=START_NS)
    own.publish(database)


def test_every_entry_has_a_proof_that_verifies(database: Database, tmp_path: Path) -> None:
    shard = grown(3, 5)
    published(database, tmp_path, shard)
    for seq in range(15):
        proven = prove(database, shard.origin, seq, public=PUBLIC)
        assert proven is not None
        assert (proven.size, proven.leaf) == (15, leaf_hash(shard.entries[seq]))
        assert check_proof(proven.text, leaf=proven.leaf, origin=shard.origin, public=PUBLIC).index == seq
        with pytest.raises(Unverifiable):
            check_proof(proven.text, leaf=leaf_hash(b"another"), origin=shard.origin, public=PUBLIC)


def test_an_entry_beyond_the_last_checkpoint_has_no_proof_yet(embedded: Database, tmp_path: Path) -> None:
    shard = grown(1)
    published(embedded, tmp_path, shard)
    shard.decisions(1)
    ship_all(shipper(embedded, tmp_path, shard), shard)
    assert prove(embedded, shard.origin, 4, public=PUBLIC) is None
    assert prove(embedded, "acme/none/1", 0, public=PUBLIC) is None


def test_a_changed_entry_has_no_proof(embedded: Database, tmp_path: Path) -> None:
    shard = grown(1)
    published(embedded, tmp_path, shard)
    damage = "ALTER TABLE entries UPDATE entry = concat(entry, ' ') WHERE seq = 2"
    embedded.command(damage, settings={"mutations_sync": 2})
    with pytest.raises(Unverifiable):
        prove(embedded, shard.origin, 2, public=PUBLIC)
    embedded.command("ALTER TABLE entries DELETE WHERE seq = 1", settings={"mutations_sync": 2})
    with pytest.raises(Unverifiable):
        prove(embedded, shard.origin, 0, public=PUBLIC)


def test_full_tiles_are_stored_once_and_proofs_use_them(embedded: Database, tmp_path: Path) -> None:
    shard = Shard()
    for _ in range(3):
        shard.decisions(300, size=1)
    published(embedded, tmp_path, shard)
    tiles = Tiles(embedded, shard.origin)
    assert [tiles.grow(255), tiles.grow(600), tiles.grow(600), tiles.grow(900)] == [0, 2, 0, 1]
    assert embedded.rows("SELECT level, n, length(hashes) FROM tiles ORDER BY n") == [(0, n, 8192) for n in range(3)]
    for seq in (0, 255, 256, 767, 768, 899):
        assert prove(embedded, shard.origin, seq, public=PUBLIC) is not None


def test_a_tree_with_a_hole_gets_no_tiles(embedded: Database, tmp_path: Path) -> None:
    shard = Shard()
    shard.decisions(300, size=1)
    published(embedded, tmp_path, shard)
    embedded.command("ALTER TABLE entries DELETE WHERE seq = 7", settings={"mutations_sync": 2})
    with pytest.raises(Unverifiable, match="not whole"):
        Tiles(embedded, shard.origin).grow(300)
