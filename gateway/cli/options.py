"""What most commands share: where the configuration is, and how it is found."""

import os
from pathlib import Path
from typing import Annotated

import typer

from config.errors import ConfigError
from config.load import Configuration, load

CONFIG_NAME = "answerable.yaml"

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help=f"Configuration file; default ./{CONFIG_NAME}.", show_default=False)
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help=f"A data directory that holds its own {CONFIG_NAME} (as demo and try leave it)."),
]


def configuration(config: Path | None, data: Path | None) -> Configuration:
    """The configuration that the options name: `--config`, else the one in `--data`, else the one right here.

    Raises:
        ConfigError: both were given, or there is none, or it cannot hold.
    """
    if config is not None and data is not None:
        raise ConfigError("give --config FILE or --data DIR, not both", advice="A configuration names its data itself.")
    path = config or (data / CONFIG_NAME if data is not None else Path(CONFIG_NAME))
    if not path.exists():
        raise ConfigError(
            f"{path}: no configuration there",
            advice="Name one with --config FILE, or run `answerable demo` or `answerable try URL` to see one made.",
        )
    return load(path, os.environ)
