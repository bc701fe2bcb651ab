"""A time stamping authority: `openssl ts` behind a small HTTP server on loopback, with certificates of its own."""

import datetime as dt
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
certs = {folder}/root.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_alg = sha256
"""


class Authority:
    """Answers what it is asked; `answers` may be set to say something else."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.answer: bytes | None = None
        self.asked = 0
        self._make()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    @property
    def root(self) -> str:
        return (self.folder / "root.pem").read_text()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def stamp(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        out = self.folder / "reply"
        subprocess.run(
            [
                "openssl",
                "ts",
                "-reply",
                "-config",
                self.folder / "cnf",
                "-queryfile",
                self.folder / "query",
                "-out",
                out,
            ],
            check=True,
            capture_output=True,
        )
        return out.read_bytes()

    def checks(self, token: bytes, text: bytes) -> bool:
        """What `openssl ts -verify` says of a token over a text."""
        (self.folder / "token").write_bytes(token)
        (self.folder / "text").write_bytes(text)
        names = ["-data", self.folder / "text", "-in", self.folder / "token", "-CAfile", self.folder / "root.pem"]
        return subprocess.run(["openssl", "ts", "-verify", *names], check=False, capture_output=True).returncode == 0

    def _make(self) -> None:
        now = dt.datetime.now(dt.UTC)
        root_key, key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))

        def builder(name: str, public: rsa.RSAPublicKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test root")]))
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(days=1))
                .not_valid_after(now + dt.timedelta(days=30))
            )

        root = (
            builder("Test root", root_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(root_key, hashes.SHA256())
        )
        tsa = (
            builder("Test authority", key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .sign(root_key, hashes.SHA256())
        )
        (self.folder / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
        (self.folder / "tsa.pem").write_bytes(tsa.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "tsa.key").write_bytes(pem)
        (self.folder / "serial").write_text("01\n")
        (self.folder / "cnf").write_text(CONFIG.format(folder=self.folder))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                authority.asked += 1
                assert self.headers["Content-Type"] == "application/timestamp-query"
                answer = authority.answer if authority.answer is not None else authority.stamp(query)
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
