"""A small credit model with everything around it: trained here in a moment, registered, served in numbers.

Three features, a cutoff at one half, reasons for two of them. `score` is what an endpoint that serves it would answer.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
import yaml

FEATURES = ("income", "debt", "years")
ROWS = 240
CUTOFF = 0.5


class Loans:
    """The trained model, its files under `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(7)
        table = np.column_stack(
            [random.uniform(10, 100, ROWS), random.uniform(0, 60, ROWS), random.integers(0, 20, ROWS).astype(float)]
        ).astype(np.float32)
        good = (table[:, 0] - table[:, 1] + 2 * table[:, 2] > 30).astype(np.float32)
        matrix = xgboost.DMatrix(table, label=good, feature_names=list(FEATURES))
        settings = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.4, "nthread": 1, "seed": 7}
        self._booster = xgboost.train(settings, matrix, num_boost_round=12)
        self.artifact = folder / "model.json"
        self._booster.save_model(self.artifact)
        self.baseline = folder / "baseline.csv"
        rows = [",".join(FEATURES)] + [",".join(f"{value:.6g}" for value in row) for row in table[:40]]
        self.baseline.write_text("\n".join(rows) + "\n")
        self.registration = folder / "loans.yaml"
        self.registration.write_text(yaml.safe_dump(self._registration(), sort_keys=False))

    def score(self, features: dict[str, float]) -> float:
        """The probability that the model gives, as float32 makes it."""
        row = np.asarray([[features[name] for name in FEATURES]], dtype=np.float32)
        return float(self._booster.inplace_predict(row)[0])

    def answer(self, features: dict[str, float]) -> dict[str, Any]:
        """What the endpoint answers."""
        score = self.score(features)
        return {"decision": "approved" if score >= CUTOFF else "denied", "score": score}

    def _registration(self) -> dict[str, Any]:
        return {
            "v": 1,
            "name": "loans",
            "version": "1.0",
            "artifact": self.artifact.name,
            "digest": _digest(self.artifact),
            "loader": "xgboost-json",
            "baseline": {
                "file": self.baseline.name,
                "digest": _digest(self.baseline),
                "kind": "all_applicants",
                "note": "made for tests",
            },
            "output": {
                "space": "probability",
                "link": "logit",
                "favourable": "higher",
                "cutoff": CUTOFF,
                "cutoff_space": "probability",
            },
            "features": [
                {"name": "income", "label": "Income", "adverse": "lower", "code": "I1"},
                {"name": "debt", "label": "Debt", "adverse": "higher", "code": "D1"},
                {"name": "years", "label": "Years in the job", "adverse": "lower", "code": "Y1"},
            ],
            "catalogue_version": "1",
            "reasons": {
                "I1": {"text": "Your income of {value} is low for this loan."},
                "D1": {"text": "Your debt of {value} is high for this loan."},
                "Y1": {"text": "You have been in your job for {value} years only."},
            },
        }


def applicant(number: int) -> dict[str, float]:
    """The features of one applicant; another for each number, both kinds of answer among any few."""
    return {
        "income": 10 + (number * 37) % 90,
        "debt": (number * 23) % 60,
        "years": number * 7 % 20,
        "case": f"L-{number}",
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
