"""The try page: recorded calls, values to click, the preview, the YAML. Only `answerable try` has it. Thin.

Everything here is a link: clicking a value adds its path to the address. Live refresh is a small script that asks for
the newest call's id and loads the page again when it changed; without JavaScript the page refreshes itself.
"""

from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from gateway.desk import trying, words
from gateway.desk.api import answered
from gateway.desk.callers import Callers
from gateway.desk.context import Context
from gateway.desk.errors import NotFoundError
from gateway.desk.reading import Reading
from gateway.desk.roles import Right, Viewer
from gateway.desk.service import Service
from gateway.desk.views import Views
from storage.entries import decode
from storage.queries import EntryRow

CALLS_MAX: Final = 30
PARTS_FOLLOW_NS: Final = 10 * words.NS_PER_S
PERIOD_NS: Final = 7 * words.DAY_NS


class TryPages:
    """The handlers under /try."""

    def __init__(self, context: Context, service: Service, reading: Reading, callers: Callers, views: Views) -> None:
        self._context = context
        self._service = service
        self._reading = reading
        self._callers = callers
        self._views = views

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand."""
        return [
            web.get("/try", self.page),
            web.get("/v1/try", self.document),
            web.get("/try/route.yaml", self.yaml),
            web.get("/try/newest", self.newest),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """Recorded calls on the left, the chosen one's values, what was picked, the preview."""
        caller = await self._callers.of(request)
        found = await self._document(caller.viewer, request)
        made, call, pick = trying.picks(list(request.query.items())), found["call"], found["pick"]
        gateway = self._context.configuration.settings.gateway

        def link(picks: trying.Picks = made, *, pick: str = pick, call: str | None = None) -> str:
            chosen = call or (found["call"]["id"] if found["call"] is not None else None)
            query = [("pick", pick), *picks.query(), *([("call", chosen)] if chosen else [])]
            return f"/try?{urlencode(query)}"

        return self._views.page(
            request,
            caller,
            "try.html",
            doc=found,
            call=call,
            pick=pick,
            picks=made,
            titles=trying.TITLES,
            hints=trying.HINTS,
            sides=trying.SIDES,
            link=link,
            choose=lambda path: link(made.with_path(pick, path), pick=_following(pick, made)),
            forget=lambda name: link(made.with_path(name, None), pick=name),
            direct=lambda value, direction: link(made.with_label(value, direction)),
            yaml_link=f"/try/route.yaml?{urlencode(made.query())}",
            base_url=f"http://{gateway.host}:{gateway.port}",
            twin=f"/v1/try?{urlencode(list(request.query.items()))}",
        )

    async def document(self, request: web.Request) -> web.Response:
        """The same as JSON."""
        caller = await self._callers.of(request)
        return answered(await self._document(caller.viewer, request))

    async def yaml(self, request: web.Request) -> web.Response:
        """The route's YAML, as a file."""
        caller = await self._callers.of(request)
        caller.viewer.require(Right.TRY)
        text = trying.route_yaml(self._route(), trying.picks(list(request.query.items())))
        headers = {"Content-Disposition": 'attachment; filename="route.yaml"'}
        return web.Response(text=text, content_type="application/yaml", headers=headers)

    async def newest(self, request: web.Request) -> web.Response:
        """The id of the newest recorded call and nothing else: no individual's data, so no access entry."""
        caller = await self._callers.of(request)
        caller.viewer.require(Right.TRY)
        found = await self._calls(caller.viewer, limit=1)
        return answered({"id": found[0].id if found else None})

    async def _document(self, viewer: Viewer, request: web.Request) -> dict[str, Any]:
        viewer.require(Right.TRY)
        made = trying.picks(list(request.query.items()))
        entries = await self._calls(viewer, limit=CALLS_MAX)
        found = [(entry, await self._reading.content(entry)) for entry in entries]
        # a call may be seen a moment before its parts and keys are; the next look takes it
        fresh_ns = self._context.now_ns() - PARTS_FOLLOW_NS
        bodies = [(entry, content) for entry, content in found if not (content.erased and entry.ts_ns > fresh_ns)]
        await self._service.tried(viewer, rows=len(bodies))
        wanted = request.query.get("call")
        chosen = next(((e, c) for e, c in bodies if e.id == wanted), bodies[0] if bodies and wanted is None else None)
        if chosen is None and wanted is not None:
            raise NotFoundError("this call is not among the newest any more")
        return {
            "calls": [_line(entry) for entry, _ in bodies],
            "call": None
            if chosen is None
            else {
                **_line(chosen[0]),
                "request": trying.tree(chosen[1].request, "request"),
                "answer": trying.tree(chosen[1].response, "answer"),
            },
            "pick": _pick(request.query.get("pick"), made),
            "picked": dict(made.query()),
            "preview": trying.preview([(e.id, c.request or b"", c.response or b"") for e, c in bodies], made),
            "yaml": trying.route_yaml(self._route(), made) if made.label is not None else None,
        }

    async def _calls(self, viewer: Viewer, *, limit: int) -> list[EntryRow]:
        now_ns = self._context.now_ns()
        since_ns = now_ns - PERIOD_NS
        return await self._reading.calls(viewer.tenant, since_ns=since_ns, until_ns=now_ns + words.DAY_NS, limit=limit)

    def _route(self) -> Any:
        return self._context.configuration.settings.routes[0]


def _pick(asked: str | None, made: trying.Picks) -> str:
    return asked if asked is not None and asked in trying.SIDES else _following("", made)


def _following(picked: str, made: trying.Picks) -> str:
    """What to name next: the first that is not named yet."""
    open_names = [
        name for name in ("label", "score", "case", "subject") if getattr(made, name) is None and name != picked
    ]
    return open_names[0] if open_names else picked or "label"


def _line(entry: EntryRow) -> dict[str, Any]:
    said = decode(entry.entry)
    call = said.get("call") or {}
    return {
        "id": entry.id,
        "at": words.iso(entry.ts_ns),
        "method": call.get("method"),
        "path": call.get("path"),
        "status": said.get("status"),
        "kind": entry.kind,
        "total_us": (said.get("timing") or {}).get("total_us"),
    }
