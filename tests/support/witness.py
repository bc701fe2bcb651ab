"""A witness, written from c2sp.org/tlog-witness, tlog-cosignature and signed-note alone: it shares no code with ours.

Keeps one log's latest checkpoint, refuses what does not continue it, and says no more than the specification asks for.
"""

import base64
import hashlib
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class RefusedError(Exception):
    def __init__(self, status: int, body: bytes = b"", media: str = "text/plain") -> None:
        super().__init__(status)
        self.status, self.body, self.media = status, body, media


class Witness:
    """Listens on loopback; `logs` maps an origin to the log's Ed25519 public key."""

    def __init__(self, name: str, logs: dict[str, bytes], *, shows: bool = True) -> None:
        self.name, self.logs, self.shows = name, logs, shows
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()
        self.latest: dict[str, tuple[int, bytes, bytes]] = {}  # origin → size, root, checkpoint as shown
        self.requests: list[tuple[int, int]] = []  # status, old size
        self.away = False
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/w"

    @property
    def vkey(self) -> str:
        identity = hashlib.sha256(self.name.encode() + b"\n\x04" + self.public).digest()[:4]
        return f"{self.name}+{identity.hex()}+{base64.b64encode(bytes([4]) + self.public).decode()}"

    def settings(self) -> dict[str, str]:
        return {"name": self.name, "url": self.url, "key": self.vkey}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def cosign(self, text: bytes, now_s: int | None = None) -> bytes:
        now_s = int(time.time()) if now_s is None else now_s
        signature = self._key.sign(b"cosignature/v1\ntime %d\n" % now_s + text)
        identity = hashlib.sha256(self.name.encode() + b"\n\x04" + self.public).digest()[:4]
        blob = base64.b64encode(identity + struct.pack(">Q", now_s) + signature).decode()
        return f"— {self.name} {blob}\n".encode()

    def add_checkpoint(self, body: bytes) -> bytes:
        head, gap, note = body.partition(b"\n\n")
        lines = head.split(b"\n")
        if not gap or not lines[0].startswith(b"old "):
            raise RefusedError(400)
        old = decimal(lines[0][4:])
        proof = [base64.b64decode(line, validate=True) for line in lines[1:]]
        if len(proof) > 63 or any(len(node) != 32 for node in proof):
            raise RefusedError(400)
        text, signatures = split_note(note)
        origin, size, root = head_of(text)
        if origin not in self.logs:
            raise RefusedError(404)
        check_log_signature(origin, self.logs[origin], text, signatures)
        if old > size:
            raise RefusedError(400)
        with self._lock:
            known, known_root, _ = self.latest.get(origin, (0, hashlib.sha256(b"").digest(), b""))
            if old != known:
                raise RefusedError(409, b"%d\n" % known, "text/x.tlog.size")
            if old == size and root != known_root:
                raise RefusedError(422)
            if (old in (0, size) and proof) or not (old in (0, size) or grows(known_root, root, old, size, proof)):
                raise RefusedError(422)
            line = self.cosign(text)
            own = [raw for name, raw in signatures if name == origin]
            self.latest[origin] = (size, root, text + b"\n" + own[0] + b"\n" + line)
            return line

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        witness = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                old = body.partition(b"\n")[0].decode("ascii", "replace")
                try:
                    if witness.away:
                        raise RefusedError(503)
                    if self.path != "/w/add-checkpoint":
                        raise RefusedError(404)
                    answer = witness.add_checkpoint(body)
                    self.answer(200, answer, "text/plain")
                    status = 200
                except RefusedError as refused:
                    status = refused.status
                    self.answer(status, refused.body, refused.media)
                except ValueError:
                    status = 400
                    self.answer(400, b"", "text/plain")
                witness.requests.append((status, int(old.removeprefix("old ") or -1)))

            def do_GET(self) -> None:
                for origin, (_, _, note) in witness.latest.items():
                    if witness.shows and self.path == f"/w/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint":
                        self.answer(200, note, "text/plain")
                        return
                self.answer(404, b"", "text/plain")

            def answer(self, status: int, body: bytes, media: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def decimal(raw: bytes) -> int:
    if not raw.isdigit() or (raw != b"0" and raw.startswith(b"0")):
        raise RefusedError(400)
    return int(raw)


def split_note(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Text (with its newline) and signature lines as (name, raw line)."""
    text, gap, rest = note.rpartition(b"\n\n")
    if not gap or not rest.endswith(b"\n"):
        raise RefusedError(400)
    lines = []
    for raw in rest[:-1].split(b"\n"):
        dash, name, _ = raw.decode().split(" ")
        if dash != "—":
            raise RefusedError(400)
        lines.append((name, raw))
    return text + b"\n", lines


def head_of(text: bytes) -> tuple[str, int, bytes]:
    origin, size, root, *_ = text.decode().split("\n")
    return origin, decimal(size.encode()), base64.b64decode(root, validate=True)


def check_log_signature(origin: str, public: bytes, text: bytes, lines: list[tuple[str, bytes]]) -> None:
    identity = hashlib.sha256(origin.encode() + b"\n\x01" + public).digest()[:4]
    good = False
    for name, raw in lines:
        blob = base64.b64decode(raw.decode().split(" ")[2], validate=True)
        if name != origin or blob[:4] != identity:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], text)
        except InvalidSignature:
            raise RefusedError(403) from None
        good = True
    if not good:
        raise RefusedError(403)


def grows(old_root: bytes, root: bytes, old: int, size: int, proof: list[bytes]) -> bool:
    """RFC 6962 section 2.1.2, checked by the recursion that defines the proof (not by RFC 9162's loop)."""
    nodes = list(proof)

    def pair(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\x01" + left + right).digest()

    def both(m: int, n: int, whole: bool) -> tuple[bytes, bytes]:
        """The roots over the first m and over all n leaves of a subtree, from the proof's end to its beginning."""
        if m == n:
            here = old_root if whole else nodes.pop(0)
            return here, here
        k = 1
        while k * 2 < n:
            k *= 2
        if m <= k:
            before, after = both(m, k, whole)
            return before, pair(after, nodes.pop(0))
        before, after = both(m - k, n - k, False)
        left = nodes.pop(0)
        return pair(left, before), pair(left, after)

    try:
        return both(old, size, True) == (old_root, root) and not nodes
    except IndexError:
        return False
