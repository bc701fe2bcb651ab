"""Whether the full tiles of one tree are there once, without a gap, and each level is made of the one below."""

from __future__ import annotations

from collections.abc import Callable

from storage import tiles
from storage.findings import Findings
from storage.tiles import WIDTH
from storage.windows import Reader


def check_tiles(findings: Findings, reader: Reader, *, wanted: int, walked: int, stored: Callable[[], int]) -> None:
    """Check the tiles of a tree.

    Args:
        findings: what is wrong goes there, under `tiles`.
        reader: of the tree's origin.
        wanted: leaves under the newest published checkpoint.
        walked: leaves that were looked at, so that their tiles can be asked for.
        stored: tells how many leaves are there now.
    """
    findings.checked("tiles")
    counts = {level: rest for level, *rest in reader.tile_counts()}
    there, level, span = stored(), 0, WIDTH
    while span <= wanted or level in counts:
        rows, numbers, last, odd = counts.pop(level, (0, 0, -1, 0))
        if rows != numbers or odd or numbers != last + 1 or (last + 1) * span > there:
            detail = f"level {level} has {rows} tiles with {numbers} numbers up to {last}, {odd} of them not full"
            findings.broken("tiles", None, detail)
        elif numbers < min(wanted, walked) // span:
            detail = f"level {level} has {numbers} full tiles of {wanted // span}; proofs are made without them"
            findings.unknown("tiles", numbers * span, detail)
        elif level:
            _compare_level(findings, reader, level, numbers)
        level, span = level + 1, span * WIDTH
    for level in counts:
        findings.broken("tiles", None, f"tiles of level {level}, which the tree has not")


def _compare_level(findings: Findings, reader: Reader, level: int, count: int) -> None:
    for n in range(count):
        below = reader.upper_tiles(level - 1, n * WIDTH, (n + 1) * WIDTH)
        made = b"".join(tiles.tile_root(hashes) for _, hashes in below)
        if [hashes for _, hashes in reader.upper_tiles(level, n, n + 1)] != [made]:
            detail = f"tile {n} of level {level} is not made of those below"
            findings.broken("tiles", n * WIDTH ** (level + 1), detail)
