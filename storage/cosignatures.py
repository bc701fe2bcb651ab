"""Cosignatures of witnesses over checkpoints, and what is said to a witness (pure).

* c2sp.org/tlog-cosignature: an Ed25519 cosignature/v1 is a signature line whose key id has type 0x04; it states a time.
* c2sp.org/tlog-witness: the body of add-checkpoint and the answers to it.

ML-DSA-44 cosignatures are ignored like those of any unknown key: the verifiers that follow have no such library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from storage import ed25519, notes
from storage.errors import Unverifiable
from storage.notes import Signature

TYPE: Final = b"\x04"
_TIME_MAX: Final = (1 << 63) - 1
ANSWER_BYTES_MAX: Final = 64 * 1024  # of a witness: some signature lines, or a size


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Who cosigns: a key name and an Ed25519 public key (32 bytes)."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that name its key."""
        return hashlib.sha256(self.name.encode() + b"\n" + TYPE + self.public).digest()[:4]

    @property
    def key(self) -> str:
        """Its verifier key, as one line."""
        return f"{self.name}+{self.key_id.hex()}+{notes.spell(TYPE + self.public)}"


def parse_witness(key: str) -> Witness:
    """The witness of a verifier key line ``<name>+<hex key id>+<base64(0x04 || key)>``.

    Raises:
        Unverifiable: not the verifier key of an Ed25519 cosigner.
    """
    name, _, rest = key.partition("+")
    identity, _, encoded = rest.partition("+")
    raw = notes.unspell(encoded)
    notes.check_name(name)
    if len(raw) != 33 or raw[:1] != TYPE:
        raise Unverifiable(f"not an Ed25519 cosigner's verifier key: {key[:120]!r}")
    witness = Witness(name=name, public=raw[1:])
    if witness.key_id.hex() != identity:
        raise Unverifiable(f"the key id in {key[:120]!r} is another key's")
    return witness


def verify(text: str, line: Signature, witness: Witness) -> int:
    """The time (Unix seconds) at which `witness` cosigned the checkpoint `text`.

    Raises:
        Unverifiable: it did not.
    """
    if line.name != witness.name or line.key_id != witness.key_id:
        raise Unverifiable(f"a signature line by {line.name} where one by {witness.name} was expected")
    if len(line.signature) != 72:
        raise Unverifiable(f"a cosignature by {witness.name} of {len(line.signature)} bytes instead of 72")
    time_s = int.from_bytes(line.signature[:8], "big")
    if not 0 < time_s <= _TIME_MAX:
        raise Unverifiable(f"a cosignature by {witness.name} without a time")
    signed = f"cosignature/v1\ntime {time_s}\n{text}".encode()
    ed25519.verify(
        witness.public, line.signature[8:], signed, said=f"the cosignature by {witness.name} does not verify"
    )
    return time_s


def cosigned(note: bytes, witnesses: Iterable[Witness]) -> dict[str, int]:
    """Witness → when it cosigned the note, for those of `witnesses` that did.

    Raises:
        Unverifiable: a line by one of them does not verify.
    """
    parsed = notes.parse(note)
    found = {}
    for witness in witnesses:
        for line in parsed.signatures:
            if (line.name, line.key_id) == (witness.name, witness.key_id):
                found[witness.name] = verify(parsed.text, line, witness)
    return found


def request(*, old_size: int, path: Sequence[bytes], note: bytes) -> bytes:
    """The body of add-checkpoint."""
    lines = [f"old {old_size}", *(notes.spell(node) for node in path)]
    return "\n".join(lines).encode() + b"\n\n" + note


def answered(body: bytes, note: bytes, witness: Witness) -> tuple[str, int]:
    """The signature line by `witness` in its answer to `note`, with its newline, and the time that it states.

    Lines by unknown keys are passed over.

    Raises:
        Unverifiable: there is no line by it, or one that does not verify.
    """
    text = notes.parse(note).text
    parsed = notes.parse(text.encode() + b"\n" + body)
    for line in parsed.signatures:
        if (line.name, line.key_id) == (witness.name, witness.key_id):
            time_s = verify(text, line, witness)
            return f"— {line.name} {notes.spell(line.key_id + line.signature)}\n", time_s
    raise Unverifiable(f"{witness.name} answered without a cosignature of its own")


def conflicting_size(body: bytes) -> int:
    """The size in the answer 409; raises Unverifiable."""
    text = body.decode("ascii", "replace")
    if not text.endswith("\n"):
        raise Unverifiable("a witness's size without its newline")
    return notes.number(text[:-1])


def with_cosignatures(note: bytes, lines: Mapping[str, str]) -> bytes:
    """A checkpoint with the signature lines of witnesses behind its own."""
    return note + "".join(lines[name] for name in sorted(lines)).encode()
