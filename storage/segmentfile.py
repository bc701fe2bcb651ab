"""The segment that a journal is writing: its file, its key, the process key that signs its batches. Thin.

What may block (``begin``, ``roll``, ``write``, ``sync``, ``end``) is called in a thread, while nobody else changes the
segment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage import durable, seal
from storage.batch import key_id
from storage.frames import salt_crc
from storage.items import JournalLimits, PartKey
from storage.keys import JournalKeys
from storage.merkle import Frontier
from storage.segment import HEADER_BYTES, SALT_BYTES, SegmentHeader, key_payload, segment_name
from storage.space import SegmentSpace


class SegmentFile:
    """One after the other, the segments of one writer process."""

    def __init__(
        self,
        *,
        directory: Path,
        origin: str,
        keys: JournalKeys,
        clock_ns: Callable[[], int],
        limits: JournalLimits,
        calls: durable.Syscalls,
        space: SegmentSpace,
    ) -> None:
        """No segment is open yet; the process key is made."""
        self._directory, self._origin, self._keys = directory, origin, keys
        self._clock_ns, self._limits, self._calls, self._space = clock_ns, limits, calls, space
        private = Ed25519PrivateKey.generate()
        self.sign = private.sign
        self.process_key = private.public_key().public_bytes_raw()
        self.key_id = key_id(self.process_key)
        self._vouch = keys.vouch(origin, self.process_key)
        self._wrap_prefix = f"{origin}|".encode()
        self._fd = -1
        self.offset = 0
        self.header: SegmentHeader
        self.salted = 0
        self.sync_ns = 0  # what the last sync took

    @property
    def is_open(self) -> bool:
        """Whether batches can be written."""
        return self._fd >= 0

    def begin(self, frontier: Frontier, *, wait_s: float | None = None) -> None:
        """Open a new segment behind the tree ``frontier``; raises JournalFull (by default after a while), OSError."""
        spare = self._space.take(self._limits.space_wait_s if wait_s is None else wait_s)
        first_seq, salt = frontier.size, os.urandom(SALT_BYTES)
        segment_key = os.urandom(32)
        info = seal.segment_key_info(self._origin, first_seq, salt)
        header = SegmentHeader(
            origin=self._origin,
            first_seq=first_seq,
            salt=salt,
            created_ns=self._clock_ns(),
            process_key=self.process_key,
            host_key=self._keys.host_public,
            vouch=self._vouch,
            sealed_key=seal.seal_segment_key(self._keys.master_public, segment_key, info),
            frontier=frontier.copy(),
        )
        path = self._directory / segment_name(first_seq)
        self._fd = durable.create_segment(spare, path, header.to_bytes(), self._calls)
        self._space.taken()
        self.header, self.salted, self.offset = header, salt_crc(salt), HEADER_BYTES
        self._wrap, self._wraps = AESGCM(segment_key).encrypt, 0

    def roll(self, frontier: Frontier, *, wait_s: float | None = None) -> None:
        """Go on in a new segment and cut the last one to its end; raises JournalFull (all is as before), OSError."""
        fd, end, header = self._fd, self.offset, self.header
        self.begin(frontier, wait_s=wait_s)
        os.close(fd)
        durable.cut(self._directory / segment_name(header.first_seq), end, self._calls)

    def write(self, data: bytes) -> None:
        """``data`` stands behind what was written before, on return, and is not yet durable; raises OSError."""
        durable.append_batch(self._fd, data, self.offset, self._calls)
        self.offset += len(data)

    def sync(self) -> None:
        """All that was written is durable on return; raises OSError."""
        began_ns = time.perf_counter_ns()
        durable.datasync(self._fd, self._calls)
        self.sync_ns = time.perf_counter_ns() - began_ns

    def end(self) -> None:
        """The last batch is durable and says CLOSE: give back what was reserved."""
        self.close()
        durable.cut(self._directory / segment_name(self.header.first_seq), self.offset, self._calls)

    def close(self) -> None:
        """Let go of the file as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wrapped(self, key: PartKey) -> bytes:
        """The payload of a KEY frame: the part key under this segment's key."""
        counter = self._wraps
        self._wraps += 1
        sealed = self._wrap(counter.to_bytes(12, "big"), key.sealer.dek, self._wrap_prefix + key.key_id.encode())
        return key_payload(key.raw_id, counter, sealed)
