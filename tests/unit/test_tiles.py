"""Tiles of the tree, against the examples of c2sp.org/tlog-tiles and against the tree made whole."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage import merkle, tiles
from storage.errors import Unverifiable
from storage.tiles import WIDTH, Tile


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


class Shelf:
    """All tiles of a tree, made by their definition; counts what is read."""

    def __init__(self, of: list[bytes]) -> None:
        self.levels = [of]
        while len(self.levels[-1]) >= WIDTH:
            below = self.levels[-1]
            spans = range(0, len(below) // WIDTH * WIDTH, WIDTH)
            self.levels.append([merkle.root_of(below[at : at + WIDTH]) for at in spans])
        self.read: list[Tile] = []

    def __call__(self, tile: Tile) -> bytes:
        self.read.append(tile)
        hashes = self.levels[tile.level][tile.n * WIDTH : tile.n * WIDTH + tile.width]
        assert len(hashes) == tile.width
        return b"".join(hashes)


@given(size=st.integers(1, 1_500), data=st.data())
@example(size=256, data=None)
@example(size=257, data=None)
@settings(max_examples=60, deadline=None)
def test_a_path_from_tiles_is_the_path_of_the_whole_tree(size: int, data: st.DataObject | None) -> None:
    index = data.draw(st.integers(0, size - 1)) if data else size - 1
    of = leaves(size)
    shelf = Shelf(of)
    path = tiles.inclusion_path(index, size, shelf)
    assert path == merkle.inclusion_path(of, index)
    merkle.verify_inclusion(of[index], index=index, size=size, path=path, root=merkle.root_of(of))


def test_a_large_tree_needs_few_tiles() -> None:
    size = 70_000
    of = leaves(size)
    shelf = Shelf(of)
    path = tiles.inclusion_path(65_535, size, shelf)
    merkle.verify_inclusion(of[65_535], index=65_535, size=size, path=path, root=merkle.root_of(of))
    assert len(set(shelf.read)) <= 6


def test_a_leaf_outside_the_tree_has_no_path() -> None:
    for index, size in ((0, 0), (1, 1), (-1, 3)):
        with pytest.raises(Unverifiable):
            tiles.inclusion_path(index, size, Shelf(leaves(3)))


def test_the_example_of_the_specification_has_the_tiles_that_it_names() -> None:
    full = list(tiles.full_tiles(70_000))
    assert [sum(tile.level == level for tile in full) for level in (0, 1, 2)] == [273, 1, 0]
    assert list(tiles.full_tiles(256)) == [Tile(0, 0)]
    assert list(tiles.full_tiles(255)) == []


def test_growing_names_each_full_tile_once() -> None:
    grown = [tile for done in range(0, 66_000, 100) for tile in tiles.full_tiles(done + 100, done=done)]
    assert sorted(grown) == sorted(tiles.full_tiles(66_000))


def test_the_root_of_a_full_tile_is_the_root_over_its_hashes() -> None:
    of = leaves(WIDTH)
    assert tiles.tile_root(b"".join(of)) == merkle.root_of(of)
    with pytest.raises(Unverifiable):
        tiles.tile_root(b"".join(of[:-1]))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "0/000"),
        (Tile(0, 1_234_067), "0/x001/x234/067"),
        (Tile(5, 1000, 7), "5/x001/000.p/7"),
        (Tile(63, 999, 255), "63/999.p/255"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert tiles.parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0/0",
        "0/0000",
        "00/000",
        "64/000",
        "0/x000/000",
        "0/001/002",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/07",
        "0/000\n",
        "0/000.p/7\n",
        "0/\u0660\u0660\u0660",
        "x/000",
    ],
)
def test_another_spelling_of_a_path_is_refused(path: str) -> None:
    with pytest.raises(Unverifiable):
        tiles.parse_path(path)
