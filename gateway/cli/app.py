"""The command line, assembled: one line a command, in the order that a newcomer meets them."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from config.errors import AnswerableError
from gateway import logs
from gateway.cli import evidence, holds, keys, models, receipts, serving, settings, showing

app = typer.Typer(
    name="answerable",
    help="Model decisions, recorded before the answer leaves, explained a moment later, provable for years.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer's callback form)
    if wanted:
        typer.echo(f"answerable {version('answerable')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Nothing but the version belongs to all commands."""


app.command("demo")(showing.demo)
app.command("try")(showing.try_)
app.command("serve")(serving.serve)
app.command("gateway")(serving.gateway)
app.command("keeper")(serving.keeper)
app.command("desk")(serving.desk)
app.add_typer(keys.app, name="keys")
app.command("token")(keys.token)
app.add_typer(models.app, name="models")
app.command("why")(evidence.why)
app.command("bundle")(evidence.bundle)
app.command("verify")(evidence.verify)
app.command("reconcile")(evidence.reconcile)
app.add_typer(holds.app, name="hold")
app.command("approve")(holds.approve)
app.add_typer(receipts.app, name="receipt")
app.command("migrate")(evidence.migrate)
app.command("rebuild")(evidence.rebuild)
app.command("roll")(evidence.roll)
app.command("doctor")(evidence.doctor)
app.add_typer(settings.app, name="config")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line (of this process by default); an operating error becomes message, advice and exit code 2."""
    logs.configure()
    try:
        app(arguments)
    except AnswerableError as error:
        typer.echo(f"answerable: {error}\n{error.advice}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
