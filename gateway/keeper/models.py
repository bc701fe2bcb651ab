"""Which models are registered, as ``DATA/models.json`` lists them; read again whenever the file has changed.

The registry (explainers/registry.py) writes the file and states its form. Reading it here needs neither numpy nor
xgboost, which only explainer workers load.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

FILE = "models.json"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One registered model: digests of artifact, baseline and registration, lowercase hex."""

    name: str
    version: str
    digest: str
    baseline: str
    registration: str


class Models:
    """The registered models of one data directory; blocking reads of small files."""

    def __init__(self, data: Path) -> None:
        self._path = data / FILE
        self._seen: tuple[int, int] | None = None
        self._listed: tuple[Listed, ...] = ()
        self.refresh()

    def __len__(self) -> int:
        return len(self._listed)

    def refresh(self) -> None:
        """Read the list if it has changed; what cannot be read leaves the last good list in force."""
        try:
            state = self._path.stat()
            seen = (state.st_mtime_ns, state.st_ino)
            if seen == self._seen:
                return
            rows = orjson.loads(self._path.read_bytes())["models"]
            wanted = Listed.__dataclass_fields__
            self._listed = tuple(Listed(**{name: row[name] for name in wanted}) for row in rows)
            self._seen = seen
        except FileNotFoundError:
            self._listed = ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("models_unreadable", path=str(self._path), error=repr(error))

    def find(self, name: str | None, version: str | None, digest: str | None) -> Listed | None:
        """The model that a decision names.

        A digest decides alone. Without digest and version the name must have one version only: with two, which of
        them answered would be a guess.
        """
        if digest is not None:
            return next((one for one in self._listed if one.digest == digest and one.name == name), None)
        named = [one for one in self._listed if one.name == name and version in (None, one.version)]
        return named[0] if len(named) == 1 else None

    def has(self, name: str) -> bool:
        """Whether any version of this model is registered."""
        return any(one.name == name for one in self._listed)

    def listed(self, registration: str) -> bool:
        """Whether a registration with this digest is in force."""
        return any(one.registration == registration for one in self._listed)
