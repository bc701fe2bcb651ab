"""The Merkle tree of RFC 6962 section 2.1 (and the verifying algorithms of RFC 9162 section 2.1). Pure.

Checks raise :class:`~storage.errors.Unverifiable`; they never return False, so that no caller can forget to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from storage.errors import Unverifiable

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """What must be kept of a tree to grow it: the roots of its perfect subtrees, largest first (at most 64)."""

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count() or any(len(peak) != HASH_BYTES for peak in self._peaks):
            raise Unverifiable(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees")

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash; O(1) amortised."""
        peaks, size = self._peaks, self.size
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)

    def root(self) -> bytes:
        """The tree head over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """An independent frontier of the same tree."""
        return Frontier(self.size, self._peaks)

    def to_bytes(self) -> bytes:
        """``u64 size`` (little-endian), then the peaks, largest subtree first."""
        return self.size.to_bytes(8, "little") + b"".join(self._peaks)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Frontier:
        """The inverse of :meth:`to_bytes`; raises Unverifiable on any other length."""
        if len(raw) < 8 or len(raw) % HASH_BYTES != 8:
            raise Unverifiable(f"a frontier cannot have {len(raw)} bytes")
        peaks = [raw[at : at + HASH_BYTES] for at in range(8, len(raw), HASH_BYTES)]
        return cls(int.from_bytes(raw[:8], "little"), peaks)


class Tree:
    """All levels of the tree over some leaves, so that every audit path is a look-up."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Sequence[bytes]) -> None:
        level = list(leaves)
        self._levels = [level]
        while len(level) > 1:
            above = [sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
            if len(level) & 1:  # RFC 6962 splits at a power of two: the odd node rises unchanged
                above.append(level[-1])
            self._levels.append(above)
            level = above

    @property
    def levels(self) -> list[list[bytes]]:
        """The nodes by level, leaves first."""
        return self._levels

    @property
    def root(self) -> bytes:
        """The tree head."""
        return self._levels[-1][0] if self._levels[0] else EMPTY_ROOT

    def path(self, index: int) -> list[bytes]:
        """The audit path of leaf ``index`` (RFC 6962 section 2.1.1), from the leaf upwards."""
        if not 0 <= index < len(self._levels[0]):
            raise IndexError(f"no leaf {index} in a tree of {len(self._levels[0])}")
        path = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index >>= 1
        return path


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The tree head over leaf hashes."""
    return Tree(leaves).root


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of one leaf (RFC 6962 section 2.1.1)."""
    return Tree(leaves).path(index)


def root_from_path(leaf: bytes, *, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an audit path leads to (RFC 9162 section 2.1.3.2).

    Raises Unverifiable for a path of another shape than this leaf of this tree has.
    """
    if not 0 <= index < size:
        raise Unverifiable(f"no leaf {index} in a tree of {size}")
    if len(leaf) != HASH_BYTES:
        raise Unverifiable("a leaf hash has 32 bytes")
    node, last, running = index, size - 1, leaf
    for sibling in path:
        if len(sibling) != HASH_BYTES:
            raise Unverifiable("a node of an audit path has 32 bytes")
        if last == 0:
            raise Unverifiable("the audit path is too long")
        if node & 1 or node == last:
            running = node_hash(sibling, running)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            running = node_hash(running, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Unverifiable("the audit path is too short")
    return running


def verify_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """True on return: ``leaf`` is number ``index`` of the tree (size, root); raises Unverifiable."""
    if root_from_path(leaf, index=index, size=size, path=path) != root:
        raise Unverifiable(f"leaf {index} is not in the tree of size {size} with this root")


def consistency_path(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """The proof that the tree over the first ``old_size`` leaves grew into all of them (RFC 6962 section 2.1.2)."""
    if not 0 < old_size <= len(leaves):
        raise IndexError(f"no consistency proof from size {old_size} to {len(leaves)}")
    return _subproof(leaves, old_size, whole=True)


def _subproof(leaves: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    size = len(leaves)
    if old_size == size:
        return [] if whole else [root_of(leaves)]
    split = 1 << ((size - 1).bit_length() - 1)
    if old_size <= split:
        return [*_subproof(leaves[:split], old_size, whole=whole), root_of(leaves[split:])]
    return [*_subproof(leaves[split:], old_size - split, whole=False), root_of(leaves[:split])]


def verify_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """True on return: the tree (size, root) only adds to (old_size, old_root). RFC 9162 section 2.1.4.2."""
    if not 0 <= old_size <= size:
        raise Unverifiable(f"a tree of {size} cannot grow out of one of {old_size}")
    if any(len(node) != HASH_BYTES for node in path) or (old_size < size and len(root) != HASH_BYTES):
        raise Unverifiable("a root, and each node of a consistency path, has 32 bytes")
    if size == 0 and root != EMPTY_ROOT:
        raise Unverifiable("the empty tree has another root")
    if old_size in (0, size):
        expected = EMPTY_ROOT if old_size == 0 else root
        if path or old_root != expected:
            raise Unverifiable(f"two roots, or a path, for one tree of {old_size}")
        return
    nodes = [old_root, *path] if old_size.bit_count() == 1 else list(path)
    if not nodes:
        raise Unverifiable("the consistency path is empty")
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            raise Unverifiable("the consistency path is too long")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Unverifiable("the consistency path is too short")
    if old != old_root or new != root:
        raise Unverifiable(f"the tree of {size} does not continue the tree of {old_size}")
