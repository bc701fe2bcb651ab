"""Proofs of single entries out of ClickHouse, by tiles: from an entry to the newest checkpoint that covers it.

Full tiles are derived from entries that were read back, and stored once; partial ones are made when they are asked for.
Nothing here is believed: a proof is verified against the signed root before it is handed out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from weakref import WeakKeyDictionary

from storage import merkle, notes, tiles
from storage.clickhouse import SWEEP, Database
from storage.errors import Unverifiable
from storage.lines import Rows
from storage.notes import Checkpoint, Proof
from storage.queries import checkpoint_covering, entry
from storage.readback import bring
from storage.tiles import WIDTH, Tile

COLUMNS = ("origin", "level", "n", "hashes")
LINE = "concat(toString(level), ' ', toString(n), ' ', hex(SHA256(hashes)))"
ENTRY_TABLE = "entries"  # where the leaves of shards are
LOG_TABLE = "log"  # where those of the log of logs are
ROOTS_MAX = 16_384  # some 3 MiB: the right edges of a dozen ledgers and logs
TILES_OF_A_PATH = 32  # two a level: each is asked for up to eight times
TILES_AT_ONCE = 128  # of one insert: 1 MiB, 32,768 entries

_TILE = "SELECT hashes FROM tiles WHERE origin = {origin:String} AND level = {level:UInt8} AND n = {n:UInt64} LIMIT 1"
_DONE = "SELECT count() FROM tiles WHERE origin = {origin:String} AND level = {level:UInt8}"
_LEAVES = """
SELECT seq, leaf FROM {table} WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
ORDER BY seq
"""
_TILES = """
SELECT n, hashes FROM tiles
WHERE origin = {origin:String} AND level = {level:UInt8} AND n >= {low:UInt64} AND n < {high:UInt64}
ORDER BY n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A verified proof: the entry's leaf is in the tree of `size` leaves; `text` is a C2SP tlog-proof."""

    origin: str
    seq: int
    leaf: bytes
    size: int
    text: bytes


class Roots:
    """Roots of full tiles, which never change: what a partial tile of the level above is made of.

    Only the right edge of a tree is asked for again and again, so few are kept. For any thread.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, origin: str, level: int, numbers: Sequence[int]) -> list[bytes | None]:
        """Those of the tiles `numbers` of a level, None where one is not kept."""
        with self._lock:
            return [self._kept.get((origin, level, n)) for n in numbers]

    def keep(self, origin: str, level: int, roots: Mapping[int, bytes]) -> None:
        """Keep these; the oldest give way."""
        with self._lock:
            for n, root in roots.items():
                self._kept[origin, level, n] = root
            while len(self._kept) > ROOTS_MAX:
                self._kept.popitem(last=False)

    def forget(self) -> None:
        """What was read may have been wrong: read all of it again."""
        with self._lock:
            self._kept.clear()


_roots: WeakKeyDictionary[Database, Roots] = WeakKeyDictionary()


class Tiles:
    """The tiles of one origin, as the database has them or its entries make them."""

    def __init__(self, database: Database, origin: str, *, table: str = ENTRY_TABLE) -> None:
        self._database = database
        self._origin = origin
        self._leaves = _LEAVES.replace("{table}", table)
        self._roots = _roots.setdefault(database, Roots())

    def read(self, tile: Tile) -> bytes:
        """The hashes of a tile, concatenated.

        Raises:
            Unverifiable: entries or tiles below it are missing.
        """
        if tile.width == WIDTH:
            where = {"origin": self._origin, "level": tile.level, "n": tile.n}
            for (hashes,) in self._database.rows(_TILE, where):
                return bytes(hashes)
        low = tile.n * WIDTH
        return b"".join(self._hashes(tile.level, low, low + tile.width))

    def grow(self, size: int) -> int:
        """Store every full tile of a tree of `size` entries, all of them shipped; returns how many were new."""
        made = level = 0
        while span := size // WIDTH ** (level + 1):
            ((done,),) = self._database.rows(_DONE, {"origin": self._origin, "level": level})
            for first in range(done, span, TILES_AT_ONCE):
                count = min(TILES_AT_ONCE, span - first)
                hashes = self._hashes(level, first * WIDTH, (first + count) * WIDTH)
                full = [b"".join(hashes[at * WIDTH : (at + 1) * WIDTH]) for at in range(count)]
                bring(self._database, self._rows(level, first, full), token=f"tiles:{self._origin}:{level}:{first}")
                made += count
            level += 1
        return made

    def _hashes(self, level: int, low: int, high: int) -> list[bytes]:
        """The hashes [low, high) of a level: leaves, or the roots of full tiles below."""
        numbers = list(range(low, high))
        if level:
            return self._made(level - 1, numbers)
        found = self._database.rows(self._leaves, {"origin": self._origin, "low": low, "high": high}, caps=SWEEP)
        if [number for number, _ in found] != numbers:
            raise self._gap(level, low, high)
        return [leaf for _, leaf in found]

    def _made(self, level: int, numbers: list[int]) -> list[bytes]:
        """The roots of full tiles of a level, kept or made of what is stored."""
        kept = dict(zip(numbers, self._roots.get(self._origin, level, numbers), strict=True))
        missing = [n for n, root in kept.items() if root is None]
        if missing:
            low, high = missing[0], missing[-1] + 1
            where = {"origin": self._origin, "level": level, "low": low, "high": high}
            found = self._database.rows(_TILES, where, caps=SWEEP)
            if [number for number, _ in found] != list(range(low, high)):
                raise self._gap(level + 1, low, high)
            made = {n: tiles.tile_root(hashes) for n, hashes in found}
            self._roots.keep(self._origin, level, made)
            kept |= made
        return [root for root in kept.values() if root is not None]

    def _gap(self, level: int, low: int, high: int) -> Unverifiable:
        return Unverifiable(f"{self._origin}: level {level} of the tree is not whole from {low} to {high}")

    def _rows(self, level: int, first: int, full: Sequence[bytes]) -> Rows:
        numbers = range(first, first + len(full))
        return Rows(
            table="tiles",
            columns=COLUMNS,
            rows=[(self._origin, level, n, hashes) for n, hashes in zip(numbers, full, strict=True)],
            lines=[f"{level} {n} {sha256(h).hexdigest().upper()}" for n, h in zip(numbers, full, strict=True)],
            where="origin = {origin:String} AND level = {level:UInt8} AND n >= {low:UInt64} AND n < {high:UInt64}",
            parameters={"origin": self._origin, "level": level, "low": first, "high": first + len(full)},
            line=LINE,
        )


def prove(database: Database, origin: str, seq: int, *, public: bytes) -> Proven | None:
    """The proof of the entry at (origin, seq), verified under the log key `public`; None: no checkpoint covers it yet.

    Raises:
        Unverifiable: the entry, the tree or the checkpoint is not what was signed.
    """
    covering = checkpoint_covering(database, origin, seq)
    stored = entry(database, origin, seq)
    if covering is None or stored is None:
        return None
    checkpoint = notes.verified_checkpoint(covering.note.encode(), origin=origin, public=public)
    leaf = merkle.leaf_hash(stored.entry)
    path = path_to(database, leaf, index=seq, checkpoint=checkpoint)
    text = notes.proof_text(Proof(index=seq, path=tuple(path), checkpoint=covering.note.encode()))
    return Proven(origin=origin, seq=seq, leaf=leaf, size=checkpoint.size, text=text)


def path_to(
    database: Database, leaf: bytes, *, index: int, checkpoint: Checkpoint, table: str = ENTRY_TABLE
) -> list[bytes]:
    """The audit path from a leaf to a signed root, verified.

    Raises:
        Unverifiable: there is none: leaf or tree is not what was signed.
    """
    origin, size = checkpoint.origin, checkpoint.size
    for may_be_stale in (True, False):
        try:
            read = lru_cache(maxsize=TILES_OF_A_PATH)(Tiles(database, origin, table=table).read)
            path = tiles.inclusion_path(index, size, read)
            merkle.verify_inclusion(leaf, index=index, size=size, path=path, root=checkpoint.root)
        except Unverifiable:
            if not may_be_stale:
                raise
            forget_roots(database)  # read when it was wrong, and mended since
            continue
        return path
    raise AssertionError("the second attempt returns or raises")


def forget_roots(database: Database) -> None:
    """Make every root anew from what is stored: for whoever must see what stands there now."""
    _roots.setdefault(database, Roots()).forget()


def check_proof(text: bytes, *, leaf: bytes, origin: str, public: bytes) -> Proof:
    """The proof that `text` states, verified: `leaf` is in a tree of `origin` signed by `public`.

    Raises:
        Unverifiable: it is not.
    """
    proof = notes.parse_proof(text)
    checkpoint = notes.verified_checkpoint(proof.checkpoint, origin=origin, public=public)
    merkle.verify_inclusion(leaf, index=proof.index, size=checkpoint.size, path=proof.path, root=checkpoint.root)
    return proof
