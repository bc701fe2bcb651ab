"""The HTTP interface of ClickHouse in front of an embedded one, in a process of its own.

Speaks what an HTTP client sends: the statement in ``?query=`` or the body, ``param_x``, settings, ``database``, form
fields, Native inserts with a body of known length or in chunks; answers errors with ``X-ClickHouse-Exception-Code``.
It keeps no sessions and compresses nothing. `Server` starts, kills, restarts it on the same port, and asks it to fail.
"""

import base64
import contextlib
import email.parser
import email.policy
import http.client
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit

from config.processes import start

_INSERT = re.compile(r"^\s*INSERT INTO (?P<into>\S+\s*(?:\([^)]*\))?)\s*FORMAT Native\s*$", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)")
_RESERVED = {
    *("query", "database", "query_id", "session_id", "wait_end_of_query", "client_protocol_version", "default_format"),
    *("compress", "decompress", "enable_http_compression", "role", "quota_key", "buffer_size"),
    *("send_progress_in_http_headers", "http_headers_progress_interval_ms"),
    "cancel_http_readonly_queries_on_client_close",
}


class _Engine(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int, path: str) -> None:
        import chdb  # here, and not in the tests that only start this process

        super().__init__(("127.0.0.1", port), _Handler)
        self.path = path
        self.connect = chdb.connect
        self.anchor = chdb.connect(path)  # keeps the engine up between requests, each of which has its own handle
        self.running: set[str] = set()
        self.fault: dict[str, Any] = {}
        self.deaf_until = 0.0
        self.recorded: dict[tuple[str, str], dict[str, str]] = {}  # the first request of each user and statement
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def take_fault(self, into: str) -> str:
        """The fault that this insert is to suffer, once."""
        with self.lock:
            if not self.fault or into.replace("`", "").split("(")[0].strip() != self.fault["table"]:
                return ""
            if self.fault["skip"] > 0:
                self.fault["skip"] -= 1
                return ""
            mode: str = self.fault["mode"]
            self.fault = {}
            return mode


class _CutError(Exception):
    """Close the connection without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Engine

    def log_message(self, *_: Any) -> None:
        """Quiet: the tests read answers, not logs."""

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def serve(self) -> None:
        try:
            body = self.body()
            if time.monotonic() < self.server.deaf_until:
                raise _CutError
            where = urlsplit(self.path)
            fields = dict(parse_qsl(where.query, keep_blank_values=True))
            if where.path == "/ping":
                return self.answer(200, b"Ok.\n")
            if where.path == "/-/fault":
                self.server.fault = json.loads(body)
                return self.answer(200, b"")
            if where.path == "/-/deaf":
                self.answer(200, b"")
                return deafen(self.server, float(body))
            if where.path == "/-/recorded":
                return self.answer(200, json.dumps(list(self.server.recorded.values())).encode())
            content_type = self.headers.get("Content-Type", "")
            self.record(fields, content_type, body)
            if content_type.startswith("multipart/form-data"):
                fields |= form(content_type, body)
                body = b""
            self.run(fields, body)
        except _CutError:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def record(self, fields: dict[str, str], content_type: str, body: bytes) -> None:
        """Keep a request by which an account can be tried: as whom, and what."""
        _, _, basic = self.headers.get("Authorization", "").partition("Basic ")
        user = base64.b64decode(basic).decode().partition(":")[0] or "default"
        told = form(content_type, body) if content_type.startswith("multipart/form-data") else {}
        stated = fields.get("query") or told.get("query") or body.decode()
        request = {"user": user, "path": self.path, "type": content_type, "body": base64.b64encode(body).decode()}
        with self.server.lock:
            self.server.recorded.setdefault((user, stated), request)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(pieces)

    def run(self, fields: dict[str, str], body: bytes) -> None:
        name = fields.get("query_id", "")
        with self.server.lock:
            if name and name in self.server.running:
                return self.refuse("Code: 216. DB::Exception: Query with this id is running. (QUERY_WITH_SAME_ID)")
            self.server.running.add(name)
        try:
            answer = execute(self.server, fields, body)
        except RuntimeError as error:
            return self.refuse(str(error))
        finally:
            with self.server.lock:
                self.server.running.discard(name)
        return self.answer(200, answer)

    def refuse(self, message: str) -> None:
        found = _CODE.search(message)
        message = message[message.find("Code: ") :] if found else message
        self.answer(500, message.encode(), {"X-ClickHouse-Exception-Code": found[1] if found else "1002"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "X-ClickHouse-Format": "TabSeparated",
            "X-ClickHouse-Summary": "{}",
            "X-ClickHouse-Timezone": "UTC",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def deafen(server: _Engine, seconds: float) -> None:
    """Refuse connections for a while: the listening socket is closed, not only left unread."""
    server.deaf_until = time.monotonic() + seconds
    address = server.server_address
    server.socket.close()
    threading.Timer(seconds, lambda: os.execv(sys.executable, again(server.path, address[1]))).start()


def again(path: str, port: int) -> list[str]:
    """The command line that starts this server."""
    return [sys.executable, "-m", "tests.support.clickhouse_http", path, str(port)]


def form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart form: long parameters travel so."""
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        fields[str(name)] = part.get_payload(decode=True).decode()
    return fields


def execute(server: _Engine, fields: dict[str, str], body: bytes) -> bytes:
    """Run one statement on a handle of its own, with its settings and parameters."""
    handle = server.connect(server.path)
    try:
        if fields.get("database"):
            handle.query(f"USE `{fields['database']}`")
        for name, value in fields.items():
            if name not in _RESERVED and not name.startswith("param_"):
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                handle.query(f"SET {name} = '{quoted}'")
        parameters = {name[6:]: value for name, value in fields.items() if name.startswith("param_")}
        insert = _INSERT.match(fields.get("query", ""))
        if insert:
            return insert_native(server, handle, insert["into"], body)
        sql = "\n".join(piece for piece in (fields.get("query", ""), body.decode()) if piece)
        return bytes(handle.query(sql, "TabSeparated", params=parameters).bytes() or b"")
    finally:
        handle.close()


def insert_native(server: _Engine, handle: Any, into: str, body: bytes) -> bytes:
    """Insert a Native body, or die or fall silent before or after it, as asked."""
    fault = server.take_fault(into)
    if fault in ("die_before", "cut_before"):
        perish(fault)
    with tempfile.NamedTemporaryFile(suffix=".native") as file:
        file.write(body)
        file.flush()
        handle.query(f"INSERT INTO {into} FROM INFILE '{file.name}' FORMAT Native")
    if fault in ("die_after", "cut_after"):
        perish(fault)
    return b""


def perish(fault: str) -> None:
    """End like a crash, or leave the client without an answer."""
    if fault.startswith("die"):
        os.kill(os.getpid(), 9)
    raise _CutError


class Server:
    """A ClickHouse server for tests; `url` stays the same over `kill` and `start`."""

    def __init__(self, path: Path, config: Path | None = None) -> None:
        """`config`: a configuration file of ClickHouse, whose users file says what its `default` may do."""
        self.path = f"{path}?config-file={config}" if config else str(path)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it answers."""
        root = Path(__file__).parents[2]
        env = {**os.environ, "PYTHONPATH": str(root)}
        self.process = start(again(self.path, self.port), env=env)
        self.wait_until_up()

    def wait_until_up(self, seconds: float = 30) -> None:
        """Return when it answers a query."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("/?query=" + quote("SELECT 1")) == b"1\n":
                    return
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            time.sleep(0.02)
        raise TimeoutError(f"no answer within {seconds} s")

    def kill(self) -> None:
        """SIGKILL it, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def fault(self, mode: str, *, table: str, skip: int = 0) -> None:
        """The next insert into `table`, but for `skip` more, suffers die_before|die_after|cut_before|cut_after."""
        self.request("/-/fault", json.dumps({"mode": mode, "table": table, "skip": skip}).encode())

    def refuse(self, seconds: float) -> None:
        """Refuse connections for so long, from now on."""
        self.request("/-/deaf", str(seconds).encode())

    def recorded(self) -> list[dict[str, str]]:
        """The first request of each user and statement since the start, as `again` takes it."""
        found: list[dict[str, str]] = json.loads(self.request("/-/recorded"))
        return found

    def again(self, request: dict[str, str]) -> bytes:
        """The answer to a request that was recorded elsewhere."""
        body = base64.b64decode(request["body"])
        return self.request(request["path"], body, {"Content-Type": request["type"]} if request["type"] else None)

    def request(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST" if body is not None else "GET", path, body, headers or {})
            return connection.getresponse().read()
        finally:
            connection.close()


if __name__ == "__main__":
    _Engine(int(sys.argv[2]), sys.argv[1]).serve_forever()
