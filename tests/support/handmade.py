"""Evidence bundles made by hand under keys of one's own, from README.md alone: what lies behind a signature is at hand.

Forgeries of a real bundle stop at the first signature. Here whoever signs is the forger, as a thief of keys would be.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage.merkle import Tree

Members = dict[str, bytes]
DEK = b"k" * 32
OPENING = b"o" * 32
PLAIN = b"hello"


class Signer(Protocol):
    public: bytes

    def sign(self, message: bytes) -> bytes: ...


class Key:
    """An honest key."""

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class Neutral:
    """The neutral element as a public key, in some spelling: R = itself and S = 0 hold for every message."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def sign(self, _message: bytes) -> bytes:
        return bytes([1]) + bytes(63)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def standard(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    at = _split(len(leaves))
    return hashlib.sha256(b"\x01" + root(leaves[:at]) + root(leaves[at:])).digest()


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    at = _split(len(leaves))
    if index < at:
        return [*path(index, leaves[:at]), root(leaves[at:])]
    return [*path(index - at, leaves[at:]), root(leaves[:at])]


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def verifier_key(name: str, kind: int, public: bytes) -> str:
    return f"{name}+{_key_id(name, kind, public).hex()}+{standard(bytes([kind]) + public)}"


def note(name: str, size: int, digest: bytes, key: Signer, *, change: Callable[[str], str] = lambda text: text) -> str:
    """A checkpoint; `change` is of its text, before it is signed."""
    text = change(f"{name}\n{size}\n{standard(digest)}\n")
    return f"{text}\n\u2014 {name} {standard(_key_id(name, 1, key.public) + key.sign(text.encode()))}\n"


def cosignature(signed: str, name: str, key: Signer, seconds: int) -> str:
    text = signed[: signed.rfind("\n\n") + 1]
    signature = key.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
    return f"\u2014 {name} {standard(_key_id(name, 4, key.public) + struct.pack('>Q', seconds) + signature)}\n"


def _commit(secret: bytes) -> str:
    label = b"answerable/plain/v1" + struct.pack("<I", 7) + b"request"
    return b64(hmac.digest(secret, label + PLAIN, "sha256"))


def part(**changes: Any) -> dict[str, Any]:
    """What an entry says of a part `request` that holds `PLAIN`; a change to ... takes a member away."""
    dek_commit = b64(hmac.digest(DEK, b"answerable/dek/v1", "sha256"))
    said = {"name": "request", "index": 0, "dek_commit": dek_commit, "opening_commit": _commit(OPENING)} | changes
    return {key: value for key, value in said.items() if value is not ...}


UNDER_KEY = {"opening_commit": ..., "plain_commit": _commit(DEK)}  # as it was before parts had openings


@dataclass(kw_only=True)
class Handmade:
    """A ledger of three entries (heartbeat, decision, heartbeat) in a log of five leaves, with whatever is changed."""

    key: Signer = field(default_factory=lambda: Key(1))
    witness: Signer = field(default_factory=lambda: Key(2))
    witness_name: str = "w.example/1"
    deployment: str = "t"
    origin: str = "t/g-0/1"
    seconds: int = 1_700_000_000
    is_whole: bool = False
    has_log: bool = True
    decision: dict[str, Any] = field(default_factory=dict)
    part: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=lambda: {"opening": OPENING})  # that come with the part
    scopes: Any = field(default_factory=lambda: [["x", "r", 1]])  # that the last heartbeat states
    claim: dict[str, Any] | None = field(default_factory=dict)  # None: nothing is claimed to be complete
    claims: int = 1
    leaf: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)  # what the manifest says of them
    policy_changes: dict[str, Any] = field(default_factory=dict)
    text: Callable[[str], str] = lambda text: text  # of the ledger's checkpoint, before it is signed
    signed: Callable[[str], str] = lambda text: text  # of that, once it is
    raw_entry: Callable[[bytes], bytes] = lambda raw: raw
    raw_beat: Callable[[bytes], bytes] = lambda raw: raw  # the last one
    raw_leaf: Callable[[bytes], bytes] = lambda raw: raw
    raw_log: Callable[[dict[str, Any]], dict[str, Any]] = lambda log: log
    raw_policy: Callable[[bytes], bytes] = lambda raw: raw
    raw_manifest: Callable[[bytes], bytes] = lambda raw: raw
    member: dict[str, Callable[[bytes], bytes] | bytes | None] = field(default_factory=dict)

    @property
    def policy(self) -> bytes:
        said = {
            "v": 1,
            "logs": [verifier_key(f"{self.deployment}/log", 1, self.key.public)],
            "witnesses": [verifier_key(self.witness_name, 4, self.witness.public)],
            "quorum": 1,
        }
        return self.raw_policy(written(said | self.policy_changes))

    def _entries(self) -> list[bytes]:
        every = {"v": 1, "origin": self.origin}
        beat = every | {"kind": "heartbeat", "tenant": "*", "route": None, "parts": []}
        decision = every | {"seq": 1, "scope_seq": 0, "kind": "decision", "tenant": "x", "route": "r"}
        return [
            written(beat | {"seq": 0, "scope_seq": 0, "scopes": []}),
            self.raw_entry(written(decision | {"parts": [part(**self.part)]} | self.decision)),
            self.raw_beat(written(beat | {"seq": 2, "scope_seq": 1, "scopes": self.scopes})),
        ]

    def _logged(self, signed: str, size: int) -> bytes:
        name, at = f"{self.deployment}/log", 2
        said = {"v": 1, "log": name, "n": at, "kind": "checkpoint", "origin": self.origin, "size": size, "note": signed}
        said = {key: value for key, value in (said | self.leaf).items() if value is not ...}
        lines = [b"a", b"b", self.raw_leaf(written(said)), b"c", b"d"]
        leaves = [leaf(line) for line in lines]
        head = note(name, len(leaves), root(leaves), self.key)
        head += cosignature(head, self.witness_name, self.witness, self.seconds)
        proof = {
            "origin": self.origin,
            "index": at,
            "leaf": lines[at].decode(),
            "path": list(map(b64, path(at, leaves))),
        }
        document = {"name": name, "checkpoint": head, "leaves": [proof], "timestamps": []}
        return written(self.raw_log(document | self.log)) + b"\n"

    def members(self) -> Members:
        """The files, with a manifest that agrees with them."""
        entries = self._entries()
        leaves = [leaf(entry) for entry in entries]
        signed = self.signed(note(self.origin, len(leaves), root(leaves), self.key, change=self.text))
        paths: list[list[str]] = [[] if self.is_whole else [b64(n) for n in path(at, leaves)] for at in range(3)]
        disclosed: dict[str, Any] = {"origin": self.origin, "seq": 1, "name": "request", "index": 0, "file": "parts/1"}
        disclosed |= {key: b64(raw) for key, raw in self.secrets.items()}
        made: Members = {
            "entries.jsonl": b"".join(entry + b"\n" for entry in entries),
            "paths.jsonl": b"".join(written(each) + b"\n" for each in paths),
            "parts/1": PLAIN,
            "parts.jsonl": written(disclosed) + b"\n",
            "summary.txt": b"hi\n",
        }
        if self.has_log:
            made["log.json"] = self._logged(signed, len(leaves))
        for name, change in self.member.items():
            raw = change(made.get(name, b"")) if callable(change) else change
            made.pop(name, None)
            if raw is not None:
                made[name] = raw
        claim = {"origin": self.origin, "tenant": "x", "route": "r", "from": None, "to": {"seq": 2, "n": 1}}
        manifest: dict[str, Any] = {
            "format": "answerable/bundle/v1",
            "deployment": self.deployment,
            "made": "1",
            "asked": {},
            "key": b64(self.key.public),
            "origins": [{"origin": self.origin, "checkpoint": signed, "whole": self.is_whole}],
            "scopes": [] if self.claim is None else [claim | self.claim] * self.claims,
            "files": {
                name: {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in made.items()
            },
        }
        for name, changes in self.files.items():
            if changes is ...:
                del manifest["files"][name]
            else:
                manifest["files"][name] = changes
        made["manifest.json"] = self.raw_manifest(written(manifest | self.manifest) + b"\n")
        return made

    def zipped(self, **changes: dict[str, Any]) -> bytes:
        """The file; `changes` are of its ZIP records, by a member's name with `_` for what is no letter."""
        return zipped(self.members(), **changes)


def deflated(raw: bytes, *, flush: int = zlib.Z_FINISH) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(raw) + stream.flush(flush)


def zipped(members: Members, **changes: dict[str, Any]) -> bytes:
    """A ZIP file, byte by byte (APPNOTE 4.3.7, 4.3.12, 4.3.16).

    Of a member: `packed` (bytes), `method`, `flags`, `crc`, `size`, `version`, `extra`, `comment`, `disk`, `offset`;
    what its local header says otherwise under `local_…`; `before`: bytes in front of it. Under `end`: `comment`,
    `count`, `here`, `behind`, `start` and so on.
    """
    raw, directory = bytearray(), bytearray()
    for name, content in members.items():
        said = changes.get("".join(c if c.isalnum() else "_" for c in name), {})
        raw += said.get("before", b"")
        method = said.get("method", 8 if name == "entries.jsonl" else 0)
        packed = said.get("packed", deflated(content) if method == 8 else content)
        about = {
            "flags": 0,
            "method": method,
            "crc": zlib.crc32(content),
            "size": len(content),
            "version": 20,
            "extra": b"",
        }
        about |= {"packed_size": len(packed), "comment": b"", "disk": 0, "offset": len(raw)} | said
        local = about | {key.removeprefix("local_"): value for key, value in said.items() if key.startswith("local_")}
        spelled = name.encode()
        if "offset" not in said:
            raw += struct.pack("<4s2H", said.get("local_mark", b"PK\x03\x04"), local["version"], local["flags"])
            raw += struct.pack("<3H3I", local["method"], 0, 33, local["crc"], local["packed_size"], local["size"])
            local_extra = said.get("local_extra", b"")
            raw += (
                struct.pack("<2H", len(spelled), len(local_extra))
                + said.get("local_name", spelled)
                + local_extra
                + packed
            )
        directory += struct.pack("<4s3H", said.get("mark", b"PK\x01\x02"), 20, about["version"], about["flags"])
        directory += struct.pack("<3H3I", about["method"], 0, 33, about["crc"], about["packed_size"], about["size"])
        lengths = (len(spelled), len(about["extra"]), len(about["comment"]))
        directory += struct.pack("<4H", *lengths, about["disk"]) + struct.pack("<H2I", 0, 0, about["offset"])
        directory += spelled + about["extra"] + about["comment"]
    end = {"mark": b"PK\x05\x06", "disk": 0, "first_disk": 0, "count": len(members), "here": len(members)}
    end |= {"start": len(raw), "longer": 0, "comment": b"", "behind": b""} | changes.get("end", {})
    size = len(directory) + end["longer"]
    raw += directory
    raw += struct.pack("<4s4H", end["mark"], end["disk"], end["first_disk"], end["here"], end["count"])
    return bytes(raw + struct.pack("<2IH", size, end["start"], len(end["comment"])) + end["comment"] + end["behind"])


def many(count: int) -> Members:
    """A bundle of `count` decisions out of four times as many, a kilobyte each, with a part of each disclosed."""
    origin, key, witness = "t/g-0/1", Key(1), Key(2)
    said = {
        "v": 1,
        "origin": origin,
        "kind": "decision",
        "tenant": "x",
        "route": "r",
        "parts": [part()],
        "pad": "x" * 700,
    }
    entries = [written(said | {"seq": seq, "scope_seq": seq}) for seq in range(4 * count)]
    tree = Tree([leaf(entry) for entry in entries])
    signed = note(origin, len(entries), tree.root, key)
    logged = {
        "v": 1,
        "log": "t/log",
        "n": 0,
        "kind": "checkpoint",
        "origin": origin,
        "size": len(entries),
        "note": signed,
    }
    head = note("t/log", 1, leaf(written(logged)), key)
    head += cosignature(head, "w.example/1", witness, 1_700_000_000)
    proof = {"origin": origin, "index": 0, "leaf": written(logged).decode(), "path": []}
    chosen = range(0, len(entries), 4)
    opened = {"origin": origin, "name": "request", "index": 0, "opening": b64(OPENING)}
    made: Members = {
        "entries.jsonl": b"".join(entries[seq] + b"\n" for seq in chosen),
        "paths.jsonl": b"".join(written([b64(n) for n in tree.path(seq)]) + b"\n" for seq in chosen),
        "log.json": written({"name": "t/log", "checkpoint": head, "leaves": [proof], "timestamps": []}),
        "parts.jsonl": b"".join(written(opened | {"seq": seq, "file": f"parts/{seq}"}) + b"\n" for seq in chosen),
        **{f"parts/{seq}": PLAIN for seq in chosen},
    }
    manifest = {
        "format": "answerable/bundle/v1",
        "deployment": "t",
        "key": b64(key.public),
        "origins": [{"origin": origin, "checkpoint": signed, "whole": False}],
        "scopes": [],
        "files": {name: {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in made.items()},
    }
    return made | {"manifest.json": written(manifest)}
