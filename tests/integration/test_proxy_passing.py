"""Request id and trace context on their way to the model, also where the rest of the head is known."""

from pathlib import Path

from tests.support.evidence import Evidence
from tests.support.upstreams import Upstream, good
from tests.support.workers import Client, configuration, working

SPANS = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 6)]


async def test_each_call_passes_its_own_request_id_and_trace_on(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        for number, span in enumerate(SPANS):
            headers = {"X-Request-Id": f"r-{number}", "traceparent": span, "tracestate": f"a={number}"}
            assert (await c.ask(headers=headers)).status == 200
        got = await c.ask()
        asked = [dict(each.headers) for each in model.seen]
        entries = Evidence.of(worker).calls()
    lowered = [{name.lower(): value for name, value in each.items()} for each in asked]
    assert [each.get("x-request-id") for each in lowered] == [*(f"r-{n}" for n in range(5)), got.header("Decision-Id")]
    assert [each.get("traceparent") for each in lowered] == [*SPANS, None]
    assert [each.get("tracestate") for each in lowered] == [*(f"a={n}" for n in range(5)), None]
    assert [entry["trace"] for entry in entries] == [*(span[3:35] for span in SPANS), None]


async def test_recorded_headers_of_one_call_are_not_those_of_another(tmp_path: Path):
    made = configuration(tmp_path, "http://127.0.0.1:9", route={"request_headers": ["X-Request-Id"]})
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"request_headers": ["X-Request-Id"]})
        async with working(made) as worker, Client.to(worker) as c:
            for number in range(3):
                assert (await c.ask(headers={"X-Request-Id": f"r-{number}"})).status == 200
            recorded = [entry["headers"]["request"]["x-request-id"] for entry in Evidence.of(worker).calls()]
    assert recorded == ["r-0", "r-1", "r-2"]
