"""`answerable models`: registering a model, and checking that it is the one that decides."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.asking import ask
from gateway.cli.options import ConfigOption, DataOption, configuration

app = typer.Typer(help="Models: registered with their baseline, features and reasons.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Argument(help="The registration YAML beside the model's artifact.")]


@app.command()
def register(file: FileArgument, config: ConfigOption = None, data: DataOption = None) -> None:
    """Register the model that FILE describes: checked, copied by digest, and stated in the ledger."""
    answer = ask(configuration(config, data), "models-register", {"file": str(file.absolute())})
    registered = answer["result"]
    typer.echo(f"registered {registered['name']} {registered['version']}, artifact {registered['digest']}")


@app.command()
def check(
    file: FileArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many recorded decisions to compare with.")] = 200,
) -> None:
    """Run FILE's model on recorded decisions and say how many it answers as recorded; exit 1 if any differs."""
    answer = ask(configuration(config, data), "models-check", {"file": str(file.absolute()), "last": last})
    typer.echo(answer["result"]["summary"])
    for line in answer["result"]["differences"]:
        typer.echo(f"  {line}")
    raise typer.Exit(answer["exit"])
