"""Bearer tokens (JWT, RFC 7519) verified against the configured issuers: shared by the data plane and the desk.

A token is checked by the key that its issuer publishes, with EdDSA, ES256 or RS256 and no other algorithm (never
`none`, never HMAC: RFC 8725 sections 3.1 and 3.2). Issuer, audience, expiry and subject must be there and right. A
verified token is kept until it expires, or until its issuer's keys change, in a cache of bounded size: a busy caller
costs one signature check and then a hash.

    tokens = Tokens(settings.desk.issuers, base=configuration.path.parent)
    verified = await tokens.verify(bearer)        # raises TokenError (401) or KeysUnavailableError (503)
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from config.callers import Issuer
from config.errors import AnswerableError
from gateway.keysets import KeySet, SigningKey

ALGORITHMS = frozenset({"EdDSA", "ES256", "RS256"})
TOKEN_BYTES_MAX = 8 * 1024  # larger ones meet header limits on the way anyway
CACHE_ENTRIES_MAX = 10_000  # about 10 MB of claims
TIME_MAX_S = 1 << 40  # beyond it only infinities and typing errors are found
NAME_CHARS_MAX = 200  # subject, application, tenant and role names go into entries


class TokenError(AnswerableError):
    """The token does not prove who calls; `code` says which check it failed."""

    code = "token_refused"
    status = 401
    advice = "Ask your issuer for a new token for this service and send it as `Authorization: Bearer …`."


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """Who a token speaks for, after every check has passed.

    `expires_s` is Unix time in seconds; `claims` holds the whole payload, for claims one side alone reads (`matter`).
    """

    issuer: str
    subject: str
    app: str | None
    tenant: str | None
    roles: frozenset[str]
    scopes: frozenset[str]
    expires_s: int
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Remembered:
    token: VerifiedToken
    source: "_Trusted"
    generation: int


@dataclass(frozen=True, slots=True)
class _Trusted:
    issuer: Issuer
    keys: KeySet
    algorithms: frozenset[str]


class Tokens:
    """Verifies bearer tokens of the issuers it was given; one per event loop."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        base: Path,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read no key yet. `base` is what `file:` paths are relative to; the wall clock decides expiry."""
        self._wall_clock = wall_clock
        self._trusted = tuple(
            _Trusted(
                issuer,
                KeySet(issuer.jwks, refresh_s=issuer.jwks_refresh_s, base=base, clock=clock),
                frozenset(issuer.algorithms) & ALGORITHMS,
            )
            for issuer in issuers
        )
        self._cache: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def verify(self, token: str) -> VerifiedToken:
        """Return who the token speaks for; every check of this module's docstring has passed.

        Raises:
            TokenError: with code `token_malformed`, `token_algorithm`, `token_issuer`, `token_audience`,
                `token_expired`, `token_not_yet_valid`, `token_claims`, `token_key_unknown` or `token_signature`.
            KeysUnavailableError: the issuer's keys cannot be read.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._recall(digest)
        if known is not None:
            return known
        header, claims = _unverified(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise TokenError(
                "the token's algorithm is not accepted; accepted are EdDSA, ES256 and RS256", code="token_algorithm"
            )
        sources = [trusted for trusted in self._trusted if trusted.issuer.issuer == claims.get("iss")]
        if not sources:
            raise TokenError("the token's issuer is not one of the configured issuers", code="token_issuer")
        refusal = TokenError("the token's algorithm is not accepted from this issuer", code="token_algorithm")
        for source in sources:
            if algorithm not in source.algorithms:
                continue
            generation = source.keys.generation
            try:
                verified = await self._check(token, header, algorithm, source)
            except TokenError as refused:
                refusal = refused
                continue
            self._remember(digest, _Remembered(verified, source, max(generation, source.keys.generation)))
            return verified
        raise refusal

    async def close(self) -> None:
        """End refreshes that are under way."""
        for trusted in self._trusted:
            await trusted.keys.close()

    async def _check(self, token: str, header: Mapping[str, Any], algorithm: str, source: _Trusted) -> VerifiedToken:
        key_id = header.get("kid")
        keys = await source.keys.find(key_id if isinstance(key_id, str) else None, algorithm)
        if not keys:
            raise TokenError("the token names a key that its issuer does not publish", code="token_key_unknown")
        refusal = TokenError("the token's signature is not its issuer's", code="token_signature")
        for key in keys:
            try:
                return self._claims_of(token, key, source.issuer)
            except InvalidSignatureError:
                continue  # without a kid, any of the issuer's keys of that type may have signed
        raise refusal

    def _claims_of(self, token: str, key: SigningKey, issuer: Issuer) -> VerifiedToken:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                issuer=issuer.issuer,
                audience=issuer.audience,
                # expiry and not-before are checked below, against the clock that was handed in
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except InvalidSignatureError:
            raise
        except PyJWTError as problem:
            raise _refusal(problem) from None
        self._check_times(claims, issuer.leeway_s)
        return _verified(claims, issuer)

    def _check_times(self, claims: Mapping[str, Any], leeway_s: float) -> None:
        now_s = self._wall_clock()
        expires_s, not_before_s = claims["exp"], claims.get("nbf", 0)
        if not _is_time(expires_s) or not _is_time(not_before_s):
            raise TokenError("the token's times are not Unix times in seconds", code="token_claims")
        if expires_s + leeway_s <= now_s:
            raise _refusal(ExpiredSignatureError())
        if not_before_s - leeway_s > now_s:
            raise _refusal(ImmatureSignatureError())

    def _recall(self, digest: bytes) -> VerifiedToken | None:
        known = self._cache.get(digest)
        if known is None:
            return None
        expired = known.token.expires_s + known.source.issuer.leeway_s <= self._wall_clock()
        if expired or known.generation != known.source.keys.generation:
            del self._cache[digest]
            return None
        self._cache.move_to_end(digest)
        return known.token

    def _remember(self, digest: bytes, remembered: _Remembered) -> None:
        self._cache[digest] = remembered
        while len(self._cache) > CACHE_ENTRIES_MAX:
            self._cache.popitem(last=False)


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < TIME_MAX_S


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenError(f"the token is longer than {TOKEN_BYTES_MAX} bytes", code="token_malformed")
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (PyJWTError, ValueError, RecursionError):
        raise TokenError(
            "this is not a token (a signed JWT of three parts is expected)", code="token_malformed"
        ) from None
    if "crit" in header:  # RFC 7515 §4.1.11: an extension we do not understand must refuse the token
        raise TokenError("the token demands an extension that is not understood", code="token_malformed")
    return header, claims


def _refusal(problem: PyJWTError) -> TokenError:
    match problem:
        case ExpiredSignatureError():
            return TokenError("the token has expired", code="token_expired")
        case ImmatureSignatureError():
            return TokenError("the token is not valid yet", code="token_not_yet_valid")
        case InvalidAudienceError():
            return TokenError("the token was issued for another service", code="token_audience")
        case InvalidIssuerError():
            return TokenError("the token's issuer is not one of the configured issuers", code="token_issuer")
        case MissingRequiredClaimError():
            return TokenError(f"the token lacks the claim {problem.claim}", code="token_claims")
        case _:
            return TokenError("the token could not be verified", code="token_malformed")


def _verified(claims: dict[str, Any], issuer: Issuer) -> VerifiedToken:
    scope_claim = issuer.scope_claim if issuer.scope_claim in claims else "scp"
    subject = _name(claims, "sub")
    if not subject:
        raise TokenError("the token's subject is empty", code="token_claims")
    return VerifiedToken(
        issuer=issuer.issuer,
        subject=subject,
        app=_name(claims, issuer.app_claim),
        tenant=_name(claims, issuer.tenant_claim),
        roles=_names(claims, issuer.roles_claim),
        scopes=_names(claims, scope_claim),
        expires_s=int(claims["exp"]),
        claims=MappingProxyType(claims),
    )


def _names(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    names = claims.get(claim, [])
    names = names.split() if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and len(name) <= NAME_CHARS_MAX for name in names):
        raise TokenError(f"the token's {claim} is not a list of names", code="token_claims")
    return frozenset(names)


def _name(claims: Mapping[str, Any], claim: str) -> str | None:
    value = claims.get(claim)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > NAME_CHARS_MAX or not value.isprintable():
        raise TokenError(
            f"the token's {claim} is not a name of at most {NAME_CHARS_MAX} characters", code="token_claims"
        )
    return value
