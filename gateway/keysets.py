"""The public keys of one token issuer: a JWKS (RFC 7517) from a file or an address, kept fresh.

Keys rotate: a set is read again when it is older than the issuer's `jwks_refresh_s`, and at once (but never more often
than each `REFETCH_FLOOR_S`) when a token names a key that is not in it. A set that cannot be read again stays in use
for `STALE_MAX_S`, so that an issuer's short outage signs nobody out.

Only public signature keys are taken: Ed25519 for EdDSA, P-256 for ES256, RSA of 2048 bits or more for RS256. A
symmetric key (`oct`) in a set is left out, so no token can ever be checked by HMAC.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from config.errors import AnswerableError

JWKS_BYTES_MAX = 256 * 1024  # a set of a hundred RSA keys takes about 50 KB
KEYS_MAX = 100
FETCH_TIMEOUT_S = 5.0
REFETCH_FLOOR_S = 10.0  # tokens that name made-up keys must not turn into a flood at the issuer
STALE_MAX_S = 24 * 3600.0
RSA_BITS_MIN = 2048

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


class KeysUnavailableError(AnswerableError):
    """The issuer's keys could not be read and no earlier set may be used any more."""

    code = "issuer_keys_unavailable"
    status = 503
    advice = "Try again shortly; if it goes on, check the jwks setting of this issuer and that its address answers."


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key of a set and the only algorithm that it may check."""

    key_id: str | None
    algorithm: str
    public: PublicKey


def parse_keys(document: bytes) -> tuple[SigningKey, ...]:
    """Return the usable signature keys of a JWKS document; others in it are left out.

    Raises:
        ValueError: the document is no JWKS, or holds more than `KEYS_MAX` keys.
    """
    parsed = orjson.loads(document)
    keys = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(keys, list):
        raise ValueError("not a JWKS: an object with a list `keys` is expected")  # noqa: TRY004 (a fault of the document)
    if len(keys) > KEYS_MAX:
        raise ValueError(f"a JWKS of {len(keys)} keys, at most {KEYS_MAX} are read")
    usable = (_signing_key(key) for key in keys if isinstance(key, dict))
    return tuple(key for key in usable if key is not None)


def _signing_key(jwk: Mapping[str, Any]) -> SigningKey | None:
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return None
    public_members = {name: value for name, value in jwk.items() if name != "d"}  # a leaked private half is not loaded
    try:
        algorithm, public = _public_key(public_members)
    except (PyJWTError, ValueError, TypeError):
        return None  # one broken key must not take the issuer's other keys out of use
    if algorithm is None or public is None or jwk.get("alg", algorithm) != algorithm:
        return None
    key_id = jwk.get("kid")
    return SigningKey(key_id if isinstance(key_id, str) else None, algorithm, public)


def _public_key(jwk: dict[str, Any]) -> tuple[str | None, PublicKey | None]:
    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            ed25519 = OKPAlgorithm.from_jwk(jwk)
            return ("EdDSA", ed25519) if isinstance(ed25519, Ed25519PublicKey) else (None, None)
        case "EC", "P-256":
            curve = ECAlgorithm.from_jwk(jwk)
            p256 = isinstance(curve, EllipticCurvePublicKey) and isinstance(curve.curve, SECP256R1)
            return ("ES256", curve) if p256 and isinstance(curve, EllipticCurvePublicKey) else (None, None)
        case "RSA", _:
            rsa = RSAAlgorithm.from_jwk(jwk)
            strong = isinstance(rsa, RSAPublicKey) and rsa.key_size >= RSA_BITS_MIN
            return ("RS256", rsa) if strong and isinstance(rsa, RSAPublicKey) else (None, None)
        case _:
            return None, None


class KeySet:
    """The keys of one issuer; `find` returns the candidates for a token's `kid` and algorithm."""

    def __init__(
        self, source: str, *, refresh_s: float, base: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read nothing yet; `source` is `https://…`, `http://` on loopback, or `file:PATH` (relative to `base`)."""
        self._source = source
        self._refresh_s = refresh_s
        self._base = base
        self._clock = clock
        self._keys: tuple[SigningKey, ...] = ()
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None
        self._problem = ""
        self.generation = 0  # grows when the set's content changes: what was verified under an older one is asked again

    async def find(self, key_id: str | None, algorithm: str) -> tuple[SigningKey, ...]:
        """Return the keys that may have signed such a token, after a bounded refresh where none matches.

        Raises:
            KeysUnavailableError: no set was ever read, or the last one is older than `STALE_MAX_S`.
        """
        found = self._matching(key_id, algorithm)
        if self._read_at is None or not found:
            await self.refresh()
            found = self._matching(key_id, algorithm)
        elif self._age_s() >= self._refresh_s:
            self._refresh_in_background()
        if self._read_at is None or self._age_s() > max(STALE_MAX_S, self._refresh_s):
            raise KeysUnavailableError(f"the issuer's keys cannot be read: {self._problem}")
        return found

    async def refresh(self) -> None:
        """Read the set again, at most once each `REFETCH_FLOOR_S`; a failure keeps the keys that are there."""
        async with self._lock:
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at < REFETCH_FLOOR_S:
                return
            self._tried_at = now
            try:
                keys = parse_keys(await self._read())
            except (OSError, ValueError, aiohttp.ClientError, TimeoutError) as problem:
                self._problem = f"{type(problem).__name__}: {problem}"
                return
            if keys != self._keys:
                self._keys = keys
                self.generation += 1
            self._read_at = self._clock()

    async def close(self) -> None:
        """End a refresh that is under way."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)

    def _matching(self, key_id: str | None, algorithm: str) -> tuple[SigningKey, ...]:
        fitting = (key for key in self._keys if key.algorithm == algorithm)
        return tuple(key for key in fitting if key_id is None or key.key_id is None or key.key_id == key_id)

    def _age_s(self) -> float:
        return 0.0 if self._read_at is None else self._clock() - self._read_at

    def _refresh_in_background(self) -> None:
        if self._background is None or self._background.done():
            self._background = asyncio.create_task(self.refresh(), name="jwks-refresh")

    async def _read(self) -> bytes:
        if self._source.startswith("file:"):
            path = self._base / self._source.removeprefix("file:")
            return _bounded(await asyncio.to_thread(path.read_bytes))
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            # no redirects: the configuration, not the issuer's web server, says where keys come from
            session.get(self._source, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"status {answer.status} instead of 200")
            return _bounded(await _all(answer))


async def _all(answer: aiohttp.ClientResponse) -> bytes:
    received = bytearray()
    async for piece in answer.content.iter_any():
        received += piece
        if len(received) > JWKS_BYTES_MAX:
            break
    return bytes(received)


def _bounded(document: bytes) -> bytes:
    if len(document) > JWKS_BYTES_MAX:
        raise ValueError(f"a JWKS of more than {JWKS_BYTES_MAX} bytes")
    return document
