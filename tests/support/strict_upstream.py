"""A model endpoint that keeps every byte, and reads them by a grammar so narrow that no two parsers could differ.

Whoever smuggles needs two readings of the same bytes. So this one does not guess: a request is a line of three words,
header lines of token, colon, blank and visible text, each ended by CRLF, no transfer coding, at most one plain
Content-Length, and so many bytes of body. Anything else in what the gateway sent is `Ambiguous`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~\x80-\xff]*) HTTP/1\.1\r\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)\r\n")
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'


class Ambiguous(Exception):  # noqa: N818 - it is what the bytes are
    """The bytes can be read in more than one way."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One request, to the byte."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name.lower()]


def requests_in(raw: bytes) -> tuple[list[Heard], bytes]:
    """The whole requests in `raw`, and what is left of one that is still under way."""
    heard: list[Heard] = []
    while raw:
        end = raw.find(b"\r\n\r\n")
        if end < 0:
            return heard, raw
        line = _LINE.match(raw)
        if line is None:
            raise Ambiguous(f"request line {raw[:80]!r}")
        at, headers = line.end(), []
        while at < end + 2:
            header = _HEADER.match(raw, at, end + 2)
            if header is None:
                raise Ambiguous(f"header line {raw[at : at + 80]!r}")
            headers.append((header[1].decode().lower(), header[2].decode("latin-1")))
            at = header.end()
        names = [name for name, _ in headers]
        lengths = [value for name, value in headers if name == "content-length"]
        if "transfer-encoding" in names or len(lengths) > 1 or names.count("host") != 1:
            raise Ambiguous(f"framing {headers!r}")
        if lengths and not re.fullmatch("0|[1-9][0-9]*", lengths[0]):
            raise Ambiguous(f"length {lengths[0]!r}")
        start = end + 4
        length = int(lengths[0]) if lengths else 0
        if len(raw) < start + length:
            return heard, raw
        heard.append(Heard(line[1].decode(), line[2].decode("latin-1"), tuple(headers), raw[start : start + length]))
        raw = raw[start + length :]
    return heard, b""


async def at_once(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)
    await writer.drain()


@dataclass
class StrictUpstream:
    """On a port of the system's choice; `raw` is all it ever got, by connection."""

    answer: Callable[[asyncio.StreamWriter], Awaitable[None]] = at_once
    raw: list[bytearray] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        self._open: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.wait_for(self._server.wait_closed(), 5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self.raw.append(kept)
        self._open.add(writer)
        rest = b""
        try:
            while data := await reader.read(65536):
                kept += data
                found, rest = requests_in(rest + data)
                if len(found) > 1:
                    self.faults.append(f"{len(found)} requests at once: {bytes(kept)!r}")
                for one in found:
                    self.heard.append(one)
                    await self.answer(writer)
            if rest:
                self.faults.append(f"half a request: {rest[:200]!r}")
        except Ambiguous as fault:
            self.faults.append(str(fault))
        except ConnectionError:
            pass
        finally:
            self._open.discard(writer)
            with suppress(ConnectionError):
                writer.close()
