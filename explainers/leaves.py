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
PATTERNS_MAX = 20_000_000  # distinct (leaf, pattern) pairs: 400 MB
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
        p = self._conditions.met(row)[0][self._leaf]
        q = self._pattern
        gains, losses = p & ~q, q & ~p
        a, b = np.bitwise_count(gains), np.bitwise_count(losses)
        weight = np.where((p | q) == self._full, self._weight, 0.0)
        gain, loss = weight * self._gain[a, b], weight * self._loss[a, b]
        found = np.zeros(self._features)
        for slot, features in enumerate(self._slot_feature):
            bit = np.uint64(1 << slot)
            added = np.where(gains & bit, gain, 0.0) - np.where(losses & bit, loss, 0.0)
            found += np.bincount(features, added, self._features)
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
        self._inner = np.flatnonzero(counts)  # leaves below at least one split
        self.full = self._gather(self._bit[None, :])[0]

    def met(self, rows: Rows) -> Bits:
        """Which conditions of each leaf each row meets, one bit per condition; shape (n, leaves)."""
        values = rows[:, self.feature]
        passes = np.where(np.isnan(values), self.missing, (values >= self.low) & (values < self.high))
        return self._gather(np.where(passes, self._bit, np.uint64(0)))

    def _gather(self, bits: Bits) -> Bits:
        found = np.zeros((len(bits), len(self.counts)), np.uint64)
        if len(self._inner):
            found[:, self._inner] = np.bitwise_or.reduceat(bits, self.start[:-1][self._inner], axis=1)
        return found

    def distinct(self, baseline: Rows) -> tuple[npt.NDArray[np.int64], Bits, npt.NDArray[np.int64]]:
        """(leaf, pattern, number of baseline rows with it) for each distinct pair, ordered by leaf and pattern."""
        patterns: Bits = np.concatenate([self.met(baseline[at : at + 1]) for at in range(len(baseline))])
        found = [np.unique(patterns[:, leaf], return_counts=True) for leaf in self._inner.tolist()]
        sizes = np.asarray([len(values) for values, _ in found], np.int64)
        if sizes.sum() > PATTERNS_MAX:
            message = f"{int(sizes.sum())} patterns: more than {PATTERNS_MAX}; use fewer baseline rows"
            raise ArtifactError(message, code="model_unusable")
        if not found:
            empty = np.zeros(0, np.int64)
            return empty, empty.astype(np.uint64), empty
        leaf = np.repeat(self._inner, sizes)
        return leaf, np.concatenate([v for v, _ in found]), np.concatenate([n for _, n in found])

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
