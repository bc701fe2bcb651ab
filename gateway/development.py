"""A token issuer of this machine's own, for development: trusted only where `desk.development` says so."""

import hashlib
from pathlib import Path
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config.callers import Issuer
from config.errors import ConfigError
from storage.durable import replace_file
from storage.ids import b64

ISSUER = "answerable-development"
AUDIENCE = "answerable-desk"


def issuer(data: Path) -> Issuer:
    """The development issuer of this data directory; its key pair is made on first use (0600)."""
    _key(data)
    return Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=f"file:{_public(data)}", algorithms=("EdDSA",))


def sign(data: Path, *, subject: str, roles: list[str], tenant: str, expires_s: int, matter: str | None = None) -> str:
    """A token for the desk, good until `expires_s` (Unix seconds).

    Raises:
        ConfigError: `matter` is not JSON.
    """
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "tenant": tenant,
        "roles": roles,
        "exp": expires_s,
    }
    if matter is not None:
        try:
            claims["matter"] = orjson.loads(matter)
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"--matter: not JSON: {error}") from error
    key = _key(data)
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": _key_id(key)})


def _key(data: Path) -> Ed25519PrivateKey:
    path = data / "keys" / "dev-issuer.key"
    if path.exists():
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": _key_id(key), "x": b64(_raw(key))}
    replace_file(_public(data), orjson.dumps({"keys": [jwk]}))
    replace_file(
        path,
        key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()),
    )
    return key


def _public(data: Path) -> Path:
    return (data / "keys" / "dev-issuer.jwks").absolute()


def _raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _key_id(key: Ed25519PrivateKey) -> str:
    return hashlib.sha256(_raw(key)).hexdigest()[:16]
