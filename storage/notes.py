r"""Signed notes, checkpoints and proofs as text, parsed strictly (pure).

* c2sp.org/signed-note: a text, an empty line, signature lines ``— <name> <base64(key id || signature)>``.
* c2sp.org/tlog-checkpoint: the text ``<origin>\n<size>\n<base64 root>\n``; extension lines are refused.
* c2sp.org/tlog-proof: index, inclusion path and checkpoint of one entry.

Parsing accepts one spelling of each note: base64 that does not re-encode to itself, numbers with leading zeros and
control characters are refused. Checking raises and never returns False.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import ed25519
from storage.errors import Unverifiable

ED25519 = b"\x01"  # signature type identifier byte, c2sp.org/signed-note
NOTE_BYTES_MAX = 1 << 20  # a checkpoint has a few hundred; with many post-quantum cosignatures some 100 kB
SIGNATURES_MAX = 100  # the specification asks for at least 16
SIZE_MAX = (1 << 63) - 1  # tree sizes stay within a signed 64-bit number, as every implementation can hold
_PROOF_HEAD = "c2sp.org/tlog-proof@v1"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who says to have signed, with which key, and the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note; its text means nothing before `verified`."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head: the ledger's name, its number of leaves, its root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text."""
        check_name(self.origin)
        return f"{self.origin}\n{self.size}\n{spell(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That the leaf at `index` is in the tree of `checkpoint` (a note, verbatim); hashes from leaf to root."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None


def key_id(name: str, public: bytes) -> bytes:
    """The four bytes that name an Ed25519 key together with `name`."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """The public key as one line, ``<name>+<hex key id>+<base64(type || key)>``, as Go's note package writes it."""
    check_name(name)
    return f"{name}+{key_id(name, public).hex()}+{spell(ED25519 + public)}"


def parse_verifier_key(line: str) -> tuple[str, bytes]:
    """Name and public key (32 bytes) of a verifier key line.

    Raises:
        Unverifiable: not an Ed25519 verifier key, or its key id is another key's.
    """
    name, _, rest = line.partition("+")
    identity, _, encoded = rest.partition("+")
    raw = unspell(encoded)
    check_name(name)
    if len(raw) != 33 or raw[:1] != ED25519 or identity != key_id(name, raw[1:]).hex():
        raise Unverifiable(f"not an Ed25519 verifier key: {line[:120]!r}")
    return name, raw[1:]


def sign(text: str, *, name: str, key: Ed25519PrivateKey) -> bytes:
    """The note of `text` signed once by `key` under `name`."""
    check_name(name)
    _check_text(text)
    public = key.public_key().public_bytes_raw()
    signature = spell(key_id(name, public) + key.sign(text.encode()))
    return f"{text}\n— {name} {signature}\n".encode()


def parse(note: bytes) -> Note:
    """The note's text and signature lines, unverified.

    Raises:
        Unverifiable: not a note, in any of the ways the specification names.
    """
    if len(note) > NOTE_BYTES_MAX:
        raise Unverifiable(f"a note of {len(note)} bytes, more than {NOTE_BYTES_MAX}")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unverifiable("a note that is not UTF-8") from error
    end = whole.rfind("\n\n")
    if end < 0 or not whole.endswith("\n"):
        raise Unverifiable("a note without an empty line before its signatures")
    text, lines = whole[: end + 1], whole[end + 2 :].split("\n")[:-1]
    _check_text(text)
    if not 1 <= len(lines) <= SIGNATURES_MAX:
        raise Unverifiable(f"a note with {len(lines)} signature lines")
    return Note(text, tuple(signature_line(line) for line in lines))


def verified(note: bytes, keys: Mapping[str, bytes]) -> str:
    """The note's text, signed by at least one of `keys` (name → 32-byte public key).

    Raises:
        Unverifiable: no line is by one of the keys, or a line by one of them does not verify.
    """
    parsed = parse(note)
    good = 0
    for line in parsed.signatures:
        public = keys.get(line.name)
        if public is None or line.key_id != key_id(line.name, public):
            continue  # unknown keys are ignored: witnesses, and keys to come
        said = f"the signature by {line.name} does not verify"
        ed25519.verify(public, line.signature, parsed.text.encode(), said=said)
        good += 1
    if not good:
        raise Unverifiable(f"no signature by {', '.join(sorted(keys)) or 'a known key'}")
    return parsed.text


def parse_checkpoint(text: str) -> Checkpoint:
    """The tree head that a note's text states.

    Raises:
        Unverifiable: not exactly three lines of the right form.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise Unverifiable(f"a checkpoint of {len(lines) - 1} lines instead of 3")
    origin, size, root = lines[0], number(lines[1]), unspell(lines[2])
    check_name(origin)
    if len(root) != 32:
        raise Unverifiable(f"a root of {len(root)} bytes instead of 32")
    return Checkpoint(origin=origin, size=size, root=root)


def verified_checkpoint(note: bytes, *, origin: str, public: bytes) -> Checkpoint:
    """The tree head of `origin`, signed by its log key under the origin's own name.

    Raises:
        Unverifiable: not signed so, or about another ledger.
    """
    checkpoint = parse_checkpoint(verified(note, {origin: public}))
    if checkpoint.origin != origin:
        raise Unverifiable(f"a checkpoint of {checkpoint.origin} where one of {origin} was expected")
    return checkpoint


def proof_text(proof: Proof) -> bytes:
    """The proof as c2sp.org/tlog-proof text."""
    lines = [_PROOF_HEAD]
    if proof.extra is not None:
        lines.append(f"extra {spell(proof.extra)}")
    lines.append(f"index {proof.index}")
    lines += [spell(node) for node in proof.path]
    return "\n".join(lines).encode() + b"\n\n" + proof.checkpoint


def parse_proof(text: bytes) -> Proof:
    """The parts of a tlog-proof, unverified.

    Raises:
        Unverifiable: not such a text.
    """
    head, gap, checkpoint = text.partition(b"\n\n")
    if not gap or len(text) > 2 * NOTE_BYTES_MAX:
        raise Unverifiable("a proof without a checkpoint, or far too long")
    try:
        lines = head.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise Unverifiable("a proof that is not UTF-8") from error
    if lines.pop(0) != _PROOF_HEAD:
        raise Unverifiable(f"a proof that does not begin with {_PROOF_HEAD}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = unspell(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise Unverifiable("a proof without an index")
    index = number(lines.pop(0).removeprefix("index "))
    path = tuple(unspell(line) for line in lines)
    if len(path) > 63 or any(len(node) != 32 for node in path):
        raise Unverifiable("a proof with hashes of a wrong length or number")
    return Proof(index=index, path=path, checkpoint=checkpoint, extra=extra)


def signature_line(line: str) -> Signature:
    """One signature line without its newline; raises Unverifiable."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise Unverifiable("a signature line that does not begin with an em dash")
    check_name(name)
    raw = unspell(encoded)
    if len(raw) < 5:
        raise Unverifiable("a signature line without a signature")
    return Signature(name, raw[:4], raw[4:])


def check_name(name: str) -> None:
    """True on return: a note can carry it as the name of a key; raises Unverifiable."""
    if not name or "+" in name or any(c.isspace() or c < " " for c in name):
        raise Unverifiable(f"not a key name: {name[:120]!r}")


def _check_text(text: str) -> None:
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise Unverifiable("a note's text must end in a newline and hold no control characters")


def number(text: str) -> int:
    """A tree size or index in its one decimal spelling; raises Unverifiable."""
    if not _NUMBER.fullmatch(text) or int(text) > SIZE_MAX:
        raise Unverifiable(f"not a decimal number: {text[:40]!r}")
    return int(text)


def spell(raw: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(raw).decode()


def unspell(text: str) -> bytes:
    """The bytes of standard base64 with padding, in its one canonical spelling; raises Unverifiable."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unverifiable(f"not base64: {text[:80]!r}") from error
    if spell(raw) != text:
        raise Unverifiable(f"not canonical base64: {text[:80]!r}")
    return raw
