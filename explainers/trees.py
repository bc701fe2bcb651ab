"""The method of record for trees: exact interventional TreeSHAP with the route's baseline (Lundberg et al. 2020).

Contributions come from `leaves` in float64 and must add up to the model's margin. shap.TreeExplainer computes the same
from the artifact by itself; how far the two differ is stored with every explanation.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import cast

import numpy as np

from explainers.base import METHOD, METHOD_VERSION, Attribution, ExplanationRequest, Failure, Plan
from explainers.features import row
from explainers.leaves import KERNEL, LeafPatterns
from explainers.models import Rows, TreeModel, as_rows
from explainers.quality import ADDITIVITY_MAX, additivity, adds_up

# shap imports matplotlib for plots that no worker draws; None makes that import fail, which shap provides for, and
# halves a worker's start
sys.modules.setdefault("matplotlib", cast("ModuleType", None))

import shap  # noqa: E402 (after the line above, or it would have no effect)

VERSIONS = {"kernel": KERNEL, "numpy": np.__version__, "shap": shap.__version__}


class TreeExplainer:
    """One model with one baseline, ready to explain."""

    method = METHOD
    method_version = METHOD_VERSION

    def __init__(self, model: TreeModel, baseline: Rows) -> None:
        """Prepare `model` for rows compared with `baseline`, shape (n, features)."""
        self._model = model
        self._leaves = LeafPatterns(model, baseline)
        self.base = math.fsum(model.margin(baseline)) / len(baseline)
        # without max_samples shap would silently keep 100 rows of the baseline
        masker = shap.maskers.Independent(baseline, max_samples=len(baseline))
        self._shap = shap.TreeExplainer(model.booster, masker, feature_perturbation="interventional")

    def plan(self, request: ExplanationRequest) -> Plan:
        """Name the row to explain; the artifact is here, so no endpoint is asked.

        Raises:
            RefusedError: the recorded features are not the model's.
        """
        return Plan(request=request, row=row(request.features, self._model.features))

    def solve(self, plan: Plan) -> Attribution | Failure:
        """The contributions of `plan.row`'s features, or a failure if they do not add up to the model's output."""
        rows = as_rows(plan.row)
        found = self._leaves.contributions(rows)
        contributions = tuple(float(value) for value in found)
        value = float(self._model.margin(rows)[0])
        error = additivity(self.base, contributions, value)
        if not adds_up(error, base=self.base, value=value):
            return Failure(
                code="not_additive",
                message=f"base and contributions miss the model's output by {error:.3g}; "
                f"allowed is {ADDITIVITY_MAX:g}, times its size where that is above 1",
            )
        second = self._shap.shap_values(rows, check_additivity=True)[0]
        return Attribution(
            method=self.method,
            method_version=self.method_version,
            base=self.base,
            value=value,
            contributions=contributions,
            additivity=error,
            shap_difference=float(np.max(np.abs(found - second))),
        )
