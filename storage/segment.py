"""Segments: the journal's files. Pure. README.md ("Segments", "Batches") is the specification.

A segment is a header of 4,096 bytes, then frames (frames.py), then zeros (the space reserved ahead). Frames come in
batches; a batch is whatever stands before a COMMIT frame and counts only with it. Here are the header and the payloads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

import google_crc32c
import orjson

from storage.errors import JournalCorrupt
from storage.frames import frame_bytes
from storage.ids import b64, id_bytes, id_text, unb64
from storage.merkle import Frontier

MAGIC = b"ANSWJRNL"
VERSION = 1
HEADER_BYTES = 4096
SALT_BYTES = 16
_CRC = Struct("<I")

# --- payloads -------------------------------------------------------------------------------------------------

_PART_HEAD = Struct("<16sBI")
_KEY_HEAD = Struct("<16sQ")
_OPEN_HEAD = Struct("<16sB")
PART_HEAD_BYTES = _PART_HEAD.size
KEY_PAYLOAD_BYTES = _KEY_HEAD.size + 48  # a wrapped key: 32 bytes and its tag
_RECOVERY = Struct("<QQQ")
_COMMIT = Struct("<QQIIQQQQQQ32s32s8s64s")
COMMIT_BYTES = frame_bytes(_COMMIT.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPart:
    """What is known of a part before its first chunk: with it, what had passed opens though its writer was killed."""

    key_id: str
    index: int
    name: str
    media: str
    encoding: str
    dek_commit: bytes

    def to_payload(self) -> bytes:
        """The payload of an OPEN frame."""
        said = {
            "name": self.name,
            "media": self.media,
            "encoding": self.encoding,
            "dek_commit": b64(self.dek_commit),
        }
        return _OPEN_HEAD.pack(id_bytes(self.key_id), self.index) + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_payload(cls, payload: bytes) -> OpenPart:
        """The inverse; raises JournalCorrupt for what no writer of this version wrote."""
        if len(payload) < _OPEN_HEAD.size:
            raise JournalCorrupt("an OPEN frame is too short")
        key, index = _OPEN_HEAD.unpack_from(payload)
        try:
            said = orjson.loads(payload[_OPEN_HEAD.size :])
            return cls(
                key_id=id_text(key),
                index=index,
                name=said["name"],
                media=said["media"],
                encoding=said["encoding"],
                dek_commit=unb64(said["dek_commit"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise JournalCorrupt("an OPEN frame does not say which part it opens") from error


@dataclass(slots=True)  # not frozen: two a call
class StoredPart:
    """Sealed bytes as a PART frame carries them: chunk ``chunk`` of part ``index`` under key ``key_id``.

    ``at`` is known once it is committed: the ``first`` of the batch that it stands in.
    """

    key_id: str
    index: int
    chunk: int
    data: bytes
    at: int = -1
    opens: OpenPart | None = field(default=None, compare=False)  # the first chunk of a stream brings it along

    def head(self, key: bytes) -> bytes:
        """What stands before the bytes in a PART frame; ``key`` is the key's id as 16 bytes."""
        return _PART_HEAD.pack(key, self.index, self.chunk)

    def to_payload(self) -> bytes:
        """The payload of a PART frame."""
        return self.head(id_bytes(self.key_id)) + self.data

    @classmethod
    def from_payload(cls, payload: bytes, at: int) -> StoredPart:
        """The inverse; raises JournalCorrupt if it is too short."""
        if len(payload) < _PART_HEAD.size:
            raise JournalCorrupt("a PART frame is too short")
        key, index, chunk = _PART_HEAD.unpack_from(payload)
        return cls(id_text(key), index, chunk, payload[_PART_HEAD.size :], at)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A part key, wrapped under the key of segment ``segment`` (its first sequence number) with nonce ``counter``."""

    key_id: str
    counter: int
    wrapped: bytes
    segment: int
    at: int = -1

    def to_payload(self) -> bytes:
        """The payload of a KEY frame."""
        return key_payload(id_bytes(self.key_id), self.counter, self.wrapped)

    @classmethod
    def from_payload(cls, payload: bytes, segment: int, at: int) -> WrappedKey:
        """The inverse; raises JournalCorrupt if it is too short."""
        if len(payload) < _KEY_HEAD.size:
            raise JournalCorrupt("a KEY frame is too short")
        key, counter = _KEY_HEAD.unpack_from(payload)
        return cls(id_text(key), counter, payload[_KEY_HEAD.size :], segment, at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Calls of one shard: accepted = closed + open + lost, at every moment; shed is a part of lost."""

    accepted: int = 0
    closed: int = 0
    lost: int = 0
    shed: int = 0
    refused: int = 0

    @property
    def open(self) -> int:
        """Calls that were admitted and are neither closed nor lost."""
        return self.accepted - self.closed - self.lost

    def as_json(self) -> dict[str, int]:
        """The form inside heartbeat, gap and recovery entries."""
        return {
            "accepted": self.accepted,
            "closed": self.closed,
            "open": self.open,
            "lost": self.lost,
            "shed": self.shed,
            "refused": self.refused,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The end of a batch: where it begins, what it holds, the tree after it, the counters, a signature."""

    begin: int  # offset of the batch's first frame
    # bytes before `begin` that were not known to be durable when this was written: 0 where each batch is synced at once
    unsynced: int = 0
    deferred: bool = False  # what follows may have been written before this batch was durable
    first: int
    count: int
    batch_root: bytes
    size: int
    root: bytes
    counters: Counters
    key_id: bytes
    signature: bytes

    def to_payload(self) -> bytes:
        """The payload of a COMMIT frame."""
        c = self.counters
        return _COMMIT.pack(
            self.begin,
            self.first,
            self.count,
            self.unsynced | self.deferred,  # offsets are multiples of 8
            self.size,
            c.accepted,
            c.closed,
            c.lost,
            c.shed,
            c.refused,
            self.batch_root,
            self.root,
            self.key_id,
            self.signature,
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> Commit:
        """The inverse; raises JournalCorrupt on any other length."""
        if len(payload) != _COMMIT.size:
            raise JournalCorrupt(f"a COMMIT frame has {_COMMIT.size} bytes, not {len(payload)}")
        begin, first, count, sync, size, accepted, closed, lost, shed, refused, batch_root, root, key_id, signature = (
            _COMMIT.unpack(payload)
        )
        counters = Counters(accepted=accepted, closed=closed, lost=lost, shed=shed, refused=refused)
        return cls(
            begin=begin,
            unsynced=sync & ~7,
            deferred=bool(sync & 1),
            first=first,
            count=count,
            batch_root=batch_root,
            size=size,
            root=root,
            counters=counters,
            key_id=key_id,
            signature=signature,
        )


def batch_text(*, origin: str, first: int, count: int, batch_root: bytes, size: int, root: bytes) -> bytes:
    """What a batch's signature is over."""
    return f"answerable/batch/v1\n{origin}\n{first}\n{count}\n{b64(batch_root)}\n{size}\n{b64(root)}\n".encode()


def key_payload(key: bytes, counter: int, wrapped: bytes) -> bytes:
    """The payload of a KEY frame; ``key`` is the key's id as 16 bytes."""
    return _KEY_HEAD.pack(key, counter) + wrapped


def recovery_payload(*, segment: int, offset: int, cut_bytes: int) -> bytes:
    """The payload of a RECOVERY frame: which segment was cut, at which offset, how many bytes were set aside."""
    return _RECOVERY.pack(segment, offset, cut_bytes)


# --- header ---------------------------------------------------------------------------------------------------

_HEADER = Struct("<8sHHHHQ16sQ32s32s64s80s32s")
_ORIGIN_AT, ORIGIN_BYTES_MAX = 512, 512
_FRONTIER_AT = 1024
_CRC_AT = HEADER_BYTES - 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What stands before the frames: who writes, under which key, and the tree as it was."""

    origin: str
    first_seq: int
    salt: bytes
    created_ns: int
    process_key: bytes  # Ed25519 public key that signs this segment's COMMITs
    host_key: bytes  # Ed25519 public key of the host that vouches for it
    vouch: bytes  # the host's signature over vouch_text
    sealed_key: bytes  # the segment key, sealed to the keeper (seal.py)
    frontier: Frontier

    def to_bytes(self) -> bytes:
        """Exactly 4,096 bytes; ValueError if the origin is too long."""
        origin, frontier = self.origin.encode(), self.frontier.to_bytes()
        if len(origin) > ORIGIN_BYTES_MAX:
            raise ValueError(f"an origin has at most {ORIGIN_BYTES_MAX} bytes")
        raw = bytearray(HEADER_BYTES)
        _HEADER.pack_into(
            raw,
            0,
            MAGIC,
            VERSION,
            HEADER_BYTES,
            len(origin),
            len(frontier),
            self.first_seq,
            self.salt,
            self.created_ns,
            self.process_key,
            self.host_key,
            self.vouch,
            self.sealed_key,
            self.frontier.root(),
        )
        raw[_ORIGIN_AT : _ORIGIN_AT + len(origin)] = origin
        raw[_FRONTIER_AT : _FRONTIER_AT + len(frontier)] = frontier
        raw[_CRC_AT:] = header_crc(bytes(raw))
        return bytes(raw)

    @classmethod
    def from_bytes(cls, raw: bytes) -> SegmentHeader:
        """The inverse; raises JournalCorrupt for a damaged header or an unknown version."""
        if len(raw) < HEADER_BYTES or raw[:8] != MAGIC:
            raise JournalCorrupt("not a journal segment")
        if header_crc(raw) != raw[_CRC_AT:HEADER_BYTES]:
            raise JournalCorrupt("a segment's header does not match its checksum")
        _, version, header_bytes, origin_bytes, frontier_bytes, first_seq, salt, created_ns, *rest = (
            _HEADER.unpack_from(raw)
        )
        if (version, header_bytes) != (VERSION, HEADER_BYTES):
            raise JournalCorrupt(f"segment version {version} is not known here")
        process_key, host_key, vouch, sealed_key, root = rest
        frontier = Frontier.from_bytes(raw[_FRONTIER_AT : _FRONTIER_AT + frontier_bytes])
        if frontier.size != first_seq or frontier.root() != root:
            raise JournalCorrupt("a segment's header contradicts its tree")
        return cls(
            origin=raw[_ORIGIN_AT : _ORIGIN_AT + origin_bytes].decode(),
            first_seq=first_seq,
            salt=salt,
            created_ns=created_ns,
            process_key=process_key,
            host_key=host_key,
            vouch=vouch,
            sealed_key=sealed_key,
            frontier=frontier,
        )


def header_crc(raw: bytes) -> bytes:
    """The last four bytes of a header: CRC-32C, little-endian, of the 4,092 before them."""
    return _CRC.pack(google_crc32c.value(raw[:_CRC_AT]))


def vouch_text(origin: str, process_key: bytes) -> bytes:
    """What the host signs for a process key: it may write this origin."""
    return f"answerable/vouch/v1\n{origin}\n{b64(process_key)}\n".encode()


def segment_name(first_seq: int) -> str:
    """The file name of the segment whose first entry has this number."""
    return f"{first_seq:020d}.jrn"
