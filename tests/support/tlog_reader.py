"""A reader of C2SP logs (tlog-tiles), written from the specification alone: it shares no code with ours.

Given a way to fetch a path it takes the checkpoint, all level-0 tiles and entry bundles, and recomputes the root.
"""

import hashlib
from collections.abc import Awaitable, Callable

from tests.support.witness import check_log_signature, head_of, split_note

Fetch = Callable[[str], Awaitable[bytes]]


def number(n: int) -> str:
    groups = [f"{n % 1000:03d}"]
    while n := n // 1000:
        groups.insert(0, f"x{n % 1000:03d}")
    return "/".join(groups)


def tree(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as it is defined there."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + tree(leaves[:k]) + tree(leaves[k:])).digest()


class Read:
    """What a log was found to hold."""

    def __init__(self, origin: str, size: int, root: bytes) -> None:
        self.origin, self.size, self.root = origin, size, root
        self.entries: list[bytes] = []
        self.leaves: list[bytes] = []


async def read(fetch: Fetch, *, origin: str, public: bytes, entries: bool = True) -> Read:
    """The log whole; AssertionError where it does not hold together."""
    text, lines = split_note(await fetch("checkpoint"))
    check_log_signature(origin, public, text, lines)
    found = Read(*head_of(text))
    assert found.origin == origin
    for n in range(0, found.size, 256):
        width = min(256, found.size - n)
        suffix = "" if width == 256 else f".p/{width}"
        tile = await fetch(f"tile/0/{number(n // 256)}{suffix}")
        assert len(tile) == 32 * width
        found.leaves += [tile[at : at + 32] for at in range(0, len(tile), 32)]
        if entries:
            bundle = await fetch(f"tile/entries/{number(n // 256)}{suffix}")
            while bundle:
                size = int.from_bytes(bundle[:2], "big")
                found.entries.append(bundle[2 : 2 + size])
                bundle = bundle[2 + size :]
    assert tree(found.leaves) == found.root
    if entries:
        assert [hashlib.sha256(b"\x00" + one).digest() for one in found.entries] == found.leaves
    full = found.size // 256
    for n in range(0, full, 256):  # level 1, from the leaves that were fetched
        width = min(256, full - n)
        tile = await fetch(f"tile/1/{number(n // 256)}{'' if width == 256 else f'.p/{width}'}")
        for at in range(width):
            below = found.leaves[(n + at) * 256 : (n + at + 1) * 256]
            assert tile[32 * at : 32 * at + 32] == tree(below)
    return found
