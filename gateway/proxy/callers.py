"""Who calls: application keys, tokens of configured issuers, or anybody on loopback (`open`).

A key is recognised by the hash of its text. The file of keys is looked at each second, so a key that is made or revoked
counts within two; a file that cannot be read any more leaves the last good one in force and makes the worker unready.
Tokens are verified in `gateway.tokens`, which remembers verified ones until they expire.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from config.callers import Callers as CallerSettings
from config.errors import AnswerableError
from gateway.proxy.errors import Unauthenticated
from gateway.proxy.exchange import Caller
from gateway.proxy.headers import RawHeaders, lowered
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
        found = None if known is None else Caller(tenant=known.tenant, app=known.app, actor=f"app:{known.app}")
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

    def credential(self, headers: RawHeaders) -> bytes | None:
        """What is to be asked about below; None where nobody has to show anything, or nothing is shown.

        Raises:
            Unauthenticated: it is of a scheme that is not known.
        """
        return None if self._open else credential_in(headers)

    def by_key(self, credential: bytes | None) -> Caller | None:
        """The caller, where nothing has to be waited for: `open`, or an application key. None: ask `by_token`.

        Raises:
            Unauthenticated: no credential, or a key that is none.
        """
        if self._open:
            return self._anybody
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
            return Caller(tenant=tenant, app=token.app, actor=f"app:{token.app}")
        # without an app claim the subject may be a person, who appears in entries under a pseudonym only
        person = self._pseudonym(tenant, "actor", f"{token.issuer}|{token.subject}")
        return Caller(tenant=tenant, app="token", actor=f"subject:{person}")


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
