"""What must hold of the log of logs, checked leaf by leaf over iterators (pure).

Each leaf is hashed from its stored bytes, follows those before it, and says what the columns beside it say; the tree
over them has the root of every checkpoint. What the leaves say of shards is held against these by the audit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from storage import logleaves, notes
from storage.errors import Unverifiable
from storage.findings import Findings
from storage.ids import unb64
from storage.logleaves import LogLeaf, State
from storage.merkle import Frontier, leaf_hash
from storage.segment import vouch_text
from storage.verify import Signature

NOTABLES_MAX: Final = 1_000_000  # erasures and prunes that are held in memory; some 100 bytes each


class LeafLine(NamedTuple):
    """A leaf with the columns beside it, as the database has them."""

    seq: int
    ts_ns: int
    kind: str
    shard: str
    size: int
    entry: bytes
    leaf: bytes


class LogCheck:
    """Checks the leaves of one log, fed in the order of their numbers.

    Args:
        public: the log key's public half.
        host_keys: whose vouches for process keys are believed; None: not at hand, vouches are not checked.
        checkpoints: published ones and that of the second place, by size.
        leaves: the leaf hashes of full level-0 tiles, from number 0 on.
    """

    def __init__(
        self,
        findings: Findings,
        *,
        public: bytes,
        host_keys: Collection[bytes] | None,
        checkpoints: Iterator[Signature],
        leaves: Iterator[bytes],
    ) -> None:
        self.findings = findings
        self.name = findings.origin
        self.state = State()
        self.next_seq = 0
        self.notable: set[tuple[str, int, bytes]] = set()  # shard, seq, leaf of erasures and prunes
        self._public, self._host_keys = public, host_keys
        self._checkpoints, self._checkpoint = checkpoints, next(checkpoints, None)
        self._leaves = leaves
        self._tree: Frontier | None = Frontier()
        for name in ("log", "tree", "checkpoints"):
            findings.checked(name)
        self._check_tree()

    def feed(self, line: LeafLine) -> None:
        """Check one row."""
        if line.seq < self.next_seq:
            self.findings.broken("log", line.seq, "there twice")
            return
        if line.seq > self.next_seq:
            self._miss(line.seq)
        tile = next(self._leaves, None)
        if leaf_hash(line.entry) != line.leaf:
            self.findings.broken("log", line.seq, "its bytes are not those that its leaf was made of")
        if tile is not None and tile != line.leaf:
            self.findings.broken("tiles", line.seq, "a tile holds another leaf")
        try:
            self._follow(line)
        except Unverifiable as error:
            self.findings.broken("log", line.seq, error.message)
        self.next_seq = line.seq + 1
        if self._tree is not None:
            self._tree.append(line.leaf)
        self._check_tree()

    def finish(self, end: int) -> None:
        """All rows were fed; there should have been `end`, by any account."""
        if self.next_seq < end:
            self._miss(end)
        while self._checkpoint is not None:
            self._verify(self._checkpoint)  # of a tree whose end is missing, as was said above
            self._checkpoint = next(self._checkpoints, None)
        shards = len(self.state.shards)
        self.findings.checked("log", f"{self.next_seq} leaves about {shards} shards")

    def _follow(self, line: LeafLine) -> None:
        """What the leaf says, against the columns beside it and the leaves before it."""
        leaf = logleaves.parse(line.entry, log=self.name)
        if (leaf.n, leaf.ts_ns, leaf.kind, leaf.shard, leaf.size) != (line.seq, *line[1:5]):
            raise Unverifiable("number, time, kind, shard or size of another leaf beside it")
        if leaf.kind == "checkpoint":  # before it counts: what nobody signed says nothing about a shard
            notes.verified_checkpoint(str(leaf.said["note"]).encode(), origin=leaf.shard, public=self._public)
        self.state.take(leaf)
        if leaf.kind == "open":
            self._check_vouch(leaf)
        elif leaf.kind in logleaves.NOTABLE and len(self.notable) < NOTABLES_MAX:
            self.notable.add((leaf.shard, leaf.said["seq"], unb64(leaf.said["leaf"])))

    def _check_vouch(self, leaf: LogLeaf) -> None:
        if leaf.said["process_key"] is None:
            self.findings.unknown("log", leaf.n, f"{leaf.shard} was opened with a key that was gone by then")
            return
        try:
            process, host, vouch = (unb64(leaf.said[name]) for name in ("process_key", "host_key", "vouch"))
            Ed25519PublicKey.from_public_bytes(host).verify(vouch, vouch_text(leaf.shard, process))
        except (KeyError, ValueError, TypeError, AttributeError, InvalidSignature) as error:
            raise Unverifiable(f"no host vouches for the process key of {leaf.shard}") from error
        if self._host_keys is not None and host not in self._host_keys:
            raise Unverifiable(f"{leaf.shard}: a host vouches that is not known here")

    def _miss(self, seq: int) -> None:
        last = f" to {seq - 1}" if seq - 1 > self.next_seq else ""
        self.findings.broken("log", self.next_seq, f"missing{last}")
        self.next_seq, self._tree = seq, None
        self.findings.unknown("tree", seq, "cannot be made without the missing leaves")
        self._leaves = iter(())  # tiles were compared up to the hole

    def _check_tree(self) -> None:
        while self._checkpoint is not None and self._checkpoint.size <= self.next_seq:
            self._verify(self._checkpoint)
            self._checkpoint = next(self._checkpoints, None)

    def _verify(self, signed: Signature) -> None:
        try:
            found = notes.verified_checkpoint(signed.note.encode(), origin=self.name, public=self._public)
        except Unverifiable as error:
            self.findings.broken("checkpoints", signed.size - 1, f"of size {signed.size}: {error.message}")
            return
        if found.size != signed.size or (signed.root is not None and signed.root != found.root):
            detail = f"of size {signed.size}: another size or root stands beside it than was signed"
            self.findings.broken("checkpoints", signed.size - 1, detail)
        if self._tree is not None and self._tree.size == found.size and self._tree.root() != found.root:
            detail = f"the tree of {found.size} leaves is not the one that was signed"
            self.findings.broken("tree", found.size - 1, detail)
            self._tree = None  # every later root would differ for the same reason
