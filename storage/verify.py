"""What must hold of stored evidence, checked row by row over iterators (pure).

An `EntryCheck` walks the entries of one origin in the order of their numbers, beside them the tiles, the checkpoints
and the batches of the journal as far as these are there. Each entry's leaf is recomputed from its stored bytes; nothing
is serialised again. A finding names origin and sequence number. Memory is bounded: one row, one tile, one batch, and at
most `FINDINGS_MAX` findings per claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from storage import notes
from storage.batch import Batch
from storage.errors import StorageError, Unverifiable
from storage.findings import FINDINGS_MAX, MALFORMED, Claim, Findings, Report, Verdict
from storage.freight import NO_DECISION, UNCLASSED
from storage.merkle import Frontier, leaf_hash
from storage.segment import SegmentHeader
from storage.tallies import Tallies

__all__ = [
    "FINDINGS_MAX",
    "Claim",
    "EntryCheck",
    "EntryLine",
    "Findings",
    "Report",
    "Signature",
    "Verdict",
]

_NO_DECISION = str(NO_DECISION)


class EntryLine(NamedTuple):
    """An entry with the columns beside it, as the database has them."""

    seq: int
    id: str
    kind: str
    tenant: str
    route: str
    ts_ns: int
    decision: str
    retention: str
    entry: bytes
    leaf: bytes
    month: int


class Signature(NamedTuple):
    """A checkpoint; `root` as the database has it beside the note, None where nothing stands beside it."""

    size: int
    note: str
    root: bytes | None = None


class EntryCheck:
    """Checks the entries of one origin, fed in the order of their numbers.

    Args:
        public: the log key's public half.
        checkpoints: published ones, by size.
        leaves: the leaf hashes of full level-0 tiles, from number `start` on.
        batches: of the journal, as far as it is still there.
        headers: segment headers by first sequence number; they may be added until their number is reached.
        tallies: counts what the entries say of each other.
        start: the number of the first entry that will be fed.
        tree: over the entries before it; None: it cannot be made, and no root is compared.
    """

    def __init__(
        self,
        findings: Findings,
        *,
        public: bytes,
        checkpoints: Iterator[Signature],
        leaves: Iterator[bytes],
        batches: Iterator[Batch],
        headers: Mapping[int, SegmentHeader],
        tallies: Tallies,
        start: int = 0,
        tree: Frontier | None,
    ) -> None:
        self.findings = findings
        self.origin = findings.origin
        self.next_seq = start
        self.covered = start  # entries under a checkpoint that was checked, or before all that is looked at
        self._public = public
        self._checkpoints, self._checkpoint = checkpoints, next(checkpoints, None)
        self._leaves, self._tiles_ended = leaves, False
        self._witness = ""
        self._journal = _Journal(batches)
        self._headers = headers
        self._tree = tree
        self._tallies = tallies
        self.looked_at = 0
        self.waiting = 0  # entries that stand in the journal only, and that nothing says to have been shipped
        for name in ("entries", "tree", "checkpoints"):
            findings.checked(name)
        self._check_tree()

    @property
    def journal_from(self) -> int | None:
        """The first entry that the journal still had; None: there was no journal."""
        return self._journal.first

    def feed(self, line: EntryLine) -> dict[str, Any] | None:
        """Check one row; what its entry says, or None where that cannot be read."""
        if line.seq < self.next_seq:
            self.findings.broken("entries", line.seq, "there twice")
            return None
        self._skip_to(line.seq)
        self.looked_at += 1
        leaf = leaf_hash(line.entry)
        said = self._read(line)
        right = self._right_leaf(line.seq)
        if leaf != line.leaf:
            self.findings.broken("entries", line.seq, "its bytes are not those that its leaf was made of")
        elif right is not None and leaf != right:
            self.findings.broken("entries", line.seq, f"is not the entry that {self._witness} knows")
        self._grow(right if right is not None else line.leaf)
        return said

    def finish(self, end: int, *, owed: int, recorded: int = 0) -> None:
        """All rows were fed. There should have been `end`, of which `owed` were shipped, by any account.

        Of those behind that it is enough that the journal has them; it holds `recorded`.
        """
        self._skip_to(min(owed, end))
        while self.next_seq < end and self._journal.leaf(self.next_seq) is not None:
            self._grow(self._right_leaf(self.next_seq) or b"")
            self.waiting += 1
        self._skip_to(end)
        while self._checkpoint is not None:
            self._verify(self._checkpoint)
            if self._checkpoint.size > max(recorded, self.next_seq):
                detail = f"a tree of {self._checkpoint.size} was signed, {self.next_seq} entries are there"
                self.findings.broken("checkpoints", self.next_seq, detail)
            self._checkpoint = next(self._checkpoints, None)
        journal = self._journal
        if journal.damage is not None:
            self.findings.broken("journal", journal.next_seq, journal.damage)
        elif journal.first is not None:
            self.findings.checked("journal", f"compared from entry {journal.first}")
        compared = journal.first is not None and journal.first <= self.covered
        covered = max(self.covered, journal.next_seq if compared else 0)
        if covered < self.next_seq:
            self.findings.unknown("tail", covered, "neither a checkpoint nor the journal covers what follows")
        more = f"; {self.waiting} more stand in the journal and are not shipped yet" if self.waiting else ""
        self.findings.checked("entries", f"{self.looked_at} checked{more}")

    # --- one row --------------------------------------------------------------------------------------------

    def _read(self, line: EntryLine) -> dict[str, Any] | None:
        """What the entry says, compared with the columns that it is found by."""
        try:
            said: dict[str, Any] = orjson.loads(line.entry)
            stated = (
                said["seq"],
                said["id"],
                said["kind"],
                said["tenant"],
                said["route"] or "",
                int(said["ts"]),
                said["decision"] or _NO_DECISION,
                said.get("retention") or UNCLASSED,
            )
            if said["origin"] != self.origin:
                self.findings.broken("entries", line.seq, f"belongs to {said['origin']}")
            if stated != line[:8]:
                self.findings.broken("entries", line.seq, f"{_difference(stated, line)} of another entry beside it")
            self._tallies.feed(line.seq, said, line.month)
        except MALFORMED:
            self.findings.broken("entries", line.seq, "is no entry")
            return None
        return said

    def _right_leaf(self, seq: int) -> bytes | None:
        """The leaf of this number by the journal or, failing that, by a tile; None: neither has it."""
        tile, recorded = next(self._leaves, None), self._journal.leaf(seq)
        self._tiles_ended = tile is None
        if tile is not None and recorded is not None and tile != recorded:
            self.findings.broken("tiles", seq, "a tile holds another leaf than the journal")
        self._witness = "the journal" if recorded is not None else "the tile"
        return recorded if recorded is not None else tile

    def _skip_to(self, seq: int) -> None:
        """Rows up to `seq` are missing."""
        if self.next_seq >= seq:
            return
        last = f" to {seq - 1}" if seq - 1 > self.next_seq else ""
        self.findings.broken("entries", self.next_seq, f"missing{last}")
        self._tallies.skip(self.next_seq)
        while self.next_seq < seq:
            right = self._right_leaf(self.next_seq)
            if right is None and self._tree is not None:
                self._tree = None
                self.findings.unknown("tree", self.next_seq, "cannot be made without the missing entries")
            if right is None and self._tiles_ended:  # nothing says anything about these numbers: leap over them
                self.next_seq = min(seq, self._journal.resumes_at(self.next_seq) or seq) - 1
            self._grow(right or b"")

    # --- the tree -------------------------------------------------------------------------------------------

    def _grow(self, leaf: bytes) -> None:
        self.next_seq += 1
        if self._tree is not None:
            self._tree.append(leaf)
        self._check_tree()

    def _check_tree(self) -> None:
        """Compare the tree with whatever states its root at this size."""
        size, tree = self.next_seq, self._tree
        header = self._headers.get(size)
        if header is not None:
            self._check_header(header)
        commit = self._journal.commit_at(size)
        if commit is not None and tree is not None and commit.commit.root != tree.root():
            self.findings.broken("journal", size - 1, f"the tree of {size} is not the one that a COMMIT states")
        while self._checkpoint is not None and self._checkpoint.size <= size:
            self._verify(self._checkpoint)
            self._checkpoint = next(self._checkpoints, None)

    def _check_header(self, header: SegmentHeader) -> None:
        if header.origin != self.origin or (self._tree is not None and header.frontier.root() != self._tree.root()):
            self.findings.broken("segments", self.next_seq, "the segment's header states another tree")

    def _verify(self, signed: Signature) -> None:
        """Check one checkpoint's signature, and its root where the tree has its size."""
        try:
            found = notes.verified_checkpoint(signed.note.encode(), origin=self.origin, public=self._public)
        except Unverifiable as error:
            self.findings.broken("checkpoints", signed.size - 1, f"of size {signed.size}: {error.message}")
            return
        if found.size != signed.size:
            self.findings.broken("checkpoints", signed.size - 1, f"says {found.size}, is filed under {signed.size}")
        if signed.root is not None and signed.root != found.root:
            self.findings.broken("checkpoints", signed.size - 1, "the root beside it is not the one that was signed")
        if self._tree is None or self._tree.size != found.size:
            return
        if self._tree.root() == found.root:
            self.covered = found.size
            return
        detail = f"the tree of {found.size} is not the one that was signed: look at entries from {self.covered} on"
        self.findings.broken("tree", max(self.covered, 0), detail)
        self._tree = None  # every later root would differ for the same reason


class _Journal:
    """The batches of a journal, as far as they are needed: leaf by leaf, and the COMMIT at a size."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._batch: Batch | None = None
        self._ended = False
        self.first: int | None = None
        self.next_seq = 0
        self.damage: str | None = None

    def leaf(self, seq: int) -> bytes | None:
        """The leaf of entry `seq`, None where the journal does not have it (any more)."""
        self._advance(seq)
        batch = self._batch
        if batch is None or not batch.first <= seq < batch.first + batch.count:
            return None
        return leaf_hash(batch.records[seq - batch.first].entry)

    def resumes_at(self, seq: int) -> int | None:
        """The first entry above `seq` that it has; None: no further one."""
        self._advance(seq)
        return None if self._batch is None or self._batch.first <= seq else self._batch.first

    def commit_at(self, size: int) -> Batch | None:
        """The batch after which the tree has `size` entries, if it is the one that was read last."""
        return self._batch if self._batch is not None and self._batch.commit.size == size else None

    def _advance(self, seq: int) -> None:
        while not self._ended and (self._batch is None or self._batch.first + self._batch.count <= seq):
            try:
                batch = next(self._batches, None)
            except StorageError as error:
                batch = None
                if error.code != "segment_gone":  # a keeper may delete what is shipped and signed meanwhile
                    self.damage = error.message
            if batch is None:
                self._ended = True
                self._batch = None
                return
            if self.first is None:
                self.first = batch.first
            self._batch, self.next_seq = batch, batch.first + batch.count


def _difference(stated: tuple[Any, ...], line: EntryLine) -> str:
    names = EntryLine._fields
    return ", ".join(names[at] for at, value in enumerate(stated) if value != line[at])
