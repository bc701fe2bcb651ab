"""Batches: the unit that is written, signed and torn. Pure: both directions, entries to bytes and back.

A batch is the frames after a COMMIT (or the header) up to and with the next COMMIT, which states where the batch
begins, the tree over its entries, the tree over all entries, the counters, and is signed with the process key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from storage import frames
from storage.errors import FrameDamaged, JournalCorrupt
from storage.frames import Frame, FrameReader, encode_frame
from storage.merkle import Frontier, Tree, root_of
from storage.segment import (
    HEADER_BYTES,
    Commit,
    Counters,
    OpenPart,
    SegmentHeader,
    StoredPart,
    WrappedKey,
    batch_text,
    vouch_text,
)

KEY_ID_BYTES = 8


def key_id(process_key: bytes) -> bytes:
    """The 8 bytes that name a process key in COMMITs and receipts."""
    return sha256(b"answerable/process-key/v1" + process_key).digest()[:KEY_ID_BYTES]


# --- writing --------------------------------------------------------------------------------------------------


class Committed:
    """A batch that was encoded: its COMMIT, and its leaves for receipts (which note in ``spelled`` what they share)."""

    __slots__ = ("commit", "origin", "spelled", "tree")

    def __init__(self, origin: str, commit: Commit, tree: Tree) -> None:
        self.origin = origin
        self.commit = commit
        self.tree = tree
        self.spelled: tuple[list[list[bytes]], bytes, bytes] | None = None


class BatchWriter:
    """Collects the frames of one batch; for one thread. The frontier grows with each record."""

    __slots__ = ("_begin", "_first", "_frames", "_frontier", "_header", "_leaves", "_salted", "size_bytes")

    def __init__(self, header: SegmentHeader, salted: int, frontier: Frontier, begin: int) -> None:
        self._header = header
        self._salted = salted
        self._frontier = frontier
        self._begin = begin
        self._first = frontier.size
        self._frames: list[bytes] = []
        self._leaves: list[bytes] = []
        self.size_bytes = 0

    @property
    def count(self) -> int:
        """Records so far."""
        return len(self._leaves)

    @property
    def frame_count(self) -> int:
        """Frames so far."""
        return len(self._frames)

    def record(self, ts_ns: int, entry: bytes) -> bytes:
        """Add an entry, whose ``seq`` must be the frontier's size; the leaf hash."""
        self.frame(frames.RECORD, ts_ns, entry)
        return self.leaf(entry)

    def frame(self, kind: int, ts_ns: int, payload: bytes) -> None:
        """Add any frame but a COMMIT."""
        made = encode_frame(self._salted, kind, self._frontier.size, ts_ns, payload)
        self.add([made], len(made))

    def add(self, made: list[bytes], size_bytes: int) -> None:
        """Add frames, made by :func:`~storage.frames.encode_frame` for the next entry's number."""
        self._frames += made
        self.size_bytes += size_bytes

    def leaf(self, entry: bytes) -> bytes:
        """The entry whose RECORD was added, as a leaf of the trees; its hash."""
        leaf = sha256(b"\x00" + entry).digest()
        self._frontier.append(leaf)
        self._leaves.append(leaf)
        return leaf

    def finish(
        self,
        *,
        now_ns: int,
        counters: Counters,
        key: bytes,
        sign: Callable[[bytes], bytes],
        durable_end: int | None = None,
        deferred: bool = False,
    ) -> tuple[bytes, Committed]:
        """The batch's bytes, ended by its COMMIT; ``key`` is the process key's id.

        ``durable_end`` is the offset up to which the segment is known to be durable (None: all before this batch);
        ``deferred`` says that this batch is not synced at once.
        """
        tree = Tree(self._leaves)
        batch_root, size, root = tree.root, self._frontier.size, self._frontier.root()
        origin = self._header.origin
        text = batch_text(
            origin=origin, first=self._first, count=len(self._leaves), batch_root=batch_root, size=size, root=root
        )
        commit = Commit(
            begin=self._begin,
            unsynced=0 if durable_end is None else self._begin - durable_end,
            deferred=deferred,
            first=self._first,
            count=len(self._leaves),
            batch_root=batch_root,
            size=size,
            root=root,
            counters=counters,
            key_id=key,
            signature=sign(text),
        )
        self._frames.append(encode_frame(self._salted, frames.COMMIT, size, now_ns, commit.to_payload()))
        return b"".join(self._frames), Committed(origin, commit, tree)


# --- reading --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as it stands in the journal."""

    seq: int
    ts_ns: int
    entry: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One committed batch; ``begin`` and ``end`` are offsets in its segment, ``first`` is where its parts belong."""

    origin: str
    segment: int
    first: int
    count: int
    records: list[Record]
    parts: list[StoredPart]
    keys: list[WrappedKey]
    commit: Commit
    begin: int
    end: int
    opened: list[OpenPart] = field(default_factory=list)
    recoveries: list[bytes] = field(default_factory=list)  # payloads of RECOVERY frames
    closes: bool = False  # a CLOSE frame stands in it: the writer ended in order


class BatchReader:
    """Batches out of a segment's bytes, in any pieces; each is checked before it is given.

    With ``verify_signatures`` the COMMIT's signature is checked against the header's process key; construction then
    checks the host's vouch for that key.
    """

    def __init__(self, header: SegmentHeader, *, verify_signatures: bool = True) -> None:
        self.header = header
        self._frames = FrameReader(header.salt, HEADER_BYTES)
        self._frontier = header.frontier.copy()
        self._pending: list[Frame] = []
        self._begin = HEADER_BYTES
        self._key_id = key_id(header.process_key)
        self._verify = Ed25519PublicKey.from_public_bytes(header.process_key).verify if verify_signatures else None
        if verify_signatures:
            check_vouch(header)

    def feed(self, data: bytes) -> None:
        """Take more bytes of the segment, from behind its header on."""
        self._frames.feed(data)

    @property
    def end(self) -> int:
        """The offset behind the last batch that was given."""
        return self._begin

    @property
    def frontier(self) -> Frontier:
        """The tree after the last batch that was given."""
        return self._frontier

    @property
    def is_between_batches(self) -> bool:
        """True where nothing but reserved space, or nothing at all, follows what was given so far."""
        return not self._pending and (self._frames.ended or not self._frames.rest_bytes)

    def next_batch(self) -> Batch | None:
        """The next batch; None if more bytes are needed. Raises FrameDamaged or JournalCorrupt."""
        while (frame := self._frames.next_frame()) is not None:
            if frame.type == frames.COMMIT:
                return self._batch(frame)
            self._pending.append(frame)
        return None

    def _batch(self, end: Frame) -> Batch:
        commit = Commit.from_payload(end.payload)
        pending, self._pending = self._pending, []
        frontier = self._frontier.copy()
        records, leaves = [], []
        for frame in pending:
            if frame.type == frames.RECORD:
                if frame.seq != frontier.size:
                    raise FrameDamaged(f"entry {frame.seq} stands in the place of {frontier.size}", offset=frame.offset)
                leaves.append(sha256(b"\x00" + frame.payload).digest())
                frontier.append(leaves[-1])
                records.append(Record(frame.seq, frame.ts_ns, frame.payload))
        self._check(commit, frontier, leaves, end.offset)
        batch = Batch(
            origin=self.header.origin,
            segment=self.header.first_seq,
            first=commit.first,
            count=commit.count,
            records=records,
            parts=[StoredPart.from_payload(f.payload, commit.first) for f in pending if f.type == frames.PART],
            keys=[
                WrappedKey.from_payload(f.payload, self.header.first_seq, commit.first)
                for f in pending
                if f.type == frames.KEY
            ],
            commit=commit,
            begin=commit.begin,
            end=end.end,
            opened=[OpenPart.from_payload(f.payload) for f in pending if f.type == frames.OPEN],
            recoveries=[f.payload for f in pending if f.type == frames.RECOVERY],
            closes=any(f.type == frames.CLOSE for f in pending),
        )
        self._frontier, self._begin = frontier, end.end
        return batch

    def _check(self, commit: Commit, frontier: Frontier, leaves: list[bytes], offset: int) -> None:
        """A COMMIT counts only if it says of its batch what the batch's own bytes say."""
        stated = (commit.begin, commit.first, commit.count, commit.size)
        found = (self._begin, self._frontier.size, len(leaves), frontier.size)
        if stated != found:
            raise FrameDamaged(f"a COMMIT states {stated}, its batch is {found}", offset=offset)
        if commit.batch_root != root_of(leaves) or commit.root != frontier.root():
            raise FrameDamaged("a COMMIT's roots do not match its batch", offset=offset)
        if self._verify is None:
            return
        if commit.key_id != self._key_id:
            raise JournalCorrupt(f"the COMMIT of entry {commit.first} is signed with another key than its segment's")
        text = batch_text(
            origin=self.header.origin,
            first=commit.first,
            count=commit.count,
            batch_root=commit.batch_root,
            size=commit.size,
            root=commit.root,
        )
        try:
            self._verify(commit.signature, text)
        except InvalidSignature as error:
            raise JournalCorrupt(f"the signature of the batch at entry {commit.first} does not verify") from error


def check_vouch(header: SegmentHeader) -> None:
    """True on return: the host key in the header signed the process key for this origin; raises JournalCorrupt."""
    try:
        Ed25519PublicKey.from_public_bytes(header.host_key).verify(
            header.vouch, vouch_text(header.origin, header.process_key)
        )
    except InvalidSignature as error:
        raise JournalCorrupt(f"no host vouches for the process key of segment {header.first_seq}") from error
