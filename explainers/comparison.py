"""Does a registered model answer as was recorded? The bound share over decisions, before anything relies on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from explainers.binding import bind
from explainers.errors import RefusedError
from explainers.features import row
from explainers.models import as_rows
from explainers.registry import Checked

NAMED_MAX = 20  # differences that are listed one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One recorded decision: its features as they stood in the request, and its score in the answer's own space."""

    decision: str
    features: Mapping[str, Any]
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many of `total` decisions the model answers as recorded; one line for each that differs."""

    total: int
    bound: int
    differences: tuple[str, ...]

    @property
    def summary(self) -> str:
        """For example ``bound 197 of 200; 3 differ``."""
        differ = self.total - self.bound
        return f"bound {self.bound} of {self.total}" + (f"; {differ} differ" if differ else "")


def compare(checked: Checked, recorded: Iterable[Recorded]) -> Comparison:
    """Run the model of `checked` on each decision's recorded features and compare with its recorded score."""
    total = bound = 0
    differences: list[str] = []
    for one in recorded:
        total += 1
        why = _difference(checked, one)
        if why is None:
            bound += 1
        elif len(differences) < NAMED_MAX:
            differences.append(f"{one.decision}: {why}")
    return Comparison(total=total, bound=bound, differences=tuple(differences))


def _difference(checked: Checked, one: Recorded) -> str | None:
    output = checked.registration.output
    if one.score is None:
        return "no score was recorded"
    try:
        values = row(one.features, checked.model.features)
    except RefusedError as error:
        return error.message
    margin = float(checked.model.margin(as_rows(values))[0])
    explained = checked.model.answer(margin) if output.space == "probability" else margin
    found = bind(level="declared", recorded=one.score, explained=explained, tolerance=output.tolerance)
    if found.level == "unbound":
        return f"recorded {one.score!r}, the model answers {explained!r}"
    return None
