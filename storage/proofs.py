"""Proofs of single entries out of ClickHouse, by tiles: from an entry to the newest checkpoint that covers it.

Full tiles are derived from entries that were read back, and stored once; partial ones are made when they are asked for.
Nothing here is believed: a proof is verified against the signed root before it is handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from storage import merkle, notes, tiles
from storage.clickhouse import SWEEP, Database
from storage.errors import Unverifiable
from storage.lines import Rows
from storage.notes import Proof
from storage.queries import checkpoint_covering, entry
from storage.readback import bring
from storage.tiles import WIDTH, Tile

COLUMNS = ("origin", "level", "n", "hashes")
LINE = "concat(toString(level), ' ', toString(n), ' ', hex(SHA256(hashes)))"
ENTRY_TABLE = "entries"  # where the leaves of shards are
LOG_TABLE = "log"  # where those of the log of logs are
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


class Tiles:
    """The tiles of one origin, as the database has them or its entries make them."""

    def __init__(self, database: Database, origin: str, *, table: str = ENTRY_TABLE) -> None:
        self._database = database
        self._origin = origin
        self._leaves = _LEAVES.replace("{table}", table)

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
        parameters = {"origin": self._origin, "level": level - 1, "low": low, "high": high}
        if level == 0:
            found = self._database.rows(self._leaves, parameters, caps=SWEEP)
            hashes = [leaf for _, leaf in found]
        else:
            found = self._database.rows(_TILES, parameters, caps=SWEEP)
            hashes = [tiles.tile_root(below) for _, below in found]
        if [number for number, _ in found] != list(range(low, high)):
            raise Unverifiable(f"{self._origin}: level {level} of the tree is not whole from {low} to {high}")
        return hashes

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
    path = tiles.inclusion_path(seq, checkpoint.size, Tiles(database, origin).read)
    merkle.verify_inclusion(leaf, index=seq, size=checkpoint.size, path=path, root=checkpoint.root)
    text = notes.proof_text(Proof(index=seq, path=tuple(path), checkpoint=covering.note.encode()))
    return Proven(origin=origin, seq=seq, leaf=leaf, size=checkpoint.size, text=text)


def check_proof(text: bytes, *, leaf: bytes, origin: str, public: bytes) -> Proof:
    """The proof that `text` states, verified: `leaf` is in a tree of `origin` signed by `public`.

    Raises:
        Unverifiable: it is not.
    """
    proof = notes.parse_proof(text)
    checkpoint = notes.verified_checkpoint(proof.checkpoint, origin=origin, public=public)
    merkle.verify_inclusion(leaf, index=proof.index, size=checkpoint.size, path=proof.path, root=checkpoint.root)
    return proof
