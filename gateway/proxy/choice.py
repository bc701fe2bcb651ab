"""Which replica gets the next call: the one with the fewest calls under way, by lot among equals (pure).

Without the lot all workers of all hosts would prefer the first replica of the list whenever the load is low.
"""

from __future__ import annotations

from collections.abc import Sequence


def least(outstanding: Sequence[int], roll: float) -> int:
    """The index of a smallest number in `outstanding` (not empty); `roll` in [0, 1) says which of several."""
    fewest = min(outstanding)
    equal = [index for index, count in enumerate(outstanding) if count == fewest]
    return equal[int(roll * len(equal))]
