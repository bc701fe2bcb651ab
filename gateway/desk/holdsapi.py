"""Holds and approvals as JSON: `/v1/holds`, `/v1/approvals`. Thin."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.desk.api import answered, body_of, stated_by, stated_in
from gateway.desk.callers import CSRF_HEADER, Caller, Callers
from gateway.desk.errors import RequestError
from gateway.desk.governing import Governing, verdict_of
from gateway.desk.holds import HoldRequest
from gateway.desk.service import Service
from gateway.desk.sessions import Grant


class HoldsApi:
    """The handlers under /v1/holds and /v1/approvals."""

    def __init__(self, service: Service, governing: Governing, callers: Callers) -> None:
        self._service = service
        self._governing = governing
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand."""
        return [
            web.get("/v1/holds", self.holds),
            web.post("/v1/holds", self.place),
            web.get("/v1/holds/{id}", self.hold),
            web.delete("/v1/holds/{id}", self.release),
            web.get("/v1/approvals", self.approvals),
            web.post("/v1/approvals/{id}", self.decide),
        ]

    async def holds(self, request: web.Request) -> web.Response:
        """`GET /v1/holds`."""
        caller = await self._callers.of(request)
        return answered(await self._governing.holds(caller.viewer, stated=stated_by(self._service, request)))

    async def hold(self, request: web.Request) -> web.Response:
        """`GET /v1/holds/{id}`."""
        caller = await self._callers.of(request)
        stated = stated_by(self._service, request)
        return answered(await self._governing.hold(caller.viewer, request.match_info["id"], stated=stated))

    async def place(self, request: web.Request) -> web.Response:
        """`POST /v1/holds` {purpose, ticket, basis, reason, and what for}: 201 in force, 202 waits for somebody."""
        caller, given, stated = await self._asked(request)
        held = await self._governing.place(caller.viewer, HoldRequest.parse(given), stated=stated)
        status = 201 if held["state"] == "in_force" else 202
        return answered(held, status=status, headers={"Location": held["links"]["self"]})

    async def release(self, request: web.Request) -> web.Response:
        """`DELETE /v1/holds/{id}` {purpose, ticket, reason}: 202, a request that waits for a second person."""
        caller, given, stated = await self._asked(request)
        if set(given) != {"reason"}:
            raise RequestError("the body is an object with purpose, reason and, if you like, ticket")
        asked = await self._governing.release(caller.viewer, request.match_info["id"], given["reason"], stated=stated)
        return answered(asked, status=202, headers={"Location": asked["links"]["self"]})

    async def approvals(self, request: web.Request) -> web.Response:
        """`GET /v1/approvals`."""
        caller = await self._callers.of(request)
        return answered(await self._governing.approvals(caller.viewer, stated=stated_by(self._service, request)))

    async def decide(self, request: web.Request) -> web.Response:
        """`POST /v1/approvals/{id}` {purpose, ticket, verdict: approve | reject | withdraw, reason}."""
        caller, given, stated = await self._asked(request)
        if set(given) != {"verdict", "reason"}:
            raise RequestError("the body is an object with purpose, verdict, reason and, if you like, ticket")
        return answered(
            await self._governing.decide(
                caller.viewer, request.match_info["id"], verdict_of(given["verdict"]), given["reason"], stated=stated
            )
        )

    async def _asked(self, request: web.Request) -> tuple[Caller, dict[str, Any], Grant]:
        """Who asks for what, and why; purpose and ticket stand in the body, as with `POST /v1/evidence`."""
        caller = await self._callers.of(request)
        caller.check_form(request.headers.get(CSRF_HEADER))
        given = await body_of(request)
        return caller, given, stated_in(self._service, given)
