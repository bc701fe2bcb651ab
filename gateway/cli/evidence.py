"""Reading and proving what was recorded."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from config.errors import ConfigError
from gateway.cli.asking import TOKEN_VARIABLE, ask, token
from gateway.cli.options import ConfigOption, DataOption, configuration

_COLOURS = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow"}
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


def why(
    decision: Annotated[str, typer.Argument(help="The Decision-Id that the caller received.")],
    purpose: Annotated[str, typer.Option(help="Why you look; it stands on the access entry.")],
    ticket: Annotated[str | None, typer.Option(help="The ticket you work on; support needs one.")] = None,
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a decision came out as it did. Needs a desk token in ANSWERABLE_TOKEN; the look is recorded."""
    bearer = token()
    if bearer is None:
        raise ConfigError(
            f"no desk token in {TOKEN_VARIABLE}; owning this machine gives no right to read a person's data",
            advice="Take one from your issuer; in development: "
            f"export {TOKEN_VARIABLE}=$(answerable token --role support …)",
        )
    arguments = {"decision": decision, "purpose": purpose, "ticket": ticket, "token": bearer}
    result = ask(configuration(config, data), "why", arguments)["result"]
    typer.echo(orjson.dumps(result).decode() if as_json else _sentences(result))


def _sentences(result: dict[str, Any]) -> str:
    return "\n".join(result["sentences"])


def verify(
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    trust: Annotated[
        Path | None, typer.Option(help="A trust policy (JSON): keys of logs, witnesses, time stamps that you brought.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute leaves, tree and checkpoints from ClickHouse and the journal: exit 0 sound, 1 broken, 2 cannot tell."""
    arguments = {} if trust is None else {"trust": _policy(trust)}
    answer = ask(configuration(config, data), "verify", arguments)
    if as_json:
        typer.echo(orjson.dumps(answer["result"]))
        raise typer.Exit(answer["exit"])
    table = Table("claim", "verdict", "origin", "sequence", "detail")
    for claim in answer["result"]["claims"]:
        verdict = claim["verdict"]
        sequence = "" if claim["seq"] is None else str(claim["seq"])
        colour = _COLOURS[verdict]
        table.add_row(claim["name"], f"[{colour}]{verdict}[/]", claim["origin"] or "", sequence, claim["detail"])
    Console(width=None if Console().is_terminal else 160).print(table)
    typer.echo({0: "sound", 1: "BROKEN", 2: "cannot tell"}[answer["exit"]])
    raise typer.Exit(answer["exit"])


def _policy(path: Path) -> dict[str, Any]:
    # imported when needed: it loads the database's client, which other commands leave to the keeper
    from storage.errors import Unverifiable  # noqa: PLC0415
    from storage.trust import TrustPolicy  # noqa: PLC0415

    try:
        policy = orjson.loads(path.read_bytes())
        TrustPolicy.parse(policy)
    except (OSError, ValueError, Unverifiable) as error:
        advice = 'Its form is in storage/README.md, "Trust policy".'
        raise ConfigError(f"{path}: not a trust policy: {error}", advice=advice) from error
    return dict(policy)


def migrate(config: ConfigOption = None, data: DataOption = None) -> None:
    """Bring the database schema to this version."""
    result = ask(configuration(config, data), "migrate", {})["result"]
    applied = ", ".join(result["applied"]) or "nothing: it was up to date"
    typer.echo(f"applied {applied}")


def rebuild(config: ConfigOption = None, data: DataOption = None) -> None:
    """Drop the typed tables and build them again from entries alone."""
    result = ask(configuration(config, data), "rebuild", {})["result"]
    typer.echo(", ".join(f"{table} {rows:,}" for table, rows in result["rows"].items()))


def doctor(config: ConfigOption = None, data: DataOption = None) -> None:
    """Look at everything that can be wrong on this host and say what is; exit 1 if something is."""
    answer = ask(configuration(config, data), "doctor", {})
    for check in answer["result"]["checks"]:
        mark = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}[check["state"]]
        typer.echo(f"{mark} {check['name']}: {check['detail']}")
    raise typer.Exit(answer["exit"])
