"""What ClickHouse holds of one origin, read piece by piece for verification; everything is bounded.

A window is a range of sequence numbers whose entries weigh about `WINDOW_BYTES`, and what was recorded with them. A row
that is there many times cannot break the bounds: two of a kind are read, and the number is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any

from storage.clickhouse import BULK, SWEEP, Caps, Database
from storage.contents import Chunk, Key, Older
from storage.merkle import HASH_BYTES
from storage.queries import blocks
from storage.tiles import WIDTH
from storage.verify import EntryLine

WINDOW_ROWS_MAX = 5_000
WINDOW_ROWS_MIN = 64  # entries have at most 64 KiB each
WINDOW_BYTES = 8 * 1024 * 1024  # of entries; a window aims at it by what the last one weighed
PIECES_MAX = BULK.rows_max // 2  # chunks or keys around a window; more are not looked at, and that is a finding
HEADERS_MAX = 5_000  # segments of one window: each has at least its heartbeat
PAGE_ROWS = 1_000  # checkpoints, erasures
TILES_AT_ONCE = 64
CHUNKS_AT_ONCE = 64  # of a part in many chunks; each is at most 16 MiB, mostly 64 KiB
KEYS_AT_ONCE = 1_000
NUMBERS_END = 1 << 63  # no ledger grows up to here; what stands behind was forged

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Window:
    """The entries up to `high`, and the chunks, keys and headers of their batches.

    `many`: sequence numbers that are there more than once, and how often; `overrun`: tables with too many rows here.
    """

    low: int
    high: int
    lines: list[EntryLine]
    chunks: list[Chunk]
    keys: list[Key]
    headers: list[tuple[int, bytes]]
    many: list[tuple[int, int]] = field(default_factory=list)
    overrun: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """The checkpoints that are filed under one size: one row, or the lowest and the highest of several."""

    size: int
    count: int
    notes: tuple[str, str]
    roots: tuple[bytes, bytes]
    times: tuple[int, int]


def ahead(windows: Iterator[Window]) -> Iterator[Window]:
    """The windows, the next one being read while one is looked at: at most two are in memory."""
    with ThreadPoolExecutor(1, "audit") as reader:
        coming = reader.submit(next, windows, None)
        while (window := coming.result()) is not None:
            coming = reader.submit(next, windows, None)
            yield window


class Reader:
    """Reads what belongs to one origin."""

    def __init__(self, database: Database, origin: str) -> None:
        self._database = database
        self._origin = origin

    def windows(self, end: int, low: int = 0) -> Iterator[Window]:
        """Everything that belongs to the entries [low, end), window by window."""
        rows = 1_000
        while low < end:
            high = min(end, low + rows)
            where = {"low": low, "high": high}
            ((size, count, distinct),) = self._rows("weight", where)
            ((pieces,),) = self._rows("pieces", where)
            if (size > 2 * WINDOW_BYTES or pieces > PIECES_MAX // 2) and rows > WINDOW_ROWS_MIN and distinct:
                rows = max(WINDOW_ROWS_MIN, rows // 4)
                continue
            if not count:  # a hole, which may be wide
                ((left, following),) = self._rows("following", {"low": high, "high": end})
                high = following if left else end
            window = self.window(low, high)
            yield replace(window, many=self._rows("many", where)) if count > distinct else window
            low = high
            rows = max(WINDOW_ROWS_MIN, min(WINDOW_ROWS_MAX, rows * WINDOW_BYTES // max(size, 1)))

    def window(self, low: int, high: int) -> Window:
        """The entries [low, high) and what was recorded with them."""
        where = {"low": low, "high": high}
        limits = {"chunks": PIECES_MAX, "keys": PIECES_MAX, "headers": HEADERS_MAX}
        # a header states the tree before its segment, so it is wanted when the entries up to there were read
        wheres = {"chunks": where, "keys": where, "headers": {"low": low and low + 1, "high": high + 1}}
        found = {
            name: self._rows(name, {**wheres[name], "limit": most + 1}, caps=BULK) for name, most in limits.items()
        }
        return Window(
            low,
            high,
            list(map(EntryLine._make, self._rows("entries", where))),
            list(map(Chunk._make, found["chunks"])),
            list(map(Key._make, found["keys"])),
            [(first_seq, header) for first_seq, header in found["headers"]],
            overrun=tuple(name for name, most in limits.items() if len(found[name]) > most),
        )

    def beyond(self, end: int) -> list[tuple[str, int]]:
        """Table → its highest number, of those tables that hold anything filed at `end` or above."""
        return [(table, last) for table, last, count in self._rows("beyond", {"end": end}) if count]

    def older(self) -> Older:
        """What lies further back than a window."""
        return Older(
            chunks=partial(self._by_key, "chunks_by_key", Chunk),
            keys=partial(self._by_key, "keys_by_id", Key),
            joined=self._joined,
        )

    def headers(self, below: int) -> Iterator[tuple[int, bytes]]:
        """The headers of the segments that begin below `below`, with the number that each begins with."""
        low = 0
        while found := self._rows("headers", {"low": low, "high": below, "limit": PAGE_ROWS}):
            for first_seq, header in found:
                yield first_seq, header
                low = first_seq + 1

    def leaves(self, end: int, low: int = 0) -> Iterator[bytes]:
        """The leaf hashes that full tiles hold, from number `low` on (a multiple of 256), as far as tiles follow."""
        expected = low // WIDTH
        for first in range(expected, end // WIDTH, TILES_AT_ONCE):
            found = self._rows("tiles", {"low": first, "high": first + TILES_AT_ONCE})
            if not found:
                return
            for n, hashes in found:
                if n != expected or len(hashes) != WIDTH * HASH_BYTES:
                    return
                expected += 1
                for at in range(0, len(hashes), HASH_BYTES):
                    yield hashes[at : at + HASH_BYTES]

    def tile_counts(self) -> list[tuple[int, int, int, int, int]]:
        """By level: how many rows, how many different numbers, the highest, and how many of another length."""
        return [(int(a), int(b), int(c), int(d), int(e)) for a, b, c, d, e in self._rows("tile_counts", {})]

    def upper_tiles(self, level: int, low: int, high: int) -> Rows:
        """Number and hashes of the tiles [low, high) of a level; two of a kind where one is there twice."""
        return self._rows("upper_tiles", {"level": level, "low": low, "high": high})

    def checkpoints(self, least: int = 0) -> Iterator[Published]:
        """Every published checkpoint of at least `least` entries, by size."""
        size = least - 1
        while found := self._rows("checkpoints", {"size": size, "limit": PAGE_ROWS}):
            for size, count, *rest in found:
                first, last, low, high, early, late = rest
                yield Published(size, count, (first, last), (low, high), (early, late))

    def published(self) -> int:
        """The largest size of a published checkpoint, 0 where there is none."""
        ((size,),) = self._rows("published", {})
        return int(size)

    def stored(self) -> int:
        """One past the highest entry that is there now."""
        ((count, last),) = self._rows("stored", {})
        return int(last) + 1 if count else 0

    def _by_key(self, name: str, kind: Callable[..., Any], keys: Iterable[str]) -> list[Any]:
        wanted = list(keys)
        found = []
        for at in range(0, len(wanted), KEYS_AT_ONCE):
            where = {"keys": wanted[at : at + KEYS_AT_ONCE], "limit": PIECES_MAX}
            found += [kind(*row) for row in self._rows(name, where, caps=BULK)]
        return found

    def _joined(self, key: str, part: int) -> bytes:
        """The digest over all chunks of a part."""
        digest, low = sha256(), 0
        while found := self._rows("chunk_bytes", {"key": key, "part": part, "low": low, "high": low + CHUNKS_AT_ONCE}):
            for (data,) in found:
                digest.update(data)
            low += CHUNKS_AT_ONCE
        return digest.digest()

    def _rows(self, name: str, parameters: dict[str, Any], *, caps: Caps = SWEEP) -> Rows:
        return self._database.rows(blocks("audit.sql")[name], {"origin": self._origin, **parameters}, caps=caps)
