"""How good an explanation is, in numbers that are stored with it (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ADDITIVITY_MAX = 1e-9  # float64 sums of a thousand trees differ by 1e-13; more means that something else was explained

# shap weighs in float32: 3e-8 was the most seen; times the contributions' size where that is above 1
AGREEMENT_MAX = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sufficiency:
    """What happens when the reasons' features are set to the baseline's values, averaged over its rows.

    `gap_closed` is the part of the gap to the baseline that disappears (1 = all, negative = it grows); `flips` whether
    the decision then comes out the other way.
    """

    gap_closed: float
    flips: bool

    @property
    def sufficient(self) -> bool:
        """The reasons alone flip the decision or close at least half of the gap."""
        return self.flips or self.gap_closed >= 0.5


def agrees(shap_difference: float, contributions: Sequence[float]) -> bool:
    """Whether shap finds the same contributions, as far as its float32 weights allow; if not, a human must look."""
    return shap_difference <= AGREEMENT_MAX * max(1.0, math.fsum(abs(value) for value in contributions))


def additivity(base: float, contributions: Sequence[float], value: float) -> float:
    """|base + sum(contributions) - value|; NaN if any of them is not finite."""
    if not all(math.isfinite(term) for term in (base, value, *contributions)):
        return math.nan
    return abs(math.fsum((base, *contributions)) - value)


def adds_up(error: float, *, base: float, value: float) -> bool:
    """Whether an additivity error is rounding: at most `ADDITIVITY_MAX`, times the outputs' size if above 1."""
    return error <= ADDITIVITY_MAX * max(1.0, abs(base), abs(value))


def sufficiency(
    *, base: float, value: float, replaced: Sequence[float], cutoff: float, favourable_is_higher: bool
) -> Sufficiency:
    """Compare `value` with `replaced`: one margin per baseline row, of the same person with the reasons removed."""
    mean = math.fsum(replaced) / len(replaced)
    return Sufficiency(
        gap_closed=(mean - value) / (base - value),
        flips=on_favourable_side(mean, cutoff=cutoff, favourable_is_higher=favourable_is_higher),
    )


def on_favourable_side(margin: float, *, cutoff: float, favourable_is_higher: bool) -> bool:
    """Whether the cutoff alone makes a decision at `margin` favourable; the cutoff itself is favourable."""
    return margin >= cutoff if favourable_is_higher else margin <= cutoff
