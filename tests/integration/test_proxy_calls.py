# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import gzip
import zlib
from pathlib import Path

import orjson
import pytest

from tests.support.evidence import Evidence, balanced
from tests.support.upstreams import Upstream, good, raw
from tests.support.workers import Client, configuration, working

DECISION = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_a_short_call_is_recorded_whole_before_its_answer_ends(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        got = await c.ask(body=b'{"income": 1}', headers={"Content-Type": "application/json"})
        evidence = Evidence.of(worker)
        assert got.status == 200
        assert got.json() == {"decision": "approved", "probability": 0.9}
        entry = evidence.check_receipt(got, "decision")
        assert evidence.calls() == [entry]
        assert evidence.part(entry, "request") == b'{"income": 1}'
        assert evidence.part(entry, "response") == got.body
        assert [part["media"] for part in entry["parts"]] == ["application/json", "text/plain", "application/json"]
        assert entry["call"]["path"] == "/m/**", "the rule that every route has; the path itself is sealed"
        assert evidence.part(entry, "target") == b"/m/x"
        assert entry["status"] == 200
        assert entry["error"] is None
        assert entry["route"] == "m"
        assert entry["mode"] == "strict"
        assert entry["app"] == "open"
        assert entry["stream"] == {"state": "complete", "streamed": False, "bytes": len(got.body)}
        assert entry["config"] == worker._configuration.digest
        timing = entry["timing"]
        assert 0 < timing["upstream_first_us"] <= timing["upstream_us"] <= timing["total_us"]
        balanced(worker)


async def test_headers_that_are_between_two_hops_end_here_and_all_others_pass_untouched(tmp_path: Path):
    answer = (
        b"HTTP/1.1 200 OK\r\nX-Kept: \xe9\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=9\r\nDecision-Id: forged\r\nContent-Length: 2\r\n\r\nok"
    )
    async with Upstream(raw(answer)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask(
                headers={
                    "Connection": "X-Drop",
                    "X-Drop": "1",
                    "TE": "trailers",
                    "X-Keep": "yes",
                    "Authorization": "Bearer own",
                    "Accept-Encoding": "gzip",
                    "Answerable-Case": "C-1",
                }
            )
        (asked,) = model.seen
    assert asked.names() == {
        *("host", "via", "x-keep", "authorization", "accept-encoding", "content-length", "x-request-id")
    }
    assert asked.header("Host") == f"127.0.0.1:{model.port}"
    assert asked.header("Authorization") == "Bearer own", "in open mode the caller's credential is the model's"
    names = [name for name, _ in got.headers]
    assert names == ["X-Kept", "Set-Cookie", "Set-Cookie", "Decision-Id", "Decision-Receipt", "Content-Length"]
    assert got.header("X-Kept") == "\xe9"
    assert got.header("Decision-Id") != "forged"


async def test_the_upstreams_own_credential_is_put_in_and_never_recorded(tmp_path: Path):
    (tmp_path / "secret").write_text("sk-upstream\n")
    auth = {"header": "X-Api-Key", "scheme": None, "secret": "file:secret"}
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"upstream_auth": auth, "request_headers": ["X-Team"]})
        async with working(made) as worker, Client.to(worker) as c:
            await c.ask(headers={"X-Api-Key": "mine", "X-Team": "credit"})
            (entry,) = Evidence.of(worker).calls()
        (asked,) = model.seen
    assert [value for name, value in asked.headers if name.lower() == "x-api-key"] == ["sk-upstream"]
    assert entry["headers"] == {"request": {"x-team": "credit"}, "response": {}}
    assert b"sk-upstream" not in orjson.dumps(entry)


async def test_case_subject_purpose_and_corrects_are_taken_from_headers_and_people_are_hidden(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        said = {"Case": "A-17", "Subject": "Ann", "Purpose": "credit", "Corrects": DECISION}
        await c.ask(headers={f"Answerable-{name}": value for name, value in said.items()})
        await c.ask(headers={"Answerable-Case": "A-17"})
        refused = await c.ask(headers={"Answerable-Corrects": "x"})
        first, second = Evidence.of(worker).calls()
        balanced(worker)
    assert first["case"] == second["case"] != "A-17"
    assert "Ann" not in orjson.dumps(first).decode()
    assert (first["purpose"], first["corrects"], second["subject"]) == ("credit", DECISION, None)
    assert (refused.status, refused.code) == (400, "capture_invalid")


async def test_case_and_subject_are_captured_from_the_body_where_the_route_declares_it(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"capture": {"case": "loan.id", "subject": "who"}})
        async with working(made) as worker, Client.to(worker) as c:
            await c.ask(body=b'{"loan": {"id": 17}, "who": "Ann"}')
            await c.ask(headers={"Answerable-Case": "17", "Answerable-Subject": "Ann"})
            first, second = Evidence.of(worker).calls()
    assert first["case"] == second["case"]
    assert first["subject"] == second["subject"]
    assert first["case"] != first["subject"]


@pytest.mark.parametrize("spelling", ["/m/score#x", "/m/score?a=1#x", "/m//score", "/m/score;v=1", "/m/score%23x"])
async def test_no_spelling_of_a_recorded_path_reaches_the_model_through_a_rule_that_says_none(
    tmp_path: Path, spelling: str
):
    rules = [{"path": "/score", "as": "decision"}, {"path": "/**", "as": "none"}]
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"record": rules})
        async with working(made) as worker, Client.to(worker) as c:
            got = await c.ask(target=spelling)
            assert (got.status, got.code) == (400, "path_malformed")
        assert model.seen == []


async def test_what_a_path_says_beyond_its_rule_is_sealed_and_a_literal_rule_needs_no_third_part(tmp_path: Path):
    rules = [{"path": "/score", "as": "decision"}, {"path": "/customers/*/score", "as": "decision"}]
    number = b"123-45-6789"
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, route={"record": rules})) as worker:
            async with Client.to(worker) as c:
                await c.ask(target="/m/score")
                await c.ask(target="/m/sc%6Fre")
                await c.ask(target=f"/m/customers/{number.decode()}/score")
                await c.ask(target=f"/m/other/{number.decode()}")
                evidence = Evidence.of(worker)
                literal, spelled, named, unruled = evidence.calls()
                assert all(number not in record.entry for batch in evidence.batches() for record in batch.records)
                assert [part["name"] for part in literal["parts"]] == ["request", "response"]
                assert evidence.part(spelled, "target") == b"/m/sc%6Fre"
                assert evidence.part(named, "target") == b"/m/customers/" + number + b"/score"
                assert evidence.part(unruled, "target") == b"/m/other/" + number
    paths = [entry["call"]["path"] for entry in (literal, spelled, named, unruled)]
    assert paths == ["/m/score", "/m/score", "/m/customers/*/score", "/m/**"]


async def test_record_rules_make_calls_and_counts_of_some_paths(tmp_path: Path):
    rules = [{"path": "/health", "as": "none"}, {"path": "/models/**", "as": "call"}, {"path": "/**", "as": "decision"}]
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"record": rules})
        async with working(made) as worker, Client.to(worker) as c:
            plain = await c.ask("GET", "/m/health", b"")
            call = await c.ask("GET", "/m/models/list?all=1", b"")
            evidence = Evidence.of(worker)
            entry = evidence.check_receipt(call, "call")
            assert evidence.calls() == [entry]
            assert evidence.part(entry, "target") == b"/m/models/list?all=1"
            assert entry["call"]["path"] == "/m/models/**"
            metrics = (await c.ask("GET", "/-/metrics", b"")).body.decode()
            balanced(worker)
    assert plain.status == 200
    assert plain.header("Decision-Id") is None
    assert 'answerable_unrecorded_total{route="m"} 1.0' in metrics
    assert 'answerable_journal_accepted_total{shard="gateway-0"} 1' in metrics


async def test_compressed_bytes_pass_untouched_in_both_directions(tmp_path: Path):
    packed = gzip.compress(b'{"a": 1}')
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    asked = zlib.compress(b'{"b": 2}')
    async with Upstream(raw(answer)) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask(body=asked, headers={"Content-Encoding": "deflate"})
            evidence = Evidence.of(worker)
            (entry,) = evidence.calls()
            assert evidence.part(entry, "response") == packed
        assert model.seen[0].body == asked
    assert got.body == packed
    assert got.header("Content-Encoding") == "gzip"


async def test_answers_without_a_body_have_none(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        for status, headers, length in (
            (b"204 No Content", b"", None),
            (b"304 Not Modified", b"Content-Length: 5\r\n", "5"),
        ):
            model.behaviour = raw(b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n")
            got = await c.ask("GET", body=b"")
            assert got.status == int(status[:3])
            assert got.header("Content-Length") == length
        model.behaviour = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        for _ in range(2):
            got = await c.ask("HEAD", body=b"")
            assert (got.status, got.header("Content-Length")) == (200, "12345")
        model.behaviour = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await c.ask("HEAD", body=b"")).header("Content-Length") is None
        model.behaviour = good
        assert (await c.ask()).status == 200
        assert model.connections == 1, "the connection to the model was good for all of them"
        assert [e["stream"]["bytes"] for e in Evidence.of(worker).calls()] == [0, 0, 0, 0, 0, 41]


async def test_interim_answers_of_the_model_are_skipped(tmp_path: Path):
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    )
    async with Upstream(raw(answer)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask()
    assert got.status == 201
    assert got.header("Link") is None


async def test_chunked_and_close_delimited_answers_are_put_together(tmp_path: Path):
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    async with Upstream(raw(chunked)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask()
            assert (got.body, got.header("Content-Length"), got.header("Transfer-Encoding")) == (b"abcde", "5", None)
            assert got.header("X-Trailer") is None
            model.behaviour = raw(b"HTTP/1.1 200 OK\r\n\r\n", b"till", b" the end", then="close")
            got = await c.ask()
            assert got.body == b"till the end"
            assert [e["stream"]["state"] for e in Evidence.of(worker).calls()] == ["complete", "complete"]


async def test_the_model_version_is_announced_by_the_answer_or_declared_by_the_route(tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    rows = [
        {"name": "loans", "version": version, "digest": digest * 32} for version, digest in (("1", "ab"), ("2", "cd"))
    ]
    (data / "models.json").write_bytes(orjson.dumps({"v": 1, "models": rows}))
    model_section = {"name": "loans", "version": "1", "version_header": "X-Model-Version"}
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, route={"model": model_section})
        async with working(made) as worker, Client.to(worker) as c:
            await c.ask()
            model.behaviour = raw(b"HTTP/1.1 200 OK\r\nx-model-version: 2\r\nContent-Length: 0\r\n\r\n")
            await c.ask()
            model.behaviour = raw(b"HTTP/1.1 200 OK\r\nX-Model-Version: 3\r\nContent-Length: 0\r\n\r\n")
            await c.ask()
            models = [entry["model"] for entry in Evidence.of(worker).calls()]
    assert models == [
        {"name": "loans", "version": "1", "digest": "ab" * 32, "source": "declared"},
        {"name": "loans", "version": "2", "digest": "cd" * 32, "source": "announced"},
        {"name": "loans", "version": "3", "digest": None, "source": "announced"},
    ]


async def test_the_model_s_own_errors_are_answers_like_any_other(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        model.behaviour = lambda exchange: exchange.answer(b"broken", "500 Internal Server Error")
        got = await c.ask()
        (entry,) = Evidence.of(worker).calls()
    assert (got.status, got.body) == (500, b"broken")
    assert (entry["status"], entry["error"], entry["stream"]["state"]) == (500, None, "complete")


@pytest.mark.parametrize("size", [1_500_000, 5_000_000])
async def test_a_large_request_is_sealed_in_pieces_and_opens_whole(tmp_path: Path, size: int):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        body = bytes(range(256)) * (size // 256)
        got = await c.ask(body=body)
        assert got.status == 200
        assert model.seen[0].body == body
        evidence = Evidence.of(worker)
        (entry,) = evidence.calls()
        assert evidence.part(entry, "request") == body


async def test_our_own_paths_say_how_the_worker_is(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        assert (await c.ask("GET", "/-/healthz", b"")).json() == {"status": "alive"}
        ready = (await c.ask("GET", "/-/readyz", b"")).json()
        assert (ready["status"], ready["problems"]) == ("ready", [])
        keeper = ready["checks"].pop("keeper")
        assert (keeper["status"], keeper["problem"].startswith("no keeper has run here yet")) == ("info", True)
        names = ["journal", "entries", "disk", "memory", "calls", "keys", "certificate", "drain"]
        assert ready["checks"] == {name: {"status": "ok"} for name in names}
        assert (await c.ask("HEAD", "/-/readyz", b"")).status == 200
        assert (await c.ask("GET", "/-/else", b"")).code == "route_unknown"
        assert (await c.ask("POST", "/-/healthz")).code == "route_unknown"
        assert model.seen == []
