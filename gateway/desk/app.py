"""The desk as a web application: what it is made of, in the order in which a request passes it.

    request id → security headers → errors into one shape → caller → handler → service → access entry → document

The host listens (`Desk.runner`); the desk opens nothing of its own. One line per request is logged, with the address's
pattern instead of the address.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final

import structlog
from aiohttp import web

from config.errors import AnswerableError
from gateway.desk import openapi
from gateway.desk.api import Api, answered
from gateway.desk.callers import Caller, Callers
from gateway.desk.context import Context
from gateway.desk.errors import PurposeRequiredError, RequestError, SigninRequiredError
from gateway.desk.evidence import EvidenceRequest
from gateway.desk.exports import Exports
from gateway.desk.filters import Filter
from gateway.desk.governing import Governing, verdict_of
from gateway.desk.holdpages import HoldPages
from gateway.desk.holds import HoldRequest
from gateway.desk.holdsapi import HoldsApi
from gateway.desk.pages import Pages, is_ours
from gateway.desk.reading import Reading
from gateway.desk.roles import TRY_PURPOSE, viewer
from gateway.desk.service import Service
from gateway.desk.sessions import Grants, Invitation, Signins
from gateway.desk.signin import SigninPages
from gateway.desk.tlog import LogPages
from gateway.desk.trypages import TryPages
from gateway.desk.views import Views
from gateway.exposition import MEDIA, Scrapers, exposition
from gateway.tokens import TokenError, Tokens
from storage.bundles import Made, Tell, Wanted

BODY_BYTES_MAX: Final = 64 * 1024  # forms and lookups; nothing large is ever sent here
ASSETS_S: Final = 31_536_000  # their address changes with their content
POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
OWN_ISSUER: Final = "answerable-development"  # as gateway.development names it
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = structlog.get_logger(__name__)


class Desk:
    """One desk over its host's parts; `web` is its aiohttp application."""

    def __init__(self, context: Context) -> None:
        settings = context.configuration.settings
        session_s = settings.desk.session_hours * 3600
        self._context = context
        self._scrapers = Scrapers(settings.metrics.allow)
        self._tokens = Tokens(context.issuers, base=context.configuration.base)
        self._signins = Signins(session_s=session_s, now_ns=context.now_ns, random=context.random)
        self._callers = Callers(self._tokens, self._signins, tenant=settings.tenant, trying=context.trying)
        self._views = Views(
            deployment=settings.deployment,
            broad_grants=settings.storage.allow_broad_grants,
            trying=context.trying,
        )
        grants = Grants(life_s=session_s, now_ns=context.now_ns)
        reading = Reading(context)
        self._service = Service(context, reading, grants)
        self._governing = governing = Governing(context, self._service)
        self._exports = Exports(context)
        self.web = web.Application(middlewares=[self._around], client_max_size=BODY_BYTES_MAX)
        self.web.on_response_prepare.append(_unnamed)
        names = tuple(route.name for route in settings.routes)
        home = "/try" if context.trying else "/"
        self.web.add_routes(
            [
                *Api(self._service, self._callers, self._exports).routes(),
                *Pages(self._service, self._callers, self._views, routes=names).routes(),
                *SigninPages(
                    self._service, self._signins, self._callers, self._views, session_s=session_s, home=home
                ).routes(),
                *(
                    TryPages(context, self._service, reading, self._callers, self._views).routes()
                    if context.trying
                    else ()
                ),
                *HoldsApi(self._service, governing, self._callers).routes(),
                *HoldPages(governing, self._callers, self._views, routes=names).routes(),
                *LogPages(context, self._service, self._callers).routes(),
                web.get("/static/{name}", self._static),
                web.get("/openapi.json", self._openapi),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )

    def runner(self) -> web.AppRunner:
        """A runner for the host to listen with; aiohttp's own access log, which writes addresses, stays off."""
        return web.AppRunner(self.web, access_log=None, handle_signals=False)

    def invite(
        self,
        *,
        subject: str,
        roles: Sequence[str],
        tenant: str | None = None,
        matter: object = None,
        purpose: str | None = None,
        ticket: str | None = None,
        onward: str = "",
    ) -> str:
        """`/signin/<code>`: signs somebody of this machine's own making in, once, within ten minutes.

        `onward` is the page that the link leads to; `purpose` and `ticket` are stated for it beforehand.

        Raises:
            ForbiddenError: none of the roles is known here.
            RequestError: the purpose is unknown, or `onward` is no page of the desk.
        """
        if onward and not is_ours(onward):
            raise RequestError("the link leads to no page of this desk")
        who = viewer(
            tenant=tenant or self._context.configuration.settings.tenant,
            issuer=OWN_ISSUER,
            subject=subject,
            roles=frozenset(roles),
            matter=matter,
            trying=self._context.trying,
        )
        stated = None if purpose is None or purpose == TRY_PURPOSE else self._service.grant(purpose, ticket)
        return f"/signin/{self._signins.issue_code(Invitation(viewer=who, onward=onward, grant=stated))}"

    async def why(self, bearer: str, decision: str, *, purpose: str, ticket: str | None) -> dict[str, Any]:
        """The justification of one decision for the command `why`: `sentences`, and the whole document beside them.

        Raises:
            AnswerableError: as the API's `GET /v1/decisions/{id}`.
        """
        who = await self._callers.bearer(bearer)
        found = await self._service.decision(who, decision, stated=self._service.grant(purpose, ticket))
        return {"sentences": found["card"]["say"], "justification": found}

    async def evidence(self, bearer: str, asked: Mapping[str, Any], *, purpose: str, ticket: str | None) -> Wanted:
        """What a bundle may hold, for the command `bundle`; the look is on record.

        Raises:
            AnswerableError: the token, its roles, the request or its purpose do not allow it.
        """
        who = await self._callers.bearer(bearer)
        return await self._service.evidence(
            who, EvidenceRequest.parse(asked), stated=self._service.grant(purpose, ticket)
        )

    async def reconciliation(
        self, bearer: str, *, route: str | None, span: tuple[int, int], purpose: str, ticket: str | None
    ) -> tuple[str, Filter]:
        """Tenant and decisions that a list may be held against, for the command `reconcile`; the look is on record.

        Raises:
            AnswerableError: the token or its roles do not allow it.
        """
        who = await self._callers.bearer(bearer)
        stated = self._service.grant(purpose, ticket)
        return await self._service.reconciliation(who, route=route, span=span, stated=stated)

    async def hold(self, bearer: str, asked: Mapping[str, Any], *, purpose: str, ticket: str | None) -> dict[str, Any]:
        """Place a hold, or ask for one, for the command `hold place`; raises as the API's `POST /v1/holds`."""
        who = await self._callers.bearer(bearer)
        stated = self._service.grant(purpose, ticket)
        return await self._governing.place(who, HoldRequest.parse(asked), stated=stated)

    async def release(self, bearer: str, hold: str, reason: str, *, purpose: str, ticket: str | None) -> dict[str, Any]:
        """Ask for a hold's release, for the command `hold release`; raises as the API's `DELETE /v1/holds/{id}`."""
        who = await self._callers.bearer(bearer)
        return await self._governing.release(who, hold, reason, stated=self._service.grant(purpose, ticket))

    async def decide(
        self, bearer: str, request: str, verdict: str, reason: str, *, purpose: str, ticket: str | None
    ) -> dict[str, Any]:
        """Answer a request, for the command `approve`; raises as the API's `POST /v1/approvals/{id}`."""
        who = await self._callers.bearer(bearer)
        stated = self._service.grant(purpose, ticket)
        return await self._governing.decide(who, request, verdict_of(verdict), reason, stated=stated)

    async def held(self, bearer: str, *, purpose: str, ticket: str | None) -> dict[str, Any]:
        """Holds and what waits for a second person, for the command `hold list`."""
        who = await self._callers.bearer(bearer)
        stated = self._service.grant(purpose, ticket)
        waiting = await self._governing.approvals(who, stated=stated)
        return {**await self._governing.holds(who, stated=stated), "approvals": waiting["approvals"]}

    def bundle(self, wanted: Wanted, path: Path, tell: Tell) -> Made:
        """Write the bundle that `evidence` allowed. Blocking; raises as the host's own."""
        return self._context.bundle(wanted, path, tell)

    async def close(self) -> None:
        """End what runs in the background."""
        await self._exports.close()
        await self._tokens.close()

    # ---- around every request

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s, request_id = time.monotonic(), self._context.random(8).hex()
        response = await self._guarded(request, handler, request_id)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Request-Id"] = request_id
        pattern = request.match_info.route.resource.canonical if request.match_info.route.resource else "unknown"
        _log.info(
            "desk_request",
            method=request.method,
            pattern=pattern,
            status=response.status,
            ms=round((time.monotonic() - started_s) * 1000, 1),
            request=request_id,
        )
        return response

    async def _guarded(self, request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            told = AnswerableError(
                refusal.reason.lower(), code=_code(refusal.status), status=refusal.status, advice="See /openapi.json."
            )
            return await self._told(request, told, request_id, allowed=refusal.headers.get("Allow"))
        except AnswerableError as error:
            return await self._told(request, error, request_id)
        except Exception as error:  # noqa: BLE001 - the last line of defence: nobody is left without an answer
            # without the message and without local variables: either may hold a person's data
            where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)]
            _log.error("desk_failed", request=request_id, error=type(error).__name__, where=where[-8:])
            return await self._told(request, AnswerableError("something went wrong in the desk"), request_id)

    async def _told(
        self, request: web.Request, error: AnswerableError, request_id: str, *, allowed: str | None = None
    ) -> web.StreamResponse:
        """The error as JSON or, for the console, as a page: the sign-in form or the purpose form where these help."""
        headers = {} if allowed is None else {"Allow": allowed}
        if isinstance(error, SigninRequiredError | TokenError):
            headers["WWW-Authenticate"] = "Bearer"
        if error.status == 503:
            headers["Retry-After"] = "5"
        if request.path.startswith(("/v1/", "/log/")) or request.path.endswith(".json"):
            return answered(error.as_json(request_id), status=error.status, headers=headers)
        caller = await self._known(request)
        if caller is None and error.status == 401:
            onward = request.path_qs if request.method == "GET" else ""
            page = self._views.page(
                request, None, "signin.html", status=401, code=None, problem=_problem(error), onward=onward
            )
        elif caller is not None and isinstance(error, PurposeRequiredError) and request.method == "GET":
            page = self._views.purpose(request, caller, onward=request.path_qs, status=error.status)
        else:
            page = self._views.error(request, caller, error, request_id=request_id)
        page.headers.update(headers)
        return page

    async def _known(self, request: web.Request) -> Caller | None:
        try:
            return await self._callers.of(request)
        except AnswerableError:
            return None

    # ---- what needs no sign-in

    async def _static(self, request: web.Request) -> web.Response:
        found = self._views.static.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        media, body = found
        return web.Response(
            body=body,
            content_type=media,
            charset="utf-8",
            headers={"Cache-Control": f"public, max-age={ASSETS_S}, immutable"},
        )

    async def _openapi(self, _request: web.Request) -> web.Response:
        return answered(openapi.DOCUMENT)

    async def _healthz(self, _request: web.Request) -> web.Response:
        return answered({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = list(self._context.problems())
        return answered(
            {"status": "not ready" if problems else "ok", "problems": problems}, status=503 if problems else 200
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        self._scrapers.check(request.remote, request.headers)
        text = await asyncio.to_thread(exposition, self._context.configuration.data)
        return web.Response(body=text, headers={"Content-Type": MEDIA})


def create(context: Context) -> Desk:
    """The desk over its host's parts."""
    return Desk(context)


async def _unnamed(_request: web.Request, response: web.StreamResponse) -> None:
    """Leave out which software answers, and in which version: aiohttp names it of its own accord."""
    response.headers.pop("Server", None)


def _code(status: int) -> str:
    return {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(status, "request_invalid")


def _problem(error: AnswerableError) -> str | None:
    return (
        None if error.code == "signin_required" else f"{error.message[:1].upper()}{error.message[1:]}. {error.advice}"
    )
