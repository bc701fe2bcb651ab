"""Opening the sealed parts of an entry: from the journal for the keeper's loops, from ClickHouse for the desk.

A part opens with its key, which is wrapped under a segment's key, which opens with the deployment's master key. What
comes out has been checked against the entry: length, sha256, its commitments and the tag of every chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from storage.entries import Part
from storage.keys import Keyring
from storage.seal import open_part
from storage.segment import SegmentHeader, StoredPart, WrappedKey

Stored = Mapping[tuple[str, int], list[StoredPart]]  # key id and part index → chunks in order


def by_part(stored: Iterable[StoredPart]) -> dict[tuple[str, int], list[StoredPart]]:
    """Chunks grouped by the part that they belong to, in order; a chunk that was read twice counts once."""
    chunks = {(one.key_id, one.index, one.chunk): one for one in stored}
    grouped: dict[tuple[str, int], list[StoredPart]] = {}
    for (key_id, index, _), one in sorted(chunks.items()):
        grouped.setdefault((key_id, index), []).append(one)
    return grouped


def opened(
    entry: Mapping[str, Any],
    *,
    stored: Stored,
    keys: Mapping[str, WrappedKey],
    headers: Mapping[int, bytes | SegmentHeader],
    keyring: Keyring,
) -> dict[str, bytes]:
    """The plaintext of the entry's parts by name; a part whose key or bytes are not there is left out.

    `headers` are the segments' by first sequence number. Blocking: some microseconds a part, more for megabytes.

    Raises:
        Unverifiable: what is there does not match what the entry commits to.
    """
    plain: dict[str, bytes] = {}
    for stated in entry["parts"]:
        part = Part.from_json(stated)
        if not part.chunks:
            plain[part.name] = b""
            continue
        key, chunks = keys.get(part.key), stored.get((part.key, part.index))
        if key is None or chunks is None or (header := headers.get(key.segment)) is None:
            continue
        dek = keyring.part_key(header, key)
        plain[part.name] = open_part(part, [chunk.data for chunk in chunks], dek, entry["origin"])
    return plain
