"""The soak's applications: calls in every protocol at a steady pace, some of them given up at every stage.

Whoever received an answer whole remembers its Decision-Id: each must stand in ClickHouse once when all is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

CARD, IBAN = "4111 1111 1111 1111", "DE89370400440532013000"
ABORT_SHARE = 0.03  # of all calls
TIMEOUT_S = 30.0
_RESET = struct.pack("ii", 1, 0)
GREEDY_SHARE = 0.02  # of all calls: by the application that asks for more than it may have
ROWS = (1, 1, 2, 7, 40)  # of a call that scores rows
STAGES = ("before the head", "in the head", "in the body", "after the request", "in the answer", "between events")


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of call; `weight` of all."""

    name: str
    path: str
    body: Callable[[random.Random], Any]
    weight: int
    recorded: bool = True
    headers: Callable[[random.Random], dict[str, str]] = lambda _: {}


def _chat(*, stream: bool) -> Callable[[random.Random], Any]:
    return lambda roll: {
        "model": "m",
        "stream": stream,
        "messages": [{"role": "user", "content": f"case {roll.randrange(10**6)}: " + "word " * roll.randint(1, 300)}],
    }


def _rows(name: str) -> Callable[[random.Random], Any]:
    def body(roll: random.Random) -> Any:
        count = roll.choice(ROWS)
        return {name: [{"income": roll.randrange(10**5), "age": roll.randrange(100)} for _ in range(count)]}

    return body


def _tensor(roll: random.Random) -> Any:
    return {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [roll.random(), 2.0]}]}


def _repeated(roll: random.Random) -> dict[str, str]:
    return {"Idempotency-Key": f'"soak-{roll.randrange(400)}"'}


def _traced(roll: random.Random) -> dict[str, str]:
    trace = f"{roll.getrandbits(128) | 1:032x}-{roll.getrandbits(64) | 1:016x}"
    return {"traceparent": f"00-{trace}-01", "X-Request-Id": f"r-{roll.getrandbits(40):x}"}


def _secret(roll: random.Random) -> Any:
    return {"messages": [{"role": "user", "content": f"my card is {CARD}, my account {IBAN} ({roll.randrange(99)})"}]}


def _score(roll: random.Random) -> Any:
    return {"case": f"A-{roll.randrange(500)}", "income": roll.randrange(10**5)}


KINDS = (
    Kind("chat", "/chat/v1/chat/completions", _chat(stream=False), 20),
    Kind("chat, streamed", "/chat/v1/chat/completions", _chat(stream=True), 12),
    Kind("messages", "/claude/v1/messages", _chat(stream=False), 8),
    Kind("messages, streamed", "/claude/v1/messages", _chat(stream=True), 6),
    Kind("V2", "/v2r/v2/models/m/infer", _tensor, 10),
    Kind("KServe V1, spool", "/v1r/v1/models/m:predict", _rows("instances"), 10),
    Kind("MLflow, best effort", "/flow/invocations", _rows("instances"), 10),
    Kind("generic", "/score/apply", _score, 10, headers=_traced),
    Kind("generic, repeats", "/once/apply", lambda _: {"case": "same"}, 5, headers=_repeated),
    Kind("redacted", "/hidden/v1/chat/completions", _secret, 5),
    Kind("call", "/score/embeddings", _score, 3),
    Kind("none", "/score/health", _score, 1, recorded=False),
)
STREAMED = tuple(kind for kind in KINDS if kind.name.endswith("streamed"))


@dataclass(slots=True)
class Calls:
    """What the applications saw."""

    port: int
    key: str
    greedy: str
    roll: random.Random
    stopping: bool = False
    received: set[str] = field(default_factory=set)  # Decision-Ids of answers that came whole
    doubled: int = 0  # ids that came twice without being repeats
    outcomes: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    async def run(self, *, per_s: float, workers: int) -> None:
        """Call until `stopping`, `per_s` calls a second as far as the other side keeps up."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._work(session, workers / per_s) for _ in range(workers)))

    async def _work(self, session: aiohttp.ClientSession, gap_s: float) -> None:
        weights = [kind.weight for kind in KINDS]
        while not self.stopping:
            begun = time.monotonic()
            [kind] = self.roll.choices(KINDS, weights)
            self.sent[kind.name] += 1
            if self.roll.random() < ABORT_SHARE:
                await self._given_up(kind)
            else:
                await self._called(session, kind)
            await asyncio.sleep(max(0.0, gap_s - (time.monotonic() - begun)))

    async def _called(self, session: aiohttp.ClientSession, kind: Kind) -> None:
        key = self.greedy if self.roll.random() < GREEDY_SHARE else self.key
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **kind.headers(self.roll)}
        url = f"http://127.0.0.1:{self.port}{kind.path}"
        begun = time.monotonic()
        try:
            async with session.post(url, data=orjson.dumps(kind.body(self.roll)), headers=headers) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as problem:
            self.outcomes[f"cut: {type(problem).__name__}"] += 1
            return
        self.took_s.append(time.monotonic() - begun)
        self.outcomes[str(answer.status)] += 1
        decision = answer.headers.get("Decision-Id")
        if decision is not None and answer.status != 409:
            if decision in self.received and "Idempotency-Replayed" not in answer.headers:
                self.doubled += 1
            self.received.add(decision)

    async def _given_up(self, kind: Kind) -> None:
        """A caller that goes, by RST, at one of the stages of its call."""
        stage = self.roll.choice(STAGES)
        if stage == "between events":
            kind = self.roll.choice(STREAMED)
        body = orjson.dumps(kind.body(self.roll))
        head = (
            f"POST {kind.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        self.outcomes[f"given up {stage}"] += 1
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            match stage:
                case "in the head":
                    writer.write(head[: len(head) // 2])
                case "in the body":
                    writer.write(head + body[: len(body) // 2])
                case "after the request" | "in the answer" | "between events":
                    writer.write(head + body)
            if stage in {"in the answer", "between events"}:
                with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(2):
                        await (reader.read(200) if stage == "in the answer" else reader.readuntil(b"\n\n"))
            else:
                await asyncio.sleep(self.roll.random() * 0.02)
            writer.transport.abort()
