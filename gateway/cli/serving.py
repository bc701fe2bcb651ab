"""Running Answerable: all of it on one machine, or one role at a time."""

import asyncio
from typing import Annotated

import typer

from config.errors import ConfigError
from gateway import logs, metering, ports
from gateway.cli.options import ConfigOption, DataOption, configuration
from gateway.serve import serve as supervise


def serve(config: ConfigOption = None, data: DataOption = None) -> None:
    """Run gateway workers, keeper and desk on this machine until Ctrl-C."""
    raise typer.Exit(supervise(configuration(config, data)))


def gateway(
    config: ConfigOption = None,
    data: DataOption = None,
    shard: Annotated[
        str, typer.Option(help="This worker's journal; every worker of a host has its own.")
    ] = "gateway-0",
) -> None:
    """Run one gateway worker. Others may run beside it on the same port, each with a shard of its own."""
    import uvloop  # noqa: PLC0415 (each role loads only what it needs)

    loaded = configuration(config, data)
    port = ports.take(loaded)
    metering.share(loaded.data, shard)
    from gateway.proxy.app import run  # noqa: PLC0415 (likewise)

    try:
        code = uvloop.run(run(loaded, shard=shard))
    finally:
        port.release()
    raise typer.Exit(code)


def keeper(
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    with_desk: Annotated[bool, typer.Option("--desk/--no-desk", help="Serve the desk from this process too.")] = True,
) -> None:
    """Run the keeper: it ships, signs, schedules explanations, and serves the desk beside embedded storage."""
    loaded = configuration(config, data)
    metering.share(loaded.data, "keeper")
    from gateway.keeper.app import run_keeper  # noqa: PLC0415 (each role loads only what it needs)

    with logs.off_loop(loaded.settings.log.level):
        code = asyncio.run(run_keeper(loaded, desk=with_desk))
    raise typer.Exit(code)


def desk(config: ConfigOption = None, data: DataOption = None) -> None:
    """Run the desk alone, beside a ClickHouse server."""
    loaded = configuration(config, data)
    if loaded.settings.storage.profile == "chdb":
        raise ConfigError(
            f"{loaded.path}: storage.profile is chdb, which one process alone can open, and that is the keeper",
            advice="Run `answerable serve` or `answerable keeper --desk`; or move to a ClickHouse server.",
        )
    metering.share(loaded.data, "desk")
    from gateway.keeper.app import run_desk  # noqa: PLC0415 (each role loads only what it needs)

    with logs.off_loop(loaded.settings.log.level):
        code = asyncio.run(run_desk(loaded))
    raise typer.Exit(code)
