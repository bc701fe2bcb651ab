"""Every trick of tests/vectors/http/tricks.txt against one real worker, in one piece and byte by byte."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.proxy.app import Worker
from tests.support.evidence import balanced
from tests.support.strict_upstream import StrictUpstream
from tests.support.workers import SOON_S, Client, Got, configuration, working

CORPUS = Path(__file__).parents[1] / "vectors" / "http" / "tricks.txt"
SMUGGLED = b"GET /m/smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
SHORT = {
    b"<H>": b"Host: t\r\n",
    b"<P>": b"POST /m/x HTTP/1.1\r\nHost: t\r\n",
    b"<G>": b"GET /m/x HTTP/1.1\r\nHost: t\r\n",
    b"<S>": SMUGGLED,
}
TRICKLED_BYTES_MAX = 700
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Trick:
    """What is sent, and what is right: rows of statuses, any of a set in each place; and the end."""

    name: str
    rows: tuple[tuple[frozenset[int], ...], ...]
    closed: bool
    raw: bytes

    def allows(self, statuses: list[int]) -> bool:
        return any(
            len(row) == len(statuses) and all(one in place for one, place in zip(statuses, row, strict=True))
            for row in self.rows
        )


def tricks() -> list[Trick]:
    lines = [line for line in CORPUS.read_text("ascii").splitlines() if line and not line.startswith("#")]
    found = []
    for line in lines:
        name, statuses, end, escaped = line.split(" | ", 3)
        assert end in {"open", "closed"}, line
        written = re.sub(r"\{([^{}]+)\*(\d+)\}", lambda many: many[1] * int(many[2]), escaped)
        raw = written.encode("ascii").decode("unicode_escape").encode("latin-1")
        for short, whole in SHORT.items():
            raw = raw.replace(short, whole)
        rows = tuple(
            tuple(frozenset(int(one) for one in place.split("/")) for place in row.split(","))
            for row in statuses.split(" or ")
        )
        found.append(Trick(name, rows, end == "closed", raw))
    assert len({trick.name for trick in found}) == len(found)
    return found


TRICKS = tricks()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def model() -> AsyncIterator[StrictUpstream]:
    async with StrictUpstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(model: StrictUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    made = configuration(
        tmp_path_factory.mktemp("tricks"), model.url, gateway={"header_timeout_s": 1, "body_timeout_s": 1}
    )
    async with working(made) as working_one:
        yield working_one
    balanced(working_one)


async def exchanged(port: int, raw: bytes, *, trickled: bool) -> list[Got]:
    """Send `raw`, as far as the worker takes it, and return all that it answers until it closes the connection."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # it may have closed: what it said before is read below
            for at in range(0, len(raw), 1 if trickled else len(raw)):
                await loop.sock_sendall(sock, raw[at : at + 1] if trickled else raw)
                await asyncio.sleep(0)
        reader = asyncio.StreamReader()
        with suppress(ConnectionResetError):
            while data := await loop.sock_recv(sock, 65536):
                reader.feed_data(data)
    reader.feed_eof()
    client, got = Client(reader, None), []  # type: ignore[arg-type]  # only read from
    while not reader.at_eof():
        one = await client.answer()
        if one.status != 100:
            got.append(one)
    return got


@pytest.mark.parametrize("sent", ["whole", "trickled"])
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
async def test_a_trick_is_answered_rightly_and_never_is_more_at_the_model_than_at_the_gateway(
    model: StrictUpstream, worker: Worker, trick: Trick, sent: str
):
    if sent == "trickled" and len(trick.raw) > TRICKLED_BYTES_MAX:
        return
    before, heard = worker.journal.counters, len(model.heard)
    accepted, refused = before.accepted, before.refused
    # where the connection stays open it must be in step: the next request gets its own answer, and is the last
    behind = b"" if trick.closed else b"GET /m/in-step HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    async with asyncio.timeout(SOON_S):
        got = await exchanged(worker.port, trick.raw + behind, trickled=sent == "trickled")
    if not trick.closed:
        assert got.pop().status == 200
        assert model.heard[-1].target == "/in-step"
    assert trick.allows([one.status for one in got]), [one.body for one in got]
    for one in got:
        if one.status >= 400:
            assert one.code
            assert one.header("Content-Type") == "application/json"
    if trick.closed and got and got[-1].status >= 400:
        assert got[-1].header("Connection") == "close"
    passed = sum(one.status == 200 for one in got) + (not trick.closed)
    assert not model.faults, model.faults
    assert len(model.heard) - heard == passed, model.heard[heard:]
    counters = worker.journal.counters
    assert counters.accepted - accepted == passed
    assert counters.refused - refused >= sum(one.status >= 400 for one in got)
    if trick.closed or SMUGGLED + b"!" not in trick.raw + b"!":  # nothing but a pipelined request may be seen
        assert all("smuggled" not in one.target for one in model.heard[heard:])
