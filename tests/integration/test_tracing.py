"""Traces: what a real collector gets over OTLP, and what the model is told; and that a dead collector harms nothing."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import Configuration
from gateway.proxy.passing import Parent
from gateway.proxy.tracing import Tracing
from tests.support.collector import CLIENT, ERROR, SERVER, Collector, Seen
from tests.support.evidence import Evidence
from tests.support.scrapes import value
from tests.support.upstreams import Exchange, Upstream, dead_url, events, good
from tests.support.workers import Client, configuration, working

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
PERSON = "8811223344"


def made(folder: Path, upstream: str, collector: str, **more: Any) -> Configuration:
    otlp = {"endpoint": collector, **more.pop("otlp", {})}
    return configuration(folder, upstream, telemetry={"otlp": otlp}, **more)


async def counted(client: Client) -> float:
    text = (await client.ask("GET", "/-/metrics", b"")).body.decode()
    return value(text, "answerable_spans_dropped_total", role="gateway-0") or 0


def pair(spans: list[Seen]) -> tuple[Seen, Seen]:
    server, client = sorted(spans, key=lambda span: span.kind)
    assert (server.kind, client.kind) == (SERVER, CLIENT)
    return server, client


async def test_a_call_is_two_spans_under_its_callers_and_the_model_is_told_of_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLLECTOR_KEY", "let-me-in")
    rules = [{"path": "/customers/*/score", "as": "decision"}]
    async with Collector.listening() as collector, Upstream(good) as model:
        settings = made(
            tmp_path,
            model.url,
            collector.url,
            otlp={"headers": {"X-Key": "env:COLLECTOR_KEY"}, "service_name": "credit-gateway"},
            route={"record": rules, "model": {"name": "credit", "version": "7"}},
        )
        async with working(settings) as worker, Client.to(worker) as client:
            before_ns = time.time_ns()
            got = await client.ask(
                target=f"/m/customers/{PERSON}/score?q={PERSON}",
                body=f'{{"name": "{PERSON}"}}'.encode(),
                headers={"TraceParent": SAMPLED, "tracestate": "a=1", "Answerable-Subject": PERSON},
            )
            after_ns = time.time_ns()
            spans = await collector.until(2)
            (entry,) = Evidence.of(worker).calls()
        server, asked = pair(spans)
        assert {span.trace for span in spans} == {TRACE} == {entry["trace"]}
        assert server.parent == SPAN
        assert asked.parent == server.span
        assert len({SPAN, server.span, asked.span}) == 3
        (seen,) = model.seen
        assert [value for name, value in seen.headers if name.lower() == "traceparent"] == [
            f"00-{TRACE}-{asked.span}-01"
        ]
        assert seen.header("tracestate") == "a=1"
        assert server.name == "POST /m/customers/*/score"
        assert server.attributes == {
            "http.request.method": "POST",
            "http.route": "/m/customers/*/score",
            "http.response.status_code": 200,
            "http.request.body.size": len(PERSON) + 12,
            "http.response.body.size": len(got.body),
            "answerable.route": "m",
            "answerable.evidence": "strict",
            "answerable.tenant": "default",
            "answerable.app": entry["app"],
            "answerable.state": "complete",
            "answerable.decision.id": got.header("Decision-Id"),
        }
        assert asked.name == "POST"
        assert asked.attributes == {
            "http.request.method": "POST",
            "server.address": "127.0.0.1",
            "server.port": model.port,
            "network.protocol.version": "1.1",
            "http.response.status_code": 200,
            "answerable.model.name": "credit",
            "answerable.model.version": "7",
        }
        assert server.resource["service.name"] == "credit-gateway"
        assert server.resource["service.instance.id"] == "gateway-0"
        slack_ns = 2_000_000  # the loop's clock counts milliseconds
        assert before_ns - slack_ns <= server.begin_ns <= asked.begin_ns <= asked.end_ns
        assert asked.end_ns <= server.end_ns + slack_ns <= after_ns + 2 * slack_ns
        assert (server.status, asked.status) == (0, 0)
        assert all(headers["x-key"] == "let-me-in" for headers in collector.headers)
        assert not any(PERSON.encode() in body for body in collector.bodies)


async def test_without_a_callers_span_a_share_of_calls_begins_a_trace_which_its_entry_names(tmp_path: Path):
    async with Collector.listening() as collector, Upstream(good) as model:
        settings = made(tmp_path, model.url, collector.url)
        async with working(settings) as worker, Client.to(worker) as client:
            for _ in range(2):
                await client.ask()  # the same head twice: a trace each
            spans = await collector.until(4)
            entries = Evidence.of(worker).calls()
        roots = [span for span in spans if span.kind == SERVER]
        assert [root.parent for root in roots] == ["", ""]
        assert [root.trace for root in roots] == [entry["trace"] for entry in entries]
        assert len({root.trace for root in roots}) == 2
        told = [asked.header("traceparent") for asked in model.seen]
        assert told == [f"00-{span.trace}-{span.span}-01" for span in spans if span.kind == CLIENT]


async def test_what_is_not_sampled_has_no_span_and_passes_as_it_came(tmp_path: Path):
    async with Collector.listening() as collector, Upstream(good) as model:
        settings = made(tmp_path, model.url, collector.url, otlp={"sample_ratio": 0})
        async with working(settings) as worker, Client.to(worker) as client:
            await client.ask(headers={"traceparent": UNSAMPLED})
            await client.ask()
            await client.ask(headers={"traceparent": "nonsense"})
            await client.ask(headers={"traceparent": SAMPLED})
            spans = await collector.until(2)
            entries = Evidence.of(worker).calls()
        told = [asked.header("traceparent") for asked in model.seen]
        assert told[:3] == [UNSAMPLED, None, None], "what is malformed passes no further (W3C Trace Context §3.2)"
        assert told[3] not in (SAMPLED, None)
        assert {span.attributes.get("answerable.decision.id") for span in spans} == {None, entries[3]["decision"]}
        assert [entry["trace"] for entry in entries] == [TRACE, None, None, TRACE]


async def test_a_route_that_denies_the_header_is_traced_without_telling_the_model(tmp_path: Path):
    async with Collector.listening() as collector, Upstream(good) as model:
        route = {"forward": {"request": {"deny": ["traceparent"]}}}
        async with (
            working(made(tmp_path, model.url, collector.url, route=route)) as worker,
            Client.to(worker) as client,
        ):
            await client.ask(headers={"traceparent": SAMPLED})
            await collector.until(2)
        assert model.seen[0].header("traceparent") is None


async def test_failures_and_streams_are_spans_with_their_true_end(tmp_path: Path):
    async def bad(exchange: Exchange) -> None:
        await exchange.answer(b"no", "503 Service Unavailable")

    stream = events(b"data: 1\n\n", b"data: [DONE]\n\n")
    async with Collector.listening() as collector, Upstream(bad) as ill, Upstream(stream) as model:
        routes = [
            {"name": "dead", "prefix": "/dead", "upstream": dead_url()},
            {"name": "chat", "prefix": "/chat", "upstream": model.url, "protocol": "openai"},
        ]
        chat = "/chat/v1/chat/completions"
        async with (
            working(made(tmp_path, ill.url, collector.url, routes=routes)) as worker,
            Client.to(worker) as client,
        ):
            assert (await client.ask(target="/dead/x")).status == 502
            (alone,) = await collector.until(1)
            collector.spans.clear()
            assert (await client.ask()).status == 503
            server, asked = pair(await collector.until(2))
            collector.spans.clear()
            assert (await client.ask(target=chat)).status == 200
            streamed = pair(await collector.until(2))
        assert (alone.kind, alone.status, alone.attributes["error.type"]) == (SERVER, ERROR, "upstream_unreachable")
        # the model's refusal is passed on: its fault, told by both spans (HTTP conventions: 5xx is a server's error)
        assert (asked.status, asked.attributes["error.type"]) == (ERROR, "503")
        assert (server.status, server.attributes["http.response.status_code"]) == (ERROR, 503)
        assert streamed[1].attributes["gen_ai.provider.name"] == "openai"
        assert streamed[1].attributes["gen_ai.operation.name"] == "chat"


@pytest.mark.parametrize("how", ["dead", "refuses", "hangs"])
async def test_a_collector_that_is_away_costs_spans_which_are_counted_and_nothing_else(tmp_path: Path, how: str):
    async with Collector.listening() as collector, Upstream(good) as model:
        if how == "refuses":
            collector.answers = 400
        elif how == "hangs":
            collector.hold = asyncio.Event()
        url = dead_url() if how == "dead" else collector.url
        settings = made(tmp_path, model.url, url, otlp={"timeout_s": 1})
        async with working(settings) as worker, Client.to(worker) as client:
            assert [(await client.ask()).status for _ in range(50)] == [200] * 50
            spans = worker._spans
            assert spans is not None
            async with asyncio.timeout(20):
                while spans.dropped < 50:
                    await asyncio.sleep(0.05)
            assert (await client.ask()).status == 200
            async with asyncio.timeout(5):
                while (await counted(client)) < 50:
                    await asyncio.sleep(0.1)
            began_s = time.monotonic()
            await worker.stop()
            assert time.monotonic() - began_s < 15, "its end waits for no collector"


async def test_what_waits_for_a_collector_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from gateway import spans

    monkeypatch.setattr(spans, "CALLS_MAX", 300)
    async with Collector.listening() as collector, Upstream(good) as model:
        collector.hold = asyncio.Event()
        async with working(made(tmp_path, model.url, collector.url)) as worker, Client.to(worker) as client:
            for _ in range(600):
                assert (await client.ask()).status == 200
            export = worker._spans
            assert export is not None
            assert worker._tracing is not None
            worker._tracing.flush()
            assert export.dropped > 0
            collector.hold.set()
            await collector.until(2 * (600 - export.dropped))
            assert len(collector.spans) == 2 * (600 - export.dropped) <= 600


def test_without_telemetry_a_worker_imports_nothing_of_opentelemetry():
    program = "import sys, gateway.proxy.app; print([n for n in sys.modules if n.startswith('opentelemetry')])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == "[]\n"


def test_telemetry_without_the_extra_is_refused_at_the_start_with_advice(tmp_path: Path):
    settings = made(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:4318")
    settings.path.write_text(yaml.safe_dump(settings.settings.model_dump(mode="json", by_alias=True)))
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        f"sys.argv = ['answerable', 'gateway', '--config', {str(settings.path)!r}]\n"
        "from gateway.cli import main; main()"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert told.returncode == 2
    assert "telemetry.otlp needs OpenTelemetry, which is not installed" in told.stderr


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_about_the_stated_share_of_traces_is_sampled(ratio: float):
    tracing = Tracing(ratio=ratio, put=lambda _: None)
    sampled = sum(tracing.begin(None) is not None for _ in range(4000))
    assert abs(sampled / 4000 - ratio) < 0.05
    assert tracing.begin(Parent(1, 2, sampled=True)) is not None
    assert tracing.begin(Parent(1, 2, sampled=False)) is None
