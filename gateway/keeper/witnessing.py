"""The client of witnesses (c2sp.org/tlog-witness): sends checkpoints of the log of logs, keeps verified cosignatures.

Runs beside everything and is waited for by nothing, with one exception: after a start the log of logs is not grown
before the witnesses were asked once, or `FIRST_S` have passed, so that a restored backup is noticed before it forks the
log. A witness alone cannot stop the log: what stops it is a checkpoint under our own signature that we do not know.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import structlog

from config.ledger import Witnesses as WitnessSettings
from gateway.keeper import metrics
from gateway.keeper.logrounds import LogRounds
from storage import anchors, cosignatures, notes, tiles
from storage.anchors import COSIGNATURE, Anchor
from storage.clickhouse import Database
from storage.cosignatures import ANSWER_BYTES_MAX, Witness, parse_witness
from storage.errors import StorageError, Unverifiable
from storage.ledger import Signed
from storage.proofs import LOG_TABLE, Tiles

TIMEOUT_S: Final = 10.0  # of one request; a witness answers in a second or is busy
FIRST_S: Final = 15.0
RETRY_MAX_S: Final = 600.0
LOOK_S: Final = 0.5
TURNS: Final = 3  # of one attempt: with the size we know, with the size it knows, and once more if it grew meanwhile

_log = structlog.get_logger(__name__)


class WitnessRefusedError(Exception):
    """A witness would not cosign; the message says what it answered."""


@dataclass(slots=True)
class Asked:
    """One witness, and how it went so far."""

    witness: Witness
    url: str
    size: int = 0  # of the last checkpoint that it cosigned for us, or told to know
    cosigned: int = 0
    cosigned_s: int = 0  # when, by its own clock
    failures: int = 0
    due_s: float = float("-inf")
    problem: str | None = None


@dataclass(slots=True)
class Witnessing:
    """One per deployment; without witnesses it is not made."""

    settings: WitnessSettings
    rounds: LogRounds
    database: Database
    asked: list[Asked] = field(init=False)
    _first_done: bool = False

    def __post_init__(self) -> None:
        self.asked = [Asked(parse_witness(one.key), str(one.url).rstrip("/")) for one in self.settings.witnesses]
        self.rounds.held = True

    @property
    def cosigned(self) -> int:
        """Leaves that as many witnesses as the quorum asks for have cosigned, each in some checkpoint."""
        sizes = sorted((one.cosigned for one in self.asked), reverse=True)
        return sizes[self.settings.quorum - 1]

    async def run(self) -> None:
        """Ask for ever."""
        release = asyncio.get_running_loop().call_later(FIRST_S, self._release)
        try:
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers={"User-Agent": "answerable"}
            ) as session:
                while True:
                    await self.round(session)
                    await asyncio.sleep(LOOK_S)
        finally:
            release.cancel()

    async def round(self, session: aiohttp.ClientSession) -> None:
        """Send the newest published checkpoint to every witness that is due."""
        signed = self.rounds.published
        if signed is None:
            if self.rounds.is_new:
                self._release()  # nothing was ever signed: there is nothing to be rolled back
            return
        now_s = time.monotonic()
        due = [one for one in self.asked if one.due_s <= now_s and one.cosigned != signed.checkpoint.size]
        await asyncio.gather(*(self._attempt(session, one, signed) for one in due))
        self._release()
        metrics.LOG_COSIGNED.set(self.cosigned)

    def _release(self) -> None:
        self.rounds.held = False

    async def _attempt(self, session: aiohttp.ClientSession, one: Asked, signed: Signed) -> None:
        outcome = "done"
        try:
            await self._ask(session, one, signed)
            one.failures, one.problem = 0, None
            one.due_s = time.monotonic() + self.settings.every_s
        except (WitnessRefusedError, StorageError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            outcome = "failed"
            one.failures += 1
            wait_s = min(self.settings.every_s * 2 ** min(one.failures, 10), RETRY_MAX_S)
            one.due_s = time.monotonic() + wait_s
            problem = str(error) or type(error).__name__
            if problem != one.problem:
                _log.warning("witness_failed", witness=one.witness.name, error=problem, again_in_s=round(wait_s))
            one.problem = problem
        metrics.ANCHORS.labels(name=one.witness.name, outcome=outcome).inc()

    async def _ask(self, session: aiohttp.ClientSession, one: Asked, signed: Signed) -> None:
        size = signed.checkpoint.size
        for _ in range(TURNS):
            path = await asyncio.to_thread(self._path, one.size, size)
            body = cosignatures.request(old_size=one.size, path=path, note=signed.note)
            status, answer = await _posted(session, f"{one.url}/add-checkpoint", body)
            if status == 200:
                line, time_s = cosignatures.answered(answer, signed.note, one.witness)
                await asyncio.to_thread(self._keep, one, size, line, time_s)
                one.size = one.cosigned = size
                one.cosigned_s = time_s
                return
            if status != 409:
                if status == 422:
                    await self._look_for_a_fork(session, one, signed)
                told = answer[:200].decode("utf-8", "replace").strip()
                raise WitnessRefusedError(f"add-checkpoint of {size} leaves was answered {status} {told}".strip())
            known = cosignatures.conflicting_size(answer)
            if known > size:
                one.size = 0  # it is asked again what it knows, once there is more to send
                await self._look_for_a_fork(session, one, signed)
                raise WitnessRefusedError(f"it says to know a tree of {known} leaves, ours has {size}")
            one.size = known
        raise WitnessRefusedError(f"it changed its mind {TURNS} times about the size that it knows")

    def _path(self, old_size: int, size: int) -> list[bytes]:
        if old_size in (0, size):
            return []
        return tiles.consistency_path(old_size, size, Tiles(self.database, self.rounds.name, table=LOG_TABLE).read)

    def _keep(self, one: Asked, size: int, line: str, time_s: int) -> None:
        anchor = Anchor(
            origin=self.rounds.name,
            size=size,
            kind=COSIGNATURE,
            name=one.witness.name,
            ts_ns=time_s * 1_000_000_000,
            data=line.encode(),
        )
        anchors.keep(self.database, anchor)

    async def _look_for_a_fork(self, session: aiohttp.ClientSession, one: Asked, signed: Signed) -> None:
        """Refuse the log of logs where the witness shows a checkpoint under our signature that contradicts ours."""
        name = self.rounds.name
        url = f"{one.url}/{hashlib.sha256(name.encode()).hexdigest()}/checkpoint"
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return
            note = await response.content.read(ANSWER_BYTES_MAX)
        try:
            shown = notes.verified_checkpoint(note, origin=name, public=self.rounds.public)
        except Unverifiable:
            return  # anybody can say anything
        ours = signed.checkpoint
        if shown.size > ours.size:
            await asyncio.to_thread(
                self.rounds.refuse,
                f"rolled back: {one.witness.name} has a checkpoint of {shown.size} leaves that we signed, ours has"
                f" {ours.size}",
            )
        elif not await asyncio.to_thread(self._continues, shown, signed):
            detail = f"forked: {one.witness.name} has another root of {shown.size} leaves that was signed with our key"
            await asyncio.to_thread(self.rounds.refuse, detail)

    def _continues(self, shown: notes.Checkpoint, signed: Signed) -> bool:
        """Whether our tree had the shown root at the shown size."""
        read = Tiles(self.database, self.rounds.name, table=LOG_TABLE).read
        return shown.size == 0 or tiles.subtree_root(0, shown.size, signed.checkpoint.size, read) == shown.root


async def _posted(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, bytes]:
    """Status and the first bytes of the answer."""
    async with session.post(url, data=body, allow_redirects=False) as response:
        return response.status, await response.content.read(ANSWER_BYTES_MAX)
