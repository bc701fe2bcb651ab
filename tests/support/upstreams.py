"""Model endpoints on loopback that behave, and misbehave, to the byte: an answer is a coroutine over the raw socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

Behaviour = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Asked:
    """One request as the endpoint got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


@dataclass
class Exchange:
    """A request and the socket to answer it on."""

    asked: Asked
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + body)

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


@dataclass
class Upstream:
    """An endpoint on a port of the system's choice; `behaviour` may be changed between requests."""

    behaviour: Behaviour
    tls: ssl.SSLContext | None = None
    seen: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def __aenter__(self) -> Self:
        self._open: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.wait_for(self._server.wait_closed(), 5)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while (asked := await read_request(reader)) is not None:
                self.seen.append(asked)
                await self.behaviour(Exchange(asked, reader, writer))
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            with suppress(ConnectionError):
                writer.close()


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """One request with a Content-Length body, or None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = start.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    asked = Asked(method, target, headers, b"")
    asked.body = await reader.readexactly(int(asked.header("Content-Length") or 0))
    return asked


async def good(exchange: Exchange) -> None:
    """A short JSON answer."""
    await exchange.answer(b'{"decision":"approved","probability":0.9}', "200 OK", "Content-Type: application/json")


async def silent(exchange: Exchange) -> None:
    """Never answers; returns when the caller has gone."""
    await exchange.reader.read()


def events(*pieces: bytes, gate: asyncio.Semaphore | None = None) -> Behaviour:
    """A chunked event stream; with a gate, each piece waits for a release of it."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            if gate is not None:
                await gate.acquire()
            await exchange.chunk(piece)
        if gate is not None:
            await gate.acquire()
        await exchange.send(b"0\r\n\r\n")

    return behave


def raw(*pieces: bytes, then: str = "keep") -> Behaviour:
    """Exactly these bytes; then `keep` the connection, `close` it, or `reset` it."""

    async def behave(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0)
        if then == "close":
            exchange.close()
        elif then == "reset":
            exchange.reset()

    return behave


def dead_url() -> str:
    """The address of a port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"
