"""A token issuer for tests: real keys, real signatures, a JWKS file or bytes to serve."""

import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from config.callers import Issuer

ISSUER = "https://login.example"
AUDIENCE = "answerable"


class TokenIssuer:
    """Holds private keys by key id and signs what it is asked to."""

    def __init__(self, algorithm: str = "EdDSA") -> None:
        self.keys: dict[str, tuple[str, Any]] = {}
        self.add("k1", algorithm)

    def add(self, key_id: str, algorithm: str = "EdDSA") -> None:
        match algorithm:
            case "EdDSA":
                self.keys[key_id] = (algorithm, ed25519.Ed25519PrivateKey.generate())
            case "ES256":
                self.keys[key_id] = (algorithm, ec.generate_private_key(ec.SECP256R1()))
            case _:
                self.keys[key_id] = (algorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def jwks(self) -> bytes:
        makers = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm, "RS256": RSAAlgorithm}
        published = []
        for key_id, (algorithm, private) in self.keys.items():
            jwk = makers[algorithm].to_jwk(private.public_key(), as_dict=True)
            published.append({**jwk, "kid": key_id, "alg": algorithm, "use": "sig"})
        return json.dumps({"keys": published}).encode()

    def publish(self, path: Path) -> Path:
        path.write_bytes(self.jwks())
        return path

    def settings(self, path: Path, **changes: Any) -> Issuer:
        return Issuer(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": f"file:{self.publish(path)}", **changes})

    def token(self, *, now_s: float, key_id: str = "k1", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        algorithm, private = self.keys[key_id]
        payload: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "amy", "exp": int(now_s) + 600, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, private, algorithm, headers={"kid": key_id, **(headers or {})})
