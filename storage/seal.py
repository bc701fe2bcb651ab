"""Sealing: parts under a key of their own, keys under a segment's key, that one under the keeper's. Pure.

``DEK`` is a part's 32-byte AES key. AES-GCM does not commit to its key, so an entry also carries
``dek_commit = HMAC-SHA256(DEK, "answerable/dek/v1")``. A part's *opening* is a secret made of the DEK for it alone, and
``opening_commit = HMAC-SHA256(opening, "answerable/plain/v1" || u32 len(name) || name || plaintext)`` lets a plaintext
be disclosed, and checked with HMAC alone (README.md, "Parts", "Keys").
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.entries import Part
from storage.errors import Unverifiable
from storage.segment import OpenPart, StoredPart

DEK_BYTES = 32
COMPRESS_FROM_BYTES = 512  # below it zstd's own frame eats the gain
COMPRESS_ANY_MEDIA_BYTES_MAX = 64 * 1024  # beyond it, what does not look like text is not worth trying
PLAIN_BYTES_MAX = 256 * 1024 * 1024  # what one chunk may grow to: stops a decompression bomb
SHORT_BYTES = 4096
# on 2 KB of JSON as small as level 3, and faster; of a short part most of the time goes into tables that a negative
# level does without: 856 bytes of a chat become 284 in 1.2 µs instead of 218 in 2.7
_ZSTD_LEVEL, _ZSTD_LEVEL_SHORT = 1, -1
_DEK_LABEL = b"answerable/dek/v1"
_OPENING_LABEL = b"answerable/opening/v1"
_PLAIN_LABEL = b"answerable/plain/v1"
_HALF_BLOCK = bytes(32)  # a key of 32 bytes is padded to a block of SHA-256 with zeros (RFC 2104)
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
# a compressor serves one thread at a time; making one costs 20 µs
_idle: dict[int, deque[zstandard.ZstdCompressor]] = {_ZSTD_LEVEL: deque(), _ZSTD_LEVEL_SHORT: deque()}


class Sealer:
    """Seals the parts of one entry under one fresh key; for one thread. The caller gives 32 random bytes.

    Each chunk of each part is sealed once: a nonce that comes twice under one key gives both plaintexts away.
    """

    __slots__ = ("_encrypt", "_inner", "_outer", "_sealed", "dek", "dek_commit", "key_id", "origin")

    def __init__(self, dek: bytes, key_id: str, origin: str) -> None:
        self.dek = dek
        self.key_id = key_id
        self.origin = origin
        padded = dek + _HALF_BLOCK
        self._inner, self._outer = padded.translate(_INNER_PAD), padded.translate(_OUTER_PAD)
        self.dek_commit = self._hmac(_DEK_LABEL)
        self._encrypt = AESGCM(dek).encrypt
        self._sealed: dict[int, int] = {}  # part index → chunks so far

    def _hmac(self, message: bytes) -> bytes:
        """As the function below; the key is prepared once, since each entry has three to make."""
        return sha256(self._outer + sha256(self._inner + message).digest()).digest()

    def opening(self, name: str, index: int) -> bytes:
        """As the function below, under the key that is prepared."""
        return self._hmac(_opening_message(name, index))

    def seal(self, name: str, media: str, plaintext: bytes, index: int) -> tuple[Part, StoredPart]:
        """One whole part, compressed where that pays: what the entry says, and what goes beside it."""
        encoding, packed = "identity", plaintext
        if len(plaintext) >= COMPRESS_FROM_BYTES and _worth_trying(media, len(plaintext)):
            smaller = _compressed(plaintext)
            if len(smaller) < len(plaintext):
                encoding, packed = "zstd", smaller
        stored = self.encrypt_chunk(name, media, packed, index, 0)
        part = Part(
            name=name,
            index=index,
            media=media,
            encoding=encoding,
            len=len(stored),
            sha256=sha256(stored).digest(),
            key=self.key_id,
            dek_commit=self.dek_commit,
            opening_commit=_hmac(self.opening(name, index), _plain_prefix(name), plaintext),
        )
        return part, StoredPart(self.key_id, index, 0, stored)

    def open_stream_part(self, name: str, media: str, index: int) -> StreamPart:
        """A part that is sealed chunk by chunk while it passes."""
        return StreamPart(self, name, media, index)

    def encrypt_chunk(self, name: str, media: str, plaintext: bytes, index: int, chunk: int) -> bytes:
        """One chunk's stored bytes; ValueError unless it is the next of its part."""
        if chunk != self._sealed.get(index, 0):
            raise ValueError(f"chunk {chunk} of part {index} ({name}) would be sealed twice, or out of its order")
        self._sealed[index] = chunk + 1
        return self._encrypt(nonce(index, chunk), plaintext, _aad(self.origin, self.key_id, name, media))


class StreamPart:
    """A part in the making: ``chunk`` seals what passed, ``finish`` says what it all was."""

    __slots__ = ("_chunks", "_encoding", "_index", "_len", "_media", "_name", "_plain", "_sealer", "_sha256")

    def __init__(self, sealer: Sealer, name: str, media: str, index: int) -> None:
        self._sealer, self._name, self._media, self._index = sealer, name, media, index
        self._encoding = "zstd" if _is_text(media) else "identity"  # fixed before the bytes are known
        self._plain = hmac.new(sealer.opening(name, index), _plain_prefix(name), sha256)
        self._sha256 = sha256()
        self._chunks = self._len = 0

    def chunk(self, plaintext: bytes) -> StoredPart:
        """The next chunk, sealed by itself (with its own zstd frame)."""
        self._plain.update(plaintext)
        packed = _compressed(plaintext) if self._encoding == "zstd" else plaintext
        stored = self._sealer.encrypt_chunk(self._name, self._media, packed, self._index, self._chunks)
        self._sha256.update(stored)
        self._len += len(stored)
        self._chunks += 1
        return StoredPart(
            self._sealer.key_id,
            self._index,
            self._chunks - 1,
            stored,
            opens=self._opening() if self._chunks == 1 else None,
        )

    def _opening(self) -> OpenPart:
        return OpenPart(
            key_id=self._sealer.key_id,
            index=self._index,
            name=self._name,
            media=self._media,
            encoding=self._encoding,
            dek_commit=self._sealer.dek_commit,
        )

    def finish(self) -> Part:
        """What the entry says of all chunks so far."""
        return Part(
            name=self._name,
            index=self._index,
            media=self._media,
            encoding=self._encoding,
            len=self._len,
            sha256=self._sha256.digest(),
            key=self._sealer.key_id,
            dek_commit=self._sealer.dek_commit,
            opening_commit=self._plain.digest(),
            chunks=self._chunks,
        )


def open_part(part: Part, stored: Iterable[bytes], dek: bytes, origin: str) -> bytes:
    """The plaintext of a part whose stored chunks are given in order; ``origin`` is the origin of its entry.

    Raises Unverifiable unless length, sha256, key commitment, every tag and the plaintext commitment (where the entry
    has one) match.
    """
    chunks = list(stored)
    if len(chunks) != part.chunks or sum(map(len, chunks)) != part.len:
        raise Unverifiable(f"part {part.name!r} has other chunks than its entry says")
    if sha256(b"".join(chunks)).digest() != part.sha256:
        raise Unverifiable(f"the stored bytes of part {part.name!r} do not match their entry")
    if dek_commit(dek) != part.dek_commit:
        raise Unverifiable(f"the key of part {part.name!r} is not the one that its entry commits to")
    aead, aad = AESGCM(dek), _aad(origin, part.key, part.name, part.media)
    try:
        packed = [aead.decrypt(nonce(part.index, number), chunk, aad) for number, chunk in enumerate(chunks)]
    except InvalidTag as error:
        raise Unverifiable(f"part {part.name!r} does not open with its key") from error
    plaintext = b"".join(map(_unpacked, packed)) if part.encoding == "zstd" else b"".join(packed)
    secret = dek if part.is_under_key else opening(dek, part.name, part.index)
    if part.opening_commit is not None and plain_commit(secret, part.name, plaintext) != part.opening_commit:
        raise Unverifiable(f"the plaintext of part {part.name!r} is not the one that its entry commits to")
    return plaintext


def opening(dek: bytes, name: str, index: int) -> bytes:
    """What opens the commitment to one part, and tells nothing of the key or of another part's opening. 32 bytes."""
    return _hmac(dek, _opening_message(name, index))


def plain_commit(secret: bytes, name: str, plaintext: bytes) -> bytes:
    """What lets disclosed plaintext be checked against an entry with HMAC alone; of before, the secret was the DEK."""
    return _hmac(secret, _plain_prefix(name), plaintext)


def dek_commit(dek: bytes) -> bytes:
    """What an entry says of the key of its parts, without giving it away."""
    return _hmac(dek, _DEK_LABEL)


def nonce(index: int, chunk: int) -> bytes:
    """12 bytes, big-endian: u32 part index, u64 chunk; unique under a key that seals one entry's parts."""
    return ((index << 64) | chunk).to_bytes(12, "big")


def wrap_dek(segment_key: bytes, counter: int, dek: bytes, aad: bytes) -> bytes:
    """A part key under its segment's key; the counter must be new for this segment key. 48 bytes."""
    return AESGCM(segment_key).encrypt(counter.to_bytes(12, "big"), dek, aad)


def unwrap_dek(segment_key: bytes, counter: int, wrapped: bytes, aad: bytes) -> bytes:
    """The inverse of :func:`wrap_dek`; raises Unverifiable."""
    try:
        return AESGCM(segment_key).decrypt(counter.to_bytes(12, "big"), wrapped, aad)
    except InvalidTag as error:
        raise Unverifiable("a part key does not open with its segment's key") from error


def wrap_aad(origin: str, key_id: str) -> bytes:
    """What a wrapped part key is bound to."""
    return f"{origin}|{key_id}".encode()


def segment_key_info(origin: str, first_seq: int, salt: bytes) -> bytes:
    """What a sealed segment key is bound to: its own segment."""
    return f"answerable/segment-key/v1|{origin}|{first_seq}|{salt.hex()}".encode()


def seal_segment_key(master_public: bytes, key: bytes, info: bytes) -> bytes:
    """A segment key for the holder of the master key alone: ephemeral X25519 key (32) || AES-256-GCM (48).

    The AES key is HKDF-SHA256(shared secret, salt = ephemeral || master public key, info); the nonce is zero, since
    each key is used once.
    """
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(master_public))
    return public + AESGCM(_derived(shared, public + master_public, info)).encrypt(bytes(12), key, info)


def open_segment_key(master: X25519PrivateKey, sealed: bytes, info: bytes) -> bytes:
    """The inverse of :func:`seal_segment_key`; raises Unverifiable."""
    public = sealed[:32]
    try:
        shared = master.exchange(X25519PublicKey.from_public_bytes(public))
        aead = AESGCM(_derived(shared, public + master.public_key().public_bytes_raw(), info))
        return aead.decrypt(bytes(12), sealed[32:], info)
    except (InvalidTag, ValueError) as error:
        raise Unverifiable("a segment key does not open with this master key") from error


def _derived(shared: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(shared)


def _aad(origin: str, key_id: str, name: str, media: str) -> bytes:
    return f"{origin}|{key_id}|{name}|{media}".encode()


@lru_cache(maxsize=64)  # parts have few names
def _plain_prefix(name: str) -> bytes:
    raw = name.encode()
    return _PLAIN_LABEL + len(raw).to_bytes(4, "little") + raw


@lru_cache(maxsize=64)
def _opening_message(name: str, index: int) -> bytes:
    raw = name.encode()
    return _OPENING_LABEL + index.to_bytes(4, "little") + len(raw).to_bytes(4, "little") + raw


def _hmac(key: bytes, *message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) under a key of 32 bytes.

    ``hmac.digest`` lets go of the interpreter's lock each time, which costs more than the hash where another thread
    (the journal's writer) waits for it.
    """
    padded = key + _HALF_BLOCK
    inner = sha256(padded.translate(_INNER_PAD))
    for piece in message:
        inner.update(piece)
    return sha256(padded.translate(_OUTER_PAD) + inner.digest()).digest()


def _is_text(media: str) -> bool:
    return media.startswith("text/") or "json" in media or "xml" in media or "urlencoded" in media


def _worth_trying(media: str, size: int) -> bool:
    return size <= COMPRESS_ANY_MEDIA_BYTES_MAX or _is_text(media)


def _compressed(plaintext: bytes) -> bytes:
    level = _ZSTD_LEVEL_SHORT if len(plaintext) < SHORT_BYTES else _ZSTD_LEVEL
    idle = _idle[level]
    try:
        compressor = idle.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=level)
    try:
        return compressor.compress(plaintext)
    finally:
        idle.append(compressor)


def _unpacked(packed: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= PLAIN_BYTES_MAX:
            raise Unverifiable(f"a chunk claims {size} bytes of plaintext")
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise Unverifiable("a part's compressed bytes are damaged") from error
