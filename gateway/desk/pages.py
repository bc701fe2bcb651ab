"""The console: server-rendered pages over the same documents as the API. Thin; works without JavaScript."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from aiohttp import web
from multidict import MultiDictProxy
from yarl import URL

from gateway.desk.callers import Caller, Callers
from gateway.desk.errors import RequestError
from gateway.desk.filters import PARAMETERS, needed, parse
from gateway.desk.governing import TARGET as HOLDS_TARGET
from gateway.desk.rendering import chart
from gateway.desk.roles import PURPOSES, Right, Viewer
from gateway.desk.service import Service
from gateway.desk.views import Views

PERIOD_DAYS: Final = 7  # a list of decisions begins with the last week
TARGET_CHARS_MAX: Final = 200
WAITS_S: Final = (3, 5, 10, 20, 40)  # until a page that waits loads itself again; each load is a look on record


class Pages:
    """The handlers of the console, but for signing in and the try page."""

    def __init__(self, service: Service, callers: Callers, views: Views, *, routes: tuple[str, ...]) -> None:
        self._service = service
        self._callers = callers
        self._views = views
        self._route_names = routes

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand."""
        return [
            web.get("/", self.search),
            web.post("/lookup", self.lookup),
            web.post("/purpose", self.purpose),
            web.get("/open", self.opening),
            web.get("/cases/{pseudonym}", self.case),
            web.get("/decisions", self.decisions),
            web.get("/decisions/{id}", self.decision),
            web.get("/decisions/{id}/proof", self.proof),
        ]

    async def search(self, request: web.Request) -> web.Response:
        """Find a case or person by reference, or a decision by its id."""
        caller = await self._callers.of(request)
        viewer = caller.viewer
        return self._views.page(
            request,
            caller,
            "search.html",
            may_lookup=viewer.may(Right.LOOKUP),
            may_list=viewer.may(Right.LIST),
            may_read=viewer.may(Right.REASONS),
            may_prove=viewer.may(Right.PROOF),
            needs_ticket=viewer.needs_ticket(Right.LOOKUP),
            purposes=PURPOSES,
        )

    async def lookup(self, request: web.Request) -> web.Response:
        """Exchange a customer's reference, sent in the form's body, for the case's page."""
        caller, form = await form_of(self._callers, request)
        number = form.get("decision", "").strip()
        stated = self._service.grant(form.get("purpose", ""), form.get("ticket"))
        kind = "decision" if number else form.get("kind", "case")
        given = number or form.get("reference", "")
        found = await self._service.lookup(caller.viewer, reference=given, kind=kind, stated=stated)
        return see_other(found["links"]["page"])

    async def purpose(self, request: web.Request) -> web.Response:
        """Take the purpose stated for one case, person, decision or list, and go on to where the viewer was."""
        caller, form = await form_of(self._callers, request)
        onward = form.get("next", "")
        if not is_ours(onward):
            raise RequestError("the form names no page of this desk")
        stated = self._service.grant(form.get("purpose", ""), form.get("ticket"))
        self._service.state_purpose(caller.viewer, purpose_target(onward, caller.viewer), stated)
        return see_other(onward)

    async def opening(self, request: web.Request) -> web.Response:
        """`/open?case=<pseudonym>&ticket=…`: a link in a CRM; asks for the purpose, then shows the case."""
        caller = await self._callers.of(request)
        case = request.query.get("case", "")
        if not case:
            raise RequestError("the link names no case: /open?case=<pseudonym>")
        asked = parse({"case": case, "from": "2000-01-01", "to": "2100-01-01"}, caller.viewer)
        ticket = self._service.grant("review", request.query.get("ticket")).ticket
        return self._views.purpose(request, caller, onward=f"/cases/{asked.case}", ticket=ticket or "")

    async def case(self, request: web.Request) -> web.Response:
        """Everything that happened in one case."""
        caller = await self._callers.of(request)
        found = await self._service.case(caller.viewer, request.match_info["pseudonym"], stated=None)
        return self._views.page(request, caller, "case.html", doc=found, twin=found["links"]["self"])

    async def decisions(self, request: web.Request) -> web.Response:
        """A list by filter; the filter stands in the address, so a link is a query."""
        caller = await self._callers.of(request)
        query = {name: value for name, value in request.query.items() if value}
        if "from" not in query or "to" not in query:
            today = datetime.now(UTC).date()
            period = {"from": str(today - timedelta(days=PERIOD_DAYS - 1)), "to": str(today + timedelta(days=1))}
            return see_other(f"/decisions?{urlencode({**period, **_known(query)})}")
        found = await self._service.decisions(caller.viewer, query, stated=None)
        following = f"/decisions?{urlencode({**query, 'cursor': found['cursor']})}" if found["cursor"] else None
        first = {name: value for name, value in query.items() if name != "cursor"}
        return self._views.page(
            request,
            caller,
            "decisions.html",
            doc=found,
            query=query,
            following=following,
            first=f"/decisions?{urlencode(first)}" if "cursor" in query else None,
            route_names=self._route_names,
            person=caller.viewer.may(Right.PERSON),
            twin=f"/v1/decisions?{urlencode(query)}",
        )

    async def decision(self, request: web.Request) -> web.Response:
        """One decision: the call card for support, the full view for those who look deeper (or `?view=card`)."""
        caller = await self._callers.of(request)
        found = await self._service.decision(caller.viewer, request.match_info["id"], stated=None)
        full = caller.viewer.full and request.query.get("view") != "card"
        waiting = found["explanation"]["state"] in ("pending", "running")
        return self._views.page(
            request,
            caller,
            "decision.html" if full else "card.html",
            doc=found,
            both=caller.viewer.full,
            chart=chart(found),
            again=again(request) if waiting else None,
            waiting=waiting,
            twin=found["links"]["self"],
        )

    async def proof(self, request: web.Request) -> web.Response:
        """The proof of one decision, how to check it, and the file."""
        caller = await self._callers.of(request)
        found = await self._service.proof(caller.viewer, request.match_info["id"], stated=None)
        return self._views.page(
            request,
            caller,
            "proof.html",
            doc=found,
            again=None if found["state"] == "included" else again(request),
            twin=found["links"]["self"],
        )


async def form_of(callers: Callers, request: web.Request) -> tuple[Caller, dict[str, str]]:
    """The caller and a form of texts, once it is sure that our own page sent it."""
    caller = await callers.of(request)
    form = texts(await request.post())
    caller.check_form(form.get("csrf"))
    return caller, form


def again(request: web.Request) -> str | None:
    """When a page that waits for something loads itself again, as a refresh: later each time, and then no more."""
    told = request.query.get("wait", "0")
    loads = int(told) if told.isascii() and told.isdigit() and len(told) < 3 else len(WAITS_S)
    if loads >= len(WAITS_S):
        return None
    query = {name: request.query[name] for name in ("view",) if name in request.query} | {"wait": str(loads + 1)}
    return f"{WAITS_S[loads]}; url={request.path}?{urlencode(query)}"


def is_ours(path: str) -> bool:
    """Whether a path leads to a page of this desk: nobody is sent on to another site."""
    if "\\" in path or "//" in path.partition("?")[0] or not path.isprintable():
        return False
    return path.startswith(("/cases/", "/decisions", "/holds", "/try", "/open?"))


def see_other(path: str) -> web.Response:
    """Go on to a page of this desk."""
    return web.Response(status=303, headers={"Location": str(URL(path))})


def texts(form: MultiDictProxy[Any]) -> dict[str, str]:
    """The text fields of a form; files in it are left out."""
    return {name: value for name, value in form.items() if isinstance(value, str)}


def purpose_target(path: str, viewer: Viewer) -> str:
    """What a purpose stated on the way to `path` is stated for."""
    place, _, query = path.partition("?")
    parts = place.strip("/").split("/")
    if len(parts) >= 2 and parts[0] in ("cases", "decisions"):
        kind = {"cases": "case", "decisions": "decision"}[parts[0]]
        return f"{kind}:{parts[1]}"[:TARGET_CHARS_MAX]
    if parts[0] == "holds":
        return HOLDS_TARGET
    if not query:
        return "list"
    return needed(parse(dict(parse_qsl(query)), viewer))[1]


def _known(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if name in PARAMETERS}
