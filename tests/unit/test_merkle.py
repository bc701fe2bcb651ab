"""The tree against the vectors of certificate-transparency, cpp/merkletree/merkle_tree_test.cc (RFC 6962's authors)."""

from __future__ import annotations

import hashlib

import pytest

from storage import merkle
from storage.errors import Unverifiable

LEAVES = [
    merkle.leaf_hash(bytes.fromhex(text))
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
# (leaf, tree size, path) of the same publication
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def test_the_published_roots_come_out_of_tree_and_frontier() -> None:
    frontier = merkle.Frontier()
    assert frontier.root() == ROOTS[0]
    for size, leaf in enumerate(LEAVES, 1):
        frontier.append(leaf)
        assert frontier.root() == merkle.root_of(LEAVES[:size]) == ROOTS[size]
        assert merkle.Frontier.from_bytes(frontier.to_bytes()).root() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_the_published_audit_paths_come_out(index: int, size: int) -> None:
    path = [bytes.fromhex(text) for text in PATHS[index, size]]
    assert merkle.inclusion_path(LEAVES[:size], index) == path
    merkle.verify_inclusion(LEAVES[index], index=index, size=size, path=path, root=ROOTS[size])


@pytest.mark.parametrize(("old", "size"), CONSISTENCY)
def test_the_published_consistency_paths_come_out(old: int, size: int) -> None:
    path = [bytes.fromhex(text) for text in CONSISTENCY[old, size]]
    assert merkle.consistency_path(LEAVES[:size], old) == path
    merkle.verify_consistency(old_size=old, old_root=ROOTS[old], size=size, root=ROOTS[size], path=path)


def _leaves(size: int) -> list[bytes]:
    return [merkle.leaf_hash(str(number).encode()) for number in range(size)]


def test_every_leaf_of_every_small_tree_verifies_and_no_forgery_does() -> None:
    for size in range(1, 34):
        leaves = _leaves(size)
        root = merkle.root_of(leaves)
        for index, leaf in enumerate(leaves):
            path = merkle.inclusion_path(leaves, index)
            merkle.verify_inclusion(leaf, index=index, size=size, path=path, root=root)
            forged = [
                {"index": index ^ 1, "size": size, "path": path, "root": root},
                {"index": index, "size": size, "path": [*path, leaf], "root": root},
                {"index": size, "size": size, "path": path, "root": root},
                {"index": -1, "size": size, "path": path, "root": root},
                {"index": index, "size": size, "path": path, "root": hashlib.sha256(root).digest()},
                {"index": index, "size": 0, "path": [], "root": root},
                {"index": index, "size": size, "path": [*path[:-1], b"short"], "root": root},
            ]
            if path:
                forged += [
                    {"index": index, "size": size, "path": path[:-1], "root": root},
                    {"index": index, "size": size, "path": [], "root": root},
                ]
            for forgery in forged:
                with pytest.raises(Unverifiable):
                    merkle.verify_inclusion(leaf, **forgery)


def test_a_node_is_not_taken_for_a_leaf() -> None:
    inner = merkle.node_hash(LEAVES[0], LEAVES[1])
    with pytest.raises(Unverifiable):
        merkle.verify_inclusion(merkle.leaf_hash(b"\x01" + LEAVES[0] + LEAVES[1]), index=0, size=1, path=[], root=inner)


def test_every_small_tree_is_consistent_with_each_of_its_beginnings_and_no_forgery_is() -> None:
    for size in range(1, 20):
        leaves = _leaves(size)
        root = merkle.root_of(leaves)
        for old in range(1, size + 1):
            path = merkle.consistency_path(leaves, old)
            true = {"old_size": old, "old_root": merkle.root_of(leaves[:old]), "size": size, "root": root, "path": path}
            merkle.verify_consistency(**true)
            forged = [
                {**true, "root": hashlib.sha256(root).digest()},
                {**true, "old_root": hashlib.sha256(root).digest()},
                {**true, "path": [*path, root]},
                {**true, "old_size": size + 1},
                {**true, "path": [b"short"]},
            ]
            if old < size:
                forged += [{**true, "path": path[:-1]}, {**true, "path": []}]
            for forgery in forged:
                with pytest.raises(Unverifiable):
                    merkle.verify_consistency(**forgery)
    merkle.verify_consistency(old_size=0, old_root=merkle.EMPTY_ROOT, size=3, root=ROOTS[3], path=[])
    with pytest.raises(Unverifiable):
        merkle.verify_consistency(old_size=0, old_root=ROOTS[1], size=3, root=ROOTS[3], path=[])


def test_a_frontier_of_the_wrong_shape_is_refused() -> None:
    whole = merkle.Frontier()
    for leaf in LEAVES[:5]:
        whole.append(leaf)
    raw = whole.to_bytes()
    for wrong in (raw[:-1], raw[:-32], raw + bytes(32), b"", raw[:4]):
        with pytest.raises(Unverifiable):
            merkle.Frontier.from_bytes(wrong)
    copy = whole.copy()
    copy.append(LEAVES[5])
    assert (whole.size, copy.size, copy.root()) == (5, 6, ROOTS[6])


def test_there_is_no_path_outside_the_tree() -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_path(LEAVES, 8)
    for old in (0, 9):
        with pytest.raises(IndexError):
            merkle.consistency_path(LEAVES, old)
