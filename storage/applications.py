"""Application keys (`ans_…`): for SDKs that can only send a bearer key.

`DATA/applications.json` holds what is needed to recognise a key and nothing that gives one away: an id, the
application's name and tenant, and SHA-256 of the key (256 random bits need no salt and no slow hash). It is
rewritten whole, by atomic rename, under a lock; gateways look at it each second.

    {"v": 1, "keys": [{"id", "app", "tenant", "sha256": hex, "created_ns": "…", "revoked_ns": "…" | null,
                       "scopes": [...] (none where it is missing)}, …]}
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from config.errors import AnswerableError
from storage import durable

FILE = "applications.json"
PREFIX = "ans_"
KEY_BYTES = 32
KEYS_MAX = 10_000  # about 2 MB to read when it changes
SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,64}")  # RFC 6749 §3.3
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")


class ApplicationsError(AnswerableError):
    """A key cannot be made or found, or the file cannot be read."""

    code = "application_key"
    status = 400
    advice = "Run `answerable keys list` to see the applications and their keys' ids."


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One key of an application; `sha256` is the hex digest of the whole key with its prefix."""

    id: str
    app: str
    tenant: str
    sha256: str
    created_ns: int
    revoked_ns: int | None = None
    scopes: tuple[str, ...] = ()

    @property
    def created(self) -> str:
        """When the key was made, ISO 8601 in UTC to the second."""
        return datetime.fromtimestamp(self.created_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def digest(key: str) -> str:
    """How a key is recognised: the hex SHA-256 of its text."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def create(data: Path, *, app: str, tenant: str, now_ns: int, scopes: Sequence[str] = ()) -> str:
    """Make a key for `app` and return it; this is the only time that it can be seen. `scopes` open routes that ask.

    The key is durable on return and good on every gateway of this host within two seconds.

    Raises:
        ApplicationsError: a name that is none, or `KEYS_MAX` keys are there.
    """
    for what, name in (("application", app), ("tenant", tenant)):
        if not NAME.fullmatch(name):
            raise ApplicationsError(f"{what} {name!r}: letters, digits, dot, dash and underscore, at most 64")
    for scope in scopes:
        if not SCOPE.fullmatch(scope):
            raise ApplicationsError(f"scope {scope!r}: printable ASCII without space, quote and backslash, at most 64")
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    with _locked(data):
        known = _read_all(data)
        if len(known) >= KEYS_MAX:
            raise ApplicationsError(f"there are {KEYS_MAX} keys already; revoked ones stay in the file for the record")
        key_id = "key-" + secrets.token_hex(6)
        made = Application(
            id=key_id, app=app, tenant=tenant, sha256=digest(key), created_ns=now_ns, scopes=tuple(sorted(set(scopes)))
        )
        known.append(made)
        _write(data, known)
    return key


def read(data: Path) -> list[Application]:
    """The keys that are good now, in the order of their making; none where the file does not exist.

    Raises:
        ApplicationsError: the file is damaged.
    """
    return [known for known in _read_all(data) if known.revoked_ns is None]


def revoke(data: Path, key_id: str, *, now_ns: int | None = None) -> None:
    """Make the key with this id good for nothing; the file keeps that it existed.

    Raises:
        ApplicationsError: no such key, or revoked before.
    """
    with _locked(data):
        known = _read_all(data)
        if not any(key.id == key_id and key.revoked_ns is None for key in known):
            raise ApplicationsError(f"no key {key_id} that could be revoked")
        at_ns = time.time_ns() if now_ns is None else now_ns
        _write(data, [replace(key, revoked_ns=at_ns) if key.id == key_id else key for key in known])


def _read_all(data: Path) -> list[Application]:
    path = data / FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        return [_parsed(row) for row in _rows(orjson.loads(raw))]
    except (ValueError, KeyError, TypeError) as error:
        raise ApplicationsError(f"{path} is damaged: {error}", status=503) from error


def _rows(document: object) -> list[dict[str, object]]:
    if not isinstance(document, dict) or document.get("v") != 1 or not isinstance(document.get("keys"), list):
        raise ValueError("not version 1 of this file")
    rows: list[dict[str, object]] = document["keys"]
    return rows


def _parsed(row: dict[str, object]) -> Application:
    revoked = row["revoked_ns"]
    known = Application(
        id=str(row["id"]),
        app=str(row["app"]),
        tenant=str(row["tenant"]),
        sha256=str(row["sha256"]),
        created_ns=int(str(row["created_ns"])),
        revoked_ns=None if revoked is None else int(str(revoked)),
        scopes=_scopes(row.get("scopes", [])),
    )
    if not (NAME.fullmatch(known.app) and NAME.fullmatch(known.tenant) and _HEX_SHA256.fullmatch(known.sha256)):
        raise ValueError(f"key {known.id} has a field that is none")
    return known


def _scopes(listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not all(isinstance(each, str) and SCOPE.fullmatch(each) for each in listed):
        raise ValueError("scopes are not a list of names")
    return tuple(listed)


def _write(data: Path, keys: list[Application]) -> None:
    rows = [
        {
            "id": key.id,
            "app": key.app,
            "tenant": key.tenant,
            "sha256": key.sha256,
            "created_ns": str(key.created_ns),
            "revoked_ns": None if key.revoked_ns is None else str(key.revoked_ns),
            "scopes": list(key.scopes),
        }
        for key in keys
    ]
    document = orjson.dumps({"v": 1, "keys": rows}, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    durable.replace_file(data / FILE, document)


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    data.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / (FILE + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
