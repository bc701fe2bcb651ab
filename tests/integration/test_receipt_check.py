"""Receipts against the ledger: included, pending, contradicted, unprovable."""

import shutil
from pathlib import Path

import pytest

from storage import merkle, receiptcheck
from storage.batch import Batch
from storage.clickhouse import Database
from storage.entries import leaf_hash
from storage.errors import Unverifiable
from storage.ids import b64
from storage.receiptcheck import Judged, Standing
from tests.integration.test_ledger import PUBLIC
from tests.integration.test_log_of_logs import Site
from tests.integration.test_shipper import ship_all, shipper
from tests.support.batches import Shard


def receipt(batch: Batch, seq: int) -> str:
    """As a worker writes it."""
    leaves = [leaf_hash(record.entry) for record in batch.records]
    path = merkle.inclusion_path(leaves, seq - batch.first)
    commit = batch.commit
    signed = f"{b64(commit.root)} {b64(commit.key_id)} {b64(commit.signature)}"
    return (
        f"v1 {batch.origin} {seq} {b64(leaves[seq - batch.first])} {batch.first} {batch.count}"
        f" {','.join(map(b64, path)) or '-'} {commit.size} {signed}"
    )


class Acknowledged:
    """A shard with six entries, each batch acknowledged; shipped and signed as far as a test asks."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.shard = Shard()
        self.shard.heartbeat()
        self.shard.decisions(3, size=1)
        self.last = self.shard.decisions(2, size=1)
        self.site = Site(folder, self.shard)
        self.journal: tuple[bytes | None, int] | None = None

    def ship(self) -> None:
        ship_all(shipper(self.database, self.folder, self.shard), self.shard)

    def judge(self, text: str) -> Judged:
        return receiptcheck.judge(self.database, text, public=PUBLIC, recorded=lambda _origin, _seq: self.journal)

    def change(self, sql: str) -> None:
        self.database.command(sql, settings={"mutations_sync": 2})


@pytest.fixture
def made(embedded: Database, tmp_path: Path) -> Acknowledged:
    return Acknowledged(embedded, tmp_path)


def test_an_entry_under_a_checkpoint_is_included_and_the_log_of_logs_holds_it(database: Database, tmp_path: Path):
    made = Acknowledged(database, tmp_path)
    made.ship()
    made.site.sign()
    made.site.ledgers[made.shard.origin].publish(database)
    found = made.judge(receipt(made.last, 4))
    assert (found.standing, found.second) == (Standing.INCLUDED, False)
    made.site.round(database)
    found = made.judge(receipt(made.last, 4))
    assert (found.standing, found.second, found.detail) == (
        Standing.INCLUDED,
        True,
        "number 4 of 6 entries under a signed checkpoint, leaf 1 of 2 of the log of logs",
    )


def test_an_entry_that_is_recorded_and_not_signed_or_not_shipped_is_pending(made: Acknowledged):
    text = receipt(made.last, 5)
    made.ship()
    assert made.judge(text).standing is Standing.PENDING
    made.change("ALTER TABLE entries DELETE WHERE seq = 5")
    made.journal = (leaf_hash(made.shard.entries[5]), 6)
    found = made.judge(text)
    assert (found.standing, "journal" in found.detail) == (Standing.PENDING, True)


def test_another_entry_in_its_place_contradicts_it(made: Acknowledged):
    made.ship()
    made.site.round(made.database)
    made.change("ALTER TABLE entries UPDATE entry = concat(entry, ' ') WHERE seq = 4")
    found = made.judge(receipt(made.last, 4))
    assert (found.standing, "another entry" in found.detail) == (Standing.CONTRADICTED, True)


def test_a_gone_entry_with_others_behind_it_contradicts_it(made: Acknowledged):
    made.ship()
    made.change("ALTER TABLE entries DELETE WHERE seq = 4")
    assert made.judge(receipt(made.last, 4)).standing is Standing.CONTRADICTED


def test_the_tail_cut_off_everywhere_is_contradicted_by_the_log_of_logs_or_a_shorter_journal(made: Acknowledged):
    made.ship()
    made.site.round(made.database)
    made.change("ALTER TABLE entries DELETE WHERE seq >= 4")
    text = receipt(made.last, 4)
    assert made.judge(text).standing is Standing.CONTRADICTED
    made.change("ALTER TABLE log DELETE WHERE kind = 'checkpoint'")
    assert made.judge(text).standing is Standing.UNPROVABLE
    made.journal = (None, 4)
    found = made.judge(text)
    assert (found.standing, "ends before it, at 4" in found.detail) == (Standing.CONTRADICTED, True)
    made.journal = (None, 9)
    assert made.judge(text).standing is Standing.CONTRADICTED


def test_a_rewritten_ledger_that_keeps_the_entry_is_contradicted_by_the_tree_that_the_receipt_states(
    made: Acknowledged, tmp_path: Path
):
    made.ship()
    text = receipt(made.last, 4)
    made.change("ALTER TABLE entries UPDATE entry = concat(entry, ' ') WHERE seq = 2")
    made.change("ALTER TABLE entries UPDATE leaf = SHA256(concat(unhex('00'), entry)) WHERE seq = 2")
    leaves = [leaf for (leaf,) in made.database.rows("SELECT leaf FROM entries ORDER BY seq")]
    from storage import notes
    from storage.notes import Checkpoint
    from tests.integration.test_ledger import KEY

    origin = made.shard.origin
    head = Checkpoint(origin=origin, size=6, root=merkle.root_of(leaves))
    note = notes.sign(head.text(), name=origin, key=KEY).decode()
    row = (origin, 6, head.root, note, 0)
    made.database.insert("checkpoints", ("origin", "size", "root", "note", "ts"), [row], token="forged")
    found = made.judge(text)
    assert (found.standing, "the tree of 6 entries" in found.detail) == (Standing.CONTRADICTED, True)


def test_what_nobody_here_can_tell_is_unprovable(made: Acknowledged):
    text = receipt(made.last, 4)
    assert made.judge(text).standing is Standing.UNPROVABLE  # nothing was ever shipped: no key is known
    made.ship()
    forged = text[:-6] + ("AAAAAA" if not text.endswith("AAAAAA") else "BBBBBA")
    forged = forged[:-1] + "A"
    found = made.judge(forged)
    assert (found.standing, "does not hold by itself" in found.detail) == (Standing.UNPROVABLE, True)
    moved = text.replace(" 4 ", " 5 ", 1)
    assert made.judge(moved).standing is Standing.UNPROVABLE
    strange = Shard()
    strange.heartbeat()
    assert made.judge(receipt(strange.batches[0], 0)).standing is Standing.UNPROVABLE
    made.change("ALTER TABLE entries DELETE WHERE seq >= 4")
    assert made.judge(text).standing is Standing.UNPROVABLE  # its journal may be on another host


@pytest.mark.parametrize("text", ["", "v1", "v2 " + "x " * 10, "v1 a 0 x 0 1 - 1 x x x"])
def test_what_is_no_receipt_is_refused(made: Acknowledged, text: str):
    with pytest.raises(Unverifiable):
        made.judge(text)


def test_the_key_is_known_by_the_log_of_logs_alone(made: Acknowledged, tmp_path: Path):
    made.ship()
    made.site.round(made.database)
    made.change("ALTER TABLE segment_keys DELETE WHERE 1")
    assert made.judge(receipt(made.last, 4)).standing is Standing.INCLUDED
    shutil.rmtree(tmp_path / "ship")
    assert made.judge(receipt(made.last, 4)).standing is Standing.INCLUDED
