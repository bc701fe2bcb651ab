"""What goes into an explanation, what comes out of it, and the shape every method has: plan → answers → solve.

Nothing here imports numpy: the keeper builds requests and reads results without loading it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

METHOD = "interventional-treeshap"
METHOD_VERSION = 2  # raised whenever the same inputs may give other bytes

Level = Literal["announced", "declared"]
Binding = Literal["announced", "output-matched", "declared", "unbound"]
Verdict = Literal["sound", "uncertain", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """The model that is said to have decided, and by whom it is said (the endpoint or the configuration)."""

    name: str
    version: str
    digest: str
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was extracted from the recorded answer; None where it was not there."""

    score: float | None
    label: str | None
    favourable: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRequest:
    """One recorded decision to explain.

    `leaf` is the decision entry's leaf hash (base64url); the digests are lowercase hex SHA-256 of files in
    ``DATA/artifacts``; `explainer_config` is `explainer_config_digest(registration_digest)`; `features` are the
    values as they stood in the recorded request, nothing converted.
    """

    job: str
    decision: str
    leaf: str
    route: str
    tenant: str
    model: ModelRef
    baseline_digest: str
    registration_digest: str
    explainer_config: str
    features: Mapping[str, Any]
    answer: Answer

    @property
    def key(self) -> str:
        """Equal for equal decision and explainer configuration: arriving twice is visible."""
        return explanation_key(self.decision, self.explainer_config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no explanation; `message` names features, never a person's values."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationResult:
    """What became of a request.

    `body` is the explanation part's plaintext (orjson, sorted keys; neither time, host nor id), empty if failed.
    `summary` is small and holds no personal value: it goes into the explanation entry as it is.
    """

    job: str
    key: str
    state: Literal["ready", "failed"]
    error: Failure | None = None
    body: bytes = b""
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The model rows that a method wants answered, by the artifact's feature order; None is a missing value.

    A plan that asks nothing is solved at once: a method that holds the artifact asks nothing.
    """

    request: ExplanationRequest
    row: tuple[float | None, ...]
    asks: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What a method found: in margin space, `base + sum(contributions) = value` within the stated additivity.

    `shap_difference` is the largest difference of any contribution from what shap finds by itself.
    """

    method: str
    method_version: int
    base: float
    value: float
    contributions: tuple[float, ...]
    additivity: float
    shap_difference: float


class Executor(Protocol):
    """Whatever explains requests: `pool.Pool` (worker processes) and `inline.Inline` (this process)."""

    async def explain(self, request: ExplanationRequest) -> ExplanationResult:
        """Explain one decision; a decision that cannot be explained is a failed result, not an exception."""
        ...

    async def close(self) -> None:
        """End whatever runs; afterwards no process of this executor is left."""
        ...


def explainer_config_digest(registration_digest: str) -> str:
    """The digest (lowercase hex) of all that decides an explanation besides the decision itself."""
    return hashlib.sha256(
        orjson.dumps(
            {"v": 1, "method": METHOD, "method_version": METHOD_VERSION, "registration": registration_digest},
            option=orjson.OPT_SORT_KEYS,
        )
    ).hexdigest()


def explanation_key(decision: str, explainer_config: str) -> str:
    """SHA-256 over decision and explainer configuration, base64url without padding."""
    digest = hashlib.sha256(f"answerable/explanation/v1\n{decision}\n{explainer_config}\n".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def failed(request: ExplanationRequest, code: str, message: str) -> ExplanationResult:
    """A failed result with the summary that its entry carries."""
    return ExplanationResult(
        job=request.job,
        key=request.key,
        state="failed",
        error=Failure(code=code, message=message),
        summary={
            "method": METHOD,
            "method_version": METHOD_VERSION,
            "model": request.model.digest,
            "registration": request.registration_digest,
            "verdict": "failed",
            "notice": "human",
            "error": code,
            "key": request.key,
        },
    )
