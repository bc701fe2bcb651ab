"""From recorded request values to a model row (pure): each value is a number or missing, or the job fails by name.

Values arrive as JSON: ``null`` is a missing value, as NaN is to XGBoost; ``true`` and ``false`` are 1 and 0. Text is
never converted: "3" may be a code, and a guessed number would give a wrong explanation instead of none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from explainers.errors import RefusedError

FLOAT32_MAX = 3.4028234663852886e38  # XGBoost compares in float32; beyond it a number becomes infinite there
INTEGER_MAX = 2**63 - 1  # what JSON carries between the processes; beyond it a request holds a float anyway
NAMED_MAX = 5  # names in one message


def row(features: Mapping[str, Any], names: Sequence[str]) -> tuple[float | None, ...]:
    """The values of `features` in the order of `names`, None where missing.

    Raises:
        RefusedError: `features_differ` for absent or extra features, `feature_unusable` for a value that is not a
            finite number, true, false or null. The message names the feature, never its value.
    """
    absent = [name for name in names if name not in features]
    if absent:
        raise RefusedError(
            f"absent from the request: {_listed(absent)}; a missing value is sent as null", code="features_differ"
        )
    if len(features) > len(names):
        extra = sorted(set(features) - set(names))
        raise RefusedError(f"unknown to the model: {_listed(extra)}", code="features_differ")
    return tuple(number(name, features[name]) for name in names)


def number(name: str, value: object) -> float | None:
    """`value` as the model sees it, None if missing.

    Raises:
        RefusedError: it is neither a number within float32, nor true, false or null.
    """
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise RefusedError(f"feature {name}: expected a number or null, found {_kind(value)}", code="feature_unusable")
    try:
        converted = float(value)
    except OverflowError:
        converted = math.inf
    if math.isnan(converted):
        return None
    if abs(converted) > FLOAT32_MAX:
        raise RefusedError(f"feature {name}: the number does not fit into float32", code="feature_unusable")
    return converted


def encodable(features: Mapping[str, Any]) -> None:
    """True on return: no value would turn into another one as JSON (infinity would become a missing value).

    Raises:
        RefusedError: `feature_unusable`, naming the feature.
    """
    for name, value in features.items():
        too_large = isinstance(value, int) and abs(value) > INTEGER_MAX
        if too_large or (isinstance(value, float) and math.isinf(value)):
            raise RefusedError(f"feature {name}: the number does not fit into float32", code="feature_unusable")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    return {"list": "a list", "dict": "an object"}.get(type(value).__name__, type(value).__name__)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED_MAX])
    return shown if len(names) <= NAMED_MAX else f"{shown} and {len(names) - NAMED_MAX} more"
