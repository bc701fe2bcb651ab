"""Registering a model: check the file against artifact and baseline, keep all three by digest, list the model.

Registering the same name and version again with the same artifact replaces its row in models.json (texts and baselines
may be mended); with another artifact it is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.errors import ConfigError
from config.registration import Registration, load_registration
from explainers.baselines import read_baseline
from explainers.binding import allowed
from explainers.errors import ArtifactError
from explainers.listing import Registered, registered_models, write_models
from explainers.models import Rows, TreeModel, check_parse, cutoff_margin, load_xgboost_json
from explainers.store import (
    ARTIFACT_BYTES_MAX,
    BASELINE_BYTES_MAX,
    REGISTRATION_BYTES_MAX,
    Artifacts,
    read_bounded,
)

NEAR_CUTOFF_ROWS_MIN = 200  # with fewer, two samples of a baseline disagree too often on the first reason
NEAREST_SHARE_MAX = 0.5  # of the median row's distance from the cutoff
ADVICE = "Mend the file, then run `answerable models register FILE` again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A registration file that agrees with its artifact and baseline, and what was read to find that out."""

    registration: Registration
    model: TreeModel
    baseline: Rows
    artifact_bytes: bytes
    baseline_bytes: bytes
    registration_bytes: bytes


def register(path: Path, data: Path) -> Registered:
    """Register the model that the file at `path` describes.

    True on return: artifact, baseline and registration lie under ``DATA/artifacts``, models.json names them, durably.

    Raises:
        ConfigError: the file is faulty or does not agree with what it names; one message with file, key, expectation.
    """
    checked = check(path)
    registration = checked.registration
    registered = Registered(
        name=registration.name,
        version=registration.version,
        digest=registration.digest,
        baseline=registration.baseline.digest,
        registration=hashlib.sha256(checked.registration_bytes).hexdigest(),
        catalogue_version=registration.catalogue_version,
        loader=registration.loader,
    )
    listed = {(model.name, model.version): model for model in registered_models(data)}
    before = listed.get((registered.name, registered.version))
    if before is not None and before.digest != registered.digest:
        raise _fault(
            path,
            "version",
            f"{registered.name} {registered.version} is registered with artifact {before.digest}; "
            "another artifact needs another version",
        )
    artifacts = Artifacts(data)
    for content in (checked.artifact_bytes, checked.baseline_bytes, checked.registration_bytes):
        artifacts.add(content)
    listed[registered.name, registered.version] = registered
    write_models(data, listed.values())
    return registered


def check(path: Path) -> Checked:
    """Check the registration file at `path` against the artifact and the baseline it names; nothing is written.

    Raises:
        ConfigError: one line for each fault: file, key, what was expected, what was found.
    """
    registration = load_registration(path)
    artifact_bytes = _named(path, "artifact", registration.artifact, registration.digest, ARTIFACT_BYTES_MAX)
    baseline_bytes = _named(
        path, "baseline.file", registration.baseline.file, registration.baseline.digest, BASELINE_BYTES_MAX
    )
    try:
        model = load_xgboost_json(artifact_bytes, registration.digest)
    except ArtifactError as error:
        raise _fault(path, "artifact", error.message) from error
    faults = _feature_faults(registration, model) + _output_faults(registration, model)
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults), advice=ADVICE)
    try:
        baseline = read_baseline(baseline_bytes, model.features)
        check_parse(model, baseline)
    except ArtifactError as error:
        key = "baseline.file" if error.code == "baseline_unusable" else "artifact"
        raise _fault(path, key, error.message) from error
    _check_near_cutoff(path, registration, model, baseline)
    return Checked(
        registration=registration,
        model=model,
        baseline=baseline,
        artifact_bytes=artifact_bytes,
        baseline_bytes=baseline_bytes,
        registration_bytes=read_bounded(path, bytes_max=REGISTRATION_BYTES_MAX),
    )


def _fault(path: Path, key: str, message: str) -> ConfigError:
    return ConfigError(f"{path}: {key}: {message}", advice=ADVICE)


def _named(path: Path, key: str, file: Path, digest: str, bytes_max: int) -> bytes:
    """The bytes of a file that the registration names, relative to the registration's own folder."""
    try:
        content = read_bounded(path.parent / file, bytes_max=bytes_max)
    except ArtifactError as error:
        raise _fault(path, key, error.message) from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        digest_key = "digest" if key == "artifact" else "baseline.digest"
        raise _fault(path, digest_key, f"expected the SHA-256 of {file}, which is {found}; found {digest}")
    return content


def _feature_faults(registration: Registration, model: TreeModel) -> list[str]:
    described = {feature.name for feature in registration.features}
    missing = [name for name in model.features if name not in described]
    unknown = sorted(described - set(model.features))
    faults = [f"features: the artifact also uses {name}; expected an entry for it" for name in missing]
    return faults + [f"features.{name}: the artifact has no such feature" for name in unknown]


def _output_faults(registration: Registration, model: TreeModel) -> list[str]:
    output = registration.output
    faults = []
    if output.link != model.link:
        faults.append(f"output.link: expected {model.link}, by the artifact's objective; found {output.link}")
    if output.link == "identity" and "probability" in (output.space, output.cutoff_space):
        faults.append("output.space, output.cutoff_space: expected margin, as an identity link gives no probability")
    return faults


def _check_near_cutoff(path: Path, registration: Registration, model: TreeModel, baseline: Rows) -> None:
    """A baseline of kind near_cutoff is large enough, lies on the favourable side, and holds the narrow cases."""
    if registration.baseline.kind != "near_cutoff":
        return
    fault = _rows_fault(registration, model, baseline)
    if fault is not None:
        raise _fault(path, "baseline.kind", fault)


def _rows_fault(registration: Registration, model: TreeModel, baseline: Rows) -> str | None:
    """What keeps the rows from being "at or just above the cutoff", None if nothing does.

    "Just above" has no width of its own, so the rows are measured by themselves. The narrowest cases begin at the
    cutoff: their nearest lies at most half as far from it as their median (measured on models of 5 to 200 trees: the
    250 narrowest of 3,000 below 0.4, the 250 best or middling ones above 0.75). And their median lies nearer to the
    cutoff than to the best that the trees could give. In margins, where contributions add up. A random sample of
    everybody favoured may pass; where the rows' outputs lie stands in every explanation.
    """
    if len(baseline) < NEAR_CUTOFF_ROWS_MIN:
        return (
            f"expected near_cutoff to have at least {NEAR_CUTOFF_ROWS_MIN} rows, found {len(baseline)}; "
            "use uploaded or all_applicants until there are so many"
        )
    expected = "expected applicants at or just above the cutoff"
    higher = registration.output.favourable == "higher"
    margins, cutoff = model.margin(baseline), cutoff_margin(registration)
    beyond = (margins - cutoff) * (1.0 if higher else -1.0)
    # whoever chose the rows may have compared in float32
    adverse = int(np.sum(beyond < -allowed(registration.output.tolerance, cutoff)))
    if adverse:
        return f"{expected}; {adverse} of {len(baseline)} rows lie on the adverse side"
    nearest, median = float(beyond.min()), float(np.median(beyond))
    if nearest > NEAREST_SHARE_MAX * median:
        return (
            f"{expected}; the nearest of the rows lies {nearest:.4g} from it in margin and half of them within "
            f"{median:.4g}: they do not begin at the cutoff; take those that pass most narrowly, or use uploaded"
        )
    best = abs(model.extreme(highest=higher) - cutoff)
    if median > best / 2:
        return (
            f"{expected}; half of the rows lie {median:.4g} or more from it in margin, where the best that the model "
            f"could answer lies {best:.4g} away; take those that pass most narrowly, or use uploaded"
        )
    return None
