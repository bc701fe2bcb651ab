"""A collector: takes spans by OTLP over HTTP, as OpenTelemetry's own does, and remembers them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SERVER, CLIENT = 2, 3  # SpanKind
ERROR = 2  # StatusCode
SOON_S = 10.0


@dataclass(frozen=True)
class Seen:
    """One span as it was sent."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    begin_ns: int
    end_ns: int
    status: int


@dataclass
class Collector:
    """What was sent so far; `url` is where to."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: int = 200
    hold: asyncio.Event | None = None

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator[Self]:
        one = cls()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/traces", one._take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield one
        finally:
            if one.hold is not None:
                one.hold.set()
            await runner.cleanup()

    async def until(self, count: int) -> list[Seen]:
        """At least so many spans."""
        async with asyncio.timeout(SOON_S):
            while len(self.spans) < count:
                await asyncio.sleep(0.02)
        return self.spans

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert request.content_type == "application/x-protobuf"
        if self.hold is not None:
            await self.hold.wait()
        if self.answers != 200:
            return web.Response(status=self.answers)
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        for of in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {each.key: _value(each.value) for each in of.resource.attributes}
            self.spans += [_seen(span, resource) for scope in of.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _seen(span: Any, resource: dict[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes={each.key: _value(each.value) for each in span.attributes},
        resource=resource,
        begin_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=span.status.code,
    )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
