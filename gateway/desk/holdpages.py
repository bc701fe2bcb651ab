"""The console's page of holds and of what waits for a second person. Thin; works without JavaScript."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from gateway.desk.callers import Callers
from gateway.desk.governing import Governing, verdict_of
from gateway.desk.holds import BASES, HoldRequest
from gateway.desk.pages import form_of, see_other
from gateway.desk.roles import Right
from gateway.desk.views import Views

SCOPES: Final = {"case": "a case or application", "subject": "a person", "route": "a route in a period"}
STATES: Final = {
    "requested": "waits for a second person",
    "in_force": "in force",
    "released": "released",
    "rejected": "rejected",
    "withdrawn": "withdrawn",
    "lapsed": "lapsed",
}
ACTIONS: Final = {"hold_place": "Place a hold", "hold_release": "Release a hold"}


class HoldPages:
    """The handlers of /holds."""

    def __init__(self, governing: Governing, callers: Callers, views: Views, *, routes: tuple[str, ...]) -> None:
        self._governing = governing
        self._callers = callers
        self._views = views
        self._route_names = routes

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand."""
        return [
            web.get("/holds", self.holds),
            web.post("/holds", self.place),
            web.post("/holds/{id}/release", self.release),
            web.post("/approvals/{id}", self.decide),
        ]

    async def holds(self, request: web.Request) -> web.Response:
        """What waits, what is held, and the form for a new hold."""
        caller = await self._callers.of(request)
        viewer = caller.viewer
        waiting = await self._governing.approvals(viewer, stated=None)
        held = await self._governing.holds(viewer, stated=None)
        return self._views.page(
            request,
            caller,
            "holds.html",
            waiting=waiting["approvals"],
            holds=held["holds"],
            may_hold=viewer.may(Right.HOLD),
            may_approve=viewer.may(Right.APPROVE),
            bases={basis.value: text for basis, text in BASES.items()},
            scopes=SCOPES if viewer.may(Right.LIST) else {kind: SCOPES[kind] for kind in ("case", "subject")},
            states=STATES,
            actions=ACTIONS,
            route_names=self._route_names,
            twin="/v1/holds",
        )

    async def place(self, request: web.Request) -> web.Response:
        """Place a hold, or ask for one."""
        caller, form = await form_of(self._callers, request)
        kind = form.get("kind", "")
        given: dict[str, Any] = {"basis": form.get("basis"), "reason": form.get("reason")}
        if kind == "route":
            given |= {name: form.get(name) or None for name in ("route", "from", "to")}
        elif kind in SCOPES:
            given[kind] = form.get("reference")
        await self._governing.place(caller.viewer, HoldRequest.parse(given), stated=None)
        return see_other("/holds")

    async def release(self, request: web.Request) -> web.Response:
        """Ask for a hold's release."""
        caller, form = await form_of(self._callers, request)
        await self._governing.release(caller.viewer, request.match_info["id"], form.get("reason", ""), stated=None)
        return see_other("/holds")

    async def decide(self, request: web.Request) -> web.Response:
        """Answer a request, or withdraw one's own."""
        caller, form = await form_of(self._callers, request)
        verdict = verdict_of(form.get("verdict"))
        await self._governing.decide(
            caller.viewer, request.match_info["id"], verdict, form.get("reason", ""), stated=None
        )
        return see_other("/holds")
