"""A certificate authority for one test, and a server certificate for 127.0.0.1."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """Paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path


def authority(folder: Path) -> Authority:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _signed("test authority", ca_key, "test authority", ca_key, ca=True)
    leaf = _signed("127.0.0.1", key, "test authority", ca_key, ca=False)
    made = Authority(folder / "ca.pem", folder / "leaf.pem", folder / "leaf.key")
    made.ca.write_bytes(ca.public_bytes(Encoding.PEM))
    made.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


@dataclass(frozen=True)
class Client:
    """A caller's certificate and key, as PEM files, and the hex SHA-256 of the certificate."""

    certificate: Path
    key: Path
    sha256: str


@dataclass(frozen=True)
class Signer:
    """An authority that goes on signing."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, folder: Path, name: str = "callers") -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        made = cls(folder, name, key)
        made.ca.write_bytes(_signed(name, key, name, key, ca=True).public_bytes(Encoding.PEM))
        return made

    @property
    def ca(self) -> Path:
        return self.folder / f"{self.name}.ca.pem"

    def client(self, name: str, *, hours: int = 1, kind: str = "") -> Client:
        """A certificate with the name `name`: a URI if it looks like one, e-mail if `kind` says so, else DNS.

        Negative `hours`: it ended so long ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        san: x509.GeneralName = x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name)
        if kind == "email":
            san = x509.RFC822Name(name)
        leaf = _signed("caller", key, self.name, self.key, ca=False, san=san, hours=hours)
        made = self.folder / f"{leaf.serial_number}.pem", self.folder / f"{leaf.serial_number}.key"
        made[0].write_bytes(leaf.public_bytes(Encoding.PEM))
        made[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Client(*made, hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest())


def server_context(made: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return context


def demanding_context(made: Authority) -> ssl.SSLContext:
    """A server that talks only to whom the authority has signed."""
    context = server_context(made)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(made.ca)
    return context


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    san: x509.GeneralName | None = None,
    hours: int = 1,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1 + abs(hours)))
        .not_valid_after(now + dt.timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        named = x509.IPAddress(ipaddress.ip_address("127.0.0.1")) if san is None else san
        builder = builder.add_extension(x509.SubjectAlternativeName([named]), critical=False)
    return builder.sign(issuer_key, SHA256())
