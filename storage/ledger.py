"""The ledger of one origin: its tree, recomputed from journal bytes, and the checkpoints signed over it.

The tree grows batch by batch and is compared with what each COMMIT states, so nothing is signed that the writer did
not state too. The last checkpoint is kept in ``ship/<origin>.checkpoint`` together with the tree at that size: written
there durably *before* it is published, and compared with what this process wrote last, so that two processes cannot
sign two trees. A journal or a database that is behind what was signed is a rollback: nothing is signed any more.

The key name in a signature line is the origin (c2sp.org/tlog-checkpoint asks for that), the key one per deployment.

On its way a ledger notes what the log of logs has to say of it: writers that began and ended, erasures and prunes.
These events lie in the checkpoint file until `logged` tells that the log of logs has them durably.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import durable, notes
from storage.batch import Batch
from storage.clickhouse import Database
from storage.durable import KERNEL, Syscalls
from storage.errors import Unverifiable
from storage.ids import b64, unb64
from storage.lines import Rows
from storage.logleaves import NOTABLE
from storage.merkle import Frontier, leaf_hash
from storage.notes import Checkpoint
from storage.readback import bring
from storage.reading import Position
from storage.shiplog import file_name

COLUMNS = ("origin", "size", "root", "note", "ts")
LINE = "concat(toString(size), ' ', hex(root), hex(SHA256(note)))"
_LATEST = """
SELECT size, note FROM checkpoints WHERE origin = {origin:String} ORDER BY size DESC LIMIT 1
"""


EVENTS_MAX = 10_000  # that the log of logs may be behind; it takes them within seconds unless it is refused
_NOTABLE = {kind: f'"kind":"{kind}"'.encode() for kind in NOTABLE}


class RolledBackError(Unverifiable):
    """What is there is older than what was signed: an old backup, or a journal that lost its end."""

    code = "rolled_back"
    advice = "Bring the newer data back; never delete the checkpoint file. `answerable verify` names what is missing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint that is durable in its second place, and may be published."""

    checkpoint: Checkpoint
    note: bytes
    ts_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the log of logs has to say beside checkpoints, once the tree of `at` entries is signed.

    `kind`: open (a segment began with entry `seq`), close (its writer ended in order), erasure, prune (entry `seq`,
    whose leaf is `leaf`).
    """

    kind: str
    at: int
    seq: int
    leaf: bytes = b""

    def as_json(self) -> list[Any]:
        """The form in the checkpoint file."""
        return [self.kind, self.at, self.seq, b64(self.leaf)]

    @classmethod
    def from_json(cls, value: list[Any]) -> Event:
        """The inverse; ValueError or TypeError for anything else."""
        kind, at, seq, leaf = value
        return cls(kind=str(kind), at=int(at), seq=int(seq), leaf=unb64(leaf))


class Ledger:
    """Grows the tree of one origin and signs it; one thread at a time."""

    def __init__(self, ship: Path, origin: str, *, key: Ed25519PrivateKey, calls: Syscalls = KERNEL) -> None:
        """Take up the ledger where its last checkpoint left it.

        Raises:
            Unverifiable: the checkpoint file is damaged, or not signed by this key.
        """
        self.origin = origin
        self.path = ship / f"{file_name(origin)}.checkpoint"
        self.position: Position | None = None
        self.signed: Signed | None = None
        self.events: list[Event] = []
        self._key = key
        self._calls = calls
        self._frontier = Frontier()
        self._written = b""
        self._published = 0
        self._read()

    @property
    def size(self) -> int:
        """Entries in the tree; batches are handed in from `position` on (None: from the journal's beginning)."""
        return self._frontier.size

    def refuse_rollback(self, *, journal_size: int | None = None, database: Database | None = None) -> None:
        """True on return: neither the journal nor the published checkpoints contradict what was signed here.

        Args:
            journal_size: one past the last durable entry of this origin, by the watermark.
            database: whose checkpoints are compared too.

        Raises:
            RolledBackError: the journal is shorter than the last checkpoint, or a newer one than ours was published.
        """
        known = 0 if self.signed is None else self.signed.checkpoint.size
        if journal_size is not None and journal_size < known:
            raise RolledBackError(f"{self.origin}: a tree of {known} was signed, the journal ends at {journal_size}")
        for size, note in database.rows(_LATEST, {"origin": self.origin}) if database is not None else ():
            public = self._key.public_key().public_bytes_raw()
            published = notes.verified_checkpoint(note.encode(), origin=self.origin, public=public)
            if size > known:
                raise RolledBackError(f"{self.origin}: a tree of {size} was published, {self.path} knows of {known}")
            if size == known and self.signed is not None and published.root != self.signed.checkpoint.root:
                raise Unverifiable(f"{self.origin}: two roots were signed for a tree of {size}")

    def apply(self, batches: Iterable[Batch]) -> None:
        """Grow the tree by these batches, which follow `position`; earlier ones are passed over.

        Raises:
            Unverifiable: the tree is not the one that a COMMIT states, or entries are missing before it.
        """
        for batch in batches:
            place = Position(batch.segment, batch.end)
            if self.position is not None and place <= self.position:
                continue
            if batch.first != self._frontier.size:
                raise Unverifiable(f"{self.origin}: entry {batch.first} follows a tree of {self._frontier.size}")
            grown = self._frontier.copy()
            for record in batch.records:
                grown.append(leaf_hash(record.entry))
            if grown.size != batch.commit.size or grown.root() != batch.commit.root:
                raise Unverifiable(f"{self.origin}: the tree at {grown.size} is not the one that its COMMIT states")
            self.events += self._events(batch, grown.size)
            self._frontier, self.position = grown, place

    def logged(self, size: int) -> None:
        """The log of logs has every event up to a signed tree of `size` durably."""
        self.events = [event for event in self.events if event.at > size]

    def sign(self, *, now_ns: int) -> Signed | None:
        """Sign the tree if it grew; on return the checkpoint is durable in its second place. None: nothing is new.

        Raises:
            Unverifiable: another process wrote the checkpoint file: two keepers on one ledger.
        """
        if self.position is None or (self.signed is not None and self.size == self.signed.checkpoint.size):
            return None
        if len(self.events) > EVENTS_MAX:
            raise Unverifiable(f"{self.origin}: the log of logs is {len(self.events)} events behind")
        on_disk = self.path.read_bytes() if self.path.exists() else b""
        if on_disk != self._written:
            raise Unverifiable(f"{self.path} was changed by another process")
        checkpoint = Checkpoint(origin=self.origin, size=self.size, root=self._frontier.root())
        note = notes.sign(checkpoint.text(), name=self.origin, key=self._key)
        value = {
            "v": 1,
            "note": note.decode(),
            "ts": str(now_ns),
            "tree": b64(self._frontier.to_bytes()),
            "position": self.position.as_json(),
            "events": [event.as_json() for event in self.events],
        }
        raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        durable.make_directory(self.path.parent, self._calls)
        durable.replace_file(self.path, raw, self._calls)
        self._written = raw
        self.signed = Signed(checkpoint=checkpoint, note=note, ts_ns=now_ns)
        return self.signed

    @property
    def is_published(self) -> bool:
        """True where the last checkpoint was read back from the database, or there is none."""
        return self.signed is None or self._published == self.signed.checkpoint.size

    def publish(self, database: Database) -> None:
        """Bring the last checkpoint into the database; true on return: it was read back. Safe to repeat.

        Raises:
            StorageUnavailable: try again later, perhaps with a newer checkpoint.
            Unverifiable: another root was published for the same size.
        """
        if self.signed is None or self.is_published:
            return
        rows = checkpoint_rows(self.signed)
        bring(database, rows, token=f"checkpoint:{self.origin}:{self.signed.checkpoint.size}")
        self._published = self.signed.checkpoint.size

    def _read(self) -> None:
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        public = self._key.public_key().public_bytes_raw()
        self.signed, self._frontier, self.position = read_checkpoint(self.path, raw, origin=self.origin, public=public)
        try:
            self.events = [Event.from_json(event) for event in orjson.loads(raw).get("events", [])]
        except (ValueError, TypeError) as error:
            raise Unverifiable(f"{self.path} is damaged: {error}") from error
        self._written = raw

    def _events(self, batch: Batch, size: int) -> list[Event]:
        """What a batch, after which the tree has `size` entries, gives the log of logs to say."""
        found = []
        if self.position is None or batch.segment != self.position.segment:
            found.append(Event(kind="open", at=size, seq=batch.segment))
        for record in batch.records:
            for kind, mark in _NOTABLE.items():
                if mark in record.entry and orjson.loads(record.entry)["kind"] == kind:
                    found.append(Event(kind=kind, at=size, seq=record.seq, leaf=leaf_hash(record.entry)))
        if batch.closes:
            found.append(Event(kind="close", at=size, seq=size))
        return found


def read_checkpoint(path: Path, raw: bytes, *, origin: str, public: bytes) -> tuple[Signed, Frontier, Position]:
    """What a checkpoint file holds: the signed tree head, the tree to go on from, and its place in the journal.

    Raises:
        Unverifiable: damaged, not signed by this key, or contradicting itself.
    """
    try:
        value: dict[str, Any] = orjson.loads(raw)
        note, ts_ns = value["note"].encode(), int(value["ts"])
        frontier, position = Frontier.from_bytes(unb64(value["tree"])), Position.from_json(value["position"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unverifiable(f"{path} is damaged: {error}") from error
    checkpoint = notes.verified_checkpoint(note, origin=origin, public=public)
    if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
        raise Unverifiable(f"{path}: its tree is not the one that was signed")
    return Signed(checkpoint=checkpoint, note=note, ts_ns=ts_ns), frontier, position


def checkpoint_rows(signed: Signed) -> Rows:
    """A checkpoint as a row of the table `checkpoints`."""
    said = signed.checkpoint
    return Rows(
        table="checkpoints",
        columns=COLUMNS,
        rows=[(said.origin, said.size, said.root, signed.note.decode(), signed.ts_ns)],
        lines=[f"{said.size} {said.root.hex().upper()}{sha256(signed.note).hexdigest().upper()}"],
        where="origin = {origin:String} AND size = {size:UInt64}",
        parameters={"origin": said.origin, "size": said.size},
        line=LINE,
    )
