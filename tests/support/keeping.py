"""Keepers for tests: a real configuration, decisions as a gateway records them, a keeper in this process or its own."""

import asyncio
import contextlib
import hmac
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from config.load import Configuration, load
from config.processes import start
from gateway.keeper.keeper import Keeper
from gateway.keeper.lock import DataLock
from gateway.keeper.parts import Parts
from storage.entries import Draft, Part, Ref
from storage.journal import Appended, Journal, JournalLimits
from storage.keys import Keyring
from storage.writer import PartKey
from tests.support.loans import Loans, applicant

ROUTE = {
    "name": "loans",
    "prefix": "/loans",
    "upstream": "http://127.0.0.1:9",
    "extract": {
        "label": "decision",
        "favourable": ["approved"],
        "adverse": ["denied"],
        "score": "score",
        "case": "case",
        "features": "{income: income, debt: debt, years: years}",
    },
    "model": {"name": "loans", "version": "1.0"},
}


def written(folder: Path, *, loans: Loans | None = None, **changes: Any) -> Configuration:
    """A configuration file in `folder`, loaded; its data lies in ``folder/data``."""
    tree: dict[str, Any] = {
        "deployment": "test",
        "data": "data",
        "gateway": {"port": 0},
        "desk": {"port": 0, "development": True},
        "callers": {"mode": "open"},
        "routes": [ROUTE],
    }
    if loans is not None:
        tree["models"] = [str(loans.registration)]
    tree |= changes
    path = folder / "answerable.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load(path, {})


class Gateway:
    """Writes decisions into a shard's journal as a gateway worker does, without the HTTP around it."""

    def __init__(self, configuration: Configuration, journal: Journal, loans: Loans) -> None:
        self.configuration = configuration
        self.journal = journal
        self._loans = loans

    @classmethod
    async def open(
        cls, configuration: Configuration, loans: Loans, *, shard: str = "gateway-0", segment_bytes: int = 1 << 20
    ) -> "Gateway":
        keys = Keyring.open(configuration.data, create=True).journal_keys()
        journal = await Journal.open(
            configuration.data / "journal" / shard,
            origin_base=f"{configuration.settings.deployment}/{shard}",
            keys=keys,
            config=configuration.digest,
            limits=JournalLimits(segment_bytes=segment_bytes, call_bytes_reserved=512),
        )
        return cls(configuration, journal, loans)

    async def close(self) -> None:
        await self.journal.close()

    async def decide(self, number: int, *, before: bool = False, **changes: Any) -> Appended:
        """One buffered decision about applicant `number`; `before`: its parts as they were before they had openings."""
        self.journal.admit("default", "loans")
        request, answer = self.bodies(number)
        key = self.journal.new_key()
        asked_part, asked_bytes = key.sealer.seal("request", "application/json", request, 0)
        answered_part, answered_bytes = key.sealer.seal("response", "application/json", answer, 1)
        sealed = [(asked_part, request), (answered_part, answer)]
        parts = tuple(_under_key(part, plain, key.sealer.dek) if before else part for part, plain in sealed)
        draft = self.draft("decision", self.journal.new_id(), parts=parts, size=len(answer), **changes)
        return await self.journal.append(draft, parts=[asked_bytes, answered_bytes], key=key, closes=True)

    async def stream(self, number: int, *, pieces: int = 3) -> "Streaming":
        """A streamed decision: its begin entry and first chunks are durable on return, `end` closes it."""
        self.journal.admit("default", "loans")
        decision = self.journal.new_id()
        request, answer = self.bodies(number)
        key = self.journal.new_key()
        part, stored = key.sealer.seal("request", "application/json", request, 0)
        begun = await self.journal.append(self.draft("begin", decision, parts=(part,)), parts=[stored], key=key)
        streaming = Streaming(self, decision, request=part, key=key, begun=begun, size=len(answer))
        for at in range(pieces):
            size = -(-len(answer) // pieces)
            await streaming.chunk(answer[at * size : (at + 1) * size])
        return streaming

    def bodies(self, number: int) -> tuple[bytes, bytes]:
        features = applicant(number)
        numbers = {name: value for name, value in features.items() if name != "case"}
        return orjson.dumps(features), orjson.dumps(self._loans.answer(numbers))

    def draft(
        self,
        kind: str,
        decision: str,
        *,
        parts: tuple[Part, ...],
        prev: tuple[Ref, ...] = (),
        size: int = 0,
        streamed: bool = False,
        **changes: Any,
    ) -> Draft:
        """An entry as a gateway drafts it; `changes` are of its closing fields."""
        fields: dict[str, Any] = {
            "app": "test",
            "call": {"method": "POST", "path": "/loans/score", "request_id": decision},
            "case": None,
            "subject": None,
            "purpose": None,
            "corrects": None,
            "mode": "strict",
            "retention": "default",
        }
        if kind == "decision":
            state = changes.pop("state", "complete")
            fields |= {
                "model": {"name": "loans", "version": "1.0", "digest": None, "source": "declared"},
                "status": 200,
                "error": None,
                "timing": {"upstream_first_us": 100, "upstream_us": 200, "total_us": 300},
                "stream": {"state": state, "streamed": streamed, "bytes": size},
            }
        return Draft(
            kind=kind,
            tenant="default",
            route="loans",
            actor="app:test",
            id=decision if kind == "decision" else self.journal.new_id(),
            ts_ns=time.time_ns(),
            decision=decision,
            config=self.configuration.digest,
            parts=parts,
            prev=prev,
            fields=fields | changes,
        )


def _under_key(part: Part, plaintext: bytes, dek: bytes) -> Part:
    name = part.name.encode()
    message = b"answerable/plain/v1" + len(name).to_bytes(4, "little") + name + plaintext
    return replace(part, opening_commit=hmac.digest(dek, message, "sha256"), is_under_key=True)


class Streaming:
    """A streamed call that is still open."""

    def __init__(
        self, gateway: Gateway, decision: str, *, request: Part, key: PartKey, begun: Appended, size: int
    ) -> None:
        self._gateway, self._request, self._key, self._begun, self._size = gateway, request, key, begun, size
        self._part = key.sealer.open_stream_part("response", "application/json", 1)
        self.decision = decision

    async def chunk(self, plaintext: bytes) -> None:
        await self._gateway.journal.append_parts(self._key, [self._part.chunk(plaintext)], ts_ns=time.time_ns())

    async def end(self) -> Appended:
        draft = self._gateway.draft(
            "decision",
            self.decision,
            parts=(self._request, self._part.finish()),
            prev=(Ref(orjson.loads(self._begun.entry)["id"], self._begun.leaf),),
            size=self._size,
            streamed=True,
        )
        return await self._gateway.journal.append(draft, key=self._key, closes=True)


@contextlib.asynccontextmanager
async def kept(configuration: Configuration) -> AsyncIterator[Keeper]:
    """A keeper with its loops in this process; closed in order at the end."""
    lock = DataLock.take(configuration.data)
    parts = await Parts.open(configuration)
    try:
        keeper = await Keeper.open(parts)
        try:
            await keeper.start()
            yield keeper
        finally:
            await keeper.close()
    finally:
        await parts.close()
        lock.release()


async def settled(keeper: Keeper, *, within_s: float = 60.0) -> None:
    """Everything durable now is decided and visible on return."""
    async with asyncio.timeout(within_s):
        target = await keeper.target()
        await keeper.reached(lambda where: where.is_decided(target))
        visible = await keeper.target()
        await keeper.reached(lambda where: where.is_visible(visible))


async def until(condition: Callable[[], Any], *, within_s: float = 30.0) -> Any:
    """The first true value of `condition`, asked each 20 ms."""
    async with asyncio.timeout(within_s):
        while not (value := condition()):
            await asyncio.sleep(0.02)
        return value


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))


@contextlib.contextmanager
def apart(configuration: Configuration, *, log: Path | None = None) -> Iterator[Any]:
    """A keeper in a process of its own, without a desk; killed at the end if it still runs."""
    with contextlib.ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("ab"))
        process = start(
            [sys.executable, "-m", "tests.support.keeping", str(configuration.path)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


if __name__ == "__main__":
    from gateway.keeper.app import run_keeper

    raise SystemExit(asyncio.run(run_keeper(load(Path(sys.argv[1]), os.environ), desk=False)))
