"""What a route hides before anything is journaled: ``redact``.

It says what the record holds, never what passes: the model and the caller get every byte as it came.
"""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from config.fields import HeaderName, Section
from config.places import PlacePath

RULES_MAX: Final = 32  # of one side: each is looked at for each call, and may stand in its entry
LAST_MAX: Final = 4  # characters of a masked value: what receipts print of a card

How = Literal["drop", "mask", "hash", "token"]


class _Rule(Section):
    """How one value is recorded; `last` characters of a masked one are kept."""

    how: How
    last: int = Field(default=0, ge=0, le=LAST_MAX)

    @model_validator(mode="after")
    def _only_a_mask_shows_something(self) -> Self:
        if self.last and self.how != "mask":
            raise ValueError(f"last: expected with how mask only, and how is {self.how}")
        return self


class ValueRule(_Rule):
    """Values in a JSON body, by path."""

    path: PlacePath


class HeaderRule(_Rule):
    """A header that the route records."""

    name: HeaderName


class QueryRule(_Rule):
    """A parameter of the query string."""

    name: str = Field(min_length=1, max_length=128)


class Redact(Section):
    """What is hidden where. `detect` looks through everything that is recorded of a call."""

    request: tuple[ValueRule, ...] = Field(default=(), max_length=RULES_MAX)
    response: tuple[ValueRule, ...] = Field(default=(), max_length=RULES_MAX)
    headers: tuple[HeaderRule, ...] = Field(default=(), max_length=RULES_MAX)
    query: tuple[QueryRule, ...] = Field(default=(), max_length=RULES_MAX)
    detect: tuple[Literal["card", "iban"], ...] = ()

    @model_validator(mode="after")
    def _something_is_said_once(self) -> Self:
        if not (self.request or self.response or self.headers or self.query or self.detect):
            raise ValueError("expected at least one of request, response, headers, query, detect")
        named: dict[str, list[str]] = {
            "request": [rule.path for rule in self.request],
            "response": [rule.path for rule in self.response],
            "headers": [rule.name.lower() for rule in self.headers],
            "query": [rule.name for rule in self.query],
            "detect": list(self.detect),
        }
        for key, names in named.items():
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{key}: {', '.join(twice)} stands there twice")
        return self
