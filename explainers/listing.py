"""``DATA/models.json``: which models are registered, for every process of the host; imports no numbers.

``{"v": 1, "models": [{name, version, digest, baseline, registration, catalogue_version, loader}]}``, digests in
lowercase hex, one row for each name and version, sorted by both; rewritten atomically, read by polling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from config.errors import ConfigError
from storage.durable import make_directory, replace_file

MODELS_FILE = "models.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One row: `digest`, `baseline` and `registration` name files in ``DATA/artifacts``."""

    name: str
    version: str
    digest: str
    baseline: str
    registration: str
    catalogue_version: str
    loader: str


def registered_models(data: Path) -> tuple[Registered, ...]:
    """All registered models of a data directory, none if nothing was registered yet.

    Raises:
        ConfigError: models.json is not what `write_models` writes.
    """
    path = data / MODELS_FILE
    try:
        listed = orjson.loads(path.read_bytes())
        if listed["v"] != 1:
            raise ConfigError(f"{path}: v: expected 1, found {listed['v']!r}", advice="Use the release that wrote it.")
        return tuple(Registered(**row) for row in listed["models"])
    except FileNotFoundError:
        return ()
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        advice = "Move the file away and register the models again."
        raise ConfigError(f"{path}: models: not a list of registered models ({error!r})", advice=advice) from error


def write_models(data: Path, models: Iterable[Registered]) -> None:
    """Rewrite models.json atomically; durable on return."""
    rows = [asdict(model) for model in sorted(models, key=lambda model: (model.name, model.version))]
    make_directory(data)
    replace_file(data / MODELS_FILE, orjson.dumps({"v": 1, "models": rows}, option=orjson.OPT_INDENT_2) + b"\n")
