"""Trains the demo's model and writes what registering it needs: artifact, baseline and registration.

The same data gives the same bytes: one thread, a fixed seed, no clock. Features with a known direction are constrained
to it, so that no reason can say "too high" where lower would have been worse.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xgboost
import yaml

from gateway.demo.applicants import COLUMNS, Applicant, load, split
from gateway.demo.catalogue import CATALOGUE_VERSION, FEATURES, REASONS

NAME, VERSION = "mortgage", "1990.1"
ROUNDS = 150
PARAMETERS = {
    "objective": "binary:logistic",  # the probability that the bank approves
    "max_depth": 3,
    "eta": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.7,
    "min_child_weight": 3,
    "nthread": 1,
    "seed": 7,
}
FOLDS = 5
BASELINE_ROWS = 250  # above the 200 below which two samples disagree too often on the first reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How the model does on applicants it has not seen; adverse is the positive class of the four counts."""

    held_out: int
    auc: float
    denied_by_both: int
    denied_by_model_only: int
    denied_by_bank_only: int
    approved_by_both: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Where the files lie, and what is known of the model."""

    registration: Path
    artifact: Path
    baseline: Path
    cutoff: float
    held_out: tuple[Applicant, ...]
    quality: Quality


def train(directory: Path) -> Trained:
    """Train on about 70 % of the applicants; write mortgage.json, mortgage-baseline.csv and mortgage.yaml."""
    training, held_out = split(load())
    rows, approved = _matrix(training), _approved(training)
    cutoff = _cutoff(rows, approved)
    booster = _fit(rows, approved)
    directory.mkdir(parents=True, exist_ok=True)
    artifact, baseline = directory / f"{NAME}.json", directory / f"{NAME}-baseline.csv"
    artifact.write_bytes(booster.save_raw("json"))
    baseline.write_text(_near_cutoff(training, _predict(booster, rows), cutoff), encoding="utf-8")
    registration = directory / f"{NAME}.yaml"
    registration.write_text(_registration(artifact, baseline, cutoff), encoding="utf-8")
    return Trained(
        registration=registration,
        artifact=artifact,
        baseline=baseline,
        cutoff=cutoff,
        held_out=held_out,
        quality=_quality(_predict(booster, _matrix(held_out)), _approved(held_out), cutoff),
    )


def _matrix(applicants: Sequence[Applicant]) -> npt.NDArray[np.float32]:
    """Shape (n, len(COLUMNS)), NaN where there is no value."""
    values = [[applicant.features[name] for name in COLUMNS] for applicant in applicants]
    return np.asarray(values, dtype=np.float32)


def _approved(applicants: Sequence[Applicant]) -> npt.NDArray[np.float32]:
    return np.asarray([applicant.approved for applicant in applicants], dtype=np.float32)


def _fit(rows: npt.NDArray[np.float32], approved: npt.NDArray[np.float32]) -> xgboost.Booster:
    better = {"higher": -1, "lower": 1, None: 0}  # which way the probability of approval may go as the feature grows
    constraints = tuple(better[feature.get("adverse")] for feature in FEATURES)
    data = xgboost.DMatrix(rows, approved, feature_names=list(COLUMNS), nthread=1)
    return xgboost.train({**PARAMETERS, "monotone_constraints": constraints}, data, num_boost_round=ROUNDS)


def _predict(booster: xgboost.Booster, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(booster.inplace_predict(rows, validate_features=False), dtype=np.float32)


def _cutoff(rows: npt.NDArray[np.float32], approved: npt.NDArray[np.float32]) -> float:
    """The probability, in whole per cent, below which as large a share is denied as the banks denied.

    Taken from predictions for applicants that the respective model had not seen: on its own training data a model is
    surer than it should be.
    """
    unseen = np.empty(len(rows), np.float32)
    for fold in range(FOLDS):
        out = np.arange(len(rows)) % FOLDS == fold
        unseen[out] = _predict(_fit(rows[~out], approved[~out]), rows[out])
    return round(float(np.quantile(unseen, 1.0 - approved.mean())), 2)


def _near_cutoff(training: Sequence[Applicant], probabilities: npt.NDArray[np.float32], cutoff: float) -> str:
    """CSV of the training applicants that the model approves most narrowly."""
    order = np.argsort(probabilities, kind="stable")
    nearest = [int(at) for at in order if probabilities[at] >= cutoff][:BASELINE_ROWS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for at in sorted(nearest):
        values = training[at].features
        writer.writerow(["" if values[name] is None else values[name] for name in COLUMNS])
    return text.getvalue()


def _registration(artifact: Path, baseline: Path, cutoff: float) -> str:
    return yaml.safe_dump(
        {
            "v": 1,
            "name": NAME,
            "version": VERSION,
            "artifact": artifact.name,
            "digest": hashlib.sha256(artifact.read_bytes()).hexdigest(),
            "loader": "xgboost-json",
            "baseline": {
                "file": baseline.name,
                "digest": hashlib.sha256(baseline.read_bytes()).hexdigest(),
                "kind": "near_cutoff",
                "note": f"the {BASELINE_ROWS} applicants of the training part that the model approves most narrowly",
            },
            "output": {
                "space": "probability",
                "link": "logit",
                "favourable": "higher",
                "cutoff": cutoff,
                "cutoff_space": "probability",
            },
            "features": [dict(feature) for feature in FEATURES],
            "reasons": REASONS,
            "catalogue_version": CATALOGUE_VERSION,
        },
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )


def _quality(probabilities: npt.NDArray[np.float32], approved: npt.NDArray[np.float32], cutoff: float) -> Quality:
    bank, model = approved == 1.0, probabilities >= cutoff
    return Quality(
        held_out=len(approved),
        auc=_auc(probabilities, bank),
        denied_by_both=int(np.sum(~bank & ~model)),
        denied_by_model_only=int(np.sum(bank & ~model)),
        denied_by_bank_only=int(np.sum(~bank & model)),
        approved_by_both=int(np.sum(bank & model)),
    )


def _auc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> float:
    """The chance that a random approved applicant scores above a random denied one; ties count half."""
    above = scores[positive][:, None]
    below = scores[~positive][None, :]
    return float(np.mean((above > below) + 0.5 * (above == below)))
