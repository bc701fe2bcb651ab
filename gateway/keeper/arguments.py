"""The arguments of a command, as they came over the socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from config.errors import AnswerableError

Value = TypeVar("Value")


class ArgumentError(AnswerableError):
    """An argument is missing or of another kind."""

    code = "arguments_invalid"
    status = 400
    advice = "See gateway/keeper/README.md for the commands and their arguments."


def required(arguments: Mapping[str, Any], name: str, kind: type[Value]) -> Value:
    """The argument `name`; ArgumentError where it is missing or of another kind."""
    value = arguments.get(name)
    if not isinstance(value, kind):
        raise ArgumentError(f"`{name}` is missing or not a {kind.__name__}")
    return value


def optional(arguments: Mapping[str, Any], name: str, kinds: Sequence[type]) -> Any:
    """The argument `name`, None where it is missing; ArgumentError where it is of another kind."""
    value = arguments.get(name)
    if value is not None and (not isinstance(value, tuple(kinds)) or isinstance(value, bool)):
        raise ArgumentError(f"`{name}` is not a {kinds[0].__name__}")
    return value
