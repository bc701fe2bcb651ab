"""The log of logs: the one ledger over all checkpoints of a deployment, `<deployment>/log`.

    leaves → tree → signature → second place (durable, with the leaves) → ClickHouse: leaves, checkpoint, full tiles

One round at a time: the next leaves are made once the last ones were read back from ClickHouse, so that at most one
round waits in the second place, ``ship/<deployment>_log.checkpoint``. That file is compared with what this process
wrote last before it is replaced, and with the database at start: whatever is older than what was signed is a rollback,
and nothing is signed any more. One keeper of a deployment writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import durable, logleaves, notes
from storage.clickhouse import SWEEP, Database
from storage.durable import KERNEL, Syscalls
from storage.errors import Unverifiable
from storage.ids import b64, unb64
from storage.ledger import Event, Ledger, RolledBackError, Signed, checkpoint_rows
from storage.lines import Rows
from storage.logleaves import Draft, LogLeaf, Standing, State, log_name
from storage.merkle import Frontier, leaf_hash
from storage.notes import Checkpoint
from storage.proofs import LOG_TABLE, Tiles
from storage.readback import bring
from storage.segment import SegmentHeader
from storage.shiplog import file_name
from storage.tiles import WIDTH

LEAVES_MAX: Final = 4_000  # of one round: they lie in the second place until they were read back; some 2 MB
COLUMNS: Final = ("origin", "seq", "ts", "kind", "shard", "size", "entry", "leaf")
LINE: Final = (
    "concat(toString(seq), ' ', hex(leaf), hex(SHA256(entry)), hex(SHA256(concat(kind, '|', shard, '|',"
    " toString(size), '|', toString(toUnixTimestamp64Nano(ts))))))"
)
_PUBLISHED: Final = """
SELECT size, note FROM checkpoints WHERE origin = {origin:String} ORDER BY size DESC LIMIT 1
"""
_STORED: Final = "SELECT count(), max(seq) FROM log WHERE origin = {origin:String}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One shard, as the log of logs looks at it; `header` gives a segment's header, None where the segment is gone."""

    ledger: Ledger
    header: Callable[[int], SegmentHeader | None]
    is_set_aside: bool = False


class LogOfLogs:
    """Grows, signs and publishes the log of one deployment; one thread at a time."""

    def __init__(self, ship: Path, deployment: str, *, key: Ed25519PrivateKey, calls: Syscalls = KERNEL) -> None:
        """Take up the log where its last checkpoint left it.

        Raises:
            Unverifiable: the file of the second place is damaged, or not signed by this key.
        """
        self.name = log_name(deployment)
        self.path = ship / f"{file_name(self.name)}.checkpoint"
        self.state = State()
        self.signed: Signed | None = None
        self._key = key
        self._calls = calls
        self._frontier = Frontier()
        self._pending: list[LogLeaf] = []
        self._written = b""
        self._published = 0
        if self.path.exists():
            self._written = self.path.read_bytes()
            kept = read_kept(self.path, self._written, name=self.name, public=key.public_key().public_bytes_raw())
            self.signed, self._frontier, self._pending, self.state = kept.signed, kept.tree, kept.leaves, kept.state

    @property
    def size(self) -> int:
        """Leaves in the signed tree."""
        return self._frontier.size

    @property
    def is_published(self) -> bool:
        """Whether everything signed was read back from the database."""
        return self.signed is None or self._published == self.size

    def refuse_rollback(self, database: Database) -> None:
        """True on return: neither the database nor the second place is older than what was signed.

        Raises:
            RolledBackError: one of them is.
            Unverifiable: two roots were signed for one size.
        """
        public = self._key.public_key().public_bytes_raw()
        for size, note in database.rows(_PUBLISHED, {"origin": self.name}):
            published = notes.verified_checkpoint(note.encode(), origin=self.name, public=public)
            if size > self.size:
                raise RolledBackError(f"{self.name}: a tree of {size} was published, {self.path} knows of {self.size}")
            if size == self.size and published.root != self._frontier.root():
                raise Unverifiable(f"{self.name}: two roots were signed for a tree of {size}")
        ((count, last),) = database.rows(_STORED, {"origin": self.name}, caps=SWEEP)
        stored, before = last + 1 if count else 0, self.size - len(self._pending)
        if stored < before or stored > self.size:
            raise RolledBackError(f"{self.name}: a tree of {self.size} was signed, the database has {stored} leaves")

    def round(self, sources: Sequence[Source], *, now_ns: int) -> bool:
        """State whatever is new of these shards in one signed round; true if anything was.

        On return the round is durable in its second place; `publish` brings it into the database.

        Raises:
            Unverifiable: another process wrote the second place, or what a shard says cannot follow.
        """
        drafts: list[Draft] = []
        done: list[tuple[Ledger, int]] = []
        for source in sources:
            if len(drafts) >= LEAVES_MAX:
                break
            drafts += news(self.state.of(source.ledger.origin), source)
            if source.ledger.signed is not None:
                done.append((source.ledger, source.ledger.signed.checkpoint.size))
        if drafts:
            self.append(drafts, now_ns=now_ns)
        for ledger, size in done:
            ledger.logged(size)
        return bool(drafts)

    def append(self, drafts: Sequence[Draft], *, now_ns: int) -> Signed:
        """Add these leaves and sign the tree; on return both are durable in the second place.

        Raises:
            Unverifiable: the last round is not published yet, another process wrote the file, or a leaf cannot follow.
        """
        if not self.is_published:
            raise Unverifiable(f"{self.name}: the last round is not published yet")
        state, frontier = self.state.copy(), self._frontier.copy()
        leaves = []
        for draft in drafts:
            leaf = logleaves.encode(draft, log=self.name, n=frontier.size, ts_ns=now_ns)
            state.take(leaf)
            frontier.append(leaf_hash(leaf.raw))
            leaves.append(leaf)
        on_disk = self.path.read_bytes() if self.path.exists() else b""
        if on_disk != self._written:
            raise Unverifiable(f"{self.path} was changed by another process")
        checkpoint = Checkpoint(origin=self.name, size=frontier.size, root=frontier.root())
        signed = Signed(
            checkpoint=checkpoint, note=notes.sign(checkpoint.text(), name=self.name, key=self._key), ts_ns=now_ns
        )
        raw = _kept_bytes(signed, frontier, leaves, state)
        durable.make_directory(self.path.parent, self._calls)
        durable.replace_file(self.path, raw, self._calls)
        self._written, self.signed = raw, signed
        self._frontier, self._pending, self.state = frontier, leaves, state
        return signed

    def publish(self, database: Database) -> None:
        """Bring the last round into the database; true on return: leaves, checkpoint and tiles were read back.

        Raises:
            StorageUnavailable: try again later.
            Unverifiable: other leaves, or another root, were published in their place.
        """
        if self.signed is None or self.is_published:
            return
        if self._pending:
            bring(database, leaf_rows(self.name, self._pending), token=f"log:{self.name}:{self.size}")
        bring(database, checkpoint_rows(self.signed), token=f"checkpoint:{self.name}:{self.size}")
        if self.size // WIDTH > (self.size - len(self._pending)) // WIDTH or self._published == 0:
            Tiles(database, self.name, table=LOG_TABLE).grow(self.size)
        self._published = self.size


def news(known: Standing, source: Source) -> list[Draft]:
    """What is to be stated of a shard beyond what is `known`: up to its last signed checkpoint."""
    ledger = source.ledger
    signed = ledger.signed
    if signed is None or known.is_set_aside:
        return []
    size = signed.checkpoint.size
    drafts: list[Draft] = []
    key, opened, closed = known.process_key, known.opened, known.closed
    events = [event for event in ledger.events if event.at <= size]
    if opened < 0 and ledger.position is not None and not any(event.kind == "open" for event in events):
        # what was signed before this log began
        events.insert(0, Event(kind="open", at=size, seq=ledger.position.segment))
    for event in events:
        if event.kind == "open" and event.seq > opened:
            header = source.header(event.seq)
            if header is None or header.process_key != key or closed >= 0:
                drafts.append(_opening(ledger.origin, event.seq, header))
                key, closed = b"" if header is None else header.process_key, -1
                opened = event.seq
        elif event.kind == "close" and event.at > closed and event.at >= max(opened, known.size):
            drafts.append(logleaves.closing(ledger.origin, event.at))
            closed = event.at
        elif event.kind in logleaves.NOTABLE and event.seq >= known.size:
            drafts.append(logleaves.notable(event.kind, ledger.origin, event.seq, event.leaf))
    if size > known.size:
        drafts.append(logleaves.checkpoint(ledger.origin, size, signed.note))
    if source.is_set_aside:
        drafts.append(logleaves.quarantine(ledger.origin, max(size, known.size)))
    return drafts


def _opening(origin: str, size: int, header: SegmentHeader | None) -> Draft:
    if header is None:  # deleted before it could be stated, since the log of logs was refused for a long time
        return Draft(
            kind="open", shard=origin, size=size, fields={"process_key": None, "host_key": None, "vouch": None}
        )
    return logleaves.opening(origin, size, process_key=header.process_key, host_key=header.host_key, vouch=header.vouch)


# --- the second place -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the second place holds: the signed tree, its last round of leaves, what all leaves add up to."""

    signed: Signed
    tree: Frontier
    leaves: list[LogLeaf]
    state: State


def read_kept(path: Path, raw: bytes, *, name: str, public: bytes) -> Kept:
    """What the file of the second place holds.

    Raises:
        Unverifiable: damaged, not signed by this key, or contradicting itself.
    """
    try:
        value: dict[str, Any] = orjson.loads(raw)
        note, ts_ns, tree = value["note"].encode(), int(value["ts"]), Frontier.from_bytes(unb64(value["tree"]))
        leaves = [logleaves.parse(leaf.encode(), log=name) for leaf in value["leaves"]]
        state = State()
        state.shards = {shard: Standing.from_json(one) for shard, one in value["shards"].items()}
        state.ts_ns = int(value["newest"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unverifiable(f"{path} is damaged: {error}") from error
    checkpoint = notes.verified_checkpoint(note, origin=name, public=public)
    numbers = list(range(checkpoint.size - len(leaves), checkpoint.size))
    if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root) or [leaf.n for leaf in leaves] != numbers:
        raise Unverifiable(f"{path}: its tree is not the one that was signed")
    signed = Signed(checkpoint=checkpoint, note=note, ts_ns=ts_ns)
    return Kept(signed=signed, tree=tree, leaves=leaves, state=state)


def _kept_bytes(signed: Signed, tree: Frontier, leaves: Sequence[LogLeaf], state: State) -> bytes:
    value = {
        "v": 1,
        "note": signed.note.decode(),
        "ts": str(signed.ts_ns),
        "tree": b64(tree.to_bytes()),
        "leaves": [leaf.raw.decode() for leaf in leaves],
        "newest": str(state.ts_ns),
        "shards": {shard: one.as_json() for shard, one in state.shards.items()},
    }
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def leaf_rows(name: str, leaves: Sequence[LogLeaf]) -> Rows:
    """Leaves as rows of the table `log`."""
    rows = [
        (name, leaf.n, leaf.ts_ns, leaf.kind, leaf.shard, leaf.size, leaf.raw, leaf_hash(leaf.raw)) for leaf in leaves
    ]
    return Rows(
        table=LOG_TABLE,
        columns=COLUMNS,
        rows=rows,
        lines=list(_lines(leaves)),
        where="origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}",
        parameters={"origin": name, "low": leaves[0].n, "high": leaves[-1].n + 1},
        line=LINE,
    )


def _lines(leaves: Sequence[LogLeaf]) -> Iterator[str]:
    for leaf in leaves:
        beside = sha256(f"{leaf.kind}|{leaf.shard}|{leaf.size}|{leaf.ts_ns}".encode()).hexdigest().upper()
        yield f"{leaf.n} {leaf_hash(leaf.raw).hex().upper()}{sha256(leaf.raw).hexdigest().upper()}{beside}"
