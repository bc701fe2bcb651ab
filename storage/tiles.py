"""Tiles of the Merkle tree (c2sp.org/tlog-tiles), and proofs made from them (pure).

The n-th tile at level l holds 256 hashes, each the root over 256**l leaves. Full tiles never change; a partial one
is the right edge of a tree of some size. A proof needs a handful of tiles, whatever the size of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from storage.errors import Unverifiable
from storage.merkle import HASH_BYTES, node_hash

WIDTH = 256  # hashes of a full tile
_PATH = re.compile(r"^(0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?$")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Where a tile stands: its level, its number in the level, and how many hashes it holds (1 to 256)."""

    level: int
    n: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Under ``<prefix>/tile/``: number in groups of three digits, all but the last after an ``x``."""
        groups = [f"{self.n % 1000:03d}"]
        rest = self.n // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"{self.level}/{'/'.join(groups)}{suffix}"


ReadTile = Callable[[Tile], bytes]
"""Gives the tile's hashes, concatenated: exactly ``width * 32`` bytes."""


def parse_path(path: str) -> Tile:
    """The tile of a path as `Tile.path` writes it.

    Raises:
        Unverifiable: any other spelling.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise Unverifiable(f"not a tile path: {path[:80]!r}")
    tile = Tile(int(match[1]), int(match[2].replace("/", "").replace("x", "")), int(match[3] or WIDTH))
    if tile.path != path or tile.level > 63:
        raise Unverifiable(f"not a tile path: {path[:80]!r}")
    return tile


def full_tiles(size: int, *, done: int = 0) -> Iterator[Tile]:
    """The full tiles that a tree of `size` leaves has and one of `done` leaves had not, from the leaves upward."""
    level, span = 0, WIDTH
    while span <= size:
        for n in range(done // span, size // span):
            yield Tile(level, n)
        level, span = level + 1, span * WIDTH


def tile_root(hashes: bytes) -> bytes:
    """The root over a full tile: one hash of the level above."""
    if len(hashes) != WIDTH * HASH_BYTES:
        raise Unverifiable(f"a tile of {len(hashes)} bytes is not full")
    nodes = _split(hashes)
    while len(nodes) > 1:
        nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
    return nodes[0]


def inclusion_path(index: int, size: int, read: ReadTile) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves (RFC 6962 §2.1.1), from leaf to root.

    Raises:
        Unverifiable: there is no such leaf in that tree.
    """
    if not 0 <= index < size:
        raise Unverifiable(f"leaf {index} is not in a tree of {size}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split_point(high - low)
        if index < middle:
            path.append(subtree_root(middle, high, size, read))
            high = middle
        else:
            path.append(subtree_root(low, middle, size, read))
            low = middle
    return path[::-1]


def consistency_path(old_size: int, size: int, read: ReadTile) -> list[bytes]:
    """The proof that a tree of `size` leaves continues the one over its first `old_size` (RFC 6962 §2.1.2).

    Raises:
        Unverifiable: there is no such proof: `old_size` is larger, or zero.
    """
    if not 0 < old_size <= size:
        raise Unverifiable(f"no consistency proof from a tree of {old_size} to one of {size}")
    path: list[bytes] = []
    low, high, whole = 0, size, True
    while high != old_size:
        middle = low + _split_point(high - low)
        if old_size <= middle:
            path.append(subtree_root(middle, high, size, read))
            high = middle
        else:
            path.append(subtree_root(low, middle, size, read))
            low, whole = middle, False
    if not whole:
        path.append(subtree_root(low, high, size, read))
    return path[::-1]


def subtree_root(low: int, high: int, size: int, read: ReadTile) -> bytes:
    """The root over the leaves [low, high) of a tree of `size`, for the ranges that RFC 6962 splits a tree into."""
    count = high - low
    if count & (count - 1):
        middle = low + _split_point(count)
        return node_hash(subtree_root(low, middle, size, read), subtree_root(middle, high, size, read))
    level = (count.bit_length() - 1) // 8
    span = WIDTH**level
    first = low // span
    width = min(WIDTH, size // span - first // WIDTH * WIDTH)
    hashes = _split(read(Tile(level, first // WIDTH, width)))
    nodes = hashes[first % WIDTH : first % WIDTH + count // span]
    while len(nodes) > 1:
        nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
    return nodes[0]


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]


def _split_point(count: int) -> int:
    """The largest power of two smaller than `count` (RFC 6962 §2.1)."""
    return int(1 << ((count - 1).bit_length() - 1))
