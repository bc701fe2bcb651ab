"""The commands that a keeper answers, on its socket or in a process that has opened the data itself.

Each is an async generator: lines of progress, then one line with ``result`` and ``exit``. A command that reads a
person's data takes a desk token and goes the desk's way, access entry included.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from config.errors import AnswerableError
from gateway.desk.roles import time_ns
from gateway.keeper import counting, health
from gateway.keeper.arguments import ArgumentError, optional, required
from gateway.keeper.holding import HoldCommands
from gateway.keeper.keeper import Keeper
from gateway.keeper.lifecycle import register
from gateway.keeper.parts import Parts
from gateway.keeper.receiptcheck import check_receipt
from gateway.keeper.reconciling import Books, Reconciled, Reconciliation
from gateway.keeper.rolling import roll_all
from gateway.keeper.settling import Target
from gateway.keeper.socket import Command, Lines
from gateway.keeper.threads import Tell, Told
from gateway.keeper.verifying import verify
from gateway.keeper.writing import Writer
from storage import durable
from storage.errors import StorageError
from storage.migrate import migrate
from storage.queries import EVER, Span
from storage.receiptcheck import Standing
from storage.trust import TrustPolicy

NEEDS_JOURNAL: Final = frozenset({"bundle", "models-register", "reconcile", "why"})
NEEDS_LOOPS: Final = frozenset({"approve", "hold-list", "hold-place", "hold-release", "roll", "settle", "status"})
SETTLE_TIMEOUT_S: Final = 600.0
TELL_EVERY_S: Final = 0.2
IDS_MAX: Final = 20_000  # of one `count`
LAST_MAX: Final = 10_000  # of one `models-check`


def unknown(name: str) -> AnswerableError:
    """The error for a command that there is not."""
    return AnswerableError(f"no command {name}", code="command_unknown", status=404, advice="See `answerable --help`.")


class Commands:
    """All commands over one opened data directory; `keeper` is None where only its parts are open."""

    def __init__(self, parts: Parts, keeper: Keeper | None) -> None:
        self._parts = parts
        self._keeper = keeper

    def table(self) -> Mapping[str, Command]:
        """Name → command."""
        return {
            "bundle": self.bundle,
            "count": self.count,
            "doctor": self.doctor,
            "migrate": self.migrate,
            "models-check": self.models_check,
            "models-register": self.models_register,
            "rebuild": self.rebuild,
            "receipt-check": self.receipt_check,
            "reconcile": self.reconcile,
            "roll": self.roll,
            "settle": self.settle,
            "signin-code": self.signin_code,
            "status": self.status,
            "verify": self.verify,
            "why": self.why,
            **HoldCommands(lambda: self._open().desk).table(),
        }

    async def status(self, _: Mapping[str, Any]) -> Lines:
        """Counts: what gateways counted, how far each loop is, what ClickHouse holds."""
        yield {"result": await self._status(), "exit": 0}

    async def settle(self, arguments: Mapping[str, Any]) -> Lines:
        """Wait until everything durable now is shipped, projected, proven, and explained or failed.

        Raises:
            AnswerableError: it did not happen within `timeout_s` (``settle_timeout``).
        """
        keeper = self._running()
        timeout_s = float(optional(arguments, "timeout_s", (int, float)) or SETTLE_TIMEOUT_S)
        deadline_s = time.monotonic() + timeout_s
        decided = await keeper.target()
        visible: Target | None = None
        where = keeper.where()
        while True:
            if visible is None and where.is_decided(decided):
                visible = await keeper.target()  # what was decided has become entries of the keeper's own
            if visible is not None and where.is_visible(visible):
                break
            if time.monotonic() > deadline_s:
                raise AnswerableError(
                    f"not settled after {timeout_s:.0f} s: {'; '.join(keeper.problems()) or 'work is still waiting'}",
                    code="settle_timeout",
                    status=504,
                    advice="Look at `answerable doctor`; what waits is on disk and is not lost.",
                )
            yield {"progress": where.progress(decided)}
            await asyncio.sleep(TELL_EVERY_S)
        yield {"result": await self._status(), "exit": 0}

    async def count(self, arguments: Mapping[str, Any]) -> Lines:
        """How many of the given decisions are shipped and explained, by ClickHouse."""
        ids = required(arguments, "decisions", list)
        if len(ids) > IDS_MAX or not all(isinstance(one, str) for one in ids):
            raise ArgumentError(f"`decisions` has at most {IDS_MAX} ids")
        yield {"result": await asyncio.to_thread(counting.of_decisions, self._parts.database, ids), "exit": 0}

    async def doctor(self, _: Mapping[str, Any]) -> Lines:
        """Everything that can be wrong on this host; exit 1 if something is."""
        await self._parts.library.look(discover=True)
        keeper = self._keeper
        outside = () if keeper is None else (keeper.anchoring, keeper.auditing)
        checks = await asyncio.to_thread(health.examine, self._parts, *outside)
        failed = any(check.state == "fail" for check in checks)
        yield {"result": {"checks": [check.as_json() for check in checks]}, "exit": int(failed)}

    async def migrate(self, _: Mapping[str, Any]) -> Lines:
        """Bring the schema to this release."""
        applied = await self._parts.shipping.alone(
            lambda _projector: migrate(self._parts.database, now_ns=time.time_ns())
        )
        yield {"result": {"applied": [migration.name for migration in applied]}, "exit": 0}

    async def rebuild(self, _: Mapping[str, Any]) -> Lines:
        """Drop the typed tables and make them again from entries alone."""
        yield {"progress": {"state": "emptying the typed tables"}}
        rows = await self._parts.shipping.alone(lambda projector: projector.rebuild(now_ns=time.time_ns()))
        yield {"result": {"rows": rows}, "exit": 0}

    async def roll(self, _: Mapping[str, Any]) -> Lines:
        """Close the segments that are being written; exit 1 if one was not within 15 s."""
        keeper = self._running()
        rolled = await roll_all(self._parts.library, keeper.upkeep, keeper.writer)
        yield {"result": rolled.as_json(), "exit": int(bool(rolled.open))}

    async def verify(self, arguments: Mapping[str, Any]) -> Lines:
        """Recompute everything that was signed; exit 0 sound, 1 broken, 2 cannot tell. `trust`: a trust policy."""
        policy = optional(arguments, "trust", (dict,))
        trust = None if policy is None else TrustPolicy.parse(policy)
        await self._parts.library.look(discover=True)
        told = Told(lambda tell: verify(self._parts, tell, trust))
        async for line in told.lines():
            yield line
        report = told.result
        claims = [claim.as_json() for claim in report.claims]
        result = {"entries": report.entries, "checked": dict(report.checked), "claims": claims}
        yield {"result": result, "exit": report.exit_code}

    async def receipt_check(self, arguments: Mapping[str, Any]) -> Lines:
        """What became of a receipt; exit 0 included, 1 contradicted, 2 pending or unprovable."""
        text = required(arguments, "receipt", str)
        await self._parts.library.look(discover=True)
        judged = await asyncio.to_thread(check_receipt, self._parts, text)
        code = {Standing.INCLUDED: 0, Standing.CONTRADICTED: 1}.get(judged.standing, 2)
        yield {"result": judged.as_json(), "exit": code}

    async def models_register(self, arguments: Mapping[str, Any]) -> Lines:
        """Register a model, and state it in the ledger."""
        path = Path(required(arguments, "file", str))
        yield {"progress": {"state": "checking artifact and baseline"}}
        registered = await register(path, self._parts.configuration.data, self._writer(), self._parts.models)
        yield {"result": registered, "exit": 0}

    async def models_check(self, arguments: Mapping[str, Any]) -> Lines:
        """Run a registration's model on recorded decisions; exit 1 if any answers differently."""
        # imported when needed: it loads xgboost
        from gateway.keeper.checking import check_model  # noqa: PLC0415

        path = Path(required(arguments, "file", str))
        last = min(LAST_MAX, optional(arguments, "last", (int,)) or 200)
        told = Told(lambda tell: check_model(self._parts, path, last=last, tell=tell))
        async for line in told.lines():
            yield line
        compared = told.result
        result = {
            "total": compared.total,
            "bound": compared.bound,
            "summary": compared.summary,
            "differences": list(compared.differences),
        }
        yield {"result": result, "exit": int(compared.bound < compared.total)}

    async def why(self, arguments: Mapping[str, Any]) -> Lines:
        """The justification of one decision, by the rights of the token that is shown."""
        keeper = self._open()
        found = await keeper.desk.why(
            required(arguments, "token", str),
            required(arguments, "decision", str),
            purpose=required(arguments, "purpose", str),
            ticket=optional(arguments, "ticket", (str,)),
        )
        yield {"result": found, "exit": 0}

    async def bundle(self, arguments: Mapping[str, Any]) -> Lines:
        """Write an evidence bundle to `out`, by the rights of the token that is shown."""
        out = Path(required(arguments, "out", str))
        if not out.is_absolute():
            raise ArgumentError("`out` is an absolute path")
        wanted = await self._open().desk.evidence(
            required(arguments, "token", str),
            required(arguments, "asked", dict),
            purpose=required(arguments, "purpose", str),
            ticket=optional(arguments, "ticket", (str,)),
        )
        told = Told(lambda tell: self._open().desk.bundle(wanted, out, tell))
        try:
            async for line in told.lines():
                yield line
        except OSError as error:
            raise AnswerableError(
                f"{out}: {error.strerror or error}",
                code="bundle_unwritable",
                advice="Name a new file in a folder of yours.",
            ) from error
        yield {"result": told.result.as_json(), "exit": 0}

    async def reconcile(self, arguments: Mapping[str, Any]) -> Lines:
        """Hold a list of cases against the decisions on record; exit 0 all agree, 1 something differs."""
        path, out = Path(required(arguments, "file", str)), optional(arguments, "out", (str,))
        books = Books(
            path=path,
            case=required(arguments, "case", str),
            disposition=optional(arguments, "disposition", (str,)),
            favourable=frozenset(optional(arguments, "favourable", (list,)) or ()),
            adverse=frozenset(optional(arguments, "adverse", (list,)) or ()),
            delimiter=optional(arguments, "delimiter", (str,)) or ",",
        )
        if len(books.delimiter) != 1:
            raise ArgumentError("`delimiter` is one character")
        tenant, wanted = await self._open().desk.reconciliation(
            required(arguments, "token", str),
            route=optional(arguments, "route", (str,)),
            span=_span(arguments),
            purpose=required(arguments, "purpose", str),
            ticket=optional(arguments, "ticket", (str,)),
        )
        run = Reconciliation(
            self._parts.database,
            tenant=tenant,
            pseudonyms=lambda case: self._parts.keyring.pseudonyms(tenant, "case", case),
            span=Span(wanted.from_ns, wanted.to_ns),
            routes=wanted.routes or (),
        )
        told = Told(lambda tell: _reported(run, books, out, tell))
        try:
            async for line in told.lines():
                yield line
        except OSError as error:
            advice = "Name a new file in a folder of yours."
            raise AnswerableError(f"{out}: {error.strerror or error}", code="out_unwritable", advice=advice) from error
        yield {"result": told.result.as_json(), "exit": int(not told.result.agrees)}

    async def signin_code(self, arguments: Mapping[str, Any]) -> Lines:
        """A link to the desk that signs in once; only where the configuration says that this is for development."""
        desk = self._parts.configuration.settings.desk
        if not (desk.development or desk.developer):
            raise AnswerableError(
                "one-time codes are for development and demonstration",
                code="not_development",
                status=403,
                advice="Sign in through your issuer, or set desk.development on a loopback address.",
            )
        path = self._running().desk.invite(
            subject=required(arguments, "subject", str),
            roles=[str(role) for role in required(arguments, "roles", list)],
            purpose=optional(arguments, "purpose", (str,)),
            ticket=optional(arguments, "ticket", (str,)),
            onward=optional(arguments, "target", (str,)) or "",
        )
        yield {"result": {"path": path}, "exit": 0}

    # --- inside ---------------------------------------------------------------------------------------------

    async def _status(self) -> dict[str, Any]:
        keeper = self._running()
        await self._parts.library.look(discover=True)
        try:
            totals: dict[str, int] | None = await asyncio.to_thread(counting.totals, self._parts.database)
        except StorageError:
            totals = None  # the database is away: `problems` says why
        shards = keeper.where().shards()
        counted = {name: sum(row[name] for row in shards) for name in ("accepted", "closed", "open", "lost", "refused")}
        return {
            "deployment": self._parts.configuration.settings.deployment,
            "configuration": self._parts.configuration.digest,
            "calls": counted,
            "decisions": totals,
            "waiting": keeper.schedule.waiting,
            "shards": shards,
            "problems": list(keeper.problems()),
        }

    def _writer(self) -> Writer:
        return self._open().writer

    def _open(self) -> Keeper:
        if self._keeper is None:
            raise AnswerableError("this command needs the keeper's journal", advice="Start the keeper.")
        return self._keeper

    def _running(self) -> Keeper:
        keeper = self._open()
        if not keeper.is_running:
            raise AnswerableError(
                "this command needs a running keeper", code="keeper_needed", status=503, advice="Start the keeper."
            )
        return keeper


def _span(arguments: Mapping[str, Any]) -> tuple[int, int]:
    """`from` and `to` as Unix nanoseconds; what is not said is open."""
    bounds = [EVER.low, EVER.high]
    for at, name in enumerate(("from", "to")):
        text = optional(arguments, name, (str,))
        if text is None:
            continue
        moment = time_ns(text)
        if moment is None:
            raise ArgumentError(f"`{name}` is a date or a time (ISO 8601)")
        bounds[at] = moment
    if bounds[0] >= bounds[1]:
        raise ArgumentError("`from` is not before `to`")
    return bounds[0], bounds[1]


def _reported(run: Reconciliation, books: Books, out: str | None, tell: Tell) -> Reconciled:
    if out is None:
        return run.run(books, None, tell)
    with os.fdopen(durable.new_private(Path(out)), "w", encoding="utf-8", newline="") as report:
        return run.run(books, report, tell)
