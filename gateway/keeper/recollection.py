"""What the keeper has done already: read from its own journal, and from the snapshot that shortens the reading.

The snapshot (``ship/progress.json``) is never needed to be right, only to be quick, with one exception: own segments
that were deleted. Where the snapshot is lost and the own journal no longer begins at its beginning, the same entries
are read from ClickHouse, which was read back before they were deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import orjson
import structlog

from gateway.keeper.feed import start_of
from gateway.keeper.progress import Progress
from gateway.keeper.tail import Library, Reader, Shelf
from storage.clickhouse import SWEEP, Database
from storage.durable import make_directory, replace_file
from storage.entries import decode
from storage.errors import JournalError
from storage.reading import Batch

FILE = "progress.json"
ROWS = 500  # extraction entries of up to 64 KiB at once
IDLE_S = 1.0

_log = structlog.get_logger(__name__)

_DONE = """
SELECT seq, entry FROM entries
WHERE origin = {origin:String} AND seq >= {first:UInt64} AND seq < {end:UInt64}
  AND kind IN ('extraction', 'explanation')
ORDER BY seq LIMIT {limit:UInt32}
"""


class Recollection:
    """Keeps `progress` up with the own journal, and its snapshot with `progress`."""

    def __init__(self, data: Path, *, library: Library, shard: str) -> None:
        self._path = data / "ship" / FILE
        self._library = library
        self._shard = shard
        self._readers: dict[str, Reader] = {}
        self._found = self._read()
        self.progress = self._found or Progress()
        self.saved_upto = self.progress.upto if self._found else 0  # own entries below it are in the snapshot
        self.saved_own = self.progress.own
        self.saved_from: dict[str, int] = {}  # from where a restart would read each origin

    async def catch_up(self, database: Database) -> None:
        """True on return: `progress` knows every own entry that was durable at the last look.

        Raises:
            StorageUnavailable: what is missing here must be read from ClickHouse, which does not answer.
        """
        for shelf in self._own_shelves():
            first = await asyncio.to_thread(start_of, shelf.directory, 0)
            if self._found is None and first is not None and first.segment > 0:
                await asyncio.to_thread(self._from_database, database, shelf.origin, first.segment)
        while await self.step():
            pass

    async def run(self) -> None:
        """Follow the own journal for ever."""
        while True:
            version = self._library.version
            if not await self.step():
                await self._library.news(version, within_s=IDLE_S)

    async def step(self) -> bool:
        """Apply the next own entries; true if there were any."""
        busy = False
        for shelf in self._own_shelves():
            try:
                batches = await asyncio.to_thread(self._next, shelf)
            except JournalError as error:
                self._library.report(shelf, error, self._readers[shelf.origin].position)
                continue
            for batch in batches:
                for record in batch.records:
                    self.progress.apply(batch.origin, record.seq, decode(record.entry))
            busy = busy or bool(batches)
        return busy

    async def save(self, kept_from: Mapping[str, int]) -> None:
        """Write the snapshot; durable on return. `kept_from`: where the loops would begin again, by origin."""
        progress = self.progress
        progress.kept_from.update(kept_from)
        content = orjson.dumps(progress.as_json(), option=orjson.OPT_SORT_KEYS) + b"\n"
        own, upto, begin = progress.own, progress.upto, {origin: progress.begin(origin) for origin in kept_from}
        await asyncio.to_thread(self._write, content)
        self.saved_own, self.saved_upto, self.saved_from = own, upto, begin

    def close(self) -> None:
        """Let files go."""
        for reader in self._readers.values():
            reader.close()

    def _own_shelves(self) -> list[Shelf]:
        """Those of the own shard, oldest epoch first, from the one that was being read when the snapshot was taken."""
        own = [shelf for shelf in self._library.shelves if shelf.origin.split("/")[-2] == self._shard]
        since = 0 if self.progress.own is None else _epoch(self.progress.own)
        return sorted(
            (shelf for shelf in own if _epoch(shelf.origin) >= since and shelf.damage is None),
            key=lambda shelf: _epoch(shelf.origin),
        )

    def _next(self, shelf: Shelf) -> list[Batch]:
        reader = self._readers.get(shelf.origin)
        if reader is None or reader.shelf is not shelf:
            upto = self.progress.upto if shelf.origin == self.progress.own else 0
            reader = self._readers[shelf.origin] = Reader(shelf, start_of(shelf.directory, upto))
        return reader.read()

    def _from_database(self, database: Database, origin: str, end: int) -> None:
        first = 0
        while True:
            parameters = {"origin": origin, "first": first, "end": end, "limit": ROWS}
            rows = database.rows(_DONE, parameters, caps=SWEEP)
            for seq, entry in rows:
                self.progress.apply(origin, seq, decode(entry))
            if len(rows) < ROWS:
                return
            first = rows[-1][0] + 1

    def _read(self) -> Progress | None:
        try:
            return Progress.from_json(orjson.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("progress_unreadable", path=str(self._path), error=repr(error))
            return None

    def _write(self, content: bytes) -> None:
        make_directory(self._path.parent)
        replace_file(self._path, content)


def _epoch(origin: str) -> int:
    return int(origin.rpartition("/")[2])
