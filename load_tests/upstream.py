"""The model endpoint that costs as little as one can: nginx with fixed answers, and a server of event streams.

Both stand on the load's core. The stream server is our own (uvloop): `python -m load_tests.upstream PORT`. It
answers any request with `EVENTS` events, the first at once, then one each `EVENT_GAP_S`, then `[DONE]`.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import httptools
import uvloop

from load_tests import machine, traffic
from load_tests.process import Process, free_port

EVENTS = 100
EVENT_GAP_S = 0.1  # ten tokens a second: 200 streams are 2,000 events a second
_CHUNK = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}'
EVENT = b"data: " + _CHUNK + b"\n\n"
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
READY_S = 10.0

_NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {base}/nginx.pid;
error_log stderr error;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  client_max_body_size 1m;
  client_body_buffer_size 128k;
  client_body_temp_path {base}/body;
  proxy_temp_path {base}/proxy;
  fastcgi_temp_path {base}/fastcgi;
  uwsgi_temp_path {base}/uwsgi;
  scgi_temp_path {base}/scgi;
  default_type application/json;
{http}
}}
"""


def nginx(base: Path, http: str, *, cores: tuple[int, ...]) -> Process:
    """One nginx process with the given `http` block; everything that it writes stays under `base`."""
    base.mkdir(parents=True, exist_ok=True)
    configuration = base / "nginx.conf"
    configuration.write_text(_NGINX.format(base=base, http=http))
    argv = [machine.tool("nginx"), "-p", str(base), "-e", "stderr", "-c", str(configuration)]
    return Process(argv, cores=cores, log=base / "log")


def fixed(base: Path, stack: ExitStack, *, cores: tuple[int, ...]) -> int:
    """Start the fixed-answer upstream; returns its port."""
    port = free_port()
    kib = "x" * 1024
    sizes = "\n".join(
        f'    location = {traffic.sized_path(size)} {{ return 200 "{_repeated(size)}"; }}' for size in traffic.SIZES_KB
    )
    # a parameter of nginx's may have 4096 bytes: larger answers are put together from variables
    http = f"""
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    set $k "{kib}"; set $k8 "$k$k$k$k$k$k$k$k";
{sizes}
    location / {{ return 200 '{traffic.chat_answer().decode()}'; }}
  }}"""
    process = nginx(base, http, cores=cores)
    stack.callback(process.stop)
    process.wait_for_port(port, within_s=READY_S)
    return port


def _repeated(size_kb: int) -> str:
    return "$k8" * (size_kb // 8) + "$k" * (size_kb % 8)


def streaming(base: Path, stack: ExitStack, *, cores: tuple[int, ...]) -> int:
    """Start the server of event streams; returns its port."""
    base.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = Process([sys.executable, "-m", "load_tests.upstream", str(port)], cores=cores, log=base / "log")
    stack.callback(process.stop)
    process.wait_for_port(port, within_s=READY_S)
    return port


class Streaming(asyncio.Protocol):
    """One connection of the stream server."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class, which is none of asyncio's

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        chunk = _chunk(EVENT)
        self._write(STREAM_HEAD + chunk)
        for number in range(1, EVENTS):
            await asyncio.sleep(began + number * EVENT_GAP_S - loop.time())
            self._write(chunk)
        self._write(_chunk(DONE) + b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Streaming, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
