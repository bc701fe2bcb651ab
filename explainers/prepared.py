"""What a worker keeps ready: models with their baselines and registrations, loaded once, the last few of them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.errors import ConfigError
from config.registration import Registration, load_registration
from explainers.baselines import read_baseline
from explainers.errors import ArtifactError
from explainers.models import Rows, TreeModel, check_parse, cutoff_margin, load_xgboost_json
from explainers.store import ARTIFACT_BYTES_MAX, BASELINE_BYTES_MAX, REGISTRATION_BYTES_MAX, Artifacts
from explainers.trees import TreeExplainer

PREPARED_MAX = 8  # models at once; each holds its trees two or three times over


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A registered model that can explain; `cutoff` is in margin space, as are the baseline's three outputs."""

    registration: Registration
    registration_digest: str
    model: TreeModel
    baseline: Rows
    explainer: TreeExplainer
    cutoff: float
    baseline_margins: tuple[float, float, float]  # lowest, median, highest

    @property
    def favourable_is_higher(self) -> bool:
        """Whether a higher margin is better for the person."""
        return self.registration.output.favourable == "higher"


class Shelf:
    """Prepared models by registration digest; the least recently used goes first."""

    def __init__(self, data: Path) -> None:
        self._artifacts = Artifacts(data)
        self._kept: OrderedDict[str, Prepared] = OrderedDict()

    def get(self, registration_digest: str) -> Prepared:
        """The prepared model of a registration.

        Raises:
            ArtifactError: a file is missing, altered, or not what the registration says.
        """
        kept = self._kept.get(registration_digest)
        if kept is None:
            kept = self._kept[registration_digest] = self._load(registration_digest)
            while len(self._kept) > PREPARED_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(registration_digest)
        return kept

    def _load(self, digest: str) -> Prepared:
        self._artifacts.read(digest, bytes_max=REGISTRATION_BYTES_MAX)
        try:
            registration = load_registration(self._artifacts.path(digest))
        except ConfigError as error:
            raise ArtifactError(error.message, code="registration_unusable") from error
        artifact = self._artifacts.read(registration.digest, bytes_max=ARTIFACT_BYTES_MAX)
        baseline = self._artifacts.read(registration.baseline.digest, bytes_max=BASELINE_BYTES_MAX)
        model = load_xgboost_json(artifact, registration.digest)
        return prepare(registration, digest, model, read_baseline(baseline, model.features))


def prepare(registration: Registration, digest: str, model: TreeModel, baseline: Rows) -> Prepared:
    """Make `model` ready to explain against `baseline`.

    Raises:
        ArtifactError: the trees as read here do not answer like XGBoost on the baseline.
    """
    check_parse(model, baseline)
    margins = model.margin(baseline)
    return Prepared(
        registration=registration,
        registration_digest=digest,
        model=model,
        baseline=baseline,
        explainer=TreeExplainer(model, baseline),
        cutoff=cutoff_margin(registration),
        baseline_margins=(float(margins.min()), float(np.median(margins)), float(margins.max())),
    )
