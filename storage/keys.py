"""The keys of a host, as files under ``DATA/keys`` (0600, PEM so that standard tools read them). Thin.

``master`` X25519: opens segment keys; the keeper's alone.   ``host`` Ed25519: vouches for process keys.
``log`` Ed25519: signs checkpoints.                           ``control`` Ed25519: signs control.json.
``peppers.json``: the secrets behind pseudonyms, dated, the newest last.

Like ssh, nothing here reads a secret that its group or others may read too. A gateway worker reads the master's
public half, the host key and the peppers; private halves are read from disk only when they are asked for.
"""

from __future__ import annotations

import datetime as dt
import hmac
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from storage import durable, seal
from storage.errors import StorageError
from storage.ids import b64, unb64
from storage.segment import SegmentHeader, WrappedKey, vouch_text

_SIGNING = ("host", "log", "control")
_PEPPER_BYTES = 32
_SEGMENT_KEYS_CACHED = 256  # 32 bytes each; a desk that pages through old decisions touches a few segments


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalKeys:
    """What a journal's writer needs: whom to seal for, and who vouches for its process key."""

    master_public: bytes
    host_public: bytes
    sign_as_host: Callable[[bytes], bytes]

    def vouch(self, origin: str, process_key: bytes) -> bytes:
        """The host's signature that this process key may write this origin."""
        return self.sign_as_host(vouch_text(origin, process_key))


class Keyring:
    """The keys under one data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._peppers = _read_peppers(directory / "peppers.json")
        self._segment_key = lru_cache(maxsize=_SEGMENT_KEYS_CACHED)(self._open_segment_key)

    @classmethod
    def open(cls, data: Path, *, create: bool = False, today: dt.date | None = None) -> Keyring:
        """The keyring of ``data``; with ``create`` whatever is missing is made first, durably, never overwritten.

        Raises StorageError: ``keys_missing`` where a key is missing and may not be made, ``keys_exposed`` where a
        secret is open to others than its owner; keys that are read later raise the same.
        """
        directory = data / "keys"
        if create:
            _create_missing(directory, today or dt.datetime.now(dt.UTC).date())
        return cls(directory)

    def journal_keys(self) -> JournalKeys:
        """What :class:`~storage.journal.Journal` is opened with."""
        host = self.host
        return JournalKeys(
            master_public=self.master_public,
            host_public=host.public_key().public_bytes_raw(),
            sign_as_host=host.sign,
        )

    @cached_property
    def master_public(self) -> bytes:
        """32 bytes: whom segment keys are sealed for."""
        key = load_pem_public_key(_read(self._directory / "master.pub"))
        if not isinstance(key, X25519PublicKey):
            raise _not_a_key("master.pub", "X25519")
        return key.public_bytes_raw()

    @cached_property
    def master(self) -> X25519PrivateKey:
        """Opens segment keys; the keeper's alone."""
        key = load_pem_private_key(_read_secret(self._directory / "master.key"), password=None)
        if not isinstance(key, X25519PrivateKey):
            raise _not_a_key("master.key", "X25519")
        return key

    @cached_property
    def host(self) -> Ed25519PrivateKey:
        """Vouches for the process keys of this host."""
        return self._signing_key("host")

    @cached_property
    def log(self) -> Ed25519PrivateKey:
        """Signs checkpoints; the keeper's alone."""
        return self._signing_key("log")

    @cached_property
    def control(self) -> Ed25519PrivateKey:
        """Signs control.json; the keeper's alone."""
        return self._signing_key("control")

    @cached_property
    def control_public(self) -> bytes:
        """32 bytes: who signs control.json."""
        key = load_pem_public_key(_read(self._directory / "control.pub"))
        if not isinstance(key, Ed25519PublicKey):
            raise _not_a_key("control.pub", "Ed25519")
        return key.public_bytes_raw()

    def part_key(self, header: bytes | SegmentHeader, wrapped: WrappedKey, *, origin: str | None = None) -> bytes:
        """The key of a part: ``header`` is of the segment that ``wrapped`` names; raises Unverifiable.

        ``origin`` defaults to the header's.
        """
        known = header if isinstance(header, SegmentHeader) else SegmentHeader.from_bytes(header)
        segment_key = self._segment_key(known.origin, known.first_seq, known.salt, known.sealed_key)
        aad = seal.wrap_aad(origin or known.origin, wrapped.key_id)
        return seal.unwrap_dek(segment_key, wrapped.counter, wrapped.wrapped, aad)

    def pseudonym(self, tenant: str, kind: str, value: str) -> str:
        """``<pepper id>.<HMAC>`` of a case or a subject under the newest pepper; costs about 3 µs."""
        return _pseudonym(self._peppers[-1], tenant, kind, value)

    def pseudonyms(self, tenant: str, kind: str, value: str) -> list[str]:
        """The same under every pepper that is kept, newest first: what a search over all time looks for."""
        return [_pseudonym(pepper, tenant, kind, value) for pepper in reversed(self._peppers)]

    def _signing_key(self, name: str) -> Ed25519PrivateKey:
        key = load_pem_private_key(_read_secret(self._directory / f"{name}.key"), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise _not_a_key(f"{name}.key", "Ed25519")
        return key

    def _open_segment_key(self, origin: str, first_seq: int, salt: bytes, sealed: bytes) -> bytes:
        return seal.open_segment_key(self.master, sealed, seal.segment_key_info(origin, first_seq, salt))


def _pseudonym(pepper: tuple[str, bytes], tenant: str, kind: str, value: str) -> str:
    """The lengths keep ("ab", "c") and ("a", "bc") apart."""
    text = f"answerable/pseudonym/v1|{len(tenant)}|{tenant}|{len(kind)}|{kind}|{value}"
    return f"{pepper[0]}.{b64(hmac.digest(pepper[1], text.encode(), 'sha256'))}"


def _create_missing(directory: Path, today: dt.date) -> None:
    durable.make_directory(directory)
    _create_pair(directory, "master", X25519PrivateKey.generate)
    for name in _SIGNING:
        _create_pair(directory, name, Ed25519PrivateKey.generate)
    path = directory / "peppers.json"
    if not path.exists():
        pepper = {"id": today.isoformat(), "secret": b64(os.urandom(_PEPPER_BYTES))}
        durable.create_file(path, orjson.dumps({"v": 1, "peppers": [pepper]}) + b"\n")


def _create_pair(
    directory: Path, name: str, generate: Callable[[], X25519PrivateKey] | Callable[[], Ed25519PrivateKey]
) -> None:
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    if not private.exists() and not public.exists():
        pem = generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        durable.create_file(private, pem)
    if not public.exists():  # after a crash between the two, or by a process that starts at the same time
        key = load_pem_private_key(_read_secret(private), password=None)
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        durable.create_file(public, pem)


def _read_peppers(path: Path) -> list[tuple[str, bytes]]:
    value = orjson.loads(_read_secret(path))
    peppers = [(str(pepper["id"]), unb64(pepper["secret"])) for pepper in value["peppers"]]
    if value["v"] != 1 or not peppers:
        raise StorageError(f"{path} is of an unknown version or empty", code="keys_invalid")
    return peppers


def _read_secret(path: Path) -> bytes:
    return _read(path, is_secret=True)


def _read(path: Path, *, is_secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if is_secret and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StorageError(
                    f"{path} is open to others than its owner (mode {mode:04o})",
                    code="keys_exposed",
                    advice=f"Run `chmod 600 {path}`; if others may have read it, replace the key.",
                )
            return file.read()
    except FileNotFoundError as error:
        raise StorageError(
            f"{path} is missing",
            code="keys_missing",
            advice="Start the keeper or `answerable serve` once on this data directory: it makes the keys.",
        ) from error


def _not_a_key(name: str, kind: str) -> StorageError:
    return StorageError(f"{name} is not an {kind} key", code="keys_invalid")
