"""Whether segment headers are those that a host vouched for, and open the keys that entries commit to (pure)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from storage import seal
from storage.batch import check_vouch
from storage.errors import StorageError, Unverifiable
from storage.findings import Findings
from storage.segment import SegmentHeader


class WrappedRow(Protocol):
    """What is needed of a stored key."""

    @property
    def key_id(self) -> str:
        """Of the part key."""

    @property
    def segment(self) -> int:
        """Under whose key it is wrapped."""

    @property
    def counter(self) -> int:
        """The nonce."""

    @property
    def wrapped(self) -> bytes:
        """48 bytes."""


class Opener:
    """Unwraps part keys and compares them with what entries commit to; without `master` it tells nothing."""

    def __init__(self, origin: str, master: X25519PrivateKey | None) -> None:
        self._origin = origin
        self._master = master
        self._segment_keys: dict[int, bytes] = {}

    def learn(self, header: SegmentHeader) -> None:
        """Open the segment key of this header; Unverifiable where the master key does not open it."""
        if self._master is not None:
            info = seal.segment_key_info(header.origin, header.first_seq, header.salt)
            self._segment_keys[header.first_seq] = seal.open_segment_key(self._master, header.sealed_key, info)

    def opens(self, key: WrappedRow, commit: bytes) -> bool | None:
        """Whether the stored key is the one that `commit` commits to; None: that cannot be told."""
        if self._master is None:
            return None
        segment_key = self._segment_keys.get(key.segment)
        if segment_key is None:
            return False
        try:
            dek = seal.unwrap_dek(segment_key, key.counter, key.wrapped, seal.wrap_aad(self._origin, key.key_id))
        except (Unverifiable, ValueError):  # ValueError: not even the length of a wrapped key
            return False
        return seal.dek_commit(dek) == commit


class HeaderCheck:
    """The segment headers of one origin.

    Args:
        journal: the first 4,096 bytes of the segments that the journal still has, by first sequence number.
        host_keys: those trusted to vouch; None: nobody said which.
    """

    def __init__(
        self, findings: Findings, *, journal: Mapping[int, bytes], host_keys: Collection[bytes] | None, opener: Opener
    ) -> None:
        self.known: dict[int, SegmentHeader] = {}
        self._seen: set[int] = set()
        self._findings = findings
        self._journal = journal
        self._host_keys = host_keys
        self._opener = opener

    def take(self, first_seq: int, raw: bytes) -> None:
        """Check one stored header."""
        findings = self._findings
        findings.checked("segments")
        if first_seq in self._seen:
            findings.broken("segments", first_seq, "the segment's header is there twice")
            return
        self._seen.add(first_seq)
        recorded = self._journal.get(first_seq)
        if recorded is not None and recorded != raw:
            findings.broken("segments", first_seq, "the segment's header is not the one in the journal")
        try:
            header = SegmentHeader.from_bytes(raw)
            if header.to_bytes() != raw:
                raise Unverifiable("the segment's header holds bytes that mean nothing")
            check_vouch(header)
        except (StorageError, ValueError) as error:
            findings.broken("segments", first_seq, getattr(error, "message", str(error)))
            return
        if header.origin != findings.origin:
            findings.broken("segments", first_seq, f"the header of a segment of {header.origin}")
        if header.first_seq != first_seq:
            findings.broken("segments", first_seq, f"the header of segment {header.first_seq}")
        if self._host_keys is not None and header.host_key not in self._host_keys:
            findings.broken("segments", first_seq, "a host vouches for its process key that is not trusted")
        try:
            self._opener.learn(header)
        except (Unverifiable, ValueError):
            findings.broken("segments", first_seq, "its segment key does not open with the master key")
        self.known[first_seq] = header

    def finish(self, stored: int) -> None:
        """All headers were taken; entries below `stored` are in the database."""
        for first_seq in sorted(self._journal):
            if first_seq < stored and first_seq not in self._seen:
                self._findings.broken("segments", first_seq, "the segment's header is gone; the journal has it")
        if self._seen and self._host_keys is None:
            self._findings.unknown("segments", None, "no trusted host key at hand: who vouches cannot be told")
