"""What expands without end is not expanded: the keeper's adapters read at most `parse_bytes_max`."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import zstandard

from storage.protocols.faults import Unreadable
from storage.protocols.reading import adapter_for, answer_document, sides_asked

PARSED_BYTES = 1024 * 1024
EXPANDED_BYTES = 64 * 1024 * 1024
NOUGHTS = b"0" * (1024 * 1024)


def expanding(compressor: object) -> bytes:
    pieces = [compressor.compress(NOUGHTS) for _ in range(EXPANDED_BYTES // len(NOUGHTS))]  # type: ignore[attr-defined]
    return b"".join(pieces) + compressor.flush()  # type: ignore[attr-defined]  # zlib's and zstandard's share no base


BOMBS = {
    "gzip": lambda: expanding(zlib.compressobj(9, wbits=31)),
    "zlib": lambda: expanding(zlib.compressobj(9)),
    "zstd": lambda: expanding(zstandard.ZstdCompressor(level=3).compressobj()),
    "zstd of many frames": lambda: zstandard.compress(NOUGHTS) * 64,
    "gzip of gzip": lambda: gzip.compress(expanding(zlib.compressobj(9, wbits=31))),
    "nesting": lambda: b"[" * 900_000,
    "nesting closed": lambda: b"[" * 400_000 + b"]" * 400_000,
    "a long number": lambda: b"1" * 900_000,
}


@pytest.mark.parametrize("protocol", ["generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow"])
@pytest.mark.parametrize("bomb", list(BOMBS))
def test_a_bomb_is_unreadable_and_is_never_held_in_memory(protocol: str, bomb: str):
    raw, adapter = BOMBS[bomb](), adapter_for(protocol)
    tracemalloc.start()
    try:
        for read in (sides_asked, answer_document):
            with pytest.raises(Unreadable):
                read(adapter, raw, parse_bytes_max=PARSED_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 32 * PARSED_BYTES
    finally:
        tracemalloc.stop()
