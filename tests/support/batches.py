"""Journal batches without a journal: the bytes that a worker writes, made in memory and read by the real reader."""

import hmac
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from storage import frames, seal, watermark
from storage.batch import Batch, BatchReader, BatchWriter, key_id
from storage.entries import Draft, Part, closes_call, decode, encode
from storage.frames import salt_crc
from storage.ids import Ids, b64, id_bytes
from storage.merkle import Frontier, leaf_hash
from storage.segment import HEADER_BYTES, Counters, SegmentHeader, StoredPart, WrappedKey, segment_name, vouch_text
from storage.watermark import RUNNING, Mark, Slot

HOST = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
MASTER = X25519PrivateKey.from_private_bytes(b"\x02" * 32)
CONFIG = "c" * 64
START_NS = 1_772_540_000_000_000_000  # 2026-03-03


@dataclass
class Shard:
    """One writer's batches; `entries` are all entries so far, by sequence number."""

    origin: str = "acme/gateway-0/1"
    now_ns: int = START_NS
    entries: list[bytes] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    headers: dict[int, bytes] = field(default_factory=dict)
    segments: dict[int, bytearray] = field(default_factory=dict)
    deks: dict[str, bytes] = field(default_factory=dict)
    scopes: Counter[tuple[str, str | None]] = field(default_factory=Counter)  # entries so far, by tenant and route

    def __post_init__(self) -> None:
        self.frontier = Frontier()
        self.ids = Ids(self.tick, os.urandom)
        self.roll()

    def tick(self) -> int:
        """A clock that goes on by a millisecond each time it is asked."""
        self.now_ns += 1_000_000
        return self.now_ns

    def roll(self, *, same_process: bool = False) -> None:
        """Begin a new segment, under a new process key unless the writer is the same."""
        process = self.process if same_process else Ed25519PrivateKey.generate()
        first_seq, salt = self.frontier.size, os.urandom(16)
        self.segment_key, self.wraps = os.urandom(32), 0
        info = seal.segment_key_info(self.origin, first_seq, salt)
        public = process.public_key().public_bytes_raw()
        self.header = SegmentHeader(
            origin=self.origin,
            first_seq=first_seq,
            salt=salt,
            created_ns=self.tick(),
            process_key=public,
            host_key=HOST.public_key().public_bytes_raw(),
            vouch=HOST.sign(vouch_text(self.origin, public)),
            sealed_key=seal.seal_segment_key(MASTER.public_key().public_bytes_raw(), self.segment_key, info),
            frontier=self.frontier.copy(),
        )
        self.process, self.end = process, HEADER_BYTES
        self.headers[self.header.first_seq] = self.header.to_bytes()
        self.segments[self.header.first_seq] = bytearray(self.header.to_bytes())
        self.reader = BatchReader(self.header)

    def commit(
        self,
        drafts: Iterable[Draft] = (),
        parts: Sequence[StoredPart] = (),
        keys: Sequence[WrappedKey] = (),
        *,
        closes: bool = False,
    ) -> Batch:
        """Write one batch and read it back."""
        writer = BatchWriter(self.header, salt_crc(self.header.salt), self.frontier, self.end)
        for key in keys:
            writer.frame(frames.KEY, self.now_ns, key.to_payload())
        for part in parts:
            writer.frame(frames.PART, self.now_ns, part.to_payload())
        for draft in drafts:
            scope = (draft.tenant, draft.route)
            entry = encode(draft, origin=self.origin, seq=self.frontier.size, scope_seq=self.scopes[scope])
            self.scopes[scope] += 1
            writer.record(draft.ts_ns, entry)
            self.entries.append(entry)
        if closes:
            writer.frame(frames.CLOSE, self.now_ns, b"")
        process = key_id(self.header.process_key)
        raw, _ = writer.finish(now_ns=self.now_ns, counters=Counters(), key=process, sign=self.process.sign)
        self.segments[self.header.first_seq] += raw
        self.reader.feed(raw)
        batch = self.reader.next_batch()
        assert batch is not None
        self.end = batch.end
        self.batches.append(batch)
        return batch

    def write(self, directory: Path) -> None:
        """Leave what a worker leaves: its segments and its watermark."""
        directory.mkdir(parents=True, exist_ok=True)
        for first_seq, raw in self.segments.items():
            (directory / segment_name(first_seq)).write_bytes(raw)
        slot = Slot(
            generation=2,
            segment=self.header.first_seq,
            end=self.end,
            next_seq=self.frontier.size,
            closed=self.closed,
            lost=0,
            shed=0,
        )
        mark = Mark(
            incarnation=bytes(16), boot_id=bytes(16), epoch=1, state=RUNNING, slot=slot, accepted=self.closed, refused=0
        )
        (directory / watermark.NAME).write_bytes(watermark.to_bytes(mark))

    @property
    def closed(self) -> int:
        """Closing entries so far."""
        return sum(closes_call(decode(entry)) for entry in self.entries)

    def heartbeat(self, *, closes: bool = False, **over: Any) -> Batch:
        """A batch with one heartbeat entry, which states the counters truthfully unless told otherwise."""
        counters = Counters(accepted=self.closed, closed=self.closed).as_json()
        scopes = [[tenant, route, count] for (tenant, route), count in sorted(self.scopes.items(), key=str)]
        fields = {"at": len(self.entries), "counters": {**counters, **over}, "scopes": scopes, "sheet": 0, "sheets": 1}
        return self.commit([self.draft("heartbeat", tenant="*", fields=fields)], closes=closes)

    def decisions(self, count: int, *, route: str = "mortgage", size: int = 400, **fields: Any) -> Batch:
        """One batch of `count` decisions, each with a request and a response part under one key."""
        drafts, parts, keys = [], [], []
        for _ in range(count):
            draft, stored, key = self.decision(route=route, size=size, **fields)
            drafts.append(draft)
            parts += stored
            keys.append(key)
        return self.commit(drafts, parts, keys)

    def decision(
        self, *, route: str = "mortgage", size: int = 400, **fields: Any
    ) -> tuple[Draft, list[StoredPart], WrappedKey]:
        """A decision's draft, its stored parts and its wrapped key; the bytes are random, as sealed ones look."""
        identifier, dek = self.ids.new(), os.urandom(32)
        stored = [StoredPart(identifier, index, 0, os.urandom(size)) for index in range(2)]
        parts = tuple(
            described(name, part, dek=dek) for name, part in zip(("request", "response"), stored, strict=True)
        )
        said = {
            "app": "app",
            "call": {"method": "POST", "path": "/", "request_id": identifier},
            "case": None,
            "subject": None,
            "purpose": None,
            "corrects": None,
            "mode": "strict",
            "retention": "default",
            "model": {"name": "m", "version": "1", "digest": "d" * 64, "source": "declared"},
            "status": 200,
            "error": None,
            "timing": {"received_ns": str(self.now_ns), "upstream_first_us": 1, "upstream_us": 2, "total_us": 3},
            "stream": {"state": "complete", "streamed": False, "bytes": 9},
            **fields,
        }
        draft = self.draft("decision", id=identifier, decision=identifier, route=route, parts=parts, fields=said)
        return draft, stored, self.wrap(identifier, dek)

    def wrap(self, identifier: str, dek: bytes) -> WrappedKey:
        """A part key, wrapped under the open segment's."""
        self.wraps += 1
        self.deks[identifier] = dek
        aad = seal.wrap_aad(self.origin, identifier)
        wrapped = seal.wrap_dek(self.segment_key, self.wraps, dek, aad)
        return WrappedKey(identifier, self.wraps, wrapped, self.header.first_seq)

    def draft(self, kind: str, **over: Any) -> Draft:
        """A draft of any kind."""
        given: dict[str, Any] = {
            "kind": kind,
            "tenant": "acme",
            "actor": "test",
            "config": CONFIG,
            "ts_ns": self.tick(),
        }
        return Draft(**{**given, "id": over.pop("id", None) or self.ids.new(), **over})

    def extraction(self, source: Batch, label: str = "denied", **over: Any) -> Draft:
        """The extraction entry for the decisions of a batch of another shard."""
        rows = []
        said: Mapping[str, Any] = {}
        for record in source.records:
            said = decode(record.entry)
            favourable = int(label == "approved")
            leaf = b64(leaf_hash(record.entry))
            rows.append([said["id"], leaf, label, favourable, 0.25, "p1.case", "p1.subject", None])
        fields = {
            "extractor": "e" * 64,
            "cols": ["decision", "leaf", "label", "favourable", "score", "case", "subject", "error"],
            "rows": rows,
            "source": {"origin": source.origin, "first": source.records[0].seq, "last": source.records[-1].seq},
            **over,
        }
        return self.draft("extraction", route=said["route"], fields=fields)

    def explanation(self, decision: str, *, state: str = "ready", **over: Any) -> Draft:
        """An explanation entry."""
        fields = {
            "key": sha256(id_bytes(decision)).hexdigest(),
            "state": state,
            "error": None,
            "method": "interventional-treeshap",
            "model": "d" * 64,
            "binding": "declared",
            "verdict": "sound",
            "notice": "reasons",
            "codes": ["R01", "R07"],
            **over,
        }
        return self.draft("explanation", decision=decision, route="mortgage", fields=fields)

    def access(self, decision: str, **over: Any) -> Draft:
        """An access entry."""
        fields = {
            "role": "support",
            "action": "decision",
            "purpose": "inquiry",
            "ticket": "p1.ticket",
            "case": "p1.case",
            "subject": None,
            "outcome": "granted",
            "reason": None,
            "filter": None,
            "rows": 1,
            "matter": None,
            **over,
        }
        return self.draft("access", decision=decision, route="mortgage", fields=fields)


def write_keys(data: Path) -> None:
    """The keys that a verification goes by, where a keeper keeps them."""
    (data / "keys").mkdir(parents=True, exist_ok=True)
    private = MASTER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (data / "keys" / "master.key").write_bytes(private)
    public = HOST.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (data / "keys" / "host.pub").write_bytes(public)


def described(name: str, part: StoredPart, chunks: int = 1, *, dek: bytes = bytes(32)) -> Part:
    """What an entry says of a part whose chunks are `part` alone."""
    return Part(
        name=name,
        index=part.index,
        media="application/json",
        encoding="identity",
        len=len(part.data),
        sha256=sha256(part.data).digest(),
        key=part.key_id,
        dek_commit=hmac.digest(dek, b"answerable/dek/v1", "sha256"),
        opening_commit=os.urandom(32),
        chunks=chunks,
    )
