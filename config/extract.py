"""How an answer becomes a label: what a route may say under ``extract``.

Four ways to read a value: JMESPath over the protocol's own document (a plain string), JMESPath over JSON that stands
in a text, JMESPath over the arguments of a tool call, and a regular expression over a text. Expressions are RE2's
(no back references, no look-around), which takes time linear in the text whatever the expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import jmespath
import jmespath.exceptions
import re2  # type: ignore[import-untyped] # the wheel brings no types
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

EXPRESSION_CHARS_MAX = 1_000  # of one regular expression: what a person can review
REGEX_BYTES_MAX = 1024 * 1024  # of memory for one compiled expression and its automata


def is_path_expression(expression: str) -> str:
    """The expression itself; ValueError if it is no JMESPath."""
    try:
        jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {error}") from error
    return expression


def linear_pattern(expression: str) -> re2._Regexp:
    """The compiled expression, searched in linear time and bounded memory.

    Raises:
        ValueError: RE2 does not take it, or it has more than one group.
    """
    options = re2.Options()
    options.max_mem = REGEX_BYTES_MAX
    options.log_errors = False
    try:
        pattern = re2.compile(expression, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(f"not an RE2 expression: {_said(error)}") from error
    if pattern.groups > 1:
        raise ValueError("expected at most one group, which is the value; others are written (?:…)")
    return pattern


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)


def _is_linear_pattern(expression: str) -> str:
    linear_pattern(expression)
    return expression


PathExpression = Annotated[str, AfterValidator(is_path_expression)]
LinearPattern = Annotated[str, Field(min_length=1, max_length=EXPRESSION_CHARS_MAX), AfterValidator(_is_linear_pattern)]


class _Reading(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolArgument(_Reading):
    """A value in the arguments of the answer's calls of one tool."""

    tool: str = Field(min_length=1, max_length=256)
    argument: PathExpression


class JsonText(_Reading):
    """A value in JSON that stands in a text: the answer's (structured output), or the one found `at` a path."""

    json_path: PathExpression = Field(alias="json")
    at: PathExpression | None = None


class MatchedText(_Reading):
    """What a regular expression finds in a text: its group, or all of it where it has none."""

    match: LinearPattern
    at: PathExpression | None = None


def _kind(value: Any) -> str | None:
    """Which of the four ways a value in the file means; None for what is none of them."""
    if isinstance(value, str):
        return "path"
    keys = value if isinstance(value, Mapping) else type(value).model_fields if isinstance(value, _Reading) else ()
    return next((name for name in ("tool", "json", "match") if name in keys), "json" if "json_path" in keys else None)


_which = Discriminator(
    _kind,
    custom_error_type="reading",
    custom_error_message="Expected a JMESPath expression, or one of tool and argument, json and at, match and at",
)
_Path = Annotated[str, Tag("path")]  # checked where the field's own name can be told
_Json = Annotated[JsonText, Tag("json")]
_Match = Annotated[MatchedText, Tag("match")]
AnswerReading = Annotated[_Path | Annotated[ToolArgument, Tag("tool")] | _Json | _Match, _which]
RequestReading = Annotated[_Path | _Json | _Match, _which]
FeaturesReading = Annotated[_Path | _Json, _which]


class Extract(BaseModel):
    """How a call becomes a label and what goes with it; what is not found is recorded as not found.

    `label` and `score` are read in the answer; `case`, `subject` and `features` in the request, where a text is named
    by `at`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: AnswerReading
    favourable: tuple[str, ...] = ()
    adverse: tuple[str, ...] = ()
    score: AnswerReading | None = None
    case: RequestReading | None = None
    subject: RequestReading | None = None
    features: FeaturesReading | None = None

    @field_validator("label", "score", "case", "subject", "features")
    @classmethod
    def _a_string_is_a_path(cls, reading: object) -> object:
        return is_path_expression(reading) if isinstance(reading, str) else reading

    @model_validator(mode="after")
    def _a_label_is_one_or_the_other(self) -> Self:
        both = sorted(set(self.favourable) & set(self.adverse))
        if both:
            raise ValueError(f"adverse: {', '.join(both)} cannot be favourable too")
        return self

    @model_validator(mode="after")
    def _a_request_has_no_text_of_its_own(self) -> Self:
        for name in ("case", "subject", "features"):
            reading = getattr(self, name)
            if isinstance(reading, JsonText | MatchedText) and reading.at is None:
                raise ValueError(f"{name}.at: say where in the request the text stands")
        return self
