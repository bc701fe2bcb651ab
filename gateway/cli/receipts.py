"""`answerable receipt`: what a caller was handed, held against the ledger."""

import sys
from typing import Annotated

import orjson
import typer

from gateway.cli.asking import ask
from gateway.cli.options import ConfigOption, DataOption, configuration

app = typer.Typer(help="Receipts: is what was acknowledged to a caller still there?", no_args_is_help=True)


@app.command()
def check(
    receipt: Annotated[str, typer.Argument(help="The whole value of a Decision-Receipt header, quoted; - reads it.")],
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")] = False,
) -> None:
    """Say what became of a receipt: exit 0 included, 1 contradicted, 2 pending or unprovable."""
    text = (sys.stdin.read() if receipt == "-" else receipt).strip()
    answer = ask(configuration(config, data), "receipt-check", {"receipt": text})
    result = answer["result"]
    typer.echo(orjson.dumps(result).decode() if as_json else f"{result['verdict']}: {result['detail']}")
    raise typer.Exit(answer["exit"])
