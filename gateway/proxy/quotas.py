"""How often each application calls, counted by all workers of a host together, without a lock between them.

A file of DATA is mapped by each worker. A caller has a row, a worker a column in it that it alone writes; who wants to
know adds the columns up. So N workers that ask at the same instant may let N - 1 calls too many through, and no more.
Rows and columns are given out under a file lock, off the loop, once in a worker's life for each caller. Counts outlive
workers; of a power cut they lose what the kernel had not yet written back (seconds).

    header (4,096 bytes): magic, version, rows, columns, zeros to 16 bytes; u64: columns given out; zeros to 32 bytes;
        then for each column the digest (16) of the shard that has it
    row (4,096 bytes): digest (16) of the caller, 16 bytes of zeros; then for each column six u64:
        rate window, its calls, window before (they change places), its calls, quota period, its calls
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from config.callers import CallLimit, CallLimits
from config.errors import AnswerableError
from gateway.proxy.errors import TooMany
from gateway.proxy.exchange import Caller
from gateway.proxy.windows import Quota, Rate

FILE = "limits"
ROWS = 4_096  # callers; those beyond it share the last row, so that nobody escapes a limit by being many
COLUMNS = 64  # workers of a host
_PAGE_BYTES = 4_096
_HEAD = Struct("<8sHHHH")
_MAGIC, _VERSION = b"ANSWLIMT", 1
_DIGEST_BYTES = 16
_ROW_HEAD_BYTES = 32
_GIVEN_AT = 2  # among the u64 of the header
_CELLS = 6  # u64 of one column


class LimitsError(AnswerableError):
    """The table of a host's calls cannot be used."""

    code = "limits_unusable"
    status = 503
    advice = "Stop the gateway, move DATA/limits away and start again: the counts begin anew."


@dataclass(frozen=True, slots=True)
class _Limit:
    rate: Rate | None
    quota: Quota | None
    policy: str


class Quotas:
    """One worker's view of the table."""

    def __init__(self, data: Path, shard: str, settings: CallLimits) -> None:
        """Map the table and take a column of it.

        Raises:
            LimitsError: it is another version's, damaged, or all columns are taken.
            OSError: it cannot be opened.
        """
        self._path = data / FILE
        self._default = None if settings.default is None else _limit(settings.default)
        self._apps = {app: _limit(each) for app, each in settings.apps.items()}
        self._rows: dict[tuple[str, str], int] = {}
        self._map = _mapped(self._path)
        self._words = memoryview(self._map).cast("Q")
        with _locked(self._path):
            self._column = self._column_of(shard)

    async def take(self, caller: Caller, now_ns: int) -> None:
        """Count one call of `caller`.

        Raises:
            TooMany: it would be one too many; nothing was counted.
        """
        limit = self._apps.get(caller.app, self._default)
        if limit is None:
            return
        who = (caller.tenant, caller.actor)
        row = self._rows.get(who)
        if row is None:
            row = await asyncio.to_thread(self._row_of, who)
            if len(self._rows) >= ROWS:
                self._rows.clear()
            self._rows[who] = row
        self._count(limit, row, now_ns / 1e9)

    def close(self) -> None:
        """Let go of the table; what was counted stays."""
        self._words.release()
        self._map.close()

    def _count(self, limit: _Limit, row: int, now_s: float) -> None:
        start = (_PAGE_BYTES * (1 + row) + _ROW_HEAD_BYTES) // 8
        cells = self._words[start : start + _CELLS * self._words[_GIVEN_AT]].tolist()
        own = start + _CELLS * self._column
        if limit.rate is not None:
            rate, index = limit.rate, limit.rate.index(now_s)
            current = _sum(cells, 0, index) + _sum(cells, 2, index)
            previous = _sum(cells, 0, index - 1) + _sum(cells, 2, index - 1)
            wait_s = rate.wait_s(now_s, current=current, previous=previous)
            if wait_s:
                raise _too_many("rate_limited", f"more than {rate.calls} calls in {rate.window_s:g} s", limit, wait_s)
        if limit.quota is not None:
            quota, period = limit.quota, limit.quota.index(now_s)
            if _sum(cells, 4, period) >= quota.calls:
                wait_s = quota.ends_s(now_s) - now_s
                raise _too_many("quota_exceeded", f"more than {quota.calls} calls in this {quota.per}", limit, wait_s)
            self._add(own + 4, period)
        if limit.rate is not None:
            self._add(own + 2 * (index & 1), index)

    def _add(self, at: int, index: int) -> None:
        """One call more in the window `index`; each store is one move, and in this order no reader counts too much."""
        words = self._words
        if words[at] != index:
            words[at + 1] = 0
            words[at] = index
        words[at + 1] += 1

    def _column_of(self, shard: str) -> int:
        digest = _digest(shard)
        for column in range(COLUMNS):
            at = _ROW_HEAD_BYTES + _DIGEST_BYTES * column
            known = self._map[at : at + _DIGEST_BYTES]
            if known == digest:
                return column
            if not any(known):
                self._map[at : at + _DIGEST_BYTES] = digest
                self._words[_GIVEN_AT] = column + 1
                return column
        raise LimitsError(f"{self._path}: {COLUMNS} workers have a column; {shard} finds none")

    def _row_of(self, who: tuple[str, str]) -> int:
        digest = _digest("\0".join(who))
        first = int.from_bytes(digest[:4], "little") % (ROWS - 1)
        with _locked(self._path):
            for step in range(ROWS - 1):
                row = (first + step) % (ROWS - 1)
                at = _PAGE_BYTES * (1 + row)
                known = self._map[at : at + _DIGEST_BYTES]
                if known == digest:
                    return row
                if not any(known):
                    self._map[at : at + _DIGEST_BYTES] = digest
                    return row
        return ROWS - 1


def _limit(settings: CallLimit) -> _Limit:
    rate = None if settings.rate_per_s is None else Rate.of(settings.rate_per_s, settings.burst)
    quota = None if settings.quota_calls is None else Quota(settings.quota_calls, settings.quota_per)
    policies = []
    if rate is not None:
        policies.append(f'"rate";q={rate.calls};w={max(1, math.ceil(rate.window_s))}')
    if quota is not None:
        policies.append(f'"quota";q={quota.calls}')  # a period of the calendar has no fixed number of seconds
    return _Limit(rate, quota, ", ".join(policies))


def _too_many(code: str, said: str, limit: _Limit, wait_s: float) -> TooMany:
    seconds = max(1, math.ceil(wait_s))
    name = "rate" if code == "rate_limited" else "quota"
    state = f'"{name}";r=0;t={seconds}'
    return TooMany(
        f"this application has made {said}", code=code, retry_after_s=seconds, policy=limit.policy, state=state
    )


def _sum(cells: list[int], at: int, index: int) -> int:
    return sum(cells[each + 1] for each in range(at, len(cells), _CELLS) if cells[each] == index)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:_DIGEST_BYTES]


def _mapped(path: Path) -> mmap.mmap:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _locked(path):
            head = _HEAD.pack(_MAGIC, _VERSION, ROWS, COLUMNS, 0)
            if os.fstat(descriptor).st_size == 0:
                os.ftruncate(descriptor, _PAGE_BYTES * (1 + ROWS))  # sparse: a row costs its page once it is used
                os.pwrite(descriptor, head, 0)
            whole = os.fstat(descriptor).st_size == _PAGE_BYTES * (1 + ROWS)
            if not whole or os.pread(descriptor, _HEAD.size, 0) != head:
                raise LimitsError(f"{path} is damaged, or of another version")
            return mmap.mmap(descriptor, _PAGE_BYTES * (1 + ROWS))
    finally:
        os.close(descriptor)


class _locked:  # noqa: N801 - read as the verb that it is
    """Holds the table's lock: nobody else gives rows or columns out meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
