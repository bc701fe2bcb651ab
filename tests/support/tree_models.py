"""Small real XGBoost models with their baselines and registrations, and requests to explain what they answer."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost
import yaml

from explainers.base import Answer, ExplanationRequest, ModelRef, explainer_config_digest
from explainers.listing import Registered
from explainers.models import TreeModel, as_rows, load_xgboost_json
from explainers.registry import register

NAMES = ("income", "debts", "assets", "late", "units", "term")


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A model on disk, not registered yet; `rows` are the data it was trained on."""

    registration: Path
    artifact: Path
    baseline: Path
    rows: npt.NDArray[np.float32]

    def edit(self, **changes: Any) -> None:
        """Change top-level keys of the registration; a value of None takes the key out."""
        described = {**yaml.safe_load(self.registration.read_text()), **changes}
        self.registration.write_text(yaml.safe_dump({k: v for k, v in described.items() if v is not None}))

    def feature(self, name: str, **changes: Any) -> None:
        """Change one feature of the registration; a value of None takes the key out."""
        described = yaml.safe_load(self.registration.read_text())
        for feature in described["features"]:
            if feature["name"] == name:
                feature.update(changes)
                for key in [key for key, value in changes.items() if value is None]:
                    del feature[key]
        self.registration.write_text(yaml.safe_dump(described))

    def model(self) -> TreeModel:
        content = self.artifact.read_bytes()
        return load_xgboost_json(content, hashlib.sha256(content).hexdigest())


def make_model(
    directory: Path,
    *,
    trees: int = 20,
    depth: int = 3,
    rows: int = 400,
    baseline_rows: int = 40,
    names: Sequence[str] = NAMES,
    parameters: Mapping[str, Any] | None = None,
    link: str = "logit",
    scale: float = 1.0,
) -> Files:
    """Train on random rows with missing values and write artifact, baseline and registration into `directory`.

    `scale` is what an identity model's outputs are multiplied by.
    """
    random = np.random.default_rng(7)
    x = random.normal(size=(rows, len(names))).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    filled = np.nan_to_num(x)
    margin = filled @ np.linspace(1.0, -1.0, len(names)) + filled[:, 0] * filled[:, 1]
    y = (margin > 0).astype(np.float32) if link == "logit" else margin * scale
    settings = {
        "objective": "binary:logistic" if link == "logit" else "reg:squarederror",
        "max_depth": depth,
        "eta": 0.3,
        "nthread": 1,
        "seed": 1,
        **(parameters or {}),
    }
    data = xgboost.DMatrix(x, y, feature_names=list(names), nthread=1)
    booster = xgboost.train(settings, data, num_boost_round=trees)
    directory.mkdir(parents=True, exist_ok=True)
    artifact, baseline = directory / "model.json", directory / "baseline.csv"
    artifact.write_bytes(booster.save_raw("json"))
    write_baseline(baseline, names, x[:baseline_rows])
    registration = directory / "model.yaml"
    registration.write_text(yaml.safe_dump(_described(artifact, baseline, names, link)))
    return Files(registration=registration, artifact=artifact, baseline=baseline, rows=x)


def write_baseline(path: Path, names: Sequence[str], rows: npt.NDArray[np.float32]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([["" if np.isnan(v) else repr(float(v)) for v in row] for row in rows])


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _described(artifact: Path, baseline: Path, names: Sequence[str], link: str) -> dict[str, Any]:
    space = "probability" if link == "logit" else "margin"
    return {
        "v": 1,
        "name": "credit",
        "version": "1",
        "artifact": artifact.name,
        "digest": digest_of(artifact),
        "loader": "xgboost-json",
        "baseline": {"file": baseline.name, "digest": digest_of(baseline), "kind": "uploaded"},
        "output": {"space": space, "link": link, "cutoff": 0.5, "cutoff_space": space},
        "features": [{"name": name, "label": name.capitalize(), "code": f"C-{name}"} for name in names],
        "reasons": {f"C-{name}": _texts(name) for name in names},
        "catalogue_version": "t1",
    }


def _texts(name: str) -> dict[str, str]:
    text = f"{name.capitalize()}: {{value}}"
    return {"text": text, "when_higher": text, "when_lower": text}


def features_of(names: Sequence[str], row: npt.NDArray[np.float32]) -> dict[str, float | None]:
    """A model row as the features of a request."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, row, strict=True)}


def served(files: Files, features: Mapping[str, Any]) -> float:
    """What an endpoint with this model answers: XGBoost's own float32 output."""
    model = files.model()
    return float(model.served(as_rows([features[name] for name in model.features]))[0])


def request(
    registered: Registered,
    features: Mapping[str, Any],
    *,
    score: float | None,
    favourable: int | None = None,
    level: str = "announced",
    job: str = "job-1",
    decision: str = "0190a0a0-0000-7000-8000-000000000001",
    **changes: Any,
) -> ExplanationRequest:
    if favourable is None and score is not None:
        favourable = int(score >= 0.5)
    given: dict[str, Any] = {
        "job": job,
        "decision": decision,
        "leaf": "bGVhZg",
        "route": "credit",
        "tenant": "default",
        "model": ModelRef(
            name=registered.name,
            version=registered.version,
            digest=registered.digest,
            level=level,  # type: ignore[arg-type]  # a test may pass any text
        ),
        "baseline_digest": registered.baseline,
        "registration_digest": registered.registration,
        "explainer_config": explainer_config_digest(registered.registration),
        "features": features,
        "answer": Answer(score=score, label=None, favourable=favourable),
    }
    return ExplanationRequest(**{**given, **changes})


def adverse_case(files: Files) -> tuple[dict[str, float | None], float]:
    """Features without a missing value, and their score, of somebody whom the model clearly refuses."""
    model = files.model()
    complete = files.rows[~np.isnan(files.rows).any(axis=1)]
    scores = model.served(complete)
    worst = int(np.argmin(scores))
    return features_of(model.features, complete[worst]), float(scores[worst])


__all__ = [
    "NAMES",
    "Files",
    "adverse_case",
    "digest_of",
    "features_of",
    "make_model",
    "register",
    "request",
    "served",
    "write_baseline",
]
