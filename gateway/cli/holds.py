"""Holds, and being the second person."""

from typing import Annotated, Any

import orjson
import typer

from gateway.cli.asking import ask, bearer
from gateway.cli.evidence import JsonOption
from gateway.cli.options import ConfigOption, DataOption, configuration

app = typer.Typer(help="Keep records from being erased or pruned, until two people release them.", no_args_is_help=True)

PurposeOption = Annotated[str, typer.Option(help="Why; it stands on the entry.")]
TicketOption = Annotated[str | None, typer.Option(help="The ticket you work on; support needs one.")]
ReasonOption = Annotated[str, typer.Option(help="In your own words; it is stored sealed.")]


@app.command("place")
def place(
    *,
    basis: Annotated[str, typer.Option(help="litigation, investigation, supervision, complaint or audit.")],
    reason: ReasonOption,
    purpose: PurposeOption,
    decision: Annotated[list[str] | None, typer.Option(help="A Decision-Id; may be given several times.")] = None,
    case: Annotated[str | None, typer.Option(help="Everything of this case, by your own number for it.")] = None,
    subject: Annotated[str | None, typer.Option(help="Everything about this person, by your own number.")] = None,
    route: Annotated[str | None, typer.Option(help="Everything of this route, with --from and --to.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="A date or time, ISO 8601, UTC.")] = None,
    to: Annotated[str | None, typer.Option(help="The end, without it.")] = None,
    ticket: TicketOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Place a hold, or ask for one where your role may not place it alone. Needs ANSWERABLE_TOKEN."""
    asked: dict[str, Any] = {"basis": basis, "reason": reason, "decisions": decision, "case": case}
    asked |= {"subject": subject, "route": route, "from": from_, "to": to}
    arguments: dict[str, Any] = {"asked": {name: value for name, value in asked.items() if value}}
    arguments |= {"token": bearer("compliance"), "purpose": purpose, "ticket": ticket}
    held = ask(configuration(config, data), "hold-place", arguments)["result"]
    if as_json:
        typer.echo(orjson.dumps(held))
        return
    waits = "" if held["state"] == "in_force" else "; somebody else approves it: answerable approve " + held["id"]
    covers = f"{held['covers']:,} decision{'' if held['covers'] == 1 else 's'}"
    typer.echo(f"hold {held['id']}: {held['state'].replace('_', ' ')}, {covers} on record now{waits}")


@app.command("release")
def release(
    hold: Annotated[str, typer.Argument(help="The hold's id.")],
    *,
    reason: ReasonOption,
    purpose: PurposeOption,
    ticket: TicketOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a hold's release; another person approves it. Needs ANSWERABLE_TOKEN."""
    arguments = {"hold": hold, "reason": reason, "token": bearer("compliance"), "purpose": purpose, "ticket": ticket}
    asked = ask(configuration(config, data), "hold-release", arguments)["result"]
    told = f"request {asked['id']} waits for a second person: answerable approve {asked['id']}"
    typer.echo(orjson.dumps(asked).decode() if as_json else told)


@app.command("list")
def listing(
    *,
    purpose: PurposeOption,
    ticket: TicketOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Holds, and what waits for a second person. Needs ANSWERABLE_TOKEN."""
    arguments = {"token": bearer("compliance"), "purpose": purpose, "ticket": ticket}
    found = ask(configuration(config, data), "hold-list", arguments)["result"]
    if as_json:
        typer.echo(orjson.dumps(found))
        return
    for one in found["approvals"]:
        typer.echo(f"waiting {one['id']}  {one['action'].replace('_', ' ')}  asked by {one['by']}, {one['at']}")
    for one in found["holds"]:
        typer.echo(f"{one['state'].replace('_', ' '):9} {one['id']}  {one['basis']}  by {one['by']}, {one['at']}")
    if not found["approvals"] and not found["holds"]:
        typer.echo("no holds, and nothing waits")


def approve(
    request: Annotated[str, typer.Argument(help="The request's id, as `answerable hold list` shows it.")],
    *,
    reason: ReasonOption,
    purpose: PurposeOption,
    ticket: TicketOption = None,
    reject: Annotated[bool, typer.Option("--reject", help="Say no.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back your own request.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Be the second person: approve what somebody else asked for (or --reject it). Needs ANSWERABLE_TOKEN."""
    if reject and withdraw:
        raise typer.BadParameter("--reject and --withdraw exclude each other")
    verdict = "reject" if reject else "withdraw" if withdraw else "approve"
    arguments = {"request": request, "verdict": verdict, "reason": reason, "token": bearer("compliance")}
    arguments |= {"purpose": purpose} | ({} if ticket is None else {"ticket": ticket})
    found = ask(configuration(config, data), "approve", arguments)["result"]
    told = f"{found['action'].replace('_', ' ')} {found['object']}: {found['state']}"
    typer.echo(orjson.dumps(found).decode() if as_json else told)
