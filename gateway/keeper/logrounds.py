"""The keeper's side of the log of logs: when a round is due, and what becomes of one that is refused. Blocking.

A round takes the newest signed checkpoint of every shard that grew, at most each `every_s`; openings, closings,
erasures and prunes do not wait for that. A log that is refused (rolled back, changed by another process) is written no
further: decisions, shipping and the shards' own checkpoints go on, and doctor, readyz and verify say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.keeper import metrics
from storage.clickhouse import Database
from storage.copies import Copies
from storage.errors import Unverifiable
from storage.ledger import RolledBackError, Signed
from storage.logleaves import log_name
from storage.logoflogs import LogOfLogs, Source

RETRY_S: Final = 1.0  # between rounds that were due at once

_log = structlog.get_logger(__name__)


class LogRounds:
    """One per deployment; called from the one thread that ships."""

    def __init__(self, ship: Path, deployment: str, *, key: Ed25519PrivateKey, every_s: float) -> None:
        self._ship = ship
        self._deployment = deployment
        self._key = key
        self._every_s = every_s
        self._log: LogOfLogs | None = None
        self._round_s = float("-inf")
        self.problem: str | None = None
        self.copies: Copies | None = None  # held against our own at start: a larger one is a rollback
        self.held = False  # by whoever wants to ask outside before the log is grown
        self.name = log_name(deployment)
        self.public = key.public_key().public_bytes_raw()

    @property
    def published(self) -> Signed | None:
        """The last checkpoint, once it was read back from ClickHouse with its leaves; else None, as once refused."""
        log = self._log
        return None if log is None or self.problem is not None or not log.is_published else log.signed

    @property
    def is_new(self) -> bool:
        """Whether the log was opened, and nothing was ever signed in it."""
        return self._log is not None and self._log.signed is None

    def refuse(self, problem: str) -> None:
        """Write this log no further in this process: `problem` says why."""
        if self.problem is None:
            self.problem = problem
            _log.error("log_of_logs_refused", error=problem)
            metrics.BROKEN.labels(shard="log").inc()

    @property
    def signed(self) -> Signed | None:
        """The last signed checkpoint of the log, durable in its second place."""
        return None if self._log is None else self._log.signed

    def logged_below(self, origin: str) -> int:
        """Every entry of `origin` below this is covered by a checkpoint that the log holds and ClickHouse has."""
        return 0 if self._log is None or not self._log.is_published else self._log.state.of(origin).size

    def silent(self, within_s: float) -> list[str]:
        """The shards that are not closed and of which the log has said nothing for so long."""
        if self._log is None:
            return []
        since_ns = time.time_ns() - round(within_s * 1e9)
        shards = self._log.state.shards
        return sorted(name for name, one in list(shards.items()) if one.is_open and one.ts_ns < since_ns)

    def step(self, sources: Callable[[], Sequence[Source]], database: Database, *, now: bool = False) -> None:
        """Publish what waits, and write a round if one is due (or `now`).

        Raises:
            StorageUnavailable: the database is away; the round waits in its second place.
        """
        if self.problem is not None:
            return
        try:
            log = self._opened(database)
            log.publish(database)
            if self.held and not now:
                return
            found = sources()
            passed_s = time.monotonic() - self._round_s
            if now or passed_s >= self._every_s or (passed_s >= RETRY_S and any(map(_is_urgent, found))):
                self._round_s = time.monotonic()
                if log.round(found, now_ns=time.time_ns()):
                    log.publish(database)
                    metrics.LOG_SIZE.set(log.size)
                    metrics.LOG_SIGNED.set(time.time())
        except OSError as error:
            self.refuse(f"the copies cannot be read, so a rollback could not be noticed: {error}")
        except Unverifiable as error:
            self.refuse(error.message)

    def _opened(self, database: Database) -> LogOfLogs:
        if self._log is None:
            log = LogOfLogs(self._ship, self._deployment, key=self._key)
            log.refuse_rollback(database)
            newest = None if self.copies is None else self.copies.newest()
            if newest is not None and newest.size > log.size:
                raise RolledBackError(f"{log.name}: a copy has a tree of {newest.size}, ours has {log.size}")
            self._log = log
        return self._log


def _is_urgent(source: Source) -> bool:
    signed = source.ledger.signed
    return signed is not None and any(event.at <= signed.checkpoint.size for event in source.ledger.events)
