"""`answerable try URL`: Answerable before somebody's own model on this machine, with nothing to configure.

The route it opens has no extraction yet: each call is recorded as it is, and the desk's page lets the one user
click the values that name case, subject, label and score, and download the route that they make.
"""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console

from config.errors import ConfigError
from config.load import Configuration, describe, from_tree
from config.settings import Settings
from gateway.cli.options import CONFIG_NAME
from gateway.demo.host import free_or_refuse, result_of, running
from storage.durable import replace_file


async def attempt(url: str, *, port: int, desk_port: int, data: Path) -> int:
    """Run until Ctrl-C; returns the exit code.

    Raises:
        ConfigError: a port is in use, or `url` is no http(s) address.
        HostError: the processes did not start.
    """
    console = Console()
    configuration = written(tree(url, port=port, desk_port=desk_port), data)
    free_or_refuse(port, "--port")
    free_or_refuse(desk_port, "--desk-port")
    log = data / "serve.log"
    async with running(configuration, log):
        interrupted = interruption()
        page = await signin_link(configuration, roles=["developer"], purpose="try", ticket="try", target="/try")
        console.print(
            f"\nPoint your application at  [bold]http://127.0.0.1:{port}[/]  instead of  {url}", soft_wrap=True
        )
        console.print(f"Watch its calls here:      [bold]{page}[/]  (works once, within 10 minutes)", soft_wrap=True)
        console.print(
            f"\n[dim]Everything stays in {data}; the log is {log.name} there. Ctrl-C stops.[/]", soft_wrap=True
        )
        await interrupted.wait()
    return 0


def tree(url: str, *, port: int, desk_port: int) -> dict[str, Any]:
    """The configuration that `try` runs with, as a YAML file would hold it."""
    return {
        "deployment": "try",
        "data": ".",
        "gateway": {"port": port},
        "callers": {"mode": "open"},
        "desk": {"port": desk_port, "developer": True},
        "routes": [{"name": "try", "prefix": "/", "upstream": url, "explain": {"when": "never"}}],
    }


def written(tree: dict[str, Any], data: Path) -> Configuration:
    """`tree` checked and written to `data`, which is made if missing.

    Raises:
        ConfigError: the tree cannot hold, or the folder cannot be written.
    """
    path = data / CONFIG_NAME
    try:
        Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, path), advice="Check the URL and the ports.") from error
    try:
        data.mkdir(parents=True, exist_ok=True)
        replace_file(path, yaml.safe_dump(tree, sort_keys=False).encode())
    except OSError as error:
        raise ConfigError(f"{data}: {error.strerror or error}", advice="Choose a folder with --data DIR.") from error
    return from_tree(tree, path)


async def signin_link(configuration: Configuration, *, roles: list[str], purpose: str, ticket: str, target: str) -> str:
    """A link that signs in once, within 10 minutes, with `roles`, and leads to `target` on the desk."""
    arguments = {"subject": roles[0], "roles": roles, "purpose": purpose, "ticket": ticket, "target": target}
    answer = await result_of(configuration, "signin-code", arguments)
    return f"http://127.0.0.1:{configuration.settings.desk.port}{answer['result']['path']}"


def interruption() -> asyncio.Event:
    """An event that Ctrl-C or SIGTERM sets from now on; neither ends anything by itself any more."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # event loops without signal handlers: Ctrl-C raises there
            loop.add_signal_handler(number, interrupted.set)
    return interrupted
