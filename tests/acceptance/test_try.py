"""`answerable try`: a person with a model on a port, and nothing configured."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.deployment import free_port
from tests.support.upstreams import Upstream, good


@contextlib.asynccontextmanager
async def trying(url: str, folder: Path) -> AsyncIterator[tuple[int, str, subprocess.Popen[str]]]:
    """`answerable try URL` running: the data plane's port, the link to its page, the process."""
    port, desk_port = free_port(), free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gateway.cli", "try", url, "--data", str(folder)),
            *("--port", str(port), "--desk-port", str(desk_port)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        told = ""
        while "Ctrl-C" not in told:
            line = await asyncio.to_thread(process.stdout.readline)
            assert line, told
            told += line
        assert f"http://127.0.0.1:{port}" in told
        assert url in told
        yield port, re.findall(r"http://\S+/signin/\S+", told)[0], process
    finally:
        process.terminate()  # not killed: it would leave its host behind
        await asyncio.to_thread(process.wait)
        process.stdout.close()


async def signed_in(session: aiohttp.ClientSession, link: str) -> str:
    """Follow the one-time link as a browser without JavaScript does; the page it leads to."""
    async with session.get(link) as response:
        page = await response.text()
    action = re.findall(r'<form[^>]*action="([^"]*)"', page)[0]
    fields = dict(re.findall(r'name="([^"]+)"[^>]*value="([^"]*)"', page))
    base = link.partition("/signin/")[0]
    async with session.post(base + action, data=fields) as response:
        assert response.status == 200
        return await response.text()


def serving(folder: Path) -> list[int]:
    """The processes that still run on this data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@pytest.mark.timeout(240)
async def test_try_that_is_terminated_before_it_is_ready_leaves_no_process(tmp_path):
    folder = tmp_path / "terminated"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gateway.cli", "try", "http://127.0.0.1:9", "--data", str(folder)),
            *("--port", str(free_port()), "--desk-port", str(free_port())),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        while len(serving(folder)) < 2:  # itself, and the host that it has just started
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 60) == 143
    assert serving(folder) == []


@pytest.mark.timeout(240)
async def test_try_shows_each_call_as_it_is_recorded_and_ends_in_order(tmp_path):
    jar = aiohttp.CookieJar(unsafe=True)  # the desk stands on an address, not on a name
    async with (
        Upstream(good) as upstream,
        trying(upstream.url, tmp_path / "t") as (port, link, process),
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        for number in range(3):
            body = {"application": f"A-{number}", "income": 1000 + number}
            async with session.post(f"http://127.0.0.1:{port}/score", json=body) as response:
                assert response.status == 200
                assert response.headers["Decision-Id"]
                assert response.headers["Decision-Receipt"].startswith("v1 try/gateway-0/1 ")
        page = await signed_in(session, link)
        base = link.partition("/signin/")[0]
        async with asyncio.timeout(30):
            while page.count("/try?pick=label&amp;call=") < 3 or "A-2" not in page:  # the list; the newest shown whole
                await asyncio.sleep(0.2)
                async with session.get(f"{base}/try") as response:
                    page = await response.text()
        assert "approved" in page
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 60) == 0
    verified = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "verify", "--data", str(tmp_path / "t")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
