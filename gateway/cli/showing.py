"""`answerable demo` and `answerable try`: seeing it work, on real data and on one's own model."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of the data plane.")]
DeskPortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of the desk.")]


def demo(
    *,
    port: PortOption = 8080,
    desk_port: DeskPortOption = 8081,
    data: Annotated[Path, typer.Option(help="Where everything is kept; made if missing.")] = Path("demo-data"),
    exit_: Annotated[
        bool, typer.Option("--exit", help="Stop when all is explained and verified; print one JSON line.")
    ] = False,
) -> None:
    """Show the whole path on real mortgage applications: sent, recorded, explained, verified, read."""
    from gateway.demo.show import show  # noqa: PLC0415 (needs the `all` extra; other commands do not)

    raise typer.Exit(_ran(show(port=port, desk_port=desk_port, data=data.absolute(), leave=exit_)))


def try_(
    url: Annotated[str, typer.Argument(metavar="URL", help="Your model's endpoint, e.g. http://localhost:9000")],
    *,
    port: PortOption = 8080,
    desk_port: DeskPortOption = 8081,
    data: Annotated[Path, typer.Option(help="Where everything is kept; made if missing.")] = Path("try-data"),
) -> None:
    """Put Answerable before your model on this machine, without a configuration, and write the route by clicking."""
    from gateway.demo.attempt import attempt  # noqa: PLC0415 (likewise)

    raise typer.Exit(_ran(attempt(url, port=port, desk_port=desk_port, data=data.absolute())))


def _ran(showing: Coroutine[None, None, int]) -> int:
    """Run to the end; SIGTERM ends what was started in order, as Ctrl-C does, and the exit code says so."""

    async def until_told() -> int:
        task = asyncio.ensure_future(showing)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(until_told())
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
