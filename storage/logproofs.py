"""The double proof of one entry: entry → a checkpoint of its shard, that checkpoint (a leaf) → the log of logs.

Both are C2SP tlog-proofs. The first one's checkpoint is the one that the second one's leaf holds; the leaf itself rides
in the second proof's `extra` line, so that the two are enough. Nothing here is believed: both are verified before they
are handed out.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage import anchors, logleaves, merkle, notes
from storage.clickhouse import SWEEP, Database
from storage.errors import Unverifiable
from storage.logleaves import LogLeaf, log_name
from storage.notes import Proof
from storage.proofs import LOG_TABLE, Proven, path_to
from storage.queries import entry

_COVERING = """
SELECT seq, entry FROM log
WHERE origin = {log:String} AND shard = {origin:String} AND kind = 'checkpoint' AND size > {seq:UInt64}
ORDER BY size, seq LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubly:
    """Both proofs of one entry; the second one's leaf is number `index` of `log_size`."""

    entry: Proven
    log: str
    index: int
    log_size: int
    text: bytes


def prove_twice(database: Database, origin: str, seq: int, *, public: bytes) -> Doubly | None:
    """The double proof of the entry at (origin, seq); None while no checkpoint over it is in the published log of logs.

    Its checkpoint is the one that most witnesses cosigned, the newest of equals, with their lines.

    Raises:
        Unverifiable: entry, leaf, tree or checkpoint is not what was signed.
    """
    log = log_name(origin.partition("/")[0])
    found = database.rows(_COVERING, {"log": log, "origin": origin, "seq": seq}, caps=SWEEP)
    stored = entry(database, origin, seq)
    if not found or stored is None:
        return None
    ((index, raw),) = found
    note = anchors.best_note(database, log, index)
    if note is None:
        return None
    first = _of_entry(database, logleaves.parse(raw, log=log), stored.entry, seq, public=public)
    head = notes.verified_checkpoint(note, origin=log, public=public)
    path = path_to(database, merkle.leaf_hash(raw), index=index, checkpoint=head, table=LOG_TABLE)
    text = notes.proof_text(Proof(index=index, path=tuple(path), checkpoint=note, extra=raw))
    return Doubly(entry=first, log=log, index=index, log_size=head.size, text=text)


def check_twice(first: bytes, second: bytes, *, leaf: bytes, origin: str, public: bytes) -> tuple[Proof, Proof]:
    """Both proofs, verified: `leaf` is in a checkpoint of `origin` that is in the log of logs; signed by `public`.

    Raises:
        Unverifiable: it is not.
    """
    log = log_name(origin.partition("/")[0])
    upper, lower = notes.parse_proof(second), notes.parse_proof(first)
    if upper.extra is None:
        raise Unverifiable("the second proof does not bring the leaf that it is about")
    said = logleaves.parse(upper.extra, log=log)
    head = notes.verified_checkpoint(upper.checkpoint, origin=log, public=public)
    merkle.verify_inclusion(
        merkle.leaf_hash(upper.extra), index=upper.index, size=head.size, path=upper.path, root=head.root
    )
    if said.kind != "checkpoint" or said.n != upper.index or str(said.said.get("note")).encode() != lower.checkpoint:
        raise Unverifiable("the second proof is about another checkpoint than the first one ends in")
    below = notes.verified_checkpoint(lower.checkpoint, origin=origin, public=public)
    merkle.verify_inclusion(leaf, index=lower.index, size=below.size, path=lower.path, root=below.root)
    return lower, upper


def _of_entry(database: Database, logged: LogLeaf, raw: bytes, seq: int, *, public: bytes) -> Proven:
    """The proof up to exactly the checkpoint that the log holds."""
    note = str(logged.said["note"]).encode()
    checkpoint = notes.verified_checkpoint(note, origin=logged.shard, public=public)
    leaf = merkle.leaf_hash(raw)
    path = path_to(database, leaf, index=seq, checkpoint=checkpoint)
    text = notes.proof_text(Proof(index=seq, path=tuple(path), checkpoint=note))
    return Proven(origin=logged.shard, seq=seq, leaf=leaf, size=checkpoint.size, text=text)
