"""Secrets by reference: the configuration names where a secret is, never what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from config.errors import ConfigError

SECRET_BYTES_MAX = 64 * 1024  # a key or token; anything larger is the wrong file


def reveal(reference: str, *, base: Path, environ: Mapping[str, str]) -> str:
    """The secret that `reference` names: ``env:NAME``, or ``file:PATH`` relative to `base`; outer white space cut.

    Raises:
        ConfigError: it is not there, empty, unreadable or far too large. The message never holds the secret.
    """
    kind, _, where = reference.partition(":")
    if kind == "env":
        value = environ.get(where, "")
        if not value.strip():
            raise ConfigError(f"secret {reference}: the environment variable is not set or empty")
        return value.strip()
    path = base / where
    try:
        with path.open("rb") as file:
            raw = file.read(SECRET_BYTES_MAX + 1)
        text = raw.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"secret {reference}: {error}") from error
    if not text or len(raw) > SECRET_BYTES_MAX:
        raise ConfigError(f"secret {reference}: expected 1 to {SECRET_BYTES_MAX} bytes of text in {path}")
    return text
