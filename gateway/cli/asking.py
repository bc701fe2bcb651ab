"""Commands that a keeper carries out: ask, show progress, return what it answered."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console

from config.errors import ConfigError
from config.load import Configuration
from gateway.keeper.socket import command

TOKEN_VARIABLE = "ANSWERABLE_TOKEN"  # noqa: S105 (a name; on the command line a token would be seen by all)


def ask(configuration: Configuration, name: str, arguments: Mapping[str, Any]) -> Any:
    """The result of the keeper's command `name`; ends the program with the command's exit code where it is not 0.

    A running keeper is asked, else the data is opened here. A result with exit code 1 is printed by the caller's
    `show` before the program ends, so that "broken" is never said without what is broken.
    """
    last = asyncio.run(_run(configuration, name, arguments))
    if "error" in last:
        error = last["error"]
        typer.echo(f"answerable: {error['message']}\n{error['advice']}", err=True)
        raise typer.Exit(int(last["exit"]))
    return last


def bearer(role: str) -> str:
    """The desk token in the environment; ConfigError where there is none, naming how `role` gets one."""
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        raise ConfigError(
            f"no desk token in {TOKEN_VARIABLE}; owning this machine gives no right to read a person's data",
            advice="Take one from your issuer; in development: "
            f"export {TOKEN_VARIABLE}=$(answerable token --role {role} …)",
        )
    return given


async def _run(configuration: Configuration, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    console = Console(stderr=True)
    last: dict[str, Any] = {}
    with console.status(f"{name} …") as status:
        async for line in command(configuration.data, name, arguments, configuration=configuration):
            if "progress" in line:
                status.update(f"{name} … {_told(line['progress'])}")
            else:
                last = line
    return last


def _told(progress: Any) -> str:
    if not isinstance(progress, Mapping):
        return str(progress)
    told = (f"{value:,}" if isinstance(value, int) else str(value) for value in progress.values())
    return ", ".join(f"{key} {value}" for key, value in zip(progress, told, strict=True))
