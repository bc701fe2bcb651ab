"""The open loop: calls leave when they are due, whether or not earlier ones came back.

Arrivals are a Poisson process, the same for every side of a round. A call's time runs from when it was *due*, so that
a proxy that stalls is charged for everybody who waited, also for who could not be sent yet (no coordinated
omission). Connections are opened before the first call; where all are taken, a call waits for one, and its clock runs.

The loop stands on select(2): its timeout counts in microseconds, epoll's and uvloop's in milliseconds, which is more
than what is measured here. How late the generator itself was is part of the outcome.
"""

from __future__ import annotations

import asyncio
import gc
import random
import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httptools

from load_tests.percentile import percentile

CONNECTIONS_MAX = 900  # select(2) ends at descriptor 1,023
FD_SETSIZE = 1024  # of select(2), fixed when libc is built
SPARE = 16  # the loop's own descriptors
DESCRIPTORS = Path("/proc/self/fd")
DRAIN_S = 15.0  # what has not come back by then has failed
SETTLE_S = 0.1
SAMPLE_S = 1.0


@dataclass(slots=True)
class Call:
    """One call; times on the loop's clock, 0 for what has not happened."""

    due: float
    sent: float = 0.0
    first: float = 0.0  # the first byte of the answer's body
    done: float = 0.0
    status: int = 0
    bytes: int = 0

    @property
    def answered(self) -> bool:
        return self.done > 0.0 and self.status == 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one window gave. Milliseconds run from when calls were due; failed calls stand in `failed` only."""

    whole_ms: list[float]
    first_ms: list[float]
    late_ms: list[float]  # how long after it was due a call left the generator, waiting for a connection included
    failed: int
    samples: list[float]  # of what the caller wanted sampled each second

    def whole(self, percent: float) -> float:
        return percentile(self.whole_ms, percent)

    def first(self, percent: float) -> float:
        return percentile(self.first_ms, percent)

    @property
    def late_p99_ms(self) -> float:
        return percentile(self.late_ms, 99)


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """When calls are due, seconds from the start; on average `rate` a second."""
    source = random.Random(seed)
    due: list[float] = []
    now = source.expovariate(rate)
    while now < seconds:
        due.append(now)
        now += source.expovariate(rate)
    return due or [0.0]


def evenly(count: int, seconds: float) -> list[float]:
    """`count` calls spread over `seconds`."""
    return [seconds * number / count for number in range(count)]


def request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The bytes of one call."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def run(
    port: int,
    data: bytes,
    due: Sequence[float],
    *,
    connections: int,
    answer_bytes: int | None = None,
    sample: Callable[[], float] | None = None,
) -> Outcome:
    """Make a call at each time of `due` against loopback's `port`; an answer of another length has failed.

    Raises:
        OSError: a connection cannot be opened.
    """
    if connections > CONNECTIONS_MAX:
        raise ValueError(f"at most {CONNECTIONS_MAX} connections")
    selector = _selector(connections)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(
            _run(Generator(data), port, due, connections=connections, answer_bytes=answer_bytes, sample=sample)
        )


def _selector(connections: int) -> selectors.BaseSelector:
    """select(2) where it can be had (see above): it takes descriptors below 1,024 only, and a process may hold more.

    New descriptors fill the holes below the highest one held first, whoever opens them, so that is what is asked for.
    """
    highest = max(int(each.name) for each in DESCRIPTORS.iterdir())
    return selectors.SelectSelector() if highest + connections + SPARE < FD_SETSIZE else selectors.DefaultSelector()


async def _run(
    generator: Generator,
    port: int,
    due: Sequence[float],
    *,
    connections: int,
    answer_bytes: int | None,
    sample: Callable[[], float] | None,
) -> Outcome:
    await generator.open(port, connections)
    samples: list[float] = []
    sampling = asyncio.create_task(_sample(sample, samples)) if sample is not None else None
    with _no_collection():
        await generator.fire(due)
    if sampling is not None:
        sampling.cancel()
    generator.close()
    good = [call for call in generator.calls if call.answered and answer_bytes in (None, call.bytes)]
    return Outcome(
        whole_ms=[(call.done - call.due) * 1e3 for call in good],
        first_ms=[(call.first - call.due) * 1e3 for call in good],
        late_ms=[(call.sent - call.due) * 1e3 for call in generator.calls if call.sent],
        failed=len(generator.calls) - len(good),
        samples=samples,
    )


class Generator:
    """Sends calls when they are due, over connections that stay open."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._idle: list[Connection] = []
        self._waiting: deque[Call] = deque()
        self._open: list[Connection] = []
        self._unfinished = 0
        self._finished = asyncio.Event()
        self.calls: list[Call] = []

    async def open(self, port: int, connections: int) -> None:
        self._loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await self._loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
            self._open.append(connection)
            self._idle.append(connection)

    async def fire(self, due: Sequence[float]) -> None:
        """Make all calls; return when every one has ended, or `DRAIN_S` after the last was due."""
        start = self._loop.time() + SETTLE_S
        self.calls = [Call(start + each) for each in due]
        self._unfinished = len(self.calls)
        calls = iter(self.calls)
        self._loop.call_at(self.calls[0].due, self._tick, next(calls), calls)
        last = self.calls[-1].due - self._loop.time()
        try:
            await asyncio.wait_for(self._finished.wait(), last + DRAIN_S)
        except TimeoutError:
            return

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    def _tick(self, call: Call | None, rest: Iterator[Call]) -> None:
        now = self._loop.time()
        while call is not None and call.due <= now:
            if self._idle:
                self._idle.pop().send(call, self._data)
            else:
                self._waiting.append(call)
            call = next(rest, None)
        if call is not None:
            self._loop.call_at(call.due, self._tick, call, rest)

    def ended(self, connection: Connection, *, usable: bool) -> None:
        """A call came back, or its connection broke."""
        self._unfinished -= 1
        if not self._unfinished:
            self._finished.set()
        if not usable:
            return
        if self._waiting:
            connection.send(self._waiting.popleft(), self._data)
        else:
            self._idle.append(connection)

    def broken(self, connection: Connection) -> None:
        """An idle connection was closed by the other side; nobody may be sent there."""
        if connection in self._idle:
            self._idle.remove(connection)


class Connection(asyncio.Protocol):
    """One connection with at most one call on it."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._call: Call | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if self._call is None:
            self._generator.broken(self)
        else:
            self._call = None
            self._generator.ended(self, usable=False)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def send(self, call: Call, data: bytes) -> None:
        self._call = call
        call.sent = self._loop.time()
        if self._transport is None:  # it broke a moment ago
            self._call = None
            self._generator.ended(self, usable=False)
        else:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        call = self._call
        if call is not None:
            call.bytes += len(body)
            call.first = call.first or self._loop.time()

    def on_message_complete(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.done = self._loop.time()
            call.status = self._parser.get_status_code()
            self._generator.ended(self, usable=self._parser.should_keep_alive())


async def _sample(sample: Callable[[], float], samples: list[float]) -> None:
    while True:
        samples.append(sample())
        await asyncio.sleep(SAMPLE_S)


@contextmanager
def _no_collection() -> Iterator[None]:
    """The generator's own garbage collection would look like a stall of the proxy's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
