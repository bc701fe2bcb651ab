"""The worker's own paths, under `/-/`, never in a route's way: healthz, readyz, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import orjson

from gateway.exposition import MEDIA, Scrapers, exposition
from gateway.proxy.counts import Counts
from gateway.proxy.errors import RouteUnknown
from gateway.proxy.headers import status_line
from gateway.proxy.inbound import Inbound, Reply
from gateway.proxy.readiness import Readiness


class Own:
    """Answers the worker's own paths; `readiness()` says how the worker is."""

    def __init__(self, data: Path, counts: Counts, readiness: Callable[[], Readiness], *, scrapers: Scrapers) -> None:
        self._data = data
        self._counts = counts
        self._readiness = readiness
        self._scrapers = scrapers

    async def answer(self, path: str, request: Inbound, *, keep_alive: bool) -> Reply:
        """The reply to one of our paths.

        Raises:
            RouteUnknown: it is none of them.
            ScrapeRefused: metrics, for somebody who may not have them.
        """
        method = request.head.method
        if method not in ("GET", "HEAD"):
            raise RouteUnknown("only GET and HEAD are answered under /-/")
        match path:
            case "/-/healthz":
                status, media, body = 200, "application/json", b'{"status":"alive"}'
            case "/-/readyz":
                readiness = self._readiness()
                status, media = (503 if readiness.status == "unready" else 200), "application/json"
                body = orjson.dumps(readiness.as_json())
            case "/-/metrics":
                self._scrapers.check(request.peer, request.head.headers)
                self._counts.publish()
                status, media = 200, MEDIA
                body = await asyncio.to_thread(exposition, self._data, self._counts.registry)
            case _:
                raise RouteUnknown("of the paths under /-/ there are healthz, readyz and metrics")
        head = b"%bContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%b\r\n" % (
            status_line(status),
            media.encode("ascii"),
            len(body),
            b"" if keep_alive else b"Connection: close\r\n",
        )
        return Reply(head if method == "HEAD" else head + body, keep_alive=keep_alive)
