"""Whether the parts and keys that entries name are stored (pure).

Chunks and keys are taken in as they are read, in the order of `at`; an entry then claims those that it names. What an
entry needs from further back (a stream that was long open) is asked for by key through `Older`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from storage.ids import b64
from storage.verify import Findings


class Chunk(NamedTuple):
    """One stored chunk; `digest` is computed from its bytes, `stated` stands in the row beside them."""

    key_id: str
    part: int
    chunk: int
    size: int
    digest: bytes
    stated: bytes


class Key(NamedTuple):
    """One stored key; `digest` is computed from its wrapped bytes."""

    key_id: str
    segment: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Older:
    """How to get what is not at hand: chunks and keys by key id; and the digest over all bytes of a chunked part."""

    chunks: Callable[[Iterable[str]], list[Chunk]]
    keys: Callable[[Iterable[str]], list[Key]]
    joined: Callable[[str, int], bytes]


class ContentCheck:
    """Parts and keys of one origin.

    Args:
        older: reads what is not at hand.
        erased: key ids that an erasure entry names.
        segments: first sequence numbers of the segments whose header is stored.
    """

    def __init__(self, findings: Findings, *, older: Older, erased: frozenset[str], segments: frozenset[int]) -> None:
        self.findings = findings
        self._older = older
        self._erased = erased
        self._segments = segments
        self._chunks: dict[tuple[str, int], list[Chunk]] = {}
        self._keys: dict[str, list[Key]] = {}
        self._recorded: Mapping[str, bytes] = {}
        self._later: list[tuple[int, dict[str, Any]]] = []
        for name in ("parts", "keys"):
            findings.checked(name)

    def take(self, chunks: Iterable[Chunk], keys: Iterable[Key], recorded: Mapping[str, bytes]) -> None:
        """What is stored around the entries that come next, and the digests of wrapped keys that the journal has."""
        self._chunks, self._keys, self._recorded = {}, {}, recorded
        self._add(chunks, keys)

    def claim(self, seq: int, said: Mapping[str, Any]) -> None:
        """Check what this entry names; what is not at hand waits for `settle`."""
        for part in said["parts"]:
            key = part["key"]
            if (key, part["index"]) in self._chunks and key in self._keys:
                self._check(seq, part)
            else:
                self._later.append((seq, part))

    def settle(self) -> None:
        """Read what was not at hand, and check it: chunks that came long before their entry, and what is gone."""
        if not self._later:
            return
        waiting, self._later = self._later, []
        wanted = sorted({part["key"] for _, part in waiting})
        self._chunks, self._keys = {}, {}
        self._add(self._older.chunks(wanted), self._older.keys(wanted))
        for seq, part in waiting:
            self._check(seq, part)

    def _add(self, chunks: Iterable[Chunk], keys: Iterable[Key]) -> None:
        for chunk in chunks:
            self._chunks.setdefault((chunk.key_id, chunk.part), []).append(chunk)
        for key in keys:
            self._keys.setdefault(key.key_id, []).append(key)

    def _check(self, seq: int, part: Mapping[str, Any]) -> None:
        self._check_part(seq, part)
        if part["index"] == 0 or (part["key"], 0) not in self._chunks:  # once a key, mostly
            self._check_key(seq, part["key"])

    def _check_part(self, seq: int, part: Mapping[str, Any]) -> None:
        name, index = part["name"], part["index"]
        chunks = self._chunks.get((part["key"], index), ())
        if not chunks:
            # content may go once its key is gone; nothing is stored of an empty part
            if part["key"] not in self._erased and (part["len"] or part["chunks"]):
                self.findings.broken("parts", seq, f"its part {name} is missing")
            return
        if len(chunks) > 1 or part["chunks"] != 1:
            chunks = sorted(chunks)
            numbers = [chunk.chunk for chunk in chunks]
            if numbers != list(range(part["chunks"])):
                what = "there twice" if len(set(numbers)) < len(numbers) else "not whole"
                self.findings.broken("parts", seq, f"its part {name} is {what}")
                return
        size = 0
        for chunk in chunks:
            size += chunk.size
            if chunk.digest != chunk.stated:
                self.findings.broken("parts", seq, f"the digest beside its part {name} is another one's")
        digest = chunks[0].digest if len(chunks) == 1 else self._older.joined(part["key"], index)
        if size != part["len"] or b64(digest) != part["sha256"]:
            self.findings.broken("parts", seq, f"its part {name} is not what was recorded")

    def _check_key(self, seq: int, key_id: str) -> None:
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
        recorded = self._recorded.get(key_id)
        if recorded is not None and recorded != key.digest:
            self.findings.broken("keys", seq, "its key is not the one in the journal")
