"""Exact interventional Shapley values of trees in float64, leaf by leaf, against the distinct patterns of the baseline.

A leaf is reached when a condition holds on each of its path's d distinct features: an interval, and whether a missing
value passes. Let p be the set of conditions that the explained row meets, and q a baseline row's. Some mixture of both
rows reaches the leaf iff p and q together meet all; then, with a = |p - q| and b = |q - p|, a leaf of weight w adds
``w (a-1)! b! / (a+b)!`` to each feature in p - q and takes ``w a! (b-1)! / (a+b)!`` from each in q - p
(Lundberg et al., "From local explanations to global understanding with explainable AI for trees", 2020, Algorithm 3).
Baseline rows with the same q count once, with their share. shap's C code does the same with float32 weights, which is
why its sums miss the model's output by about 1e-8.
"""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from explainers.errors import ArtifactError
from explainers.models import Doubles, Rows, TreeModel, Trees

PATH_FEATURES_MAX = 64  # distinct features on one path: one bit each
PATTERN_CELLS_MAX = 50_000_000  # distinct (leaf, pattern) pairs times the longest path: 400 MB
BLOCK_CELLS = 2_000_000  # baseline rows times leaves at once: about 100 MB of intermediate arrays
KERNEL = "numpy-float64"

Bits = npt.NDArray[np.uint64]


class LeafPatterns:
    """The leaves of a model with a baseline's patterns, ready to attribute rows."""

    def __init__(self, model: TreeModel, baseline: Rows) -> None:
        """Read every leaf's conditions and count how the rows of `baseline`, shape (n, features), meet them.

        Raises:
            ArtifactError: a path has more than 64 distinct features, or the patterns need too much memory.
        """
        conditions = _Conditions(model.trees)
        leaf, pattern, count = conditions.distinct(baseline)
        self._conditions = conditions
        self._features = len(model.features)
        self._leaf, self._pattern = leaf, pattern
        self._full = conditions.full[leaf]
        self._weight: Doubles = conditions.weight[leaf] * (count / len(baseline))
        most = max(conditions.counts.max(initial=0), 1)
        self._gain, self._loss = _shapley_weights(int(most))
        self._slot_feature = conditions.slot_features(int(most))[:, leaf]  # (d, pairs)

    def contributions(self, row: Rows) -> Doubles:
        """What each feature of `row`, shape (1, features), adds to the margin; shape (features,)."""
        met = self._conditions.met(row)[0][self._leaf]
        reached = np.flatnonzero((met | self._pattern) == self._full)  # by some mixture of the two rows
        p, q, weight = met[reached], self._pattern[reached], self._weight[reached]
        gains, losses = p & ~q, q & ~p
        a, b = np.bitwise_count(gains), np.bitwise_count(losses)
        gain, loss = weight * self._gain[a, b], weight * self._loss[a, b]
        found = np.zeros(self._features)
        for slot, features in enumerate(self._slot_feature):
            bit = np.uint64(1 << slot)
            added = np.where(gains & bit, gain, 0.0) - np.where(losses & bit, loss, 0.0)
            found += np.bincount(features[reached], added, self._features)
        return found


class _Conditions:
    """All conditions of all leaves, leaf after leaf: feature, ``low <= value < high``, and whether missing passes."""

    def __init__(self, trees: Trees) -> None:
        leaves = [leaf for root in trees.roots.tolist() for leaf in _leaves(trees, root)]
        counts = np.asarray([len(conditions) for _, conditions in leaves], np.int64)
        if counts.max(initial=0) > PATH_FEATURES_MAX:
            message = f"a path uses {counts.max()} features: at most {PATH_FEATURES_MAX} can be explained exactly"
            raise ArtifactError(message, code="model_unusable")
        flat = [condition for _, conditions in leaves for condition in conditions.items()]
        self.counts = counts
        self.weight: Doubles = np.asarray([weight for weight, _ in leaves], np.float64)
        self.feature = np.asarray([feature for feature, _ in flat], np.int64)
        self.low = np.asarray([low for _, (low, _, _) in flat], np.float32)
        self.high = np.asarray([high for _, (_, high, _) in flat], np.float32)
        self.missing = np.asarray([missing for _, (_, _, missing) in flat], bool)
        self.start = np.concatenate([[0], np.cumsum(counts)])
        self._slot = np.arange(len(flat)) - np.repeat(self.start[:-1], counts)
        self._bit: Bits = np.left_shift(np.uint64(1), self._slot.astype(np.uint64))
        self.full: Bits = self._joined(self._bit[None, :], 0, len(counts))[0]

    def met(self, rows: Rows, leaves: slice = slice(None)) -> Bits:
        """Which conditions of each of the `leaves` each row meets, one bit per condition; shape (n, leaves)."""
        first, last, _ = leaves.indices(len(self.counts))
        span = slice(self.start[first], self.start[last])
        values = rows[:, self.feature[span]]
        passes = np.where(np.isnan(values), self.missing[span], (values >= self.low[span]) & (values < self.high[span]))
        return self._joined(np.where(passes, self._bit[span], np.uint64(0)), first, last)

    def _joined(self, bits: Bits, first: int, last: int) -> Bits:
        """The bits of each leaf's conditions put together; from (n, conditions) to (n, last - first)."""
        found = np.zeros((len(bits), last - first), np.uint64)
        inner = np.flatnonzero(self.counts[first:last])  # a tree of one leaf has no condition to gather
        if len(inner):
            starts = self.start[first:last][inner] - self.start[first]
            found[:, inner] = np.bitwise_or.reduceat(bits, starts, axis=1)
        return found

    def distinct(self, baseline: Rows) -> tuple[npt.NDArray[np.int64], Bits, npt.NDArray[np.int64]]:
        """(leaf, pattern, number of baseline rows with it) for each distinct pair, ordered by leaf and pattern."""
        found: list[tuple[Bits, npt.NDArray[np.int64]]] = []
        step = max(1, BLOCK_CELLS // len(baseline))
        for first in range(0, len(self.counts), step):
            patterns = self.met(baseline, slice(first, first + step))
            found += [np.unique(column, return_counts=True) for column in patterns.T]
        sizes = np.asarray([len(values) for values, _ in found], np.int64)
        if sizes.sum() * self.counts.max(initial=1) > PATTERN_CELLS_MAX:
            message = f"{int(sizes.sum())} patterns in the baseline are too many to hold; use fewer rows"
            raise ArtifactError(message, code="model_unusable")
        leaf = np.repeat(np.arange(len(found)), sizes)
        return leaf, np.concatenate([values for values, _ in found]), np.concatenate([n for _, n in found])

    def slot_features(self, slots: int) -> npt.NDArray[np.int64]:
        """The feature of each leaf's slot, 0 where the leaf has fewer; shape (slots, leaves)."""
        table = np.zeros((slots, len(self.counts)), np.int64)
        table[self._slot, np.repeat(np.arange(len(self.counts)), self.counts)] = self.feature
        return table


def _leaves(trees: Trees, root: int) -> list[tuple[float, dict[int, tuple[float, float, bool]]]]:
    """(weight, {feature: (low, high, missing passes)}) of each leaf below `root` that some value can reach."""
    found = []
    stack: list[tuple[int, dict[int, tuple[float, float, bool]]]] = [(root, {})]
    while stack:
        node, conditions = stack.pop()
        left, right = int(trees.left[node]), int(trees.right[node])
        if left == node:
            found.append((float(trees.weight[node]), conditions))
            continue
        feature, threshold = int(trees.feature[node]), float(trees.threshold[node])
        low, high, missing = conditions.get(feature, (-np.inf, np.inf, True))
        goes_left = int(trees.default[node]) == left
        below = (low, min(high, threshold), missing and goes_left)
        above = (max(low, threshold), high, missing and not goes_left)
        stack.append((left, {**conditions, feature: below}))
        stack.append((right, {**conditions, feature: above}))
    return found


def _shapley_weights(most: int) -> tuple[Doubles, Doubles]:
    """(gain, loss) by [a, b], zero where there is nothing to share; exact integers divided once."""
    gain, loss = np.zeros((most + 1, most + 1)), np.zeros((most + 1, most + 1))
    for a in range(most + 1):
        for b in range(most + 1 - a):
            total: Any = factorial(a + b)
            if a:
                gain[a, b] = factorial(a - 1) * factorial(b) / total
            if b:
                loss[a, b] = factorial(a) * factorial(b - 1) / total
    return gain, loss
