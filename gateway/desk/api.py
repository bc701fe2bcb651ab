"""The JSON side: `/v1/…`, one error shape, the same documents that the pages show. Thin."""

from typing import Any, Final

import orjson
from aiohttp import web

from gateway.desk.callers import CSRF_HEADER, Callers
from gateway.desk.errors import NotFoundError, RequestError
from gateway.desk.evidence import EvidenceRequest
from gateway.desk.exports import Exports
from gateway.desk.service import Service
from gateway.desk.sessions import Grant

PURPOSE_HEADER: Final = "Answerable-Purpose"
TICKET_HEADER: Final = "Answerable-Ticket"
RETRY_S: Final = 5  # until the log of logs holds a checkpoint over a fresh entry, by the default of ledger.log_s
FORMATS: Final = {"text": 0, "log": 1}  # which of the two proofs


def answered(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer; never kept by caches."""
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json", headers=headers)


class Api:
    """The handlers under /v1."""

    def __init__(self, service: Service, callers: Callers, exports: Exports) -> None:
        self._service = service
        self._callers = callers
        self._exports = exports

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand."""
        return [
            web.post("/v1/lookup", self.lookup),
            web.get("/v1/cases/{pseudonym}", self.case),
            web.get("/v1/decisions", self.decisions),
            web.get("/v1/decisions/{id}", self.decision),
            web.get("/v1/decisions/{id}/proof", self.proof),
            web.post("/v1/evidence", self.evidence),
            web.get("/v1/evidence/{id}", self.export),
            web.get("/v1/evidence/{id}/file", self.export_file),
        ]

    async def lookup(self, request: web.Request) -> web.Response:
        """`POST /v1/lookup` {reference, kind, purpose, ticket}: the reference travels in the body alone."""
        caller = await self._callers.of(request)
        caller.check_form(request.headers.get(CSRF_HEADER))
        given = await _object(request, {"reference", "kind", "purpose", "ticket"})
        stated = self._service.grant(given.get("purpose", ""), given.get("ticket"))
        found = await self._service.lookup(
            caller.viewer, reference=given.get("reference", ""), kind=given.get("kind", ""), stated=stated
        )
        return answered(found)

    async def case(self, request: web.Request) -> web.Response:
        """`GET /v1/cases/{pseudonym}`."""
        caller = await self._callers.of(request)
        pseudonym = request.match_info["pseudonym"]
        return answered(await self._service.case(caller.viewer, pseudonym, stated=stated_by(self._service, request)))

    async def decisions(self, request: web.Request) -> web.Response:
        """`GET /v1/decisions?from=&to=&…`."""
        caller = await self._callers.of(request)
        return answered(
            await self._service.decisions(caller.viewer, request.query, stated=stated_by(self._service, request))
        )

    async def decision(self, request: web.Request) -> web.Response:
        """`GET /v1/decisions/{id}`."""
        caller = await self._callers.of(request)
        identifier = request.match_info["id"]
        return answered(
            await self._service.decision(caller.viewer, identifier, stated=stated_by(self._service, request))
        )

    async def proof(self, request: web.Request) -> web.Response:
        """`GET /v1/decisions/{id}/proof`: JSON, or one of the two tlog-proofs as text; 202 until both exist.

        The first as text by `Accept: text/plain` or `format=text`, the second by `format=log`.
        """
        caller = await self._callers.of(request)
        found = await self._service.proof(
            caller.viewer, request.match_info["id"], stated=stated_by(self._service, request)
        )
        form = request.query.get("format")
        if form is None and request.headers.get("Accept", "").startswith("text/plain"):
            form = "text"
        number = FORMATS.get(form or "", 0)
        if found["state"] != "included" and (form is None or len(found["proofs"]) <= number):
            return answered(found, status=202, headers={"Retry-After": str(RETRY_S)})
        if form in FORMATS:
            name = f"{found['decision']}{'' if number == 0 else '.log'}.tlog-proof"
            return web.Response(
                text=found["proofs"][number]["text"],
                content_type="text/plain",
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
        return answered(found)

    async def evidence(self, request: web.Request) -> web.Response:
        """`POST /v1/evidence` {purpose, ticket, and what for}: begins to make a bundle; 202 says where it will be."""
        caller = await self._callers.of(request)
        caller.check_form(request.headers.get(CSRF_HEADER))
        given = await body_of(request)
        stated = stated_in(self._service, given)
        wanted = await self._service.evidence(caller.viewer, EvidenceRequest.parse(given), stated=stated)
        job = self._exports.start(caller.viewer, wanted).as_json()
        return answered(job, status=202, headers={"Location": job["links"]["self"], "Retry-After": "1"})

    async def export(self, request: web.Request) -> web.Response:
        """`GET /v1/evidence/{id}`: how far it is."""
        caller = await self._callers.of(request)
        return answered(self._exports.find(caller.viewer, request.match_info["id"]).as_json())

    async def export_file(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/evidence/{id}/file`: the bundle."""
        caller = await self._callers.of(request)
        job = self._exports.find(caller.viewer, request.match_info["id"])
        if job.state != "ready":
            raise NotFoundError("this bundle is not ready")
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f'attachment; filename="evidence-{job.id[:12]}.zip"',
            "Cache-Control": "no-store",
        }
        return web.FileResponse(job.path, headers=headers)


def stated_by(service: Service, request: web.Request) -> Grant | None:
    """The purpose that a request's headers state; None where they state none."""
    purpose = request.headers.get(PURPOSE_HEADER)
    return None if purpose is None else service.grant(purpose, request.headers.get(TICKET_HEADER))


def stated_in(service: Service, given: dict[str, Any]) -> Grant:
    """Take `purpose` and `ticket` out of a body; RequestError where they are no texts, or the purpose is unknown."""
    purpose, ticket = given.pop("purpose", ""), given.pop("ticket", None)
    if not isinstance(purpose, str) or not (ticket is None or isinstance(ticket, str)):
        raise RequestError("`purpose` and `ticket` are texts")
    return service.grant(purpose, ticket)


async def _object(request: web.Request, known: set[str]) -> dict[str, str]:
    """The JSON object of a request: texts only, no other keys.

    Raises:
        RequestError: it is none; what was sent is not repeated, since it may hold a customer's reference.
    """
    given = await body_of(request)
    if set(given) - known:
        raise RequestError(f"the body is an object with {', '.join(sorted(known))}")
    given = {name: value for name, value in given.items() if value is not None}
    if not all(isinstance(value, str) for value in given.values()):
        raise RequestError("every value in the body is a text")
    return given


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; RequestError where it is none."""
    if request.content_type != "application/json":
        raise RequestError("send a JSON object (Content-Type: application/json)", status=415)
    try:
        given = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise RequestError("the body is not JSON") from None
    if not isinstance(given, dict):
        raise RequestError("the body is a JSON object")
    return given
