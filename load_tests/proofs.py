"""How large and how fast a proof is at ten million leaves.

``python -m load_tests.proofs [--leaves N] [--proofs N] [--data DIR]``. Small entries are made inside ClickHouse, their
tiles and one signed checkpoint as the keeper makes them. Prints one JSON line a measurement:

- ``cold``: `storage.proofs.prove` of entries here and there, as the desk calls it, everything looked up;
- ``cached``: the path alone, out of tiles that are in memory, and its text.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from load_tests.percentile import percentile
from storage import notes, tiles
from storage.clickhouse import Database, Profile
from storage.ledger import Signed, checkpoint_rows
from storage.migrate import migrate
from storage.notes import Checkpoint, Proof
from storage.proofs import Tiles, prove
from storage.readback import bring

ORIGIN = "bench/gateway-0/1"
LEAVES = 10_000_128  # the right edge is no full tile
_ENTRIES = """
INSERT INTO entries
SELECT '{origin}', number, generateUUIDv4(number), 'decision', 'acme', 'credit', now64(9), 'default', 202611,
  generateUUIDv4(number + 1), concat('{{"bench":', toString(number), '}}') AS entry, SHA256(concat(char(0), entry))
FROM numbers({first}, {count})
"""
AT_ONCE = 1_000_000


def grown(database: Database, leaves: int, key: Ed25519PrivateKey) -> None:
    """A ledger of so many entries, with its tiles and a signed checkpoint."""
    migrate(database, now_ns=time.time_ns())
    for first in range(0, leaves, AT_ONCE):
        count = min(AT_ONCE, leaves - first)
        database.command(
            _ENTRIES.format(origin=ORIGIN, first=first, count=count), settings={"max_memory_usage": 4 << 30}
        )
    made = Tiles(database, ORIGIN)
    made.grow(leaves)
    checkpoint = Checkpoint(origin=ORIGIN, size=leaves, root=tiles.subtree_root(0, leaves, leaves, made.read))
    note = notes.sign(checkpoint.text(), name=ORIGIN, key=key)
    rows = checkpoint_rows(Signed(checkpoint=checkpoint, note=note, ts_ns=time.time_ns()))
    bring(database, rows, token="bench")


def tell(what: str, times_s: list[float], sizes: list[int]) -> None:
    """One measurement."""
    line = {
        "what": what,
        "proofs": len(times_s),
        "p50_ms": round(percentile(times_s, 50) * 1e3, 3),
        "p99_ms": round(percentile(times_s, 99) * 1e3, 3),
        "bytes_max": max(sizes),
    }
    print(json.dumps(line), flush=True)


def measure(data: Path, leaves: int, count: int) -> None:
    """All of it, once."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    somewhere = random.Random(1)
    with Database.open(Profile(kind="chdb", database="bench", path=data / "clickhouse")) as database:
        began_s = time.perf_counter()
        grown(database, leaves, key)
        print(json.dumps({"what": "made", "leaves": leaves, "seconds": round(time.perf_counter() - began_s, 1)}))
        times_s, sizes, last = [], [], None
        for _ in range(count):
            seq = somewhere.randrange(leaves)
            began_s = time.perf_counter()
            proven = prove(database, ORIGIN, seq, public=public)
            times_s.append(time.perf_counter() - began_s)
            assert proven is not None
            sizes.append(len(proven.text))
            last = proven
        tell("cold", times_s, sizes)
        assert last is not None
        checkpoint = notes.parse_proof(last.text).checkpoint
        read = lru_cache(maxsize=None)(Tiles(database, ORIGIN).read)
        times_s, sizes = [], []
        for seq in [somewhere.randrange(leaves) for _ in range(count)]:
            tiles.inclusion_path(seq, leaves, read)  # brings its tiles into memory
            began_s = time.perf_counter()
            path = tiles.inclusion_path(seq, leaves, read)
            text = notes.proof_text(Proof(index=seq, path=tuple(path), checkpoint=checkpoint))
            times_s.append(time.perf_counter() - began_s)
            sizes.append(len(text))
        tell("cached", times_s, sizes)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=LEAVES)
    parser.add_argument("--proofs", type=int, default=500)
    parser.add_argument("--data", type=Path, help="a directory on the disk to measure; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.data) as data:
        measure(Path(data), given.leaves, given.proofs)


if __name__ == "__main__":
    main()
