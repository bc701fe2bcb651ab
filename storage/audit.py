"""Verification of a deployment: reads ClickHouse and, while it is there, the journal; the rules are in verify.py.

Everything streams: entries by windows of about `WINDOW_BYTES`, tiles, checkpoints and journal batches beside them. A
running keeper may ship meanwhile: what must be there is fixed at the beginning, from the ship logs, and what is newer
is left to the next run. Without the data directory only ClickHouse is looked at.

Digests of parts are computed by ClickHouse from the bytes that it stores; those of entries are recomputed here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from storage import watermark
from storage.batch import Batch
from storage.clickhouse import SWEEP, Caps, Database
from storage.comparison import compare_projections
from storage.contents import Chunk, ContentCheck, Key, Older
from storage.errors import JournalError, Unverifiable
from storage.ledger import read_checkpoint
from storage.projections import read_cursors
from storage.queries import blocks
from storage.reading import SegmentTail, shards
from storage.shiplog import file_name, shipped_ends
from storage.tiles import HASH_BYTES, WIDTH
from storage.verify import Claim, EntryCheck, EntryLine, Findings, Report, Signature

WINDOW_ROWS_MAX = 5_000
WINDOW_ROWS_MIN = 64  # entries have at most 64 KiB each
WINDOW_BYTES = 8 * 1024 * 1024  # of entries; a window aims at it by what the last one weighed
PAGE_ROWS = 1_000  # checkpoints
TILES_AT_ONCE = 64
CHUNKS_AT_ONCE = 64  # of a part in many chunks; each is at most 16 MiB, mostly 64 KiB
KEYS_AT_ONCE = 1_000
_BULK = Caps(rows_max=200_000, memory_bytes_max=1 << 30, time_s_max=60)  # chunks around a window


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the verification of one origin is: entries looked at, of how many."""

    origin: str
    done: int
    total: int


@dataclass(slots=True)
class _Known:
    """What is known of one origin before its entries are looked at."""

    origin: str
    stored: int = 0  # one past the highest number in the database
    shipped: int | None = None
    journal: Path | None = None
    recorded: int | None = None  # one past the last durable entry, by the watermark
    signed: Signature | None = None  # the checkpoint in its second place
    problems: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        """How many entries must be there."""
        return self.stored if self.shipped is None else self.shipped


def audit(
    database: Database,
    *,
    public: bytes,
    data: Path | None = None,
    host_keys: Collection[bytes] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Verify everything that is there.

    Args:
        database: what was shipped to.
        public: the log key's public half, which must have signed every checkpoint.
        data: the data directory, for journals, ship logs and the second place of checkpoints.
        host_keys: the host keys trusted to vouch for journals; None trusts the one in each header.
        progress: is told now and then how far it is.

    Raises:
        StorageUnavailable: the database does not answer (any more): nothing can be told.
    """
    run = _Audit(database, public=public, host_keys=host_keys, progress=progress, erased=_erased(database))
    claims: list[Claim] = []
    known = _known(database, data, public)
    for one in known:
        claims += run.entries(one)
    cursors = None if data is None else read_cursors(data / "ship")[1]
    stored = {one.origin: one.stored for one in known}
    for one in known:
        findings = Findings(one.origin)
        upto = one.end if cursors is None else min(one.end, cursors.get(one.origin, 0))
        compare_projections(database, one.origin, upto, findings, stored)
        claims += findings.claims()
    return Report(tuple(claims), sum(one.end for one in known))


def _known(database: Database, data: Path | None, public: bytes) -> list[_Known]:
    found: dict[str, _Known] = {}

    def of(origin: str) -> _Known:
        return found.setdefault(origin, _Known(origin))

    if data is not None:  # before the database: what was shipped by then must be there
        for origin, end in shipped_ends(data / "ship").items():
            of(origin).shipped = end
    for origin, end in database.rows(_sql("known_origins"), caps=SWEEP):
        of(origin).stored = end
    if data is not None:  # after the database: what is there by then must have been recorded
        for directory in shards(data):
            _know_journal(directory, of)
        for origin, one in found.items():
            _know_checkpoint(data / "ship" / f"{file_name(origin)}.checkpoint", one, public)
    return [found[origin] for origin in sorted(found)]


def _know_journal(directory: Path, of: Callable[[str], _Known]) -> None:
    tail = SegmentTail(directory)
    try:
        next(tail.batches(), None)
        if tail.origin is not None:
            mark = watermark.read(directory / watermark.NAME)
            one = of(tail.origin)
            one.journal, one.recorded = directory, None if mark is None else mark.slot.next_seq
    except JournalError as error:
        of(f"journal/{directory.name}").problems.append(error.message)
    finally:
        tail.close()


def _know_checkpoint(path: Path, one: _Known, public: bytes) -> None:
    if not path.exists():
        return
    try:
        signed, _, _ = read_checkpoint(path, path.read_bytes(), origin=one.origin, public=public)
    except Unverifiable as error:
        one.problems.append(error.message)
        return
    one.signed = Signature(signed.checkpoint.size, signed.note.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Audit:
    """What the checks of all origins have in common."""

    database: Database = field(kw_only=False)
    public: bytes
    host_keys: Collection[bytes] | None
    progress: Callable[[Progress], None]
    erased: frozenset[str]

    def entries(self, one: _Known) -> Iterator[Claim]:
        """Check the entries, parts, keys, tree and checkpoints of one origin."""
        findings = Findings(one.origin)
        for problem in one.problems:
            findings.broken("journal", None, problem)
        keys: dict[str, bytes] = {}
        tail = None if one.journal is None else SegmentTail(one.journal, host_keys=self.host_keys)
        try:
            self._walk(one, findings, iter(()) if tail is None else _tapped(tail.batches(), keys), keys)
        finally:
            if tail is not None:
                tail.close()
        if one.recorded is not None and one.stored > one.recorded:
            findings.broken("entries", one.recorded, f"and up to {one.stored - 1}: never recorded by the journal")
        return findings.claims()

    def _walk(self, one: _Known, findings: Findings, batches: Iterator[Batch], keys: dict[str, bytes]) -> None:
        reader = _Reader(self.database, one.origin)
        headers = dict(self.database.rows(_sql("headers"), {"origin": one.origin}, caps=SWEEP))
        own = () if one.signed is None or one.signed.size > one.end else (one.signed,)
        check = EntryCheck(
            findings,
            public=self.public,
            checkpoints=heapq.merge(reader.checkpoints(), own),
            leaves=reader.leaves(one.end),
            batches=batches,
            headers=headers,
        )
        contents = ContentCheck(findings, older=reader.older(), erased=self.erased, segments=frozenset(headers))
        for window in _ahead(reader.windows(one.end)):
            contents.take(window.chunks, window.keys, keys)
            for line in window.lines:
                said = check.feed(line)
                if said is not None:
                    contents.claim(line.seq, said)
            contents.settle()
            self.progress(Progress(one.origin, window.high, one.end))
        check.finish(one.end, recorded=one.recorded or 0)


def _tapped(batches: Iterator[Batch], keys: dict[str, bytes]) -> Iterator[Batch]:
    """The batches, as they are asked for; `keys` gets the digests of their wrapped keys, the newest some thousand."""
    for batch in batches:
        if len(keys) > 10 * KEYS_AT_ONCE:
            keys.clear()
        keys.update((key.key_id, sha256(key.wrapped).digest()) for key in batch.keys)
        yield batch


@dataclass(frozen=True, slots=True)
class _Window:
    """The entries up to `high`, and the chunks and keys of their batches."""

    high: int
    lines: list[EntryLine]
    chunks: list[Chunk]
    keys: list[Key]


def _ahead(windows: Iterator[_Window]) -> Iterator[_Window]:
    """The windows, the next one being read while one is looked at: at most two are in memory."""
    with ThreadPoolExecutor(1, "audit") as reader:
        coming = reader.submit(next, windows, None)
        while (window := coming.result()) is not None:
            coming = reader.submit(next, windows, None)
            yield window


class _Reader:
    """Reads what belongs to one origin, piece by piece."""

    def __init__(self, database: Database, origin: str) -> None:
        self._database = database
        self._origin = origin

    def windows(self, end: int) -> Iterator[_Window]:
        """Entries by ranges of sequence numbers that weigh about `WINDOW_BYTES`, and what was recorded with them."""
        low, rows = 0, 1_000
        while low < end:
            high = min(end, low + rows)
            where = {"low": low, "high": high}
            ((size,),) = self._rows("entries_bytes", where)
            if size > 2 * WINDOW_BYTES and rows > WINDOW_ROWS_MIN:
                rows = max(WINDOW_ROWS_MIN, rows // 4)
                continue
            yield _Window(
                high,
                list(map(EntryLine._make, self._rows("entries", where))),
                list(map(Chunk._make, self._rows("chunks", where, caps=_BULK))),
                list(map(Key._make, self._rows("keys", where, caps=_BULK))),
            )
            low = high
            rows = max(WINDOW_ROWS_MIN, min(WINDOW_ROWS_MAX, rows * WINDOW_BYTES // max(size, 1)))

    def older(self) -> Older:
        """What lies further back than a window."""
        return Older(
            chunks=partial(self._by_key, "chunks_by_key", Chunk),
            keys=partial(self._by_key, "keys_by_id", Key),
            joined=self._joined,
        )

    def leaves(self, end: int) -> Iterator[bytes]:
        """The leaf hashes that full tiles hold, one by one, as far as tiles follow each other from the first on."""
        expected = 0
        for low in range(0, end // WIDTH, TILES_AT_ONCE):
            for n, hashes in self._rows("tiles", {"low": low, "high": low + TILES_AT_ONCE}):
                if n != expected or len(hashes) != WIDTH * HASH_BYTES:
                    return
                expected += 1
                for at in range(0, len(hashes), HASH_BYTES):
                    yield hashes[at : at + HASH_BYTES]

    def checkpoints(self) -> Iterator[Signature]:
        """Every published checkpoint, by size."""
        size, note = 0, ""
        while found := self._rows("checkpoints", {"size": size, "note": note, "limit": PAGE_ROWS}):
            yield from map(Signature._make, found)
            size, note = found[-1]

    def _by_key(self, name: str, kind: Callable[..., Any], keys: Iterable[str]) -> list[Any]:
        wanted = list(keys)
        found = []
        for at in range(0, len(wanted), KEYS_AT_ONCE):
            some = self._rows(name, {"keys": wanted[at : at + KEYS_AT_ONCE]}, caps=_BULK)
            found += [kind(*row) for row in some]
        return found

    def _joined(self, key: str, part: int) -> bytes:
        """The digest over all chunks of a part."""
        digest, low = sha256(), 0
        while found := self._rows("chunk_bytes", {"key": key, "part": part, "low": low, "high": low + CHUNKS_AT_ONCE}):
            for (data,) in found:
                digest.update(data)
            low += CHUNKS_AT_ONCE
        return digest.digest()

    def _rows(self, name: str, parameters: dict[str, Any], *, caps: Caps = SWEEP) -> list[tuple[Any, ...]]:
        return self._database.rows(_sql(name), {"origin": self._origin, **parameters}, caps=caps)


def _erased(database: Database) -> frozenset[str]:
    """The key ids that erasure entries name in their field `keys`."""
    found = database.rows(_sql("erasures"), caps=SWEEP)
    return frozenset(key for (entry,) in found for key in orjson.loads(entry).get("keys", ()))


def _sql(name: str) -> str:
    return blocks("audit.sql")[name]
