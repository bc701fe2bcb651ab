"""Every write, sync, rename, unlink and the like of a worker's and a keeper's life, failed once: EIO, then ENOSPC.

What fails is a call at the one door to the disk (storage/durable.py). A point is a call and an error. However a life
ends, the next one goes on, and what was acknowledged is there. `ANSWERABLE_FAULT_POINTS=0` (make chaos) takes all of
them; a number takes so many of each life, spread over it.
"""

import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.audit import audit
from storage.clickhouse import Database
from storage.copies import Copies
from storage.durable import Syscalls
from storage.errors import StorageError
from storage.journal import Appended
from storage.ledger import Ledger
from storage.logoflogs import LogOfLogs, Source
from storage.projections import Projector
from storage.segment import SegmentHeader
from tests.integration.test_audit import GATEWAY, KEEPER
from tests.integration.test_ledger import KEY, PUBLIC
from tests.integration.test_shipper import ship_all, shipper
from tests.support.batches import START_NS, Shard, write_keys
from tests.support.journals import begin_call, call, check_whole, journal_keys, open_journal

POINTS = int(os.environ.get("ANSWERABLE_FAULT_POINTS", "10"))
CODES = (errno.EIO, errno.ENOSPC)
CHANGING = ("pwrite", "write", "datasync", "fsync", "fallocate", "truncate", "rename", "link", "unlink", "mkdir")


class FailsOnce(Syscalls):
    """The kernel, but the `number`-th call that changes a disk fails with `code` and does nothing; 0: none does.

    What is read back proves no durability: the page cache has it, too. So it notes which files were written and not
    synced since, and what was claimed meanwhile.
    """

    def __init__(self, number: int, code: int) -> None:
        self._number, self._code = number, code
        self._lock = threading.Lock()
        self.made: list[str] = []
        self.failed: str | None = None
        self._lost: int | None = None  # the inode whose sync failed
        self.dirty: set[int] = set()  # inodes
        self.early: list[str] = []  # what was claimed while something was not durable

    def claim(self, what: str) -> None:
        """Something was acknowledged: everything that was written is durable by now, or that was too early."""
        if self.dirty:
            self.early.append(what)

    def __getattribute__(self, name: str) -> Any:
        real = object.__getattribute__(self, name)
        if name not in CHANGING:
            return real

        def counted(*arguments: Any) -> Any:
            with self._lock:
                self.made.append(name)
                is_due = len(self.made) == self._number
            if is_due:
                self.failed = name
                if name in ("datasync", "fsync"):
                    self._lost = os.fstat(arguments[0]).st_ino
                raise OSError(self._code, os.strerror(self._code))
            gone = arguments[0].stat().st_ino if name == "unlink" and arguments[0].exists() else None
            result = real(*arguments)
            if gone is not None:  # its number may be given to a new file
                self.dirty.discard(gone)
                self._lost = None if gone == self._lost else self._lost
            if name in ("pwrite", "write"):
                inode = os.fstat(arguments[0]).st_ino
                self.dirty.add(inode)
                if inode == self._lost:
                    self.early.append("a write to a file whose sync had failed: the page cache lies about it")
            elif name in ("datasync", "fsync"):
                self.dirty.discard(os.fstat(arguments[0]).st_ino)
            return result

        return counted


def points(made: list[str]) -> Iterator[tuple[int, int]]:
    """The calls that are to fail, and how, of those that a whole life made: all, or `POINTS`, each name in turn."""
    every = [(number, code) for number in range(1, len(made) + 1) for code in CODES]
    if not POINTS:
        yield from every
        return
    of_name = {name: [point for point in every if made[point[0] - 1] == name] for name in sorted(set(made))}
    turns = -(-POINTS // len(of_name))
    chosen = [
        those[len(those) * turn // turns + len(those) // (2 * turns)]
        for turn in range(turns)
        for those in of_name.values()
    ]
    yield from dict.fromkeys(chosen[:POINTS])


# --- a worker ------------------------------------------------------------------------------------------------


async def worked(directory: Path, data: Path, calls: FailsOnce) -> list[Appended]:
    """A worker's life over several segments; what it acknowledged."""
    acknowledged: list[Appended] = []
    with contextlib.suppress(StorageError, OSError):
        journal = await open_journal(directory, journal_keys(data), syscalls=calls)
        try:
            await begin_call(journal)
            for number in range(12):
                appended = await call(journal, 100 + 900 * (number % 3))
                acknowledged.append(appended)
                calls.claim(f"entry {appended.seq}")
        finally:
            await journal.close()
    return acknowledged


async def test_a_worker_acknowledges_nothing_that_is_not_durable_whatever_call_fails(tmp_path: Path) -> None:
    counting = FailsOnce(0, 0)
    whole = await worked(tmp_path / "whole", tmp_path, counting)
    assert (len(whole), counting.early) == (12, [])
    assert set(counting.made) >= {"pwrite", "datasync", "fsync", "fallocate", "rename", "truncate", "mkdir"}
    failed: Counter[str] = Counter()
    for number, code in points(counting.made):
        directory = tmp_path / f"{number}-{code}"
        calls = FailsOnce(number, code)
        acknowledged = await worked(directory, tmp_path, calls)
        failed[calls.failed or "none"] += 1
        assert calls.early == [], (number, code, calls.failed)
        for _ in range(2):  # the next life recovers, and the one after it finds nothing to mend
            journal = await open_journal(directory, journal_keys(tmp_path))
            await journal.close()
            check_whole(directory, acknowledged)
    told(failed, "worker")


# --- a keeper ------------------------------------------------------------------------------------------------


class Site:
    """Two shards whose journals are written, and a keeper's files over them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.shards = (Shard(origin=GATEWAY), Shard(origin=KEEPER))
        gateway, keeper = self.shards
        gateway.heartbeat()
        for _ in range(2):
            batch = gateway.decisions(5, size=30)
            keeper.commit([keeper.extraction(batch)])
            gateway.roll()
            gateway.heartbeat()

    def laid(self, folder: Path) -> None:
        """Journals as these shards wrote them, and an empty database."""
        write_keys(folder)
        for shard in self.shards:
            shard.write(folder / "journal" / shard.origin.split("/")[1])
        for (table,) in self.database.rows("SELECT name FROM system.tables WHERE database = currentDatabase()"):
            if table != "migrations":
                self.database.command(f"TRUNCATE TABLE {table}")

    def kept(self, folder: Path, calls: FailsOnce) -> tuple[dict[str, int], int]:
        """A keeper's life: ship, sign, publish, state in the log of logs, copy, project.

        Returns what it holds for done when it ends or fails: per origin up to where it shipped, and the size of the
        log of logs that it signed.
        """
        ship = folder / "ship"
        shipped: dict[str, int] = {}
        log_size = 0
        with contextlib.suppress(StorageError, OSError):
            ledgers = {shard.origin: Ledger(ship, shard.origin, key=KEY, calls=calls) for shard in self.shards}
            log = LogOfLogs(ship, "acme", key=KEY, calls=calls)
            for shard in self.shards:
                ledger, line = ledgers[shard.origin], shipper(self.database, folder, shard, calls)
                ledger.refuse_rollback(journal_size=shard.batches[-1].commit.size, database=self.database)
                try:
                    ship_all(line, shard)
                    calls.claim(f"shipped {shard.origin}")
                finally:
                    shipped[shard.origin] = line.next_seq
                    line.close()
                ledger.apply(shard.batches)
                ledger.sign(now_ns=START_NS)
                calls.claim(f"signed {shard.origin}")
                ledger.publish(self.database)
            log.refuse_rollback(self.database)
            log.publish(self.database)
            log.round([self.source(shard, ledgers[shard.origin]) for shard in self.shards], now_ns=START_NS)
            log.publish(self.database)
            assert log.signed is not None
            calls.claim("log of logs")
            log_size = log.signed.checkpoint.size
            Copies(folder / "copies", "acme/log", public=PUBLIC, calls=calls).keep(log.signed)
            calls.claim("copy")
            projector = Projector(self.database, ship, calls)
            for origin in shipped:
                while projector.step(origin, shipped) is not None:
                    calls.claim(f"projected {origin}")
        return shipped, log_size

    @staticmethod
    def source(shard: Shard, ledger: Ledger) -> Source:
        """As the log of logs looks at it."""
        headers = {first: SegmentHeader.from_bytes(raw) for first, raw in shard.headers.items()}
        return Source(ledger=ledger, header=headers.get, is_set_aside=False)

    def stored(self) -> dict[str, int]:
        """Per origin one past the highest number that ClickHouse holds, where nothing is missing below."""
        rows = self.database.rows("SELECT origin, max(seq) + 1, count() FROM entries GROUP BY origin")
        return {origin: end for origin, end, count in rows if end == count}


def test_a_keeper_claims_nothing_that_is_not_there_whatever_call_fails(embedded: Database, tmp_path: Path) -> None:
    site, counting = Site(embedded), FailsOnce(0, 0)
    site.laid(tmp_path / "whole")
    shipped, log_size = site.kept(tmp_path / "whole", counting)
    assert counting.early == []
    assert (sum(shipped.values()), log_size > 0) == (sum(len(shard.entries) for shard in site.shards), True)
    assert set(counting.made) >= {"write", "datasync", "fsync", "rename", "mkdir"}
    failed: Counter[str] = Counter()
    for number, code in points(counting.made):
        folder, calls = tmp_path / f"{number}-{code}", FailsOnce(number, code)
        site.laid(folder)
        shipped, _ = site.kept(folder, calls)
        failed[calls.failed or "none"] += 1
        assert calls.early == [], (number, code, calls.failed)
        stored = site.stored()
        assert all(end <= stored.get(origin, 0) for origin, end in shipped.items())
        again, log_size = site.kept(folder, FailsOnce(0, 0))  # the next life, on what the first left
        assert again == {shard.origin: len(shard.entries) for shard in site.shards}
        assert log_size > 0
        report = audit(embedded, public=PUBLIC, data=folder)
        assert report.exit_code == 0, (number, code, calls.failed, report.broken)
    told(failed, "keeper")


def told(failed: Counter[str], life: str) -> None:
    """Each point met its call; prints how many of each."""
    assert failed["none"] == 0
    print(f"{life}: {sum(failed.values())} points: {dict(failed)}")  # noqa: T201 (make chaos shows it)
