"""The YAML file beside a model's artifact: what the model is, what its features mean, and what may be said of them.

Registering checks it against the artifact and the baseline (``explainers/registry.py``); this file only
holds what can be checked from the text alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from config.errors import ConfigError
from config.load import describe, read_yaml
from config.settings import Name, Section

HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Reg B §1002.9(b)(2): neither states a specific reason.
FORBIDDEN_TEXTS = (
    re.compile(r"score\s+(was\s+|is\s+)?too\s+low|(qualifying|credit|minimum)\s+score", re.IGNORECASE),
    re.compile(r"internal\s+(policy|policies|standard|standards)", re.IGNORECASE),
)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Baseline(Section):
    """The applicants that a decision is compared with: a CSV file with one column per feature."""

    file: Path
    digest: HexDigest
    kind: Literal["near_cutoff", "all_applicants", "uploaded"]
    note: str = ""


class Output(Section):
    """What the model's answer is, where the cutoff acts, and how close two evaluations must be."""

    space: Literal["probability", "margin"]
    link: Literal["logit", "identity"] = "logit"
    favourable: Literal["higher", "lower"] = "higher"
    cutoff: float
    cutoff_space: Literal["probability", "margin"] = "probability"
    tolerance: float = Field(default=1e-5, gt=0, le=1e-2)  # float32 models answer within 1e-5 of a float64 sum

    @model_validator(mode="after")
    def _a_probability_lies_between(self) -> Self:
        if self.cutoff_space == "probability" and not 0 < self.cutoff < 1:
            raise ValueError(f"cutoff: expected a probability strictly between 0 and 1, found {self.cutoff}")
        return self


class Feature(Section):
    """One model input column."""

    name: str = Field(min_length=1, max_length=128)
    label: str = Field(min_length=1, max_length=200)
    factor: str | None = None  # columns with the same factor are told as one thing; default: the feature itself
    immutable: bool = False
    direction: Literal["increase", "decrease"] | None = None  # one-directional: the only way a person can move it
    bounds: tuple[float, float] | None = None
    adverse: Literal["higher", "lower"] | None = None  # which way counts against the person, where that is known
    protected: bool = False
    code: str | None = None  # without a code a factor that counts goes to a human
    unit: str | None = None
    values: dict[str, str] = Field(default_factory=dict)  # raw value → text, e.g. "1": "yes"

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.bounds is not None and self.bounds[0] > self.bounds[1]:
            raise ValueError(f"bounds: {self.bounds[0]} is above {self.bounds[1]}")
        if self.immutable and self.direction is not None:
            raise ValueError("direction: an immutable feature has none")
        return self


class Reason(Section):
    """What is said when a factor counted against the person; ``{value}``, ``{label}``, ``{unit}`` are filled in.

    Where a factor can count both ways, ``when_higher`` and ``when_lower`` say so ("too many", "too few"): the
    text must agree with the side of the baseline on which the person's value lies.
    """

    text: str | None = Field(default=None, min_length=1, max_length=400)
    when_higher: str | None = Field(default=None, min_length=1, max_length=400)
    when_lower: str | None = Field(default=None, min_length=1, max_length=400)
    language: str = Field(default="en", pattern=r"^[a-z]{2}(-[A-Z]{2})?$")

    @model_validator(mode="after")
    def _says_something_specific(self) -> Self:
        texts = [text for text in (self.text, self.when_higher, self.when_lower) if text is not None]
        if self.text is None and (self.when_higher is None or self.when_lower is None):
            raise ValueError("text: expected text, or both when_higher and when_lower")
        for text in texts:
            if any(pattern.search(text) for pattern in FORBIDDEN_TEXTS):
                raise ValueError(f"text: {text!r} names no specific reason (Reg B §1002.9(b)(2))")
            unknown = sorted(set(_PLACEHOLDER.findall(text)) - {"value", "label", "unit"})
            if unknown:
                raise ValueError(f"text: unknown placeholder {', '.join(unknown)}; known: value, label, unit")
        return self


class Registration(Section):
    """A whole registration file."""

    v: Literal[1]
    name: Name
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    artifact: Path
    digest: HexDigest
    loader: Literal["xgboost-json"]
    baseline: Baseline
    output: Output
    features: tuple[Feature, ...] = Field(min_length=1, max_length=5_000)
    catalogue_version: str = Field(min_length=1, max_length=64)
    reasons: dict[str, Reason] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _features_and_codes_agree(self) -> Self:
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ValueError(f"features: {', '.join(twice)} stands twice")
        codes: dict[str, str | None] = {}
        for feature in self.features:
            if feature.code is not None and feature.code not in self.reasons:
                raise ValueError(f"features.{feature.name}.code: no reason {feature.code} under reasons")
            factor = feature.factor or feature.name
            if codes.setdefault(factor, feature.code) != feature.code:
                raise ValueError(f"features.{feature.name}.code: factor {factor} already has code {codes[factor]}")
        return self


def load_registration(path: Path) -> Registration:
    """Read and check the registration file at `path`; relative paths in it start from its own folder.

    Raises:
        ConfigError: one message naming file, key and what was expected, for every fault found.
    """
    try:
        return Registration.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(
            describe(error, path), advice="Mend the file and run `answerable models register`."
        ) from error
