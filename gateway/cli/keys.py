"""Credentials: application keys (`ans_…`) for the data plane, development tokens for the desk."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from config.errors import ConfigError
from gateway import development
from gateway.cli.options import ConfigOption, DataOption, configuration
from storage import applications

app = typer.Typer(help="Keys for applications that can only send a bearer key.", no_args_is_help=True)
DESK_ROLES = ("support", "compliance", "dpo", "regulator", "model_owner", "admin", "auditor")


@app.command()
def create(
    app_name: Annotated[str, typer.Option("--app", help="The application's name; it stands on every entry.")],
    tenant: Annotated[str | None, typer.Option(help="The tenant; default: the configuration's.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Opens routes that ask for it; may be repeated.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Create a key for an application and print it once; only its hash is stored."""
    loaded = configuration(config, data)
    key = applications.create(
        loaded.data,
        app=app_name,
        tenant=tenant or loaded.settings.tenant,
        now_ns=time.time_ns(),
        scopes=scope or (),
    )
    typer.echo(key)


@app.command("list")
def list_(config: ConfigOption = None, data: DataOption = None) -> None:
    """List the applications that have a key, never the keys."""
    table = Table("key", "application", "tenant", "scopes", "created")
    for known in applications.read(configuration(config, data).data):
        table.add_row(known.id, known.app, known.tenant, " ".join(known.scopes), known.created)
    Console().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id as `keys list` shows it.")],
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Revoke a key; gateways refuse it within two seconds."""
    applications.revoke(configuration(config, data).data, key_id)
    typer.echo(f"revoked {key_id}")


def token(
    *,
    role: Annotated[list[str], typer.Option("--role", help=f"One of {', '.join(DESK_ROLES)}; may be repeated.")],
    subject: Annotated[str, typer.Option(help="Who the token speaks for.")] = "developer",
    matter: Annotated[str | None, typer.Option(help="JSON for a regulator: {routes, from, to}.")] = None,
    minutes: Annotated[int, typer.Option(min=1, max=720, help="How long it is good for.")] = 60,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Print a desk token signed by this machine's development key (only with `desk.development: true`)."""
    loaded = configuration(config, data)
    if not loaded.settings.desk.development:
        raise ConfigError(
            f"{loaded.path}: desk.development is not set, so the desk believes no token of this machine",
            advice="Take a token from your own issuer, or set desk.development on a machine of your own.",
        )
    unknown = sorted(set(role) - set(DESK_ROLES))
    if unknown:
        message = f"--role {unknown[0]}: expected one of {', '.join(DESK_ROLES)}"
        raise ConfigError(message, advice="See `answerable token --help`.")
    typer.echo(
        development.sign(
            loaded.data,
            subject=subject,
            roles=role,
            tenant=loaded.settings.tenant,
            matter=matter,
            expires_s=int(time.time()) + 60 * minutes,
        )
    )
