"""Journals for tests: real keys, real files, small segments; drafts and sealed parts as a gateway makes them."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.durable import Syscalls
from storage.entries import Draft, Part
from storage.ids import uuid7
from storage.journal import Appended, Journal, JournalLimits, PartKey
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
    import os

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
        real = getattr(Syscalls, name)

        def failing(*arguments: Any) -> Any:
            self.count += 1
            code = fails(self.count, *arguments)
            if code is not None:
                raise OSError(code, errno.errorcode[code])
            return real(self, *arguments)

        setattr(self, name, failing)


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait until a condition holds; fail after ``timeout_s``."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
