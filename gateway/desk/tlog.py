"""`/log/…`: the ledgers as C2SP logs (c2sp.org/tlog-tiles), for standard readers that bring a token. Thin.

    /log/<shard>/<epoch>/{checkpoint, tile/<L>/<N>[.p/<W>], tile/entries/<N>[.p/<W>]}      a shard's ledger
    /log/log/{…}                                                                           the log of logs

Checkpoints and tiles hold hashes and need the right to proofs. Entries of a shard belong to all tenants: they are for
deployment-wide auditors, state a purpose, and each bundle leaves an access entry. Leaves of the log of logs name no
person.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from gateway.desk.callers import Callers
from gateway.desk.context import Context
from gateway.desk.errors import ForbiddenError, NotFoundError, PurposeRequiredError
from gateway.desk.looks import Look
from gateway.desk.roles import Right, Role
from gateway.desk.service import Service
from storage import tiles, tlog
from storage.errors import Unverifiable
from storage.logleaves import log_name
from storage.tiles import Tile

IMMUTABLE: Final = "private, max-age=31536000, immutable"  # tiles never change; they are for whoever holds a token
PURPOSE_HEADER: Final = "Answerable-Purpose"
TICKET_HEADER: Final = "Answerable-Ticket"


class LogPages:
    """The handlers under /log."""

    def __init__(self, context: Context, service: Service, callers: Callers) -> None:
        self._context = context
        self._service = service
        self._callers = callers
        self._deployment = context.configuration.settings.deployment

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers stand; the log of logs before the shards, of which none is named like it."""
        return [
            web.get(f"{prefix}/{what}", handler)
            for prefix in ("/log/log", r"/log/{shard}/{epoch:[1-9][0-9]*}")
            for what, handler in (
                ("checkpoint", self.checkpoint),
                ("tile/entries/{path:.+}", self.entries),
                ("tile/{path:.+}", self.tile),
            )
        ]

    async def checkpoint(self, request: web.Request) -> web.Response:
        """The newest checkpoint whose tree can be read, with its cosignatures."""
        origin, _ = await self._asked(request)
        served = await asyncio.to_thread(tlog.checkpoint, self._context.database, origin)
        if served is None:
            raise NotFoundError("no checkpoint of that ledger is published")
        return web.Response(body=served.note, content_type="text/plain", charset="utf-8")

    async def tile(self, request: web.Request) -> web.Response:
        """The hashes of one tile."""
        origin, _ = await self._asked(request)
        found = await asyncio.to_thread(tlog.tile, self._context.database, origin, _tile(request.match_info["path"]))
        return _bytes(found)

    async def entries(self, request: web.Request) -> web.Response:
        """The entries under one tile of level 0."""
        origin, is_shard = await self._asked(request)
        wanted = _tile(f"0/{request.match_info['path']}")
        if not is_shard:
            return _bytes(await asyncio.to_thread(tlog.bundle, self._context.database, origin, wanted), compress=True)
        viewer = (await self._callers.of(request)).viewer
        purpose = request.headers.get(PURPOSE_HEADER)
        stated = None if purpose is None else self._service.grant(purpose, request.headers.get(TICKET_HEADER))
        async with Look(self._context.record_access, viewer, "entries", stated) as look:
            viewer.require(Right.ENTRIES)
            is_scoped = Role.REGULATOR in viewer.roles  # who sees a matter and nothing else, whatever else they are
            if is_scoped or viewer.tenant != self._context.configuration.settings.tenant:
                raise ForbiddenError("entries of all tenants are for auditors of the whole deployment")
            if stated is None:
                raise PurposeRequiredError("state the purpose for which you read entries")
            found = await asyncio.to_thread(tlog.bundle, self._context.database, origin, wanted)
            if found is None:
                raise NotFoundError("the ledger has no such entries")
            await look.granted(rows=wanted.width)
        return _bytes(found, compress=True)

    async def _asked(self, request: web.Request) -> tuple[str, bool]:
        """The ledger that is asked for, and whether it is a shard's; the caller may read proofs.

        Raises:
            SigninRequiredError, TokenError, ForbiddenError: who asks may not.
        """
        caller = await self._callers.of(request)
        caller.viewer.require(Right.PROOF)
        shard = request.match_info.get("shard")
        if shard is None:
            return log_name(self._deployment), False
        return f"{self._deployment}/{shard}/{request.match_info['epoch']}", True


def _tile(path: str) -> Tile:
    try:
        return tiles.parse_path(path)
    except Unverifiable as error:
        raise NotFoundError("there is no such tile") from error


def _bytes(found: bytes | None, *, compress: bool = False) -> web.Response:
    if found is None:
        raise NotFoundError("the ledger has no such tile")
    response = web.Response(body=found, content_type="application/octet-stream", headers={"Cache-Control": IMMUTABLE})
    if compress:
        response.enable_compression()
    return response
