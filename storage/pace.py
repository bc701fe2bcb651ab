"""Reading at a set pace: a handle on the database whose reader works only a share of the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from storage.clickhouse import PAGE, Caps, Database
from storage.errors import StorageUnavailable
from storage.profiles import Account, Profile

REST_MAX_S: Final = 10.0  # after one piece of work, however long it took


class Paced(Database):
    """A handle for one reader that works `share` of the time: before each read it rests for what it did since the last.

    Args:
        profile: where the database is.
        share: above 0, at most 1; the work counted is the reader's own and ClickHouse's.
        stop: once it is set, every read raises `StorageUnavailable`, also one that rests.
    """

    def __init__(self, profile: Profile, *, share: float, stop: threading.Event) -> None:
        super().__init__(profile)
        self._rest_per_work = 1 / share - 1
        self._stop = stop
        self._turn = threading.Lock()
        self._awake_s: float | None = None

    def rows(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        caps: Caps = PAGE,
        account: Account = Account.READER,
        settings: Mapping[str, object] | None = None,
    ) -> list[tuple[Any, ...]]:
        """As `Database.rows`, after a rest."""
        with self._turn:
            now_s = time.monotonic()
            worked_s = 0.0 if self._awake_s is None else now_s - self._awake_s
            if self._stop.wait(min(worked_s * self._rest_per_work, REST_MAX_S)):
                raise StorageUnavailable("the reader is being stopped")
            self._awake_s = time.monotonic()
        return super().rows(sql, parameters, caps=caps, account=account, settings=settings)

    def rested(self) -> None:
        """The reader begins anew: what passed since its last read was no work."""
        with self._turn:
            self._awake_s = None
