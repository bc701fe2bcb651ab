"""Who is signed in: one-time codes, sessions, and the purposes stated once per case. All in memory, bounded, expiring.

A cookie holds 32 random bytes and nothing else; the store keeps only their hash, so a dump of it opens no session. A
restart of the desk signs everybody out. What is over a limit pushes out the oldest.
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from gateway.desk.roles import Viewer
from storage.ids import b64

CODE_LIFE_S: Final = 600
CODES_MAX: Final = 1_000
SESSIONS_MAX: Final = 10_000
GRANTS_MAX: Final = 50_000  # about 25 MB
SECRET_BYTES: Final = 32
NS_PER_S: Final = 1_000_000_000

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in browser; `csrf` stands in each of its forms."""

    viewer: Viewer
    csrf: str
    expires_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Why somebody looks at a case, person, decision or list, as they stated it once, and when."""

    purpose: str
    ticket: str | None
    stated_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Whom a one-time code signs in, the page it leads to, and the purpose stated for it beforehand."""

    viewer: Viewer
    onward: str
    grant: Grant | None


class Expiring(Generic[Value]):
    """A bounded map whose values end at a moment; the oldest goes first when it is full."""

    def __init__(self, entries_max: int, now_ns: Callable[[], int]) -> None:
        self._entries: OrderedDict[bytes, tuple[int, Value]] = OrderedDict()
        self._entries_max = entries_max
        self._now_ns = now_ns

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: str, value: Value, *, expires_ns: int) -> None:
        """Keep `value` until `expires_ns`, in place of an earlier one of that key."""
        self._entries.pop(_hashed(key), None)
        self._entries[_hashed(key)] = (expires_ns, value)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def get(self, key: str) -> Value | None:
        """The value, if its moment has not come."""
        found = self._entries.get(_hashed(key))
        if found is None:
            return None
        if found[0] <= self._now_ns():
            del self._entries[_hashed(key)]
            return None
        return found[1]

    def take(self, key: str) -> Value | None:
        """The value, for the last time."""
        value = self.get(key)
        self._entries.pop(_hashed(key), None)
        return value


class Signins:
    """Codes and sessions of one desk."""

    def __init__(self, *, session_s: float, now_ns: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._session_ns = int(session_s * NS_PER_S)
        self._now_ns = now_ns
        self._random = random
        self._codes: Expiring[Invitation] = Expiring(CODES_MAX, now_ns)
        self._sessions: Expiring[Session] = Expiring(SESSIONS_MAX, now_ns)

    def issue_code(self, invitation: Invitation) -> str:
        """A code that signs its viewer in once, within CODE_LIFE_S."""
        code = self._secret()
        self._codes.put(code, invitation, expires_ns=self._now_ns() + CODE_LIFE_S * NS_PER_S)
        return code

    def redeem(self, code: str) -> Invitation | None:
        """What the code was issued for; None if it was used, is too old, or never was."""
        return self._codes.take(code)

    def begin(self, viewer: Viewer) -> str:
        """Start a session; the cookie's value. What was stated in another session does not hold in this one."""
        secret = self._secret()
        viewer = replace(viewer, session=self._secret())
        expires_ns = self._now_ns() + self._session_ns
        self._sessions.put(
            secret, Session(viewer=viewer, csrf=self._secret(), expires_ns=expires_ns), expires_ns=expires_ns
        )
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of a cookie, if there is one and it has not expired."""
        return self._sessions.get(secret)

    def end(self, secret: str) -> None:
        """End a session; true on return: its cookie opens nothing."""
        self._sessions.take(secret)

    def _secret(self) -> str:
        return b64(self._random(SECRET_BYTES))


class Grants:
    """Purposes as they were stated: once per session (or bearer token's subject) and case.

    Each holds for a session's time from when it was stated, however often it is used, and never longer than its
    session: the key holds the session's secret, which ends with it.
    """

    def __init__(self, *, life_s: float, now_ns: Callable[[], int]) -> None:
        self._life_ns = int(life_s * NS_PER_S)
        self._grants: Expiring[Grant] = Expiring(GRANTS_MAX, now_ns)

    def state(self, viewer: Viewer, target: str, grant: Grant) -> None:
        """Remember why `viewer` looks at `target` (`case:…`, `subject:…`, `decision:…`, `reference:…` or `list`)."""
        self._grants.put(_of(viewer, target), grant, expires_ns=grant.stated_ns + self._life_ns)

    def find(self, viewer: Viewer, target: str) -> Grant | None:
        """What was stated, if it still holds."""
        return self._grants.get(_of(viewer, target))


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def _of(viewer: Viewer, target: str) -> str:
    return f"{viewer.tenant}\n{viewer.actor}\n{viewer.session}\n{target}"


def _hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
