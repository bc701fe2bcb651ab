"""A trust policy: the keys that a verifier brings himself. Evidence that brings its own keys proves nothing.

``{"v": 1, "logs": [verifier key, …], "quorum": k, "witnesses": [verifier key, …], "timestamp_roots": [PEM, …]}``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.x509 import Certificate

from storage import anchors, cosignatures, notes, timestamps
from storage.clickhouse import SWEEP, Database
from storage.cosignatures import Witness
from storage.errors import Unverifiable
from storage.findings import Findings

VERSION: Final = 1
CLAIM: Final = "authenticity"
SIZES_MAX: Final = 200  # checkpoints that are looked at for a quorum, newest first
_FIELDS: Final = {"v", "logs", "quorum", "witnesses", "timestamp_roots"}
_SIZES: Final = """
SELECT DISTINCT size FROM anchors WHERE origin = {origin:String} AND kind = {kind:String}
ORDER BY size DESC LIMIT {limit:UInt32}
"""
_NEWEST: Final = "SELECT max(size) FROM checkpoints WHERE origin = {origin:String}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Which logs, which witnesses and how many of them, which time stamping authorities are believed."""

    logs: Mapping[str, bytes]  # origin of a log of logs → its Ed25519 public key
    witnesses: tuple[Witness, ...] = ()
    quorum: int = 0
    roots: tuple[Certificate, ...] = field(default=())

    @classmethod
    def parse(cls, value: Any) -> TrustPolicy:
        """The policy of a JSON document.

        Raises:
            Unverifiable: it is none; the message says what is wrong.
        """
        version = value.get("v") if isinstance(value, Mapping) else None
        if type(version) is not int or version != VERSION or set(value) - _FIELDS:
            raise Unverifiable(f"a trust policy is an object with {', '.join(sorted(_FIELDS))} and v = {VERSION}")
        logs = dict(notes.parse_verifier_key(key) for key in _texts(value, "logs"))
        if not logs:
            raise Unverifiable("logs: expected at least one verifier key")
        witnesses = tuple(cosignatures.parse_witness(key) for key in _texts(value, "witnesses"))
        quorum = value.get("quorum", len(witnesses))
        if type(quorum) is not int or not 0 <= quorum <= len(witnesses):
            raise Unverifiable(f"quorum: expected a number up to {len(witnesses)}")
        if len({witness.public for witness in witnesses}) != len(witnesses):
            raise Unverifiable("witnesses: one key stands there twice")
        roots = tuple(one for pem in _texts(value, "timestamp_roots") for one in timestamps.certificates(pem))
        return cls(logs=logs, witnesses=witnesses, quorum=quorum, roots=roots)

    def check(self, note: bytes, *, origin: str) -> dict[str, int]:
        """Who of the witnesses cosigned this checkpoint of `origin`, and when; it is signed by the log key believed in.

        Raises:
            Unverifiable: it is not, or a line by one of the witnesses does not verify.
        """
        public = self.logs.get(origin)
        if public is None:
            raise Unverifiable(f"the trust policy names no key of {origin}")
        notes.verified_checkpoint(note, origin=origin, public=public)
        return cosignatures.cosigned(note, self.witnesses)


def _texts(value: Mapping[str, Any], name: str) -> list[str]:
    found = value.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise Unverifiable(f"{name}: expected a list of texts")
    return found


def check_authenticity(database: Database, policy: TrustPolicy, findings: Findings) -> None:
    """Hold the newest checkpoints of one log of logs against the keys that the verifier brought.

    What they state is compared with the leaves elsewhere; here only who says so.
    """
    origin = findings.origin
    findings.checked(CLAIM)
    if origin not in policy.logs:
        findings.unknown(CLAIM, None, f"the trust policy names no key of {origin}")
        return
    ((newest,),) = database.rows(_NEWEST, {"origin": origin}, caps=SWEEP)
    note = anchors.checkpoint_note(database, origin, newest)
    if note is None:
        findings.unknown(CLAIM, None, "no checkpoint is published")
        return
    try:
        policy.check(note, origin=origin)
        said = [f"signed by the key you trust, {newest} leaves"]
        if policy.quorum:
            said.append(_quorum(database, policy, origin))
        if policy.roots:
            said.append(_stamped(database, policy, origin))
    except Unverifiable as error:
        findings.broken(CLAIM, newest - 1, error.message)
        return
    findings.checked(CLAIM, "; ".join(said))


def _quorum(database: Database, policy: TrustPolicy, origin: str) -> str:
    """The newest checkpoint that enough witnesses cosigned, in words; Unverifiable where there is none."""
    where = {"origin": origin, "kind": anchors.COSIGNATURE, "limit": SIZES_MAX}
    for (size,) in database.rows(_SIZES, where, caps=SWEEP):
        note = anchors.checkpoint_note(database, origin, size)
        if note is None:
            raise Unverifiable(f"{size} leaves were cosigned, and there is no checkpoint of them")
        found = policy.check(note, origin=origin)
        if len(found) >= policy.quorum:
            return f"{size} of them cosigned by {', '.join(sorted(found))}"
    raise Unverifiable(f"no checkpoint is cosigned by {policy.quorum} of the {len(policy.witnesses)} witnesses")


def _stamped(database: Database, policy: TrustPolicy, origin: str) -> str:
    """The newest time stamp, in words; Unverifiable where there is none or it does not hold."""
    where = {"origin": origin, "kind": anchors.TIMESTAMP, "limit": 1}
    for (size,) in database.rows(_SIZES, where, caps=SWEEP):
        note = anchors.checkpoint_note(database, origin, size)
        if note is None:
            raise Unverifiable(f"{size} leaves were time-stamped, and there is no checkpoint of them")
        times = [
            timestamps.verify(token, note, policy.roots)
            for token in anchors.of_size(database, origin, size, anchors.TIMESTAMP).values()
        ]
        return f"{size} of them time-stamped at {min(times)}"
    raise Unverifiable("no checkpoint is time-stamped")
