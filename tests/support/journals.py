"""Journals for tests: real keys, real files, small segments; drafts and sealed parts as a gateway makes them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.durable import Syscalls
from storage.entries import Draft, Part, closes_call
from storage.ids import uuid7
from storage.journal import Appended, Journal, JournalLimits, PartKey, Row
from storage.keys import JournalKeys, Keyring
from storage.reading import Batch, SegmentTail
from storage.segment import StoredPart

SMALL = JournalLimits(segment_bytes=512 * 1024, call_bytes_reserved=256, space_wait_s=0.2)
ORIGIN_BASE = "test/gateway-0"
BOOT = bytes(range(16))


def journal_keys(data: Path) -> JournalKeys:
    """The keys of a data directory, made where they are missing."""
    return Keyring.open(data, create=True).journal_keys()


async def open_journal(directory: Path, keys: JournalKeys, **options: Any) -> Journal:
    """A journal with small segments."""
    known: dict[str, Any] = {"origin_base": ORIGIN_BASE, "keys": keys, "limits": SMALL, "boot_id": BOOT, **options}
    return await Journal.open(directory, **known)


def new_id() -> str:
    """A UUIDv7 of now."""
    return uuid7(time.time_ns(), os.urandom(8))


def draft(kind: str = "decision", *, decision: str | None = None, parts: tuple[Part, ...] = (), **fields: Any) -> Draft:
    """A draft of one kind; a decision's id is the decision's."""
    decision = decision or new_id()
    return Draft(
        kind=kind,
        tenant=fields.pop("tenant", "acme"),
        route=fields.pop("route", "credit"),
        actor="app:test",
        id=decision if kind == "decision" else new_id(),
        ts_ns=time.time_ns(),
        decision=decision,
        config="c0",
        parts=parts,
        fields=fields,
    )


def sealed_decision(journal: Journal, request: bytes, response: bytes) -> tuple[Draft, list[StoredPart], PartKey]:
    """A decision with two sealed parts, as the gateway appends it."""
    key = journal.new_key()
    asked, asked_bytes = key.sealer.seal("request", "application/json", request, 0)
    answered, answered_bytes = key.sealer.seal("response", "application/json", response, 1)
    return draft(parts=(asked, answered), status=200), [asked_bytes, answered_bytes], key


async def call(journal: Journal, size: int = 2) -> Appended:
    """One admitted call that ends in a decision."""
    journal.admit("acme", "credit")
    return await journal.append(draft(pad="x" * size), closes=True)


def read_all(directory: Path, **options: Any) -> list[Batch]:
    """Every committed batch of a directory."""
    tail = SegmentTail(directory, **options)
    try:
        return list(tail.batches())
    finally:
        tail.close()


def entries_of(batches: list[Batch]) -> list[dict[str, Any]]:
    """The entries of batches, decoded."""
    import orjson

    return [orjson.loads(record.entry) for batch in batches for record in batch.records]


class Failing(Syscalls):
    """The kernel, but calls of one name fail as a test says; ``fails(number, *arguments)`` gives an errno or None."""

    def __init__(self, name: str, fails: Callable[..., int | None]) -> None:
        self.count = 0
        self.fails = fails
        real = getattr(Syscalls, name)

        def failing(*arguments: Any) -> Any:
            self.count += 1
            code = self.fails(self.count, *arguments)
            if code is not None:
                raise OSError(code, errno.errorcode[code])
            return real(self, *arguments)

        setattr(self, name, failing)


class Synced(Syscalls):
    """The kernel; notes whether the file that stands at ``path`` in the end is a new one that was synced."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, path.stat().st_ino
        self._synced: set[int] = set()

    def fsync(self, fd: int) -> None:
        """Sync, and note which file it was."""
        super().fsync(fd)
        self._synced.add(os.fstat(fd).st_ino)

    @property
    def is_durable(self) -> bool:
        """True if it is."""
        now = self._path.stat().st_ino
        return now != self._before and now in self._synced


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait until a condition holds; fail after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


class Quick(Syscalls):
    """The kernel without syncs, for tests of what the bytes say and not of what the disk does."""

    def fsync(self, fd: int) -> None:
        """Nothing: the page cache is enough for a reader on this machine."""

    def datasync(self, fd: int) -> None:
        """Nothing."""


QUICK = Quick()


class Snapshot(Quick):
    """Copies a directory at the ``number``-th call that changes a file, before or after that call took effect.

    The copy is what a process that is killed there leaves behind; the process itself goes on. Calls of the thread that
    reserves space are left out: what they make is no part of a journal.
    """

    def __init__(self, number: int, *, persisted: bool, directory: Path, target: Path) -> None:
        self.left = number
        self.acknowledged: list[Appended] = []
        self.seen = 0  # how many of them there were when the copy was made
        self._persisted, self._directory, self._target = persisted, directory, target

    @property
    def is_taken(self) -> bool:
        """True once the copy was made."""
        return self.left <= 0

    def __getattribute__(self, name: str) -> Any:
        real = object.__getattribute__(self, name)
        if name not in vars(Syscalls) or threading.current_thread().name == "journal-space":
            return real

        def counted(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self._persisted:
                self._take()
            try:
                return real(*arguments)
            finally:
                if self.left == 0 and self._persisted:
                    self._take()

        return counted

    def _take(self) -> None:
        self.seen = len(self.acknowledged)
        crash_copy(self._directory, self._target)


def crash_copy(directory: Path, target: Path) -> Path:
    """The directory as a killed process leaves it, but for what was reserved ahead."""
    target.mkdir(parents=True)
    if directory.exists():
        shutil.copytree(directory, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ahead", "lock"))
    return target


def check_whole(directory: Path, acknowledged: list[Appended]) -> list[dict[str, Any]]:
    """Every acknowledged entry is there once, numbers are contiguous, and the counters add up; all entries."""
    batches = read_all(directory)
    stored = [record.entry for batch in batches for record in batch.records]
    for appended in acknowledged:
        assert stored[appended.seq] == appended.entry
    entries = entries_of(batches)
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    for batch in batches:
        assert batch.commit.counters.open >= 0
    last = batches[-1].commit.counters
    assert last.closed == sum(map(closes_call, entries))
    check_rows(entries)
    assert last.lost == sum(entry["lost"] for entry in entries if entry["kind"] == "gap")
    return entries


def check_rows(entries: list[dict[str, Any]]) -> None:
    """The rows of each call are all there, the first one first, one behind the other."""
    for at, entry in enumerate(entries):
        call = entry.get("call") or {}
        if entry["kind"] == "decision" and call.get("rows"):
            first = at - call["row"]
            same = [one["call"] for one in entries[first : first + call["rows"]]]
            assert same == [{**call, "row": row} for row in range(call["rows"])]


def rows_of(journal: Journal, count: int, size: int = 2) -> list[Row]:
    """The rows of one call, each with a part under a key of its own."""
    first, rows = new_id(), []
    for row in range(count):
        key = journal.new_key()
        part, stored = key.sealer.seal("request", "application/json", os.urandom(size), 0)
        call = {"request_id": first, "row": row, "rows": count}
        rows.append(Row(draft(decision=None if row else first, parts=(part,), call=call), [stored], key))
    return rows


STREAM_MEDIA = "text/event-stream; charset=utf-8"


async def begin_call(journal: Journal, chunks: int = 3) -> dict[str, Any]:
    """A call that streams: its begin entry and some chunks are durable."""
    journal.admit("acme", "credit")
    key = journal.new_key()
    asked, stored = key.sealer.seal("request", "application/json", b"{}", 0)
    made = draft("begin", parts=(asked,), app="chat", call={"method": "POST"})
    await journal.append(made, parts=[stored], key=key)
    stream = key.sealer.open_stream_part("response", STREAM_MEDIA, 1)
    sealed = [stream.chunk(b"data: %d\n\n" % number) for number in range(chunks)]
    for chunk in sealed:
        await journal.append_parts(key, [chunk], ts_ns=1)
    return {"decision": made.decision, "begin": made.id, "sha256": stream.finish().sha256, "key": key.key_id}
