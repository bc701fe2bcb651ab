"""How sure it is that the explained model is the one that answered (pure).

- `announced`: the endpoint named its version, that version's digest is registered, and the outputs agree where known;
- `output-matched`: nobody named a version, but the model's output equals the recorded answer;
- `declared`: only the configuration says so, and no score was recorded to check it by;
- `unbound`: the outputs differ. Stored and shown to model owners; never a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from explainers.base import Binding, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The level; |explained output - recorded answer| and how large it may be, where an answer was recorded."""

    level: Binding
    difference: float | None
    allowed: float | None


def allowed(tolerance: float, size: float) -> float:
    """How far two evaluations of an output of this size may differ: float32 carries digits, not decimal places."""
    return tolerance * max(1.0, abs(size))


def bind(*, level: Level, recorded: float | None, explained: float, tolerance: float) -> Bound:
    """Compare what was recorded with what the explained model answers, both in the answer's own space."""
    if recorded is None:
        return Bound(level=level, difference=None, allowed=None)
    difference = abs(explained - recorded)
    # by the explained output's size: a recorded infinity must not allow everything; a recorded NaN is a difference too
    most = allowed(tolerance, explained)
    if not difference <= most:
        return Bound(level="unbound", difference=difference, allowed=most)
    matched: Binding = "announced" if level == "announced" else "output-matched"
    return Bound(level=matched, difference=difference, allowed=most)
