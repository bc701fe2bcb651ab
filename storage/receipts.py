"""Receipts: what a caller is handed with the answer, to hold against the ledger later. Pure.

``v1 <origin> <seq> <leaf> <first> <count> <path> <size> <root> <key id> <sig>``; hashes base64url without padding, the
path comma-joined (``-`` if empty), the signature that of the batch's COMMIT (README.md, "Receipts").
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from storage.batch import KEY_ID_BYTES, Committed, key_id
from storage.errors import Unverifiable
from storage.ids import b64, b64_hashes, unb64
from storage.merkle import HASH_BYTES, root_from_path
from storage.segment import batch_text

VERSION = "v1"
_FIELDS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A parsed receipt; nothing of it is checked before :meth:`verify`."""

    origin: str
    seq: int
    leaf: bytes
    first: int
    count: int
    path: tuple[bytes, ...]
    size: int
    root: bytes
    key_id: bytes
    signature: bytes

    def verify(self, process_key: bytes) -> None:
        """True on return: this process key signed a batch that holds the leaf; raises Unverifiable."""
        if key_id(process_key) != self.key_id:
            raise Unverifiable("the receipt names another process key")
        batch_root = root_from_path(self.leaf, index=self.seq - self.first, size=self.count, path=self.path)
        text = batch_text(
            origin=self.origin,
            first=self.first,
            count=self.count,
            batch_root=batch_root,
            size=self.size,
            root=self.root,
        )
        try:
            Ed25519PublicKey.from_public_bytes(process_key).verify(self.signature, text)
        except InvalidSignature as error:
            raise Unverifiable("the receipt's signature does not verify") from error


def write(batch: Committed, seq: int) -> str:
    """The receipt of one entry of a batch."""
    return spell(batch, seq).decode()


def spell(batch: Committed, seq: int) -> bytes:
    """The same as it goes onto the wire. What the receipts of a batch share is spelled once."""
    levels, before, after = batch.spelled or _shared(batch)
    index = seq - batch.commit.first
    leaf = levels[0][index]
    path = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index >>= 1
    return before % (seq, leaf) + (b",".join(path) or b"-") + after


def _shared(batch: Committed) -> tuple[list[list[bytes]], bytes, bytes]:
    commit = batch.commit
    levels = [b64_hashes(level) for level in batch.tree.levels]
    before = f"{VERSION} {batch.origin} ".replace("%", "%%") + f"%d %b {commit.first} {commit.count} "
    after = f" {commit.size} {b64(commit.root)} {b64(commit.key_id)} {b64(commit.signature)}"
    batch.spelled = (levels, before.encode(), after.encode())
    return batch.spelled


def parse(text: str) -> Receipt:
    """A receipt from a header; raises Unverifiable for anything but its one canonical spelling."""
    fields = text.split(" ")
    if len(fields) != _FIELDS or fields[0] != VERSION or not fields[1]:
        raise Unverifiable("not a receipt of version v1")
    _, origin, seq, leaf, first, count, path, size, root, key, signature = fields
    try:
        return Receipt(
            origin=origin,
            seq=_number(seq),
            leaf=_sized(leaf, HASH_BYTES),
            first=_number(first),
            count=_number(count),
            path=() if path == "-" else tuple(_sized(node, HASH_BYTES) for node in path.split(",")),
            size=_number(size),
            root=_sized(root, HASH_BYTES),
            key_id=_sized(key, KEY_ID_BYTES),
            signature=_sized(signature, 64),
        )
    except ValueError as error:
        raise Unverifiable(f"a receipt is malformed: {error}") from error


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or str(int(text)) != text or int(text) >= 2**63:
        raise ValueError(f"{text[:30]!r} is no number")
    return int(text)


def _sized(text: str, size: int) -> bytes:
    raw = unb64(text)
    if len(raw) != size:
        raise ValueError(f"{size} bytes expected, {len(raw)} found")
    return raw
