"""A whole gateway worker in the test's own loop, and a client that speaks to the byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from config.load import Configuration, from_tree
from gateway.proxy.app import Worker

SOON_S = 10.0  # no answer of these tests takes longer


def configuration(folder: Path, upstream: str, **more: Any) -> Configuration:
    """One open route `/m` in front of `upstream`; `route` changes the route, other names whole sections."""
    route = {"name": "m", "prefix": "/m", "upstream": upstream, **more.pop("route", {})}
    tree = {
        "deployment": "test",
        "gateway": {"port": 0, **more.pop("gateway", {})},
        "callers": {"mode": "open"},
        "routes": [route, *more.pop("routes", [])],
        **more,
    }
    return from_tree(tree, folder / "answerable.yaml")


@asynccontextmanager
async def working(made: Configuration, shard: str = "gateway-0", **more: Any) -> AsyncIterator[Worker]:
    """A worker that listens; stopped at the end."""
    worker = Worker(made, shard, **more)
    await worker.start(reuse_port=False)
    try:
        yield worker
    finally:
        await asyncio.wait_for(worker.stop(), SOON_S * 2)


@dataclass
class Got:
    """One answer as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code in the one error shape, whose other fields must be there too."""
        error = self.json()["error"]
        assert set(error) == {"code", "message", "advice", "request_id"}, error
        assert all(error.values()), error
        return str(error["code"])


@dataclass
class Client:
    """One connection to a worker."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pieces: list[bytes] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def to(
        cls, worker: Worker, tls: ssl.SSLContext | None = None, *, source: str | None = None
    ) -> AsyncIterator[Client]:
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port, ssl=tls, local_addr=local)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self, method: str = "POST", target: str = "/m/x", body: bytes = b"{}", headers: dict[str, str] | None = None
    ) -> Got:
        """One request with Content-Length and its answer."""
        await self.request(method, target, body, headers)
        return await self.answer(head_only=method == "HEAD")

    async def request(
        self, method: str = "POST", target: str = "/m/x", body: bytes = b"{}", headers: dict[str, str] | None = None
    ) -> None:
        known = {"Host": "test", **(headers or {})}
        if body:
            known["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in known.items())
        await self.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)

    async def answer(self, *, head_only: bool = False) -> Got:
        """The next answer, whole; IncompleteReadError where it is cut."""
        got = await self.head()
        if head_only or got.status in (204, 304) or got.status < 200:
            return got
        length = got.header("Content-Length")
        async with asyncio.timeout(SOON_S):
            if length is not None:
                got.body = await self.reader.readexactly(int(length))
            elif got.header("Transfer-Encoding") == "chunked":
                while (chunk := await self.chunk()) is not None:
                    self.pieces.append(chunk)
                    got.body += chunk
            else:
                got.body = await self.reader.read()
        return got

    async def head(self) -> Got:
        """Status and headers of the next answer."""
        async with asyncio.timeout(SOON_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = raw[:-4].decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Got(int(start.split(" ")[1]), headers, b"")

    async def chunk(self) -> bytes | None:
        """The next chunk; None at the end of the answer."""
        async with asyncio.timeout(SOON_S):
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2] if size else None

    async def ended(self) -> bool:
        """Whether the worker has closed the connection; waits for it or for more bytes."""
        async with asyncio.timeout(SOON_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True
