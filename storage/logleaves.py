"""Leaves of the log of logs: what a deployment states about its shards, one canonical JSON line each (pure).

The log's name is ``<deployment>/log``. Like an entry a leaf is hashed as it is stored and never serialised again; its
form stands in README.md, "The log of logs". A `State` follows the leaves in their order and refuses what cannot follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from storage import notes
from storage.errors import Unverifiable
from storage.ids import b64, unb64

VERSION: Final = 1
SUFFIX: Final = "/log"
LEAF_BYTES_MAX: Final = 65_535  # of a C2SP entry bundle; a leaf has a few hundred
KINDS: Final = frozenset({"open", "checkpoint", "close", "quarantine", "key", "erasure", "prune"})
NOTABLE: Final = ("erasure", "prune")  # kinds of entries that become leaves of their own


def log_name(deployment: str) -> str:
    """The origin of a deployment's log of logs."""
    return deployment + SUFFIX


def is_log(origin: str) -> bool:
    """Whether `origin` is the name of a log of logs; a shard's has three parts."""
    return origin.count("/") == 1 and origin.endswith(SUFFIX) and origin != SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A leaf to be: what it says of which shard (its origin; empty: of the log itself), at which size of its tree."""

    kind: str
    shard: str
    size: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLeaf:
    """A leaf as it is stored, and what it says."""

    n: int
    kind: str
    shard: str
    size: int
    ts_ns: int
    raw: bytes
    said: Mapping[str, Any]


def encode(draft: Draft, *, log: str, n: int, ts_ns: int) -> LogLeaf:
    """The leaf number `n` of `log`."""
    said = {
        **draft.fields,
        "v": VERSION,
        "log": log,
        "n": n,
        "ts": str(ts_ns),
        "kind": draft.kind,
        "origin": draft.shard or None,
        "size": draft.size,
    }
    raw = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    if draft.kind not in KINDS or len(raw) > LEAF_BYTES_MAX:
        raise ValueError(f"no leaf of kind {draft.kind} with {len(raw)} bytes")
    return LogLeaf(n=n, kind=draft.kind, shard=draft.shard, size=draft.size, ts_ns=ts_ns, raw=raw, said=said)


def parse(raw: bytes, *, log: str) -> LogLeaf:
    """The leaf that `raw` is.

    Raises:
        Unverifiable: not a leaf of `log`.
    """
    try:
        said = orjson.loads(raw)
        n, kind, shard, size, ts_ns = said["n"], said["kind"], said["origin"], said["size"], int(said["ts"])
        ours = (said["v"], said["log"]) == (VERSION, log) and kind in KINDS
    except (ValueError, KeyError, TypeError) as error:
        raise Unverifiable(f"not a leaf of {log}: {error!r:.200}") from error
    numbers = all(type(number) is int and 0 <= number <= notes.SIZE_MAX for number in (n, size))
    if not ours or not numbers or not (shard is None or (isinstance(shard, str) and shard)):
        raise Unverifiable(f"not a leaf of {log}: {raw[:200]!r}")
    return LogLeaf(n=n, kind=kind, shard=shard or "", size=size, ts_ns=ts_ns, raw=raw, said=said)


# --- drafts -------------------------------------------------------------------------------------------------------


def opening(shard: str, size: int, *, process_key: bytes, host_key: bytes, vouch: bytes) -> Draft:
    """A writer began at entry `size` of `shard` with this process key, for which a host vouches."""
    fields = {"process_key": b64(process_key), "host_key": b64(host_key), "vouch": b64(vouch)}
    return Draft(kind="open", shard=shard, size=size, fields=fields)


def checkpoint(shard: str, size: int, note: bytes) -> Draft:
    """A checkpoint of `shard` was signed: the note, verbatim."""
    return Draft(kind="checkpoint", shard=shard, size=size, fields={"note": note.decode()})


def closing(shard: str, size: int) -> Draft:
    """The writer of `shard` ended in order after `size` entries."""
    return Draft(kind="close", shard=shard, size=size)


def quarantine(shard: str, size: int) -> Draft:
    """The epoch `shard` is damaged and was set aside; another epoch follows."""
    return Draft(kind="quarantine", shard=shard, size=size)


def notable(kind: str, shard: str, seq: int, leaf: bytes) -> Draft:
    """Entry `seq` of `shard` is an erasure or a prune; `leaf` is its leaf there."""
    return Draft(kind=kind, shard=shard, size=seq + 1, fields={"seq": seq, "leaf": b64(leaf)})


# --- what the leaves add up to --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the log has said of one shard so far."""

    size: int = 0  # of the last checkpoint
    root: bytes = b""
    ts_ns: int = 0  # of the last leaf about it
    opened: int = -1  # where its last writer began; -1: never opened
    process_key: bytes = b""
    closed: int = -1  # where its last writer ended in order; -1: never, or opened again since
    is_set_aside: bool = False

    @property
    def is_open(self) -> bool:
        """Whether a writer is at work, by all that the log says."""
        return self.closed < 0 and not self.is_set_aside

    @property
    def end(self) -> int:
        """How many entries there must be."""
        return max(self.size, self.closed)

    def as_json(self) -> list[Any]:
        """The form in the second place."""
        closed = [self.closed, self.is_set_aside]
        return [self.size, b64(self.root), str(self.ts_ns), self.opened, b64(self.process_key), *closed]

    @classmethod
    def from_json(cls, value: list[Any]) -> Standing:
        """The inverse; ValueError or TypeError for anything else."""
        size, root, ts, opened, key, closed, aside = value
        return cls(
            size=int(size),
            root=unb64(root),
            ts_ns=int(ts),
            opened=int(opened),
            process_key=unb64(key),
            closed=int(closed),
            is_set_aside=bool(aside),
        )


class State:
    """What the leaves of one log add up to, shard by shard."""

    __slots__ = ("shards", "ts_ns")

    def __init__(self) -> None:
        self.shards: dict[str, Standing] = {}
        self.ts_ns = 0  # of the newest leaf

    def copy(self) -> State:
        """An independent state that says the same."""
        made = State()
        made.shards, made.ts_ns = dict(self.shards), self.ts_ns
        return made

    def of(self, shard: str) -> Standing:
        """What was said of a shard; an empty standing where nothing was."""
        return self.shards.get(shard, Standing())

    def take(self, leaf: LogLeaf) -> None:
        """Follow one leaf.

        Raises:
            Unverifiable: it cannot follow what was said before; the state is then as it was.
        """
        if leaf.kind == "key":
            self.ts_ns = max(self.ts_ns, leaf.ts_ns)
            return
        known = self.of(leaf.shard)
        try:
            standing = _STEPS[leaf.kind](known, leaf)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise Unverifiable(f"{leaf.kind} of {leaf.shard or 'no shard'}: {error}") from error
        self.shards[leaf.shard] = replace(standing, ts_ns=max(leaf.ts_ns, known.ts_ns))
        self.ts_ns = max(self.ts_ns, leaf.ts_ns)

    def silent(self, *, within_ns: int) -> dict[str, Standing]:
        """The shards that no leaf closed, and about which there is none in a period before the newest leaf."""
        return {name: one for name, one in self.shards.items() if one.is_open and one.ts_ns < self.ts_ns - within_ns}


def _opened(known: Standing, leaf: LogLeaf) -> Standing:
    if not leaf.shard or known.is_set_aside or leaf.size <= known.opened or leaf.size < known.closed:
        raise ValueError(f"opened at {leaf.size} after {known.end}")
    key = leaf.said["process_key"]
    return replace(known, opened=leaf.size, closed=-1, process_key=b"" if key is None else unb64(key))


def _checkpointed(known: Standing, leaf: LogLeaf) -> Standing:
    found = notes.parse_checkpoint(notes.parse(leaf.said["note"].encode()).text)
    if (found.origin, found.size) != (leaf.shard, leaf.size):
        raise ValueError(f"holds a checkpoint of {found.origin} with {found.size} entries")
    if known.opened < 0:
        raise ValueError("was never opened")
    if known.is_set_aside or leaf.size <= known.size or 0 <= known.closed < leaf.size:
        raise ValueError(f"of {leaf.size} entries after {known.end}")
    return replace(known, size=leaf.size, root=found.root)


def _closed(known: Standing, leaf: LogLeaf) -> Standing:
    if not known.is_open or leaf.size < max(known.size, known.opened):
        raise ValueError(f"closed at {leaf.size} after {known.end}")
    return replace(known, closed=leaf.size)


def _set_aside(known: Standing, leaf: LogLeaf) -> Standing:
    if known.is_set_aside or leaf.size != known.size:
        raise ValueError(f"set aside at {leaf.size} after {known.end}")
    return replace(known, is_set_aside=True)


def _noted(known: Standing, leaf: LogLeaf) -> Standing:
    if leaf.size != leaf.said["seq"] + 1 or len(unb64(leaf.said["leaf"])) != 32:
        raise ValueError("names no entry")
    return known


_STEPS: Final = {
    "open": _opened,
    "checkpoint": _checkpointed,
    "close": _closed,
    "quarantine": _set_aside,
    "erasure": _noted,
    "prune": _noted,
}
