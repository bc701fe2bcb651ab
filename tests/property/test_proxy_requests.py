"""Requests bent at random against one worker process: it neither ends, nor hangs, nor grows, nor makes one into two."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.processes import start
from storage import watermark
from tests.support.strict_upstream import StrictUpstream

SOON_S = 10.0
GROWTH_BYTES_MAX = 100 * 1024 * 1024
ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
from pathlib import Path
import uvloop
from config.load import load
from gateway.proxy.app import run
sys.exit(uvloop.run(run(load(Path(sys.argv[1]), os.environ), "gateway-0")))
"""
WHOLE = [
    b"GET /m/x HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /m/x?a=b HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n1;a=b\r\n \r\n0\r\nX: y\r\n\r\n",
    b"PUT /m/%61/b HTTP/1.0\r\nContent-Length: 37\r\n\r\nGET /m/smuggled HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /m/x HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nAnswerable-Case: c\r\nContent-Length: 1\r\n\r\n1",
    b"GET /m/x HTTP/1.1\r\nHost: t\r\nConnection: close, x-a\r\nX-A: 1\r\nUpgrade: h2c\r\n\r\n",
    b"HEAD /-/healthz HTTP/1.1\r\nHost: t\r\n\r\n",
]
WORDS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\xff",
        b"\x7f",
        b"0",
        b"-",
        b"+",
        b"0x",
        b"%2e",
        b"/..",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 5\r\n",
    ),
    *(b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"HTTP/1.0", b"HTTP/2.0", b"CONNECT ", b"chunked", b"\r\n\r\n"),
    *(b"ffffffff", b"99999999999999999999", b"x" * 9000, b"X: y\r\n" * 90, b"0\r\n\r\n", b"Host: u\r\n"),
]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "repeat", "swap"]),
        st.integers(0, 400),
        st.integers(1, 12),
        st.sampled_from(WORDS) | st.binary(min_size=1, max_size=3),
    ),
    max_size=4,
)
BENT = st.tuples(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=3).map(b"".join), CHANGES)
CUTS = st.lists(st.integers(1, 400), max_size=3)


def bent(whole: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    for what, at, count, word in changes:
        place = at % (len(whole) + 1)
        before, here, behind = whole[:place], whole[place : place + count], whole[place + count :]
        middle = {"insert": word + here, "delete": b"", "repeat": here + here, "swap": word}[what]
        whole = before + middle + behind
    return whole


@dataclass
class Standing:
    """A worker process, its model, and how both are."""

    model: StrictUpstream
    process: subprocess.Popen[bytes]
    port: int
    data: Path

    def send(self, raw: bytes, cuts: list[int], stays_s: float | None) -> bytes:
        """Send all and return what was answered until the worker closed, or was silent for `stays_s`.

        None: say that no more will come, which ends every wait of the worker's.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=SOON_S) as sock:
            places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
            answered = b""
            with suppress(OSError):  # it may have closed already
                for one, other in pairwise(places):
                    sock.sendall(raw[one:other])
                if stays_s is None:
                    sock.shutdown(socket.SHUT_WR)
            sock.settimeout(stays_s or SOON_S)
            with suppress(ConnectionError, *([] if stays_s is None else [TimeoutError])):
                while data := sock.recv(65536):
                    answered += data
        return answered

    def counters(self) -> watermark.Counters:
        mark = watermark.read(self.data / "journal" / "gateway-0" / watermark.NAME)
        assert mark is not None
        return mark.counters

    def settled(self) -> watermark.Counters:
        deadline = time.monotonic() + SOON_S
        while (now := self.counters()).accepted != now.closed:
            assert time.monotonic() < deadline, now
            time.sleep(0.01)
        return now

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def on_a_loop(model: StrictUpstream) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(model.__aenter__(), loop).result(SOON_S)
        yield
        asyncio.run_coroutine_threadsafe(model.__aexit__(), loop).result(SOON_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("bent")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    model = StrictUpstream()
    with on_a_loop(model):
        tree = {
            "deployment": "test",
            "gateway": {"port": port, "body_timeout_s": 2, "header_timeout_s": 2},
            "callers": {"mode": "open"},
            "routes": [{"name": "m", "prefix": "/m", "upstream": model.url}],
        }
        (folder / "answerable.yaml").write_text(yaml.safe_dump(tree))
        log = (folder / "log").open("wb")
        process = start(
            [sys.executable, "-c", PROGRAM, str(folder / "answerable.yaml")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 30
            while True:
                with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield Standing(model, process, port, folder / "data")
        finally:
            process.terminate()
            try:
                process.wait(SOON_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()
    assert b"Traceback" not in (folder / "log").read_bytes(), (folder / "log").read_text()[-3000:]


def bend(standing: Standing, examples: int) -> None:
    grown = standing.rss_bytes()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(BENT, CUTS, st.sampled_from([None, None, None, 0.1]))
    def each(one: tuple[bytes, list[tuple[str, int, int, bytes]]], cuts: list[int], stays_s: float | None) -> None:
        answered = standing.send(bent(*one), cuts, stays_s)
        assert answered == b"" or answered.startswith(b"HTTP/1.1 ")
        assert b"HTTP/1.1 500" not in answered
        assert standing.process.poll() is None

    each()
    counters = standing.settled()
    assert not standing.model.faults, standing.model.faults[:3]
    assert 0 < len(standing.model.heard) <= counters.accepted
    assert counters.lost == 0
    assert standing.rss_bytes() - grown < GROWTH_BYTES_MAX
    assert standing.send(WHOLE[0].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), [], SOON_S) != b""


def test_bent_requests_end_nothing_hang_nothing_and_are_never_more_at_the_model_than_in_the_record(standing: Standing):
    bend(standing, 1_500)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_many_bent_requests_do_no_more(standing: Standing):
    bend(standing, 20_000)
