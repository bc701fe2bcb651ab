"""The YAML file beside a model's artifact: what the model is, what its features mean, and what may be said of them.

Registering checks it against the artifact and the baseline (``explainers/registry.py``); this file only
holds what can be checked from the text alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from config.errors import ConfigError
from config.fields import Name, Section
from config.load import describe, read_yaml
from config.wording import is_forbidden, rendered

HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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

    ``when_higher`` and ``when_lower`` say on which side of the baseline the person's value lies ("too many", "too
    few"); ``text`` beside both of them is for a value that lies on neither. ``text`` alone is for features that state
    the side that counts (``adverse``): else nothing would keep it from "too many" for somebody who has none.
    """

    text: str | None = Field(default=None, min_length=1, max_length=400)
    when_higher: str | None = Field(default=None, min_length=1, max_length=400)
    when_lower: str | None = Field(default=None, min_length=1, max_length=400)
    language: str = Field(default="en", pattern=r"^[a-z]{2}(-[A-Z]{2})?$")

    @property
    def tells_sides(self) -> bool:
        """Whether there is a text for either side of the baseline."""
        return self.when_higher is not None and self.when_lower is not None

    @model_validator(mode="after")
    def _says_something_specific(self) -> Self:
        if self.text is None and not self.tells_sides:
            raise ValueError("text: expected text, or both when_higher and when_lower")
        self.check_wording(label="Label", values=("0",))
        return self

    def check_wording(self, *, label: str, values: Iterable[str]) -> None:
        """True on return: each text can be filled in, with this label and each of these values, and names something.

        Raises:
            ValueError: it cannot, or it names no specific reason.
        """
        texts = [text for text in (self.text, self.when_higher, self.when_lower) if text is not None]
        for text, value in product(texts, values):
            told = rendered(text, value=value, label=label, unit="")
            if not any(character.isalpha() for character in told):
                raise ValueError(f"text: {text!r} has no words")
            if is_forbidden(text) or is_forbidden(told):
                raise ValueError(f"text: {told!r} names no specific reason (Reg B §1002.9(b)(2))")


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

    @model_validator(mode="after")
    def _texts_fit_their_features(self) -> Self:
        for feature in self.features:
            if feature.code is None:
                continue
            reason = self.reasons[feature.code]
            if feature.adverse is None and not reason.tells_sides:
                raise ValueError(
                    f"features.{feature.name}.adverse: expected higher or lower, as reason {feature.code} has one text "
                    "for both sides; or give it when_higher and when_lower"
                )
            try:
                reason.check_wording(label=feature.label, values=("0", *feature.values.values()))
            except ValueError as error:
                raise ValueError(f"reasons.{feature.code}.{error} (for feature {feature.name})") from None
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
