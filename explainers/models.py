"""Tree models from their artifacts: the same trees twice, in XGBoost's own float32 and summed in float64.

An XGBoost JSON file is data: loading it runs nothing. Its trees are read here once more, so that what shap says can
be checked against a sum that shap did not make. Format: the model schema in XGBoost's documentation ("Introduction to
Model IO", doc/model.schema).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import xgboost

from config.registration import Registration
from explainers.errors import ArtifactError

Rows = npt.NDArray[np.float32]  # (n, features), NaN where missing
Doubles = npt.NDArray[np.float64]

LINKS = {"binary:logistic": "logit", "reg:logistic": "logit", "reg:squarederror": "identity"}
NODES_MAX = 4_000_000  # about 100 MB of arrays
PARSE_DIFFERENCE_MAX = 1e-4  # float32 sums of hundreds of trees against float64 ones
DEPTH_MAX = 512  # XGBoost's own trees stay far below; a longer path is a broken file


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """All nodes of all trees, one after the other; node ids are positions in these arrays.

    A row goes left if ``value < threshold`` in float32, to `default` if the value is missing. In a leaf all three
    children are the node itself, and `weight` is what it adds to the margin.
    """

    roots: npt.NDArray[np.int32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    default: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    weight: Doubles
    depth: int  # the longest path


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeModel:
    """A loaded model; `features` in the order of its columns."""

    digest: str
    features: tuple[str, ...]
    link: str  # "logit": the answer is the margin's sigmoid; "identity": the answer is the margin
    offset: float  # what every margin starts from
    trees: Trees
    booster: xgboost.Booster

    def margin(self, rows: Rows) -> Doubles:
        """The margin of each row, trees summed in float64 in their order; shape (n,)."""
        trees = self.trees
        nodes = np.broadcast_to(trees.roots, (len(rows), len(trees.roots)))
        at = np.arange(len(rows))[:, None]
        for _ in range(trees.depth):
            values = rows[at, trees.feature[nodes]]
            below = np.where(values < trees.threshold[nodes], trees.left[nodes], trees.right[nodes])
            nodes = np.where(np.isnan(values), trees.default[nodes], below)
        leaves: Doubles = trees.weight[nodes].sum(axis=1)
        return leaves + self.offset

    def extreme(self, *, highest: bool) -> float:
        """The highest (or lowest) margin if every tree gave its highest (lowest) leaf: no row lies beyond it."""
        pick = np.maximum if highest else np.minimum
        leaves = np.where(
            self.trees.left == np.arange(len(self.trees.left)), self.trees.weight, -np.inf if highest else np.inf
        )
        return float(pick.reduceat(leaves, self.trees.roots).sum()) + self.offset

    def answer(self, margin: float) -> float:
        """What the model answers at `margin`: a probability under the logit link."""
        return sigmoid(margin) if self.link == "logit" else margin

    def served(self, rows: Rows) -> Doubles:
        """What XGBoost itself answers for each row, in its float32; shape (n,)."""
        predicted = self.booster.inplace_predict(rows, missing=np.nan, validate_features=False)
        return np.asarray(predicted, dtype=np.float64)


def sigmoid(margin: float) -> float:
    """1 / (1 + exp(-margin)) without overflow."""
    if margin >= 0:
        return 1.0 / (1.0 + math.exp(-margin))
    grown = math.exp(margin)
    return grown / (1.0 + grown)


def logit(probability: float) -> float:
    """The margin at which the model answers `probability`, which lies strictly between 0 and 1."""
    return math.log(probability / (1.0 - probability))


def as_rows(values: Sequence[float | None]) -> Rows:
    """One model row of shape (1, features), NaN where missing."""
    return np.asarray([[math.nan if value is None else value for value in values]], dtype=np.float32)


def check_parse(model: TreeModel, rows: Rows) -> None:
    """True on return: the trees summed here answer `rows` like XGBoost, within float32.

    Raises:
        ArtifactError: they do not.
    """
    ours = np.asarray([model.answer(float(margin)) for margin in model.margin(rows)])
    served = model.served(rows)
    worst = float(np.max(np.abs(ours - served) / np.maximum(1.0, np.abs(served))))
    if not worst <= PARSE_DIFFERENCE_MAX:
        raise ArtifactError(
            f"the artifact's trees differ from XGBoost's own answers by {worst:.3g}", code="model_unusable"
        )


def cutoff_margin(registration: Registration) -> float:
    """The registration's cutoff in margin space."""
    output = registration.output
    in_probability = output.cutoff_space == "probability" and output.link == "logit"
    return logit(output.cutoff) if in_probability else output.cutoff


def load_xgboost_json(content: bytes, digest: str) -> TreeModel:
    """The model in `content`, an XGBoost JSON artifact whose digest the caller has checked.

    Raises:
        ArtifactError: it is no such artifact, or of a kind that cannot be explained exactly; the message says which.
    """
    try:
        learner = orjson.loads(content)["learner"]
        names = tuple(learner["feature_names"])
        objective = learner["objective"]["name"]
        params = learner["learner_model_param"]
        gradient = learner["gradient_booster"]
        if not names or len(names) != int(params["num_feature"]) or len(set(names)) != len(names):
            raise _unusable("the artifact carries no feature names; train on named columns and save again")
        _check_kind(learner, gradient, params, objective)
        trees = _read_trees(gradient["model"]["trees"], len(names))
        offset = _offset(params["base_score"], LINKS[objective])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _unusable(f"not an XGBoost JSON model ({type(error).__name__}: {error})") from error
    return TreeModel(
        digest=digest,
        features=names,
        link=LINKS[objective],
        offset=offset,
        trees=trees,
        booster=_booster(content),
    )


def _unusable(message: str) -> ArtifactError:
    advice = "Save the model with Booster.save_model as .json; see explainers/README.md for what can be explained."
    return ArtifactError(message, code="model_unusable", advice=advice)


def _check_kind(learner: dict[str, Any], gradient: dict[str, Any], params: dict[str, Any], objective: str) -> None:
    if gradient["name"] != "gbtree":
        raise _unusable(f"booster {gradient['name']}: expected gbtree")
    if objective not in LINKS:
        raise _unusable(f"objective {objective}: expected one of {', '.join(LINKS)}")
    if int(params["num_class"]) > 1 or int(params.get("num_target", "1")) > 1:
        raise _unusable("several outputs: expected a model with one")
    if int(gradient["model"]["gbtree_model_param"].get("num_parallel_tree", "1")) > 1:
        raise _unusable("num_parallel_tree is above 1: boosted forests are not explained yet")
    if "c" in (learner.get("feature_types") or ()):
        raise _unusable("categorical splits: shap's interventional mode does not explain them (shap #5132)")


def _offset(base_score: str, link: str) -> float:
    score = ast.literal_eval(base_score)
    if isinstance(score, list | tuple):
        (score,) = score
    return logit(float(score)) if link == "logit" else float(score)


def _read_trees(listed: list[dict[str, Any]], features: int) -> Trees:
    columns: dict[str, list[npt.NDArray[Any]]] = {k: [] for k in ("left", "right", "default", "feature", "cond")}
    roots: list[int] = []
    start = 0
    for number, tree in enumerate(listed):
        left = np.asarray(tree["left_children"], np.int64)
        right = np.asarray(tree["right_children"], np.int64)
        feature = np.asarray(tree["split_indices"], np.int64)
        cond = np.asarray(tree["split_conditions"], np.float32)
        goes_left = np.asarray(tree["default_left"], bool)
        own = np.arange(len(left))
        if not len(own) == len(right) == len(feature) == len(cond) == len(goes_left) or len(own) == 0:
            raise _unusable(f"tree {number}: its arrays differ in length")
        leaf = left < 0
        # children stand behind their parent, so that no path can turn back on itself
        inner_ok = (left > own) & (right > own) & (left < len(own)) & (right < len(own)) & (feature < features)
        if not np.all(leaf | inner_ok) or np.any(leaf & (right >= 0)) or np.any(np.asarray(tree["split_type"]) != 0):
            raise _unusable(f"tree {number}: its splits are not plain numeric ones")
        left, right = np.where(leaf, own, left) + start, np.where(leaf, own, right) + start
        default, tested = np.where(goes_left, left, right), np.where(leaf, 0, feature)
        of_tree: tuple[npt.NDArray[Any], ...] = (left, right, default, tested, cond)
        for name, values in zip(columns, of_tree, strict=True):
            columns[name].append(values)
        roots.append(start)
        start += len(own)
        if start > NODES_MAX:
            raise _unusable(f"more than {NODES_MAX} nodes")
    if not roots:
        raise _unusable("the artifact holds no tree")
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return _assemble(np.asarray(roots, np.int32), joined)


def _assemble(roots: npt.NDArray[np.int32], joined: dict[str, npt.NDArray[Any]]) -> Trees:
    left, right = joined["left"].astype(np.int32), joined["right"].astype(np.int32)
    leaf = left == np.arange(len(left))
    if not np.all(np.isfinite(joined["cond"])):
        raise _unusable("a threshold or a leaf is not a finite number")
    depth, level = 0, roots
    while len(level := level[~leaf[level]]):
        depth, level = depth + 1, np.concatenate([left[level], right[level]])
        if depth > DEPTH_MAX:
            raise _unusable(f"a path is longer than {DEPTH_MAX}")
    return Trees(
        roots=roots,
        left=left,
        right=right,
        default=joined["default"].astype(np.int32),
        feature=joined["feature"].astype(np.int32),
        threshold=joined["cond"].astype(np.float32),
        weight=np.where(leaf, joined["cond"].astype(np.float64), 0.0),
        depth=depth,
    )


def _booster(content: bytes) -> xgboost.Booster:
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(content))
    except xgboost.core.XGBoostError as error:
        raise _unusable(f"XGBoost cannot load it: {str(error).splitlines()[0]}") from error
    booster.set_param({"nthread": 1})  # one job, one core; and sums in one order
    # shap would explain only the trees up to the best iteration, where Booster.predict answers with all of them
    booster.set_attr(best_iteration=None, best_score=None)
    return booster
