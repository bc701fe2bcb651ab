"""A real browser for tests: Debian's chromium, headless, spoken to over its own DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from config.processes import start

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --hide-scrollbars --remote-debugging-port=0 about:blank"
)
START_S = 30.0
ANSWER_S = 20.0


class Tab:
    """One tab; `problems` collects what the page complained about, `asked` the addresses it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.problems: list[str] = []
        self.asked: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says until it ends."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
                continue
            match said.get("method"):
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Log.entryAdded" if said["params"]["entry"]["level"] in ("error", "warning"):
                    self.problems.append(said["params"]["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.problems.append(str(said["params"]["exceptionDetails"]))
                case "Network.requestWillBeSent":
                    self.asked.append(said["params"]["request"]["url"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_S):
            said = await future
        assert "error" not in said, said
        return dict(said["result"])

    async def go(self, url: str) -> None:
        """Load an address; true on return: its load event fired."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait for the page that is loading."""
        async with asyncio.timeout(ANSWER_S):
            await self._loaded.wait()

    async def click(self, selector: str) -> None:
        """Click what leads to another page, and wait for that."""
        self._loaded.clear()
        await self.run(f"document.querySelector({selector!r}).click()")
        await self.loaded()

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def look(self, *, width: int, theme: str = "light") -> None:
        """Make the window so wide, and the page light or dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Tab]:
    """A browser with one tab; its process is ended at the end."""
    program = shutil.which("chromium")
    assert program is not None
    process = start(
        [program, *FLAGS.split(), f"--user-data-dir={profile}"],
        env={**os.environ, "HOME": str(profile)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        own_group=True,
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                target = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Log", "Runtime", "Network"):
                    await tab.call(f"{domain}.enable")
                yield tab
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


async def _port(path: Path) -> int:
    async with asyncio.timeout(START_S):
        while not path.exists() or not path.read_text().strip():
            await asyncio.sleep(0.05)
    return int(path.read_text().split()[0])
