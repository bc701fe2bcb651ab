"""The one door through which configuration comes in: file, then environment, then types.

An environment variable ``ANSWERABLE__GATEWAY__PORT=9000`` overrides ``gateway.port``; its value is read as
YAML. The digest is SHA-256 over the canonical JSON of the settings (orjson, sorted keys), with secrets as
references; ``data`` and what the environment overrode included, so that an entry names what was in force.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.errors import ConfigError
from config.settings import Settings

ENVIRONMENT_PREFIX = "ANSWERABLE__"
FILE_BYTES_MAX = 4 * 1024 * 1024  # thousands of routes; a larger file is not a configuration
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_NAMES_A_KEY = re.compile(r"[a-z_]+(\.[\w-]+)*: ")  # a check over several keys begins with the one to mend


@dataclass(frozen=True, slots=True)
class Configuration:
    """One loaded configuration: typed settings, their canonical bytes and digest, and where they came from."""

    settings: Settings
    digest: str  # lowercase hex SHA-256 of `canonical`
    canonical: bytes
    path: Path

    @property
    def base(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self.path.parent

    @property
    def data(self) -> Path:
        """The data directory, absolute."""
        return (self.base / self.settings.data).absolute()


def load(path: Path, environ: Mapping[str, str]) -> Configuration:
    """Read, override and check the configuration file at `path`.

    Raises:
        ConfigError: one message naming file, key and what was expected, for every fault found.
    """
    tree = read_yaml(path)
    for name in sorted(environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            _override(tree, name, environ[name])
    return from_tree(tree, path)


def from_tree(tree: dict[str, Any], path: Path) -> Configuration:
    """The configuration that `tree` (what a YAML file would hold) says, as if read from `path`."""
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, path)) from error
    canonical = orjson.dumps(settings.model_dump(mode="json", by_alias=True), option=orjson.OPT_SORT_KEYS)
    return Configuration(settings, hashlib.sha256(canonical).hexdigest(), canonical, path.absolute())


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`; a key that stands twice is refused."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes; that is not a configuration")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    tree = _parsed(raw, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(tree).__name__}")
    return tree


def _parsed(text: str | bytes, where: str) -> Any:
    """What the YAML `text` says; ConfigError, beginning with `where`, for whatever PyYAML cannot make of it."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader, made stricter)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"{where}: not YAML that can be read: nested too deeply") from None
    except (ValueError, TypeError) as error:
        # PyYAML lets these through from the types it builds: a 99th month, more digits than an integer may have
        raise ConfigError(f"{where}: not YAML that can be read: {' '.join(str(error).split())}") from error


def describe(error: ValidationError, path: Path) -> str:
    """Every fault of a validation, one line each: file, key, what was expected, what was found."""
    faults = error.errors()
    # a list whose items have faults is counted without them and then called too short: that is no fault of its own
    own = [one for one in faults if one["type"] != "too_short" or not _has_faulty_items(one, faults)]
    return "\n".join(f"{path}: {_fault(detail)}" for detail in own)


def _has_faulty_items(fault: ErrorDetails, faults: list[ErrorDetails]) -> bool:
    place = fault["loc"]
    return any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in faults)


def _fault(detail: ErrorDetails) -> str:
    key = ".".join(str(step) for step in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key"
    if detail["type"] == "missing":
        return f"{key}: missing"
    if detail["type"] == "value_error":
        names_a_key = _NAMES_A_KEY.match(message)
        return f"{key}{'.' if names_a_key else ': '}{message}" if key else message
    return f"{key}: {message[0].lower()}{message[1:]}, found {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    """`value` in at most 80 characters; never all of it first, as aliases make gigabytes out of a short file."""
    try:
        shown = _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number too long to show"
    return shown if len(shown) <= 80 else shown[:77] + "…"


def _override(tree: dict[str, Any], name: str, text: str) -> None:
    steps = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
    value = _parsed(text, f"environment {name}")
    place: Any = tree
    for step in steps[:-1]:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise ConfigError(f"environment {name}: {step} has no keys to override")
    place[steps[-1]] = value


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a fault; the last would win silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "found unhashable key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
