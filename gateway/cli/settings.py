"""`answerable config check`: is this file a configuration?"""

import os
from pathlib import Path
from typing import Annotated

import typer

from config.load import load
from config.registration import load_registration
from config.secrets import reveal
from gateway.proxy.routes import unrecorded_beside_recorded

app = typer.Typer(help="Look at a configuration without starting anything.", no_args_is_help=True)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="The YAML file to check.")]) -> None:
    """Check FILE, the registrations it lists, and that its secrets are there; exit 2 names what is wrong."""
    configuration = load(file, os.environ)
    for path in configuration.settings.models:
        load_registration(configuration.base / path)
    references = [r.upstream_auth.secret for r in configuration.settings.routes if r.upstream_auth is not None]
    logins = configuration.settings.storage.logins().values()
    references += [login.password for login in logins if login.password is not None]
    for reference in references:
        reveal(reference, base=configuration.base, environ=os.environ)
    for route in configuration.settings.routes:
        for warning in unrecorded_beside_recorded(route):
            typer.echo(f"{file}: warning: {warning}", err=True)
    routes = ", ".join(route.name for route in configuration.settings.routes)
    typer.echo(f"{file}: sound. Routes: {routes}. Digest: {configuration.digest}")
