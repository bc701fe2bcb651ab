"""Sampled calls as OpenTelemetry spans, sent by OTLP over HTTP from a thread. Needs the extra `otel`.

Imported only where `telemetry.otlp` is configured. At most `CALLS_MAX` calls wait; a collector that is away or slow
costs spans, which are counted, and no call. Attributes are those of OpenTelemetry's conventions for HTTP and for
generative AI as far as they are known without reading a body, and ours (`answerable.…`). Nothing of what was asked or
answered, no path beyond what the configuration says of it, no address of a caller.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from config.load import Configuration
from config.operations import Otlp
from config.secrets import reveal
from gateway.proxy.tracing import Ended

CALLS_MAX = 4096  # that wait for the collector: two spans each, some MiB
END_S = 2.0  # for the last spans when the process ends
TOLD_EVERY_S = 60.0  # a collector that is away is told of once a minute
_PATH = "/v1/traces"
# what the last segments of a path that a route names literally say of the operation
_OPERATIONS = {"/chat/completions": "chat", "/messages": "chat", "/completions": "text_completion"}
_PROVIDERS = {"openai": "openai", "anthropic": "anthropic"}  # protocols of routes that have one

Attributes = Mapping[str, str | int | bool]

_log = structlog.get_logger(__name__)


class SpanExport:
    """The thread that makes spans of calls and sends them."""

    def __init__(self, configuration: Configuration, otlp: Otlp, worker: str) -> None:
        """The thread starts now.

        Raises:
            config.errors.ConfigError: a header's secret is not where the configuration says.
        """
        for name in ("opentelemetry", "urllib3"):  # their words for a collector that is away are many and no JSON
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False
        base = configuration.base
        headers = {name: reveal(secret, base=base, environ=os.environ) for name, secret in otlp.headers.items()}
        endpoint = otlp.endpoint if otlp.endpoint.endswith(_PATH) else otlp.endpoint + _PATH
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint,
            headers=headers,
            timeout=otlp.timeout_s,
            certificate_file=None if otlp.ca is None else str(base / otlp.ca),
        )
        self._resource = Resource.create(
            {
                "service.name": otlp.service_name,
                "service.version": version("answerable"),
                "service.namespace": configuration.settings.deployment,
                "service.instance.id": worker,
            }
        )
        self._scope = InstrumentationScope("answerable", version("answerable"))
        self._protocols = {route.name: route.protocol for route in configuration.settings.routes}
        self._jobs: queue.SimpleQueue[Sequence[Ended] | None] = queue.SimpleQueue()
        self._put = self._done = 0
        self._told_s = float("-inf")
        self.dropped = 0  # calls
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, calls: Sequence[Ended]) -> None:
        """Have these sent; from the event loop."""
        if self._put - self._done + len(calls) > CALLS_MAX:
            self.dropped += len(calls)
            return
        self._put += len(calls)
        self._jobs.put(calls)

    def close(self) -> None:
        """Return when everything is sent, or `END_S` have passed."""
        self._jobs.put(None)
        self._thread.join(END_S)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the library left this one out

    def _run(self) -> None:
        while (calls := self._jobs.get()) is not None:
            spans = [span for call in calls for span in self._spans(call)]
            if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
                self.dropped += len(calls)  # of two writers one may be missed: these are spans
                if time.monotonic() - self._told_s >= TOLD_EVERY_S:
                    self._told_s = time.monotonic()
                    _log.warning("spans_not_exported", calls=len(calls), dropped=self.dropped)
            self._done += len(calls)

    def _spans(self, call: Ended) -> list[ReadableSpan]:
        span, exchange = call.span, call.exchange
        asked, answered = exchange.asked, exchange.answered
        ours = _context(span.trace, span.server)
        parent = None if span.parent is None else _context(span.trace, span.parent.span, remote=True)
        received_ns = asked.received_ns
        server = self._span(
            f"{asked.method} {asked.path}",
            ours,
            parent,
            SpanKind.SERVER,
            attributes=_of_the_call(exchange.recorded, call),
            failed=answered.error or (str(answered.status) if answered.status >= 500 else None),
            between_ns=(received_ns, received_ns + exchange.took_us * 1000),
        )
        if call.sent_ns is None or call.answered_ns is None:
            return [server]
        client = self._span(
            asked.method,
            _context(span.trace, span.client),
            ours,
            SpanKind.CLIENT,
            attributes=self._of_the_model(call),
            failed=answered.error or (str(call.status) if call.status >= 400 else None),
            between_ns=(call.sent_ns, call.answered_ns),
        )
        return [server, client]

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        *,
        attributes: dict[str, str | int | bool],
        failed: str | None,
        between_ns: tuple[int, int],
    ) -> ReadableSpan:
        if failed is not None:
            attributes["error.type"] = failed
        return ReadableSpan(
            name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.UNSET if failed is None else StatusCode.ERROR),
            start_time=between_ns[0],
            end_time=between_ns[1],
            instrumentation_scope=self._scope,
        )

    def _of_the_model(self, call: Ended) -> dict[str, str | int | bool]:
        asked, model = call.exchange.asked, call.exchange.answered.model
        found: dict[str, str | int | bool] = {
            "http.request.method": asked.method,
            "server.address": call.origin.host,
            "server.port": call.origin.port,
            "network.protocol.version": "1.1",
        }
        if call.status:
            found["http.response.status_code"] = call.status
        provider = _PROVIDERS.get(self._protocols[asked.terms.route])
        operation = next((said for ending, said in _OPERATIONS.items() if asked.path.endswith(ending)), None)
        if provider is not None:
            found["gen_ai.provider.name"] = provider
            if operation is not None:
                found["gen_ai.operation.name"] = operation
        if model is not None:
            found["answerable.model.name"] = model.name
            if model.version is not None:
                found["answerable.model.version"] = model.version
        return found


def _of_the_call(recorded: bool, call: Ended) -> dict[str, str | int | bool]:  # noqa: FBT001 - as an Exchange has it
    asked, answered = call.exchange.asked, call.exchange.answered
    found: dict[str, str | int | bool] = {
        "http.request.method": asked.method,
        "http.route": asked.path,
        "http.response.status_code": answered.status,
        "http.request.body.size": call.exchange.sent_bytes,
        "http.response.body.size": answered.bytes,
        "answerable.route": asked.terms.route,
        "answerable.evidence": asked.terms.mode,
        "answerable.tenant": asked.caller.tenant,
        "answerable.app": asked.caller.app,
        "answerable.state": answered.state,
    }
    if recorded:
        found["answerable.decision.id"] = asked.decision
    return found


def _context(trace: int, span: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace, span, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))
