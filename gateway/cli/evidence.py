"""Reading and proving what was recorded."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

from config.errors import ConfigError
from config.load import Configuration
from gateway.cli.asking import ask, bearer
from gateway.cli.options import ConfigOption, DataOption, configuration

_COLOURS = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow"}
SHOWN = 5  # of each sort of finding
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
    arguments = {"decision": decision, "purpose": purpose, "ticket": ticket, "token": bearer("support")}
    result = ask(configuration(config, data), "why", arguments)["result"]
    typer.echo(orjson.dumps(result).decode() if as_json else _sentences(result))


def bundle(
    *,
    out: Annotated[Path, typer.Option(help="The file to write (.zip); it must not be there yet.")],
    purpose: Annotated[str, typer.Option(help="Why you take it; it stands on the access entry.")],
    decision: Annotated[list[str] | None, typer.Option(help="A Decision-Id; may be given several times.")] = None,
    case: Annotated[str | None, typer.Option(help="All decisions of this case, by your own number for it.")] = None,
    subject: Annotated[str | None, typer.Option(help="All decisions about this person, by your own number.")] = None,
    route: Annotated[str | None, typer.Option(help="All entries of this route, with --from and --to.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="A date or time, ISO 8601, UTC.")] = None,
    to: Annotated[str | None, typer.Option(help="The end, without it.")] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Disclose this of each decision: request, response or target.")
    ] = None,
    ticket: Annotated[str | None, typer.Option(help="The ticket you work on.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All entries of all ledgers.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write evidence that an outsider can check alone. Needs a desk token in ANSWERABLE_TOKEN; it is recorded."""
    asked: dict[str, Any] = {"decisions": decision, "case": case, "subject": subject, "route": route}
    asked |= {"from": from_, "to": to, "parts": part, "everything": everything or None}
    arguments = {
        "out": str(out.absolute()),
        "token": bearer("auditor"),
        "asked": {name: value for name, value in asked.items() if value},
        "purpose": purpose,
        "ticket": ticket,
    }
    made = ask(configuration(config, data), "bundle", arguments)["result"]
    if as_json:
        typer.echo(orjson.dumps(made))
        return
    typer.echo(f"{out}: {made['entries']:,} entries, {made['parts']:,} parts disclosed, {made['erased']:,} erased")
    for sentence in made["incomplete"]:
        typer.echo(f"not shown to be complete: {sentence}")
    typer.echo(f"check it: answerable verify --bundle {out} --trust policy.json")


def reconcile(
    books: Annotated[Path, typer.Argument(help="Your own list of cases: CSV in UTF-8, with a header.")],
    *,
    case: Annotated[str, typer.Option(help="The column that holds the case, as applications name it.")],
    purpose: Annotated[str, typer.Option(help="Why you compare; it stands on the access entry.")],
    disposition: Annotated[str | None, typer.Option(help="The column that says what the business did.")] = None,
    favourable: Annotated[list[str] | None, typer.Option(help="What stands there for a favourable outcome.")] = None,
    adverse: Annotated[list[str] | None, typer.Option(help="… and for an adverse one.")] = None,
    route: Annotated[str | None, typer.Option(help="Only decisions of this route.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="A date or time, ISO 8601, UTC.")] = None,
    to: Annotated[str | None, typer.Option(help="The end, without it.")] = None,
    delimiter: Annotated[str, typer.Option(help="Between cells.")] = ",",
    out: Annotated[Path | None, typer.Option(help="Write every finding here, as CSV.")] = None,
    ticket: Annotated[str | None, typer.Option(help="The ticket you work on.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold your own list of cases against the decisions on record: exit 0 all agree, 1 something differs."""
    arguments: dict[str, Any] = {"file": str(books.absolute()), "case": case, "token": bearer("compliance")}
    arguments |= {"purpose": purpose, "disposition": disposition, "favourable": favourable, "adverse": adverse}
    arguments |= {"route": route, "from": from_, "to": to, "delimiter": delimiter, "ticket": ticket}
    arguments["out"] = None if out is None else str(out.absolute())
    answer = ask(configuration(config, data), "reconcile", arguments)
    result = answer["result"]
    if as_json:
        typer.echo(orjson.dumps(result))
        raise typer.Exit(answer["exit"])
    typer.echo(f"{result['listed']:,} cases listed, {result['decisions']:,} decisions, {result['matched']:,} matched")
    for finding, count in result["counts"].items():
        if not count:
            continue
        typer.echo(f"{count:,} of {finding.replace('_', ' ')}")
        for one in result["shown"][finding][:SHOWN]:
            typer.echo("    " + ", ".join(f"{name} {value}" for name, value in one.items() if name != "finding"))
    typer.echo(f"list {result['list_sha256']}")
    typer.echo("all agree" if answer["exit"] == 0 else "DIFFERENCES")
    raise typer.Exit(answer["exit"])


def _sentences(result: dict[str, Any]) -> str:
    return "\n".join(result["sentences"])


def verify(
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    trust: Annotated[
        Path | None, typer.Option(help="A trust policy (JSON): keys of logs, witnesses, time stamps that you brought.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Check this evidence bundle alone.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute leaves, tree and checkpoints from ClickHouse and the journal: exit 0 sound, 1 broken, 2 cannot tell."""
    if bundle is not None:
        _verify_bundle(bundle, trust, as_json=as_json)
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


def _verify_bundle(path: Path, trust: Path | None, *, as_json: bool) -> NoReturn:
    # imported when needed, as below
    from storage.bundlecheck import check_bundle  # noqa: PLC0415
    from storage.trust import TrustPolicy  # noqa: PLC0415

    try:
        report = check_bundle(path, None if trust is None else TrustPolicy.parse(_policy(trust)))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", advice="Name the bundle's file.") from error
    if as_json:
        typer.echo(orjson.dumps(report.as_json()))
        raise typer.Exit(report.exit_code)
    table = Table("claim", "verdict", "detail")
    for claim in report.claims:
        table.add_row(claim.name, f"[{_COLOURS[claim.verdict]}]{claim.verdict}[/]", claim.detail)
    Console(width=None if Console().is_terminal else 160).print(table)
    typer.echo({0: "holds", 1: "DOES NOT HOLD", 2: "cannot tell"}[report.exit_code])
    raise typer.Exit(report.exit_code)


def _policy(path: Path) -> dict[str, Any]:
    # imported when needed: it loads the database's client, which other commands leave to the keeper
    from storage.errors import Unverifiable  # noqa: PLC0415
    from storage.strictjson import parse  # noqa: PLC0415
    from storage.trust import TrustPolicy  # noqa: PLC0415

    try:
        policy = parse(path.read_bytes())
        TrustPolicy.parse(policy)
    except (OSError, ValueError, Unverifiable) as error:
        advice = 'Its form is in storage/README.md, "Trust policy".'
        raise ConfigError(f"{path}: not a trust policy: {error}", advice=advice) from error
    return dict(policy)


def migrate(
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    print_sql: Annotated[
        bool,
        typer.Option("--print-sql", help="Print schema, accounts and grants for an administrator; change nothing."),
    ] = False,
) -> None:
    """Bring the database schema to this version."""
    if print_sql:
        _print_sql(configuration(config, data))
        return
    result = ask(configuration(config, data), "migrate", {})["result"]
    applied = ", ".join(result["applied"]) or "nothing: it was up to date"
    typer.echo(f"applied {applied}")


def _print_sql(loaded: Configuration) -> None:
    # imported when needed, as below
    from storage.accounts import users  # noqa: PLC0415
    from storage.migrate import printed  # noqa: PLC0415
    from storage.profiles import Profile  # noqa: PLC0415

    profile = Profile.of(loaded.settings.storage, data=loaded.data)
    if profile.kind == "chdb":
        raise ConfigError(
            f"{loaded.path}: storage.profile is chdb, which migrates itself and has no accounts",
            advice="Set storage.profile to server, cluster or cloud.",
        )
    typer.echo(f"-- Answerable {version('answerable')}, profile {profile.kind}; it may be run again at any time.")
    for statement in printed(profile):
        typer.echo(f"{statement};\n")
    typer.echo(
        "-- Each account, once it has a password and hosts, can sign in; give the keeper those it is configured for:"
    )
    for account, user in users(profile).items():
        typer.echo(f"--   {account}: ALTER USER `{user}` IDENTIFIED WITH sha256_password BY '…' HOST …;")


def roll(config: ConfigOption = None, data: DataOption = None) -> None:
    """Close the journal segments that are being written, so that they go once shipped; exit 1 if one stays open."""
    answer = ask(configuration(config, data), "roll", {})
    told = {
        "closed": "closed",
        "before": "was closed before",
        "open": "STILL OPEN: nobody writes it, or no room",
    }
    for state, says in told.items():
        for origin in answer["result"][state]:
            typer.echo(f"{origin}: {says}")
    raise typer.Exit(answer["exit"])


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
