"""Who calls: application keys, tokens of configured issuers, or anybody on loopback (`open`).

A key is recognised by the hash of its text. The file of keys is looked at each second, so a key that is made or revoked
counts within two; a file that cannot be read any more leaves the last good one in force and makes the worker unready.
Tokens are verified in `gateway.tokens`, which remembers verified ones until they expire.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from config.callers import Callers as CallerSettings
from config.callers import ClientCertificate
from config.errors import AnswerableError
from gateway.proxy.errors import Unauthenticated
from gateway.proxy.exchange import Caller
from gateway.proxy.headers import RawHeaders, lowered
from gateway.proxy.inbound import Certificate, Inbound
from gateway.tokens import Tokens, VerifiedToken
from storage import applications

CARRIERS = (b"authorization", b"x-api-key", b"api-key")  # where SDKs put a key: OpenAI's, Anthropic's, Azure's
KEYS_REMEMBERED_MAX = 4096  # spellings of credentials already hashed; the map is emptied when it is full
_BEARER = b"bearer "


class Applications:
    """The application keys of a host, as the file said when it was last looked at."""

    def __init__(self, data: Path) -> None:
        """Read the file once, now.

        Raises:
            applications.ApplicationsError: it is damaged.
        """
        self._data = data
        self._seen: tuple[int, int, int] | None = None
        self._known: Mapping[str, applications.Application] = MappingProxyType({})
        self._remembered: dict[bytes, Caller | None] = {}
        self.problem: str | None = None
        self.look()

    def find(self, key: bytes) -> Caller | None:
        """The application whose key this is."""
        if key in self._remembered:
            return self._remembered[key]
        known = self._known.get(applications.digest(key.decode("latin-1")))
        found = None if known is None else _application(known.app, known.tenant, known.scopes)
        if len(self._remembered) >= KEYS_REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[key] = found
        return found

    def look(self) -> None:
        """Read the file if it has changed."""
        try:
            state = os.stat(self._data / applications.FILE)  # noqa: PTH116 - a thread runs this each second
        except FileNotFoundError:
            seen = None
        else:
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
        if seen == self._seen and self.problem is None and self._seen is not None:
            return
        known = {key.sha256: key for key in applications.read(self._data)}
        self._known, self._remembered, self._seen, self.problem = MappingProxyType(known), {}, seen, None

    async def refresh(self) -> None:
        """`look`, off the loop; a damaged file is kept as a problem and leaves the keys as they are."""
        try:
            await asyncio.to_thread(self.look)
        except (AnswerableError, OSError) as error:
            self.problem = str(error)


class Certificates:
    """Client certificates that speak for applications; the handshake has checked them against `client_ca`."""

    def __init__(self, settings: Sequence[ClientCertificate], *, tenant: str) -> None:
        """`tenant` is that of certificates which name none."""
        self._by_hash: dict[str, Caller] = {}
        self._by_name: dict[tuple[str, str], Caller] = {}
        for each in settings:
            caller = _application(each.app, each.tenant or tenant, each.scopes)
            if each.sha256 is not None:
                self._by_hash[each.sha256] = caller
            elif each.san is not None:
                self._by_name[_typed(each.san)] = caller

    def caller(self, request: Inbound) -> Caller:
        """Who the connection's certificate speaks for; asked once for each connection.

        Raises:
            Unauthenticated: it showed none, or one that is not listed.
        """
        wire = request.wire
        if wire.certified is None or wire.certified[0] is not self:
            wire.certified = self, self._find(request.certificate)
        return wire.certified[1]

    def _find(self, shown: Certificate | None) -> Caller:
        if shown is None:
            raise Unauthenticated("the connection shows no client certificate", code="certificate_missing")
        found = self._by_hash.get(shown.sha256)
        for kind, value in shown.names:
            found = found or self._by_name.get((kind, value.lower() if kind == "DNS" else value))
        if found is not None:
            return found
        raise Unauthenticated(
            "the client certificate speaks for no application",
            code="certificate_unknown",
            advice="List one of its subject alternative names, or its SHA-256, under callers.certificates.",
        )


def _typed(san: str) -> tuple[str, str]:
    """A listed name with the type that its shape gives it: an address is no host name, whoever signs it."""
    if ":" in san:
        return "URI", san
    return ("email", san) if "@" in san else ("DNS", san.lower())


class Callers:
    """Authenticates requests by the configured mode."""

    def __init__(
        self,
        settings: CallerSettings,
        *,
        tenant: str,
        known: Applications,
        base: Path,
        pseudonym: Callable[[str, str, str], str],
    ) -> None:
        """`tenant` is that of callers whose credential names none; `pseudonym(tenant, kind, value)` hides people."""
        self._open = settings.mode == "open"
        self._takes_keys = "keys" in settings.mode
        self._tokens = Tokens(settings.issuers, base=base) if "jwt" in settings.mode else None
        self._tenant = tenant
        self._known = known
        self._pseudonym = pseudonym
        self._anybody = Caller(tenant=tenant, app="open", actor="app:open")
        self._certified = (
            Certificates(settings.certificates, tenant=tenant) if settings.mode == "certificates" else None
        )

    def credential(self, headers: RawHeaders) -> bytes | None:
        """What is to be asked about below; None where nobody has to show anything, or nothing is shown.

        Raises:
            Unauthenticated: it is of a scheme that is not known.
        """
        return None if self._open or self._certified is not None else credential_in(headers)

    def by_key(self, credential: bytes | None, request: Inbound) -> Caller | None:
        """The caller, where nothing has to be waited for: `open`, a certificate or a key. None: ask `by_token`.

        Raises:
            Unauthenticated: no credential, or a key or certificate that is none.
        """
        if self._open:
            return self._anybody
        if self._certified is not None:
            return self._certified.caller(request)
        if credential is None:
            raise Unauthenticated("the request carries no credential")
        if credential.startswith(b"ans_"):
            found = self._known.find(credential) if self._takes_keys else None
            if found is None:
                raise Unauthenticated("the application key is not known, or was revoked", code="key_refused")
            return found
        if self._tokens is None:
            raise Unauthenticated("the credential is no application key", code="key_refused")
        return None

    async def by_token(self, credential: bytes | None) -> Caller:
        """The caller that the request's token speaks for.

        Raises:
            gateway.tokens.TokenRefused: the token proves nothing; its code says why.
            gateway.keysets.KeysUnavailable: the issuer's keys cannot be read.
        """
        assert self._tokens is not None
        assert credential is not None
        return self._speaker(await self._tokens.verify(credential.decode("latin-1")))

    async def close(self) -> None:
        """End refreshes that are under way."""
        if self._tokens is not None:
            await self._tokens.close()

    def _speaker(self, token: VerifiedToken) -> Caller:
        tenant = token.tenant or self._tenant
        if token.app is not None:
            return _application(token.app, tenant, token.scopes)
        # without an app claim the subject may be a person, who appears in entries under a pseudonym only
        person = self._pseudonym(tenant, "actor", f"{token.issuer}|{token.subject}")
        return Caller(tenant=tenant, app="token", actor=f"subject:{person}", scopes=token.scopes)


def _application(app: str, tenant: str, scopes: Iterable[str]) -> Caller:
    return Caller(tenant=tenant, app=app, actor=f"app:{app}", scopes=frozenset(scopes))


def credential_in(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The first credential in the headers.

    Raises:
        Unauthenticated: an `Authorization` of another scheme than Bearer, and nothing else.
    """
    other_scheme = False
    for name, value in headers:
        low = lowered(name)
        if low not in CARRIERS:
            continue
        text = value.strip(b" \t")
        if low != b"authorization":
            return text
        if text[: len(_BEARER)].lower() == _BEARER:
            return text[len(_BEARER) :].strip(b" ")
        other_scheme = True
    if other_scheme:
        raise Unauthenticated("the Authorization header is not of the scheme Bearer", code="credential_scheme")
    return None
