"""Routes with `batch: rows`: an entry for each row of a call, or one that says why not."""

# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.proxy.app import Worker
from tests.support.evidence import Evidence, balanced
from tests.support.journals import check_rows, crash_copy
from tests.support.upstreams import Exchange, Upstream, silent
from tests.support.workers import Client, Got, configuration, working

JSON = {"Content-Type": "application/json"}


def bodies(protocol: str, rows: int) -> tuple[Any, Any]:
    """A request and its answer."""
    names, verdicts = [f"c{at}" for at in range(rows)], ["deny", "approve"] * rows
    answer: Any = {"predictions": verdicts[:rows], "model": "m"}
    if protocol == "generic":
        return [{"id": name} for name in names], verdicts[:rows]
    if protocol == "kserve-v1":
        return {"instances": [{"id": name} for name in names], "signature_name": "s"}, answer
    if protocol == "mlflow":
        return {"dataframe_split": {"columns": ["id", "x"], "data": [[name, 1] for name in names]}}, answer
    tensor = {"shape": [rows], "datatype": "BYTES"}
    return (
        {"inputs": [{**tensor, "name": "id", "data": names}]},
        {"outputs": [{**tensor, "name": "verdict", "data": verdicts[:rows]}]},
    )


def answering(answer: Any, status: str = "200 OK", *headers: str):
    raw = answer if isinstance(answer, bytes) else orjson.dumps(answer)

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(raw, status, "Content-Type: application/json", *headers)

    return behave


async def streaming(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in (b"data: 1\n\n", b"data: 2\n\n"):
        await exchange.chunk(piece)
        await asyncio.sleep(0.2)
    await exchange.send(b"0\r\n\r\n")


def made(tmp_path: Path, model: Upstream, protocol: str = "generic", **more: Any):
    route = {"protocol": protocol, "batch": "rows", "capture": {"case": "id"}, **more.pop("route", {})}
    return configuration(tmp_path, model.url, route=route, **more)


def rows_of(worker: Worker, got: Got) -> list[dict[str, Any]]:
    """The entries of the call, as its headers name it; checked as far as all calls are alike."""
    evidence = Evidence.of(worker)
    balanced(worker)
    check_rows(evidence.entries())
    entries = [
        entry for entry in evidence.entries("decision") if entry["call"]["request_id"] == got.header("Decision-Call")
    ]
    assert evidence.check_receipt(got, "decision") == entries[0]
    assert got.header("Decision-Id") == got.header("Decision-Call") == entries[0]["id"]
    assert got.header("Decision-Rows") == str(len(entries))
    assert [entry["call"]["row"] for entry in entries] == list(range(len(entries)))
    assert {entry["call"]["rows"] for entry in entries} == {len(entries)}
    return entries


@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("protocol", ["generic", "kserve-v1", "mlflow", "inference-v2"])
async def test_each_row_of_a_call_has_an_entry_parts_and_a_key_of_its_own(tmp_path: Path, protocol: str, rows: int):
    request, answer = bodies(protocol, rows)
    raw = orjson.dumps(request)
    async with Upstream(answering(answer)) as model, working(made(tmp_path, model, protocol)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask(body=raw, headers=JSON)
        assert got.json() == answer
        entries = rows_of(worker, got)
        assert len(entries) == rows
        keys = [{part["key"] for part in entry["parts"]} for entry in entries]
        assert [len(each) for each in keys] == [1] * rows
        assert len(set.union(*keys)) == rows
        evidence = Evidence.of(worker)
        for at in {0, rows // 2, rows - 1}:
            names = [part["name"] for part in entries[at]["parts"]]
            assert names == ["request", *(["target"] if at == 0 else []), "response"]
            told = [orjson.loads(evidence.part(entries[at], name) or b"") for name in ("request", "response")]
            assert b"c%d" % at in orjson.dumps(told[0])
            if rows > 1:
                other = b'"c%d"' % (at + 1 if at + 1 < rows else 0)
                assert other not in orjson.dumps(told[0])
                one = bodies(protocol, at + 1)[1]
                verdict = (one if isinstance(one, list) else next(iter(one.values())))[-1]
                assert orjson.dumps(verdict if isinstance(verdict, str) else verdict["data"][-1]) in orjson.dumps(told)
            else:
                assert evidence.part(entries[0], "request") == raw
        if protocol != "inference-v2":
            assert len({entry["case"] for entry in entries}) == rows
            assert None not in {entry["case"] for entry in entries}
        assert {entry["stream"]["bytes"] for entry in entries} == {len(got.body)}


@pytest.mark.parametrize(
    ("request_body", "behaviour", "why"),
    [
        ([1, 2], answering([1]), "rows_differ"),
        ([1, 2], answering({"error": "x"}), "unreadable"),
        ([1, 2], answering(gzip.compress(b"[1, 2]"), "200 OK", "Content-Encoding: gzip"), "unreadable"),
        ([1, 2], answering([1, 2], "500 Internal Server Error"), "not_answered"),
        (b"[1, 2", answering([1, 2]), "unreadable"),
        ({"a": 1}, answering([1]), "unreadable"),
        ([1] * 21, answering([1] * 21), "too_many"),
        (["x" * 30_000, 1], answering([1, 2]), "too_large"),
        ([1, 2], streaming, "streamed"),
    ],
)
async def test_a_call_that_cannot_be_split_has_one_entry_with_all_of_it(tmp_path: Path, request_body, behaviour, why):
    raw = request_body if isinstance(request_body, bytes) else orjson.dumps(request_body)
    async with Upstream(behaviour) as model:
        limits = {"rows_max": 20, "parse_bytes_max": 20_000, "buffer_bytes_max": 20_000}
        async with working(made(tmp_path, model, gateway=limits)) as worker, Client.to(worker) as c:
            got = await c.ask(body=raw, headers={**JSON, "Answerable-Case": "C-1"})
            (entry,) = Evidence.of(worker).entries("decision")
            call = {"method": "POST", "path": "/m/**", "request_id": got.header("Decision-Id")}
            assert entry["call"] == {**call, "row": 0, "rows": None, "unsplit": why}
            assert got.header("Decision-Call") is got.header("Decision-Rows") is None
            assert entry["case"] is not None
            assert Evidence.of(worker).part(entry, "request") == raw
            assert Evidence.of(worker).part(entry, "response") == got.body
            balanced(worker)
            worker.counts.publish()
            (counted,) = [
                (sample.labels["why"], sample.value)
                for metric in worker.counts.registry.collect()
                for sample in metric.samples
                if sample.name == "answerable_unsplit_total"
            ]
            assert counted == (why, 1)


async def test_a_call_of_one_row_is_recorded_as_it_came_whatever_its_answer_is(tmp_path: Path):
    async with Upstream(answering(b"no JSON", "500 Internal Server Error")) as model:
        async with working(made(tmp_path, model)) as worker, Client.to(worker) as c:
            got = await c.ask(body=b' [ {"id": "a"} ]')
            (entry,) = rows_of(worker, got)
            assert entry["call"]["rows"] == 1
            assert entry["case"] is not None
            assert Evidence.of(worker).part(entry, "request") == b' [ {"id": "a"} ]'
            assert Evidence.of(worker).part(entry, "response") == b"no JSON"


async def test_an_answer_to_several_rows_is_held_until_it_is_whole(tmp_path: Path):
    answer = ["x" * 400_000, "y" * 200_000]

    async def slow(exchange: Exchange) -> None:
        raw = orjson.dumps(answer)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw[:300_000])
        await asyncio.sleep(1.5)
        await exchange.send(raw[300_000:])

    async with Upstream(slow) as model, working(made(tmp_path, model)) as worker, Client.to(worker) as c:
        got = await c.ask(body=b'["the one", "the other"]')
        assert got.json() == answer
        entries = rows_of(worker, got)
        evidence = Evidence.of(worker)
        (begin,) = evidence.entries("begin")
        assert begin["call"] == {**entries[0]["call"], "rows": None, "unsplit": "gateway_lost"}
        assert evidence.part(begin, "request") == b'["the one", "the other"]'
        assert [len(entry["prev"]) for entry in entries] == [1, 0]
        assert evidence.part(entries[1], "request") == b'["the other"]'
        named = [{part["key"] for part in entry["parts"]} for entry in (begin, *entries)]
        assert len(set.union(*named)) == 3, "none of them knows another's key"


async def test_rows_are_of_what_is_recorded_where_something_is_hidden(tmp_path: Path):
    redact = {"request": [{"path": "[*].name", "how": "mask"}], "response": [{"path": "[*].why", "how": "drop"}]}
    async with Upstream(answering([{"l": "deny", "why": "old"}, {"l": "approve", "why": "rich"}])) as model:
        async with working(made(tmp_path, model, route={"redact": redact})) as worker, Client.to(worker) as c:
            raw = b'[{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}]'
            got = await c.ask(body=raw, headers=JSON)
            entries = rows_of(worker, got)
            evidence = Evidence.of(worker)
            assert evidence.part(entries[1], "request") == b'[{"id":2,"name":"****"}]'
            assert evidence.part(entries[1], "response") == b'[{"l":"approve"}]'
            assert entries[0]["redacted"] == entries[1]["redacted"]
            assert entries[0]["redacted"]["request"]["paths"]["[*].name"]["values"] == 2
            assert len({entry["case"] for entry in entries}) == 2


async def test_rows_that_a_redaction_withholds_are_not_split(tmp_path: Path):
    redact = {"request": [{"path": "[*].name", "how": "mask"}]}
    async with Upstream(answering([1, 2])) as model:
        async with working(made(tmp_path, model, route={"redact": redact})) as worker, Client.to(worker) as c:
            await c.ask(body=b'[{"name": 1}, 2]', headers={"Content-Type": "application/json; charset=utf-16"})
            (entry,) = Evidence.of(worker).entries("decision")
            assert entry["call"]["unsplit"] == "withheld"


@pytest.mark.parametrize("mode", ["spool", "best_effort"])
async def test_rows_are_recorded_in_every_evidence_mode(tmp_path: Path, mode: str):
    async with Upstream(answering([1, 2, 3])) as model:
        async with working(made(tmp_path, model, route={"evidence": mode})) as worker, Client.to(worker) as c:
            got = await c.ask(body=b"[4, 5, 6]")
            assert got.header("Decision-Rows") == "3"
            await worker.journal.append_parts(worker.journal.new_key(), [], ts_ns=0)  # durable, and what was before it
            entries = Evidence.of(worker).entries("decision")
            assert [entry["call"]["row"] for entry in entries] == [0, 1, 2]
            assert {entry["mode"] for entry in entries} == {mode}
            balanced(worker)


async def test_a_repeat_names_the_first_row_of_the_first_call(tmp_path: Path):
    async with Upstream(answering([1, 2])) as model:
        async with working(made(tmp_path, model)) as worker, Client.to(worker) as c:
            first, again = [await c.ask(body=b"[3, 4]", headers={"Idempotency-Key": "k"}) for _ in range(2)]
            entries = rows_of(worker, first)
            (repeat,) = Evidence.of(worker).entries("call")
            assert repeat["repeats"] == entries[0]["id"]
            for name in ("Decision-Id", "Decision-Call", "Decision-Rows"):
                assert again.header(name) == first.header(name)
    assert len(model.seen) == 1


async def test_calls_that_are_no_decisions_and_other_routes_are_not_looked_into(tmp_path: Path):
    record = [{"path": "/health", "as": "call"}, {"path": "/**", "as": "decision"}]
    async with Upstream(answering([1, 2])) as model:
        other = {"name": "o", "prefix": "/o", "upstream": model.url}
        async with working(made(tmp_path, model, route={"record": record}, routes=[other])) as worker:
            async with Client.to(worker) as c:
                for target in ("/m/health", "/o/x"):
                    got = await c.ask(target=target, body=b"[3, 4]")
                    assert got.header("Decision-Rows") is None
            entries = Evidence.of(worker).entries("call", "decision")
            assert [set(entry["call"]) for entry in entries] == [{"method", "path", "request_id"}] * 2


async def test_a_call_that_was_begun_and_killed_is_closed_whole_by_the_next_worker(tmp_path: Path):
    async with Upstream(silent) as model:
        config = made(tmp_path / "a", model, gateway={"drain_s": 0.1})
        async with working(config) as worker, Client.to(worker) as c:
            await c.request(body=b"[3, 4]")
            async with asyncio.timeout(5):
                while not Evidence.of(worker).entries("begin"):
                    await asyncio.sleep(0.05)
            crash_copy(config.data / "journal" / "gateway-0", tmp_path / "b" / "data" / "journal" / "gateway-0")
            crash_copy(config.data / "keys", tmp_path / "b" / "data" / "keys")
        async with working(made(tmp_path / "b", model)) as worker:
            (entry,) = Evidence.of(worker).entries("decision")
            assert entry["call"]["unsplit"] == "gateway_lost"
            assert entry["stream"]["state"] == "gateway_lost"
            assert Evidence.of(worker).part(entry, "request") == b"[3, 4]"
            balanced(worker)
