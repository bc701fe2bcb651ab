"""The comparator that records nothing: aiohttp's server before aiohttp's client, nothing between but bytes.

Run as `python -m load_tests.bare PORT UPSTREAM`. It is what one writes in an afternoon with aiohttp, tuned as its
documentation advises: `web.Server` without a router, no access log, one session, connections kept, uvloop.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
)


def passing(session: aiohttp.ClientSession, upstream: str) -> web.Server:
    """A server that sends every request to `upstream` and its answer back."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        body = await request.read()
        target = upstream + request.path_qs
        async with session.request(request.method, target, headers=headers, data=body, allow_redirects=False) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    return web.Server(handle, access_log=None)


async def serve(port: int, upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        runner = web.ServerRunner(passing(session, upstream))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
