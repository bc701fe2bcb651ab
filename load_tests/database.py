"""How fast evidence goes into embedded ClickHouse and is checked there: shipping, typed rows, verification.

``python -m load_tests.database [--decisions N] [--data DIR]``. Decisions of about 1 KB, each with two sealed parts of
400 bytes and a key, in batches of 250; one extraction entry a batch. Prints one JSON line a measurement:

- ``ship``: rows (entries, parts, keys) a second, sealed, inserted, read back and logged;
- ``project``: decisions a second that get their typed row, read back;
- ``verify``: entries a second with everything that they name; entries and tree alone; leaves alone, inside ClickHouse;
  and what is recent, as the keeper audits it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage.audit import audit
from storage.clickhouse import SWEEP, Database
from storage.ledger import Ledger
from storage.merkle import Frontier, leaf_hash
from storage.migrate import migrate
from storage.profiles import Profile
from storage.projections import Projector
from storage.proofs import Tiles
from storage.recent import audit_recent
from storage.shipper import Shipper
from tests.support.batches import Shard, write_keys

BATCH = 250  # 1,000 rows: five batches fill a range
WINDOW = 5_000
RECENT = 20_000
_LEAVES = "SELECT countIf(leaf != SHA256(concat(char(0), entry))) FROM entries"
_ENTRIES = (
    "SELECT entry FROM entries WHERE origin = {o:String} AND seq >= {low:UInt64} AND seq < {high:UInt64} ORDER BY seq"
)


def tell(what: str, count: int, since: float) -> None:
    """One measurement."""
    seconds = time.perf_counter() - since
    print(json.dumps({"what": what, "count": count, "seconds": round(seconds, 3), "per_s": round(count / seconds)}))


def ship(database: Database, data: Path, shard: Shard) -> int:
    """Ship all of a shard; returns the rows."""
    shipper = Shipper(database, data / "ship", shard.origin, header=shard.headers.__getitem__, clock_ns=time.time_ns)
    waiting, rows = list(shard.batches), 0
    while waiting:
        shipped = shipper.ship(waiting)
        assert shipped is not None
        rows += shipped.rows
        del waiting[: shipped.batches]
    return rows


def sign(database: Database, data: Path, shard: Shard, key: Ed25519PrivateKey) -> None:
    """A checkpoint and the tiles below it."""
    ledger = Ledger(data / "ship", shard.origin, key=key)
    ledger.apply(shard.batches)
    ledger.sign(now_ns=time.time_ns())
    ledger.publish(database)
    Tiles(database, shard.origin).grow(ledger.size)


def tree_alone(database: Database, shard: Shard) -> None:
    """Every entry read and hashed into the tree, and nothing else."""
    tree, end = Frontier(), len(shard.entries)
    for low in range(0, end, WINDOW):
        where = {"o": shard.origin, "low": low, "high": min(end, low + WINDOW)}
        for (entry,) in database.rows(_ENTRIES, where, caps=SWEEP):
            tree.append(leaf_hash(entry))
    assert tree.root() == shard.batches[-1].commit.root


def inside(database: Database) -> None:
    """Every leaf made again from its entry by ClickHouse itself."""
    ((wrong,),) = database.rows(_LEAVES, caps=SWEEP)
    assert wrong == 0


def measure(data: Path, decisions: int) -> None:
    """All of it, once."""
    gateway, keeper = Shard(), Shard(origin="acme/keeper/1")
    for _ in range(decisions // BATCH):
        keeper.commit([keeper.extraction(gateway.decisions(BATCH))])
    key = Ed25519PrivateKey.generate()
    with Database.open(Profile(kind="chdb", database="bench", path=data / "clickhouse")) as database:
        migrate(database, now_ns=time.time_ns())
        begin = time.perf_counter()
        tell("ship", ship(database, data, gateway), begin)
        ship(database, data, keeper)
        ends = {shard.origin: len(shard.entries) for shard in (gateway, keeper)}
        projector, count = Projector(database, data / "ship"), 0
        begin = time.perf_counter()
        while (done := projector.step(keeper.origin, ends)) is not None:
            count += done.rows["decisions"]
        tell("project", count, begin)
        for shard in (gateway, keeper):
            sign(database, data, shard, key)
        write_keys(data)
        begin = time.perf_counter()
        report = audit(database, public=key.public_key().public_bytes_raw(), data=data)
        assert report.exit_code == 0, report.broken
        tell("verify: entries, parts, keys, tree, typed rows", report.entries, begin)
        begin = time.perf_counter()
        tree_alone(database, gateway)
        tell("verify: entries and tree", len(gateway.entries), begin)
        begin = time.perf_counter()
        inside(database)
        tell("verify: leaves inside ClickHouse", len(gateway.entries) + len(keeper.entries), begin)
        begin = time.perf_counter()
        public = key.public_key().public_bytes_raw()
        report = audit_recent(database, public=public, data=data, entries_max=min(decisions, RECENT))
        assert not report.broken, report.broken
        tell("verify: what is recent", report.entries, begin)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=50_000)
    parser.add_argument("--data", type=Path, help="a directory on the disk to measure; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.data) as data:
        measure(Path(data), given.decisions)


if __name__ == "__main__":
    main()
