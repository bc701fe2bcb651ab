"""Whether the parts and keys that entries name are stored, and nothing else is (pure).

Chunks and keys are taken in as they are read, in the order of `at`; an entry then claims those that it names. What an
entry needs from further back (a stream that was long open) is asked for by key through `Older`. What no entry ever
claims must be known to the journal, or belong to a call that was lost.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from storage.batch import Batch
from storage.entries import CLOSING
from storage.findings import MALFORMED, Findings
from storage.freight import UNCLASSED
from storage.ids import b64, unb64
from storage.seals import Opener

KEYS_MAX: Final = 50_000  # of the journal, kept until an entry claims them; of the database, that none has claimed
_KEY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Chunk(NamedTuple):
    """One stored chunk; `digest` is computed from its bytes, `stated` stands in the row beside them."""

    key_id: str
    part: int
    chunk: int
    at: int
    retention: str
    size: int
    digest: bytes
    stated: bytes


class Key(NamedTuple):
    """One stored key; of `wrapped` at most 64 bytes, which is more than a wrapped key has."""

    key_id: str
    at: int
    segment: int
    counter: int
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Older:
    """How to get what is not at hand: chunks and keys by key id; and the digest over all bytes of a chunked part."""

    chunks: Callable[[Iterable[str]], list[Chunk]]
    keys: Callable[[Iterable[str]], list[Key]]
    joined: Callable[[str, int], bytes]


@dataclass(slots=True)
class _Kept:
    """What the journal has under one key."""

    key: Key | None = None
    chunks: dict[tuple[int, int], int] = field(default_factory=dict)  # (part, chunk) → at


class Recorded:
    """Keys and chunks of the journal, from the batches that pass through, until an entry claims them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def tapped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, as they are asked for."""
        for batch in batches:
            for key in batch.keys:
                kept = self._kept.setdefault(key.key_id, _Kept())
                kept.key = Key(key.key_id, batch.first, key.segment, key.counter, key.wrapped)
            for part in batch.parts:
                kept = self._kept.setdefault(part.key_id, _Kept())
                kept.chunks[part.index, part.chunk] = batch.first
            while len(self._kept) > KEYS_MAX:
                self._kept.popitem(last=False)
            yield batch

    def of(self, key_id: str) -> _Kept | None:
        """What the journal has under this key, None where it has nothing (any more)."""
        return self._kept.get(key_id)

    def forget(self, key_id: str) -> None:
        """It was compared for the last time."""
        self._kept.pop(key_id, None)


class ContentCheck:
    """Parts and keys of one origin.

    Args:
        older: reads what is not at hand.
        erased: key ids that an erasure entry names.
        segments: first sequence numbers of the segments whose header is stored; may grow.
        recorded: what the journal has.
        opener: unwraps keys, as far as the master key is there.
    """

    def __init__(
        self,
        findings: Findings,
        *,
        older: Older,
        erased: frozenset[str],
        segments: Mapping[int, object],
        recorded: Recorded,
        opener: Opener,
    ) -> None:
        self.findings = findings
        self._older = older
        self._erased = erased
        self._segments = segments
        self._recorded = recorded
        self._opener = opener
        self._chunks: dict[str, dict[int, list[Chunk]]] = {}
        self._keys: dict[str, list[Key]] = {}
        self._later: list[tuple[int, dict[str, Any]]] = []
        self._begun: set[str] = set()  # keys of calls whose closing entry is yet to come
        self._loose: dict[str, int] = {}  # keys that no entry has named so far → where they stand
        self._unproven = 0  # keys that were neither opened nor compared
        for name in ("parts", "keys"):
            findings.checked(name)

    def take(self, chunks: Iterable[Chunk], keys: Iterable[Key]) -> None:
        """What is stored around the entries that come next."""
        self._add(chunks, keys)
        for key_id, found in self._keys.items():
            self._note(key_id, found[0].at)
        for key_id, parts in self._chunks.items():
            self._note(key_id, next(iter(parts.values()))[0].at)

    def claim(self, seq: int, said: dict[str, Any]) -> None:
        """Check what this entry names; what is not at hand waits for `settle`."""
        try:
            self._claim(seq, said)
        except MALFORMED:
            self.findings.broken("parts", seq, "it names parts as no writer does")

    def _claim(self, seq: int, said: dict[str, Any]) -> None:
        if not said["parts"] and "found" not in said and said["kind"] != "begin":
            return
        named = _named(said)
        for key_id in named:
            if not _KEY_ID.fullmatch(key_id):
                raise ValueError(key_id)
            self._loose.pop(key_id, None)
        if said["kind"] == "begin":
            self._begun |= named
        else:
            self._begun -= named
            if said["kind"] in CLOSING:
                self._begun.discard(said["decision"])  # of a call whose rows have keys of their own
        if all(key_id in self._keys for key_id in named):  # a key stands before whatever it seals
            self._check(seq, said, named)
        elif named:
            self._later.append((seq, said))

    def settle(self) -> None:
        """Read what was not at hand, and check it: chunks that came long before their entry, and what is gone."""
        waiting, self._later = self._later, []
        self._chunks, self._keys = {}, {}
        if not waiting:
            return
        wanted = sorted({key_id for _, said in waiting for key_id in _named(said)})
        self._add(self._older.chunks(wanted), self._older.keys(wanted))
        for seq, said in waiting:
            try:
                self._check(seq, said, _named(said))
            except MALFORMED:
                self.findings.broken("parts", seq, "it names parts as no writer does")
        self._chunks, self._keys = {}, {}

    def finish(self, *, unrecorded: int, journal_from: int | None) -> None:
        """All entries were claimed for; `unrecorded` calls may have left content without an entry.

        From entry `journal_from` on the journal would know it.
        """
        loose = [(at, key_id) for key_id, at in self._loose.items() if self._recorded.of(key_id) is None]
        for at, key_id in sorted(loose):
            detail = f"key {key_id} and what it seals belong to no entry"
            if len(loose) <= unrecorded and (journal_from is None or at < journal_from):
                self.findings.unknown("parts", at, f"{detail}, perhaps to one of {unrecorded} lost calls")
            else:
                self.findings.broken("parts", at, detail)
        if self._unproven:
            detail = f"{self._unproven} keys: neither the journal has them nor is the master key at hand"
            self.findings.unknown("keys", None, detail)

    def _note(self, key_id: str, at: int) -> None:
        if key_id in self._begun or key_id in self._loose:
            return
        if len(self._loose) < KEYS_MAX:
            self._loose[key_id] = at
        else:
            self.findings.broken("parts", at, f"more than {KEYS_MAX} keys without an entry")

    def _add(self, chunks: Iterable[Chunk], keys: Iterable[Key]) -> None:
        for chunk in chunks:
            self._chunks.setdefault(chunk.key_id, {}).setdefault(chunk.part, []).append(chunk)
        for key in keys:
            self._keys.setdefault(key.key_id, []).append(key)

    def _check(self, seq: int, said: Mapping[str, Any], named: set[str]) -> None:
        retention = said.get("retention") or UNCLASSED
        found = [{**part, "name": f"found {part['index']}"} for part in said.get("found") or ()]
        for part in (*said["parts"], *found):
            self._check_part(seq, part, retention)
        commits = {part["key"]: part["dek_commit"] for part in said["parts"]}
        for key_id in named:
            self._check_key(seq, key_id, commits.get(key_id))
            if said["kind"] == "begin":
                continue
            stated = {(part["key"], part["index"]) for part in (*said["parts"], *found)}
            is_open_ended = said.get("error") == "gateway_lost" and "found" not in said
            for part in self._chunks.get(key_id, ()):
                if (key_id, part) not in stated and not is_open_ended:
                    self.findings.broken("parts", seq, f"part {part} under its key, which it does not name")
            self._recorded.forget(key_id)

    def _check_part(self, seq: int, part: Mapping[str, Any], retention: str) -> None:
        name, key_id, index = part["name"], part["key"], part["index"]
        chunks = self._chunks.get(key_id, {}).get(index, [])
        if not chunks:
            # content may go once its key is gone; nothing is stored of an empty part
            if key_id not in self._erased and (part["len"] or part["chunks"]):
                self.findings.broken("parts", seq, f"its part {name} is missing")
            return
        if len(chunks) > 1 or part["chunks"] != 1 or chunks[0].chunk:
            chunks = sorted(chunks, key=lambda chunk: chunk.chunk)
            numbers = [chunk.chunk for chunk in chunks]
            if len(numbers) != part["chunks"] or numbers != list(range(len(numbers))):
                what = "there twice" if len(set(numbers)) < len(numbers) else "not whole"
                self.findings.broken("parts", seq, f"its part {name} is {what}")
                return
        kept = self._recorded.of(key_id)
        size = 0
        for chunk in chunks:
            size += chunk.size
            if chunk.digest != chunk.stated:
                self.findings.broken("parts", seq, f"the digest beside its part {name} is another one's")
            if chunk.retention != retention:
                self.findings.broken("parts", seq, f"its part {name} is filed under {chunk.retention}")
            recorded = None if kept is None else kept.chunks.get((index, chunk.chunk))
            if chunk.at > seq or (recorded is not None and recorded != chunk.at):
                self.findings.broken("parts", seq, f"its part {name} is filed at entry {chunk.at}")
        digest = chunks[0].digest if len(chunks) == 1 else self._older.joined(key_id, index)
        if size != part["len"] or b64(digest) != part["sha256"]:
            self.findings.broken("parts", seq, f"its part {name} is not what was recorded")

    def _check_key(self, seq: int, key_id: str, commit: str | None) -> None:
        keys = self._keys.get(key_id, ())
        if not keys:
            if key_id not in self._erased:
                self.findings.broken("keys", seq, "its key is gone, and no erasure entry says so")
            return
        if len(keys) > 1:
            self.findings.broken("keys", seq, "has a second key")
        key = keys[0]
        if key.segment not in self._segments:
            self.findings.broken("keys", seq, f"the header of segment {key.segment}, which opens its key, is gone")
        if key.at > seq:
            self.findings.broken("keys", seq, f"its key is filed at entry {key.at}")
        kept = self._recorded.of(key_id)
        recorded = None if kept is None else kept.key
        if recorded is not None and recorded != key:
            self.findings.broken("keys", seq, "its key is not the one in the journal")
        opened = None if commit is None else self._opener.opens(key, unb64(commit))
        if opened is False:
            self.findings.broken("keys", seq, "its key does not open, or is another than it commits to")
        elif opened is None and recorded is None:
            self._unproven += 1


def _named(said: Mapping[str, Any]) -> set[str]:
    """The keys of parts that an entry names."""
    named = {part["key"] for part in said["parts"]} | {part["key"] for part in said.get("found") or ()}
    return named | {said["key"]} if said["kind"] == "begin" and said.get("key") else named
