"""What else stands outside of the ledger: RFC 3161 time stamps on the log of logs, and copies of its checkpoints.

Both run beside everything and are waited for by nothing. What fails is tried again later, told in doctor and counted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from config.ledger import Timestamps
from gateway.keeper import metrics
from gateway.keeper.logrounds import LogRounds
from storage import anchors, timestamps
from storage.anchors import TIMESTAMP, Anchor
from storage.clickhouse import Database
from storage.copies import Copies
from storage.errors import StorageError, Unverifiable
from storage.ledger import RolledBackError, Signed

TIMEOUT_S: Final = 30.0  # of one request to an authority; some are slow
RETRY_FIRST_S: Final = 5.0
RETRY_MAX_S: Final = 600.0
LOOK_S: Final = 0.5
COPY_EVERY_S: Final = 60.0  # half a million files a year; each round would be six million

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tried:
    """How often something went wrong in a row, when it is due again, and why."""

    name: str
    failures: int = 0
    due_s: float = float("-inf")
    size: int = 0  # of the last checkpoint for which it went well
    problem: str | None = None

    def __post_init__(self) -> None:
        for outcome in ("done", "failed"):
            metrics.ANCHORS.labels(name=self.name, outcome=outcome)  # so that a rate can be made of the first one

    def went_well(self, size: int, *, again_in_s: float) -> None:
        """It did; due again after a while."""
        self.failures, self.problem, self.size = 0, None, size
        self.due_s = time.monotonic() + again_in_s
        metrics.ANCHORS.labels(name=self.name, outcome="done").inc()

    def failed(self, error: Exception) -> None:
        """It did not; due again after a pause that grows."""
        self.failures += 1
        self.due_s = time.monotonic() + min(RETRY_FIRST_S * 2 ** min(self.failures, 10), RETRY_MAX_S)
        problem = str(error) or type(error).__name__
        if problem != self.problem:
            _log.warning("anchor_failed", name=self.name, error=problem)
        self.problem = problem
        metrics.ANCHORS.labels(name=self.name, outcome="failed").inc()


@dataclass(slots=True)
class Stamping:
    """Asks one authority for a time stamp on the newest checkpoint, once a period if the log grew."""

    settings: Timestamps
    rounds: LogRounds
    database: Database
    tried: Tried = field(init=False)

    def __post_init__(self) -> None:
        self.tried = Tried(self.settings.name)

    async def run(self) -> None:
        """Ask for ever."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            while True:
                signed = self.rounds.published
                is_due = self.tried.due_s <= time.monotonic()
                if signed is not None and is_due and signed.checkpoint.size > self.tried.size:
                    await self.stamp(session, signed)
                await asyncio.sleep(LOOK_S)

    async def stamp(self, session: aiohttp.ClientSession, signed: Signed) -> None:
        """Have this checkpoint stamped, and keep the token."""
        asked = timestamps.request(signed.note)
        headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
        try:
            async with session.post(
                str(self.settings.url), data=asked.as_bytes(), headers=headers, allow_redirects=False
            ) as response:
                answer = await _whole(response)
            if response.status != 200:
                raise Unverifiable(f"the authority answered {response.status}")
            anchor = Anchor(
                origin=self.rounds.name,
                size=signed.checkpoint.size,
                kind=TIMESTAMP,
                name=self.settings.name,
                ts_ns=timestamps.stated(answer, asked) * 1_000_000_000,
                data=answer,
            )
            await asyncio.to_thread(anchors.keep, self.database, anchor)
            self.tried.went_well(signed.checkpoint.size, again_in_s=self.settings.every_s)
        except (StorageError, aiohttp.ClientError, TimeoutError, OSError) as error:
            self.tried.failed(error)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The answer's bytes, which must not be too many."""
    answer = b""
    async for piece in response.content.iter_any():
        answer += piece
        if len(answer) > timestamps.ANSWER_BYTES_MAX:
            raise Unverifiable(f"an answer of more than {timestamps.ANSWER_BYTES_MAX} bytes")
    return answer


@dataclass(slots=True)
class Copying:
    """Copies each published checkpoint of the log of logs into a directory."""

    directory: Path
    rounds: LogRounds
    tried: Tried = field(default_factory=lambda: Tried("copies"))

    def __post_init__(self) -> None:
        self.rounds.copies = Copies(self.directory, self.rounds.name, public=self.rounds.public)

    async def run(self) -> None:
        """Copy for ever."""
        while True:
            signed = self.rounds.published
            is_due = self.tried.due_s <= time.monotonic()
            if signed is not None and is_due and signed.checkpoint.size != self.tried.size:
                await asyncio.to_thread(self.copy, signed)
            await asyncio.sleep(LOOK_S)

    def copy(self, signed: Signed) -> None:
        """Copy one checkpoint; the log is refused where another root of its size is there already."""
        copies = self.rounds.copies
        assert copies is not None
        try:
            copies.keep(signed)
            self.tried.went_well(signed.checkpoint.size, again_in_s=COPY_EVERY_S)
        except RolledBackError as error:
            self.rounds.refuse(error.message)
            self.tried.failed(error)
        except (Unverifiable, OSError) as error:
            self.tried.failed(error)
