"""Lifecycle entries: the configuration that was activated, the models that were registered.

Every entry names the digest of the configuration in force; its canonical bytes are a part of the lifecycle entry of
its activation, so that whoever has the entries has the configurations.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import orjson
import structlog

from config.errors import ConfigError
from config.load import Configuration, from_tree
from gateway import activation
from gateway.activation import ACTIVE_FILE
from gateway.keeper.models import Models
from gateway.keeper.writing import Writer
from storage.durable import replace_file

VERSION = 1

_log = structlog.get_logger(__name__)


async def activate(configuration: Configuration, writer: Writer) -> bool:
    """State that `configuration` is in force, unless it already was; true if an entry was written.

    On return the entry is durable, and after it the file from which `last_active` reads.
    """
    if activation.is_stated(configuration):
        return False
    contents = [(activation.PART, activation.MEDIA, configuration.canonical)]
    await writer.append(writer.draft("lifecycle", fields=activation.fields(configuration)), contents)
    state = {
        "v": VERSION,
        "digest": configuration.digest,
        "path": str(configuration.path),
        "settings": orjson.loads(configuration.canonical),
    }
    path = configuration.data / ACTIVE_FILE
    await asyncio.to_thread(replace_file, path, orjson.dumps(state, option=orjson.OPT_SORT_KEYS) + b"\n")
    return True


def last_active(data: Path) -> Configuration:
    """The configuration that was last in force on `data`.

    Raises:
        ConfigError: there is none.
    """
    path = data / ACTIVE_FILE
    try:
        state = orjson.loads(path.read_bytes())
        configuration = from_tree(state["settings"], Path(state["path"]))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: no configuration was ever active here ({type(error).__name__})",
            advice="Name the configuration file with --config.",
        ) from error
    if configuration.data != data.absolute():
        # the directory was moved since; where it is now is what counts
        moved = {**state["settings"], "data": str(data.absolute())}
        configuration = from_tree(moved, Path(state["path"]))
    return configuration


async def register(path: Path, data: Path, writer: Writer, models: Models) -> dict[str, str]:
    """Register the model that the file at `path` describes, and state it; returns name, version and digests.

    Raises:
        ConfigError: the file, its artifact or its baseline is faulty; nothing was changed.
    """
    # imported when needed: it loads xgboost, which takes a second and some hundred megabytes
    from explainers.registry import register as register_files  # noqa: PLC0415

    registered = await asyncio.to_thread(register_files, path, data)
    content = await asyncio.to_thread(path.read_bytes)
    if hashlib.sha256(content).hexdigest() != registered.registration:
        raise ConfigError(f"{path}: changed while it was being registered", advice="Register it again.")
    fields = {
        "event": "model_registered",
        "object": "model",
        "name": registered.name,
        "version": registered.version,
        "digest": registered.digest,
        "baseline": registered.baseline,
        "registration": registered.registration,
    }
    await writer.append(writer.draft("lifecycle", fields=fields), [("registration", "application/yaml", content)])
    await asyncio.to_thread(models.refresh)
    return {
        "name": registered.name,
        "version": registered.version,
        "digest": registered.digest,
        "registration": registered.registration,
    }


async def register_configured(configuration: Configuration, writer: Writer, models: Models) -> None:
    """Register the models that the configuration names, except those that are registered as they are.

    Raises:
        ConfigError: one of them is faulty.
    """
    for relative in configuration.settings.models:
        path = configuration.base / relative
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        if models.listed(hashlib.sha256(content).hexdigest()):
            continue
        registered = await register(path, configuration.data, writer, models)
        _log.info("model_registered", name=registered["name"], version=registered["version"])
