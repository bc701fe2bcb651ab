# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
"""What a route hides stands nowhere, and everything else goes on as it would."""

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.keeper.parts import Parts
from gateway.proxy import answers
from storage.keys import Keyring
from storage.reading import shards
from tests.support.deployment import Deployment
from tests.support.evidence import Evidence, balanced, settled
from tests.support.keeping import ROUTE as LOANS_ROUTE
from tests.support.keeping import kept, written
from tests.support.keeping import settled as decided
from tests.support.loans import Loans, applicant
from tests.support.upstreams import Exchange, Upstream, events, raw
from tests.support.workers import Client, configuration, working

CARD, IBAN, SSN, NAME = "4111111111111111", "DE89370400440532013000", "078-05-1120", "Ottilie Quast"
SECRETS = (CARD, "4111 1111 1111 1111", "41111111", IBAN, "0532013000", SSN, NAME, "Quast")
REDACT: dict[str, Any] = {
    "request": [
        {"path": "applicant.name", "how": "token"},
        {"path": "applicant.ssn", "how": "hash"},
        {"path": "**.account", "how": "mask", "last": 4},
        {"path": "notes[*]", "how": "drop"},
    ],
    "response": [{"path": "greeting", "how": "drop"}],
    "headers": [{"name": "X-Customer", "how": "hash"}, {"name": "X-Greeting", "how": "mask"}],
    "query": [{"name": "name", "how": "mask"}],
    "detect": ["card", "iban"],
}
ROUTE = {"redact": REDACT, "request_headers": ["X-Customer", "X-Note"], "response_headers": ["X-Greeting"]}
DETECT = {"redact": {"detect": ["card", "iban"]}}
BODY = orjson.dumps(
    {
        "applicant": {"name": NAME, "ssn": SSN, "income": 100},
        "loans": [{"account": IBAN}, {"account": "short"}],
        "notes": [NAME, CARD],
        "text": f"pay with 4111 1111 1111 1111 or {IBAN}",
        "number": int(CARD),
    }
)
ANSWER = orjson.dumps({"decision": "denied", "greeting": f"Dear {NAME}", "text": f"we charge {CARD}"})


def delta(text: str) -> bytes:
    said = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: %b\n\n" % orjson.dumps(said)


DELTAS = [delta(text) for text in ("Your card 41", "11 11", "11 1111 11", "11 is", " charged")]
DONE = b"data: [DONE]\n\n"


async def answering(exchange: Exchange) -> None:
    await exchange.answer(ANSWER, "200 OK", "Content-Type: application/json", f"X-Greeting: Dear {NAME}")


def hides(evidence: Evidence, secrets: tuple[str, ...] = SECRETS) -> int:
    """No byte of the journal, nor any plaintext of a part, holds a secret; how many parts were opened."""
    for path in evidence.directory.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert [secret for secret in secrets if secret.encode() in held] == [], path.name
    opened = 0
    for entry in evidence.calls():
        for part in entry["parts"]:
            plaintext = evidence.part(entry, part["name"]) or b""
            found = [secret for secret in secrets if secret.encode() in plaintext]
            assert found == [], (part["name"], plaintext)
            opened += 1
    return opened


async def test_a_call_passes_as_it_came_and_is_recorded_without_what_its_route_hides(tmp_path: Path) -> None:
    async with Upstream(answering) as model:
        async with working(configuration(tmp_path, model.url, route=ROUTE)) as worker, Client.to(worker) as c:
            target = f"/m/x?name=Ottilie+Quast&card=4111%201111%201111%201111&page=2&iban={IBAN}"
            said = {"X-Customer": NAME, "X-Note": f"card {CARD}", "Answerable-Subject": SSN, "Answerable-Purpose": CARD}
            media = f"application/json; x={CARD}"
            got = await c.ask(target=target, body=BODY, headers={**said, "Content-Type": media})
            assert got.body == ANSWER
            assert got.header("X-Greeting") == f"Dear {NAME}"
            (seen,) = model.seen
            assert (seen.body, seen.target, seen.header("X-Customer")) == (BODY, target.removeprefix("/m"), NAME)
            evidence = Evidence.of(worker)
            (entry,) = evidence.calls()
            request = orjson.loads(evidence.part(entry, "request") or b"")
            hide = Keyring.open(evidence.data).pseudonym
            assert request["applicant"]["ssn"] == hide("default", "value", SSN)
            assert request["applicant"]["income"] == 100
            assert request["applicant"]["name"].startswith("tok_")
            assert [loan["account"] for loan in request["loans"]] == ["****3000", "****"]
            assert request["notes"] == [None, None]
            assert request["text"] == "pay with [card:****1111] or [iban:DE****3000]"
            assert request["number"] == "[card:****1111]"
            response = orjson.loads(evidence.part(entry, "response") or b"")
            assert response == {"decision": "denied", "text": "we charge [card:****1111]"}
            assert evidence.part(entry, "target") == (
                b"/m/x?name=****&card=[card:****1111]&page=2&iban=[iban:DE****3000]"
            )
            assert entry["purpose"] == "[card:****1111]"
            assert entry["subject"] == hide("default", "subject", SSN), "of the value as it came"
            assert entry["headers"]["request"] == {
                "x-customer": hide("default", "value", NAME),
                "x-note": "card [card:****1111]",
            }
            assert entry["headers"]["response"] == {"x-greeting": "****"}
            assert entry["redacted"] == {
                "request": {
                    "paths": {
                        "applicant.name": {"how": "token", "values": 1},
                        "applicant.ssn": {"how": "hash", "values": 1},
                        "**.account": {"how": "mask", "values": 2},
                        "notes[*]": {"how": "drop", "values": 2},
                    },
                    "detected": {"card": 2, "iban": 1},
                },
                "response": {"paths": {"greeting": {"how": "drop", "values": 1}}, "detected": {"card": 1}},
                "target": {"paths": {"name": {"how": "mask", "values": 1}}, "detected": {"card": 1, "iban": 1}},
                "request_headers": {
                    "paths": {"x-customer": {"how": "hash", "values": 1}},
                    "detected": {"card": 1},
                },
                "response_headers": {"paths": {"x-greeting": {"how": "mask", "values": 1}}},
                "request_media": {"detected": {"card": 1}},
                "purpose": {"detected": {"card": 1}},
            }
            assert entry["parts"][0]["media"] == "application/json; x=[card:****1111]"
            assert hides(evidence) == 3
            assert worker._budget.held_bytes == 0
            balanced(worker)


async def test_what_a_capture_takes_from_the_body_becomes_a_pseudonym_of_the_value_as_it_came(tmp_path: Path) -> None:
    route = {**ROUTE, "capture": {"subject": "applicant.ssn", "case": "applicant.name"}}
    async with Upstream(answering) as model:
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            await c.ask(body=BODY)
            (entry,) = Evidence.of(worker).calls()
            hide = Keyring.open(worker._configuration.data).pseudonym
            assert entry["subject"] == hide("default", "subject", SSN)
            assert entry["case"] == hide("default", "case", NAME)
            hides(Evidence.of(worker))


async def test_a_route_without_redaction_says_nothing_of_it(tmp_path: Path) -> None:
    async with Upstream(answering) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            await c.ask(body=BODY)
            (entry,) = Evidence.of(worker).calls()
            assert "redacted" not in entry
            assert Evidence.of(worker).part(entry, "request") == BODY


async def test_a_number_in_several_events_is_hidden_in_each_and_the_stream_passes_unbuffered(tmp_path: Path) -> None:
    gate = asyncio.Semaphore(0)
    async with Upstream(events(*DELTAS, DONE, gate=gate)) as model:
        async with working(configuration(tmp_path, model.url, route=DETECT)) as worker, Client.to(worker) as c:
            await c.request(body=b'{"ask":"%b"}' % CARD.encode())
            await c.head()
            for piece in DELTAS:
                gate.release()
                assert await c.chunk() == piece, "it leaves before the next one has come"
            assert worker._budget.held_bytes > sum(map(len, DELTAS))
            gate.release()
            gate.release()
            assert await c.chunk() == DONE
            assert await c.chunk() is None
            evidence = Evidence.of(worker)
            begin, entry = evidence.calls()
            assert begin["redacted"] == {
                "request": {"detected": {"card": 1}},
                "response": {"withheld": "unfinished"},
            }
            assert entry["redacted"]["response"] == {"detected": {"card": 1}}
            hidden = (evidence.part(entry, "response") or b"").split(b"\n\n")
            texts = [orjson.loads(event[6:])["choices"][0]["delta"]["content"] for event in hidden[:5]]
            assert texts == ["Your card [card:****1111]", "", "", " is", " charged"]
            assert entry["stream"] == {"state": "complete", "streamed": True, "bytes": len(b"".join(DELTAS) + DONE)}
            assert hides(evidence, (CARD, "11 11", "1111 11")) == 5
            assert worker._budget.held_bytes == 0


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        (b"name=Ottilie+Quast", {"Content-Type": "application/x-www-form-urlencoded"}, "not_json"),
        (b'{"applicant": {"name": "Ottilie Quast"', {}, "not_json"),
        (b'{"name": "Ottilie Quast \xff"}', {}, "encoding"),
        ('{"name": "Ottilie Quast"}'.encode("utf-16"), {}, "encoding"),
        (b'{"name": "Ottilie Quast"}', {"Content-Encoding": "br"}, "encoding"),
        (b'{"name": "Ottilie Quast"}', {"Content-Type": "application/json; charset=utf-7"}, "encoding"),
        (gzip.compress(b" " * 5_000_000 + b"{}"), {"Content-Encoding": "gzip"}, "too_large"),
        (b'{"name": "Ottilie Quast", "x": "%b"}' % (b"x" * 70_000), {}, "too_large"),
        (b"[" * 3_000 + b"]" * 3_000, {}, "not_json"),
    ],
)
async def test_what_cannot_be_redacted_is_withheld_and_the_call_goes_on(
    tmp_path: Path, body: bytes, headers: dict[str, str], why: str
) -> None:
    async with Upstream(answering) as model:
        made = configuration(tmp_path, model.url, route=ROUTE, gateway={"parse_bytes_max": 65_536})
        async with working(made) as worker, Client.to(worker) as c:
            got = await c.ask(body=body, headers=headers)
            assert (got.status, got.body) == (200, ANSWER)
            assert model.seen[0].body == body
            evidence = Evidence.of(worker)
            (entry,) = evidence.calls()
            assert entry["redacted"]["request"] == {"withheld": why}
            assert [part["name"] for part in entry["parts"]] == ["target", "response"]
            hides(evidence)
            balanced(worker)


async def test_a_compressed_body_is_recorded_as_text_and_says_so(tmp_path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        body = gzip.compress(ANSWER)
        await exchange.answer(body, "200 OK", "Content-Type: application/json", "Content-Encoding: gzip")

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url, route=ROUTE)) as worker, Client.to(worker) as c:
            got = await c.ask(body=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})
            assert gzip.decompress(got.body) == ANSWER
            evidence = Evidence.of(worker)
            (entry,) = evidence.calls()
            assert entry["redacted"]["request"]["decoded"] is True
            assert orjson.loads(evidence.part(entry, "request") or b"")["applicant"]["income"] == 100
            assert entry["redacted"]["response"]["decoded"] is True
            hides(evidence)


async def test_a_stream_that_is_too_long_to_hold_is_withheld_and_passes(tmp_path: Path) -> None:
    pieces = [delta(f"{CARD} {number} " + "x" * 1000) for number in range(100)]
    async with Upstream(events(*pieces, DONE)) as model:
        made = configuration(tmp_path, model.url, route=DETECT, gateway={"parse_bytes_max": 50_000})
        async with working(made) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert got.body == b"".join(pieces) + DONE
            evidence = Evidence.of(worker)
            _, entry = evidence.calls()
            assert entry["redacted"]["response"] == {"withheld": "too_large"}
            assert [part["name"] for part in entry["parts"]] == ["request", "target"]
            hides(evidence)
            assert worker._budget.held_bytes == 0


async def test_a_stream_whose_request_is_withheld_is_named_by_its_begin_entry(tmp_path: Path) -> None:
    route = {"redact": {"request": [{"path": "a", "how": "drop"}]}, "record": [{"path": "/x", "as": "decision"}]}
    gate = asyncio.Semaphore(0)
    async with Upstream(events(*DELTAS, DONE, gate=gate)) as model:
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            await c.request(body=b"no json")
            await c.head()
            for _ in (*DELTAS, DONE, b""):
                gate.release()
            while await c.chunk() is not None:
                pass
            evidence = Evidence.of(worker)
            begin, entry = evidence.calls()
            assert begin["parts"] == []
            assert begin["key"] == entry["parts"][0]["key"]
            assert evidence.part(entry, "response") == b"".join(DELTAS) + DONE, "of this side nothing is hidden"


async def test_a_model_that_breaks_off_leaves_nothing_of_what_is_hidden(tmp_path: Path) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n" + ANSWER[:-10]
    async with Upstream(raw(half, then="close")) as model:
        async with working(configuration(tmp_path, model.url, route=ROUTE)) as worker, Client.to(worker) as c:
            assert (await c.ask(body=BODY)).status == 502
            (entry,) = Evidence.of(worker).calls()
            assert entry["error"] == "upstream_cut"
            assert entry["redacted"]["response"] == {"withheld": "not_json"}
            hides(Evidence.of(worker))


async def test_a_stream_that_breaks_off_is_recorded_up_to_its_last_whole_event(tmp_path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (*DELTAS, delta(NAME)[:-20]):
            await exchange.chunk(piece)
        await asyncio.sleep(0.1)
        exchange.reset()

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url, route=DETECT)) as worker, Client.to(worker) as c:
            await c.request()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await c.answer()
            await settled(worker, 1)
            _, entry = Evidence.of(worker).calls()
            assert entry["stream"]["state"] == "upstream_aborted"
            assert entry["redacted"]["response"] == {
                "detected": {"card": 1},
                "unfinished_bytes": len(delta(NAME)) - 20,
            }
            hides(Evidence.of(worker), (CARD, NAME, "11 11"))
            async with asyncio.timeout(10):
                while worker._budget.held_bytes:
                    await asyncio.sleep(0.01)


async def test_a_caller_that_goes_and_a_worker_that_ends_leave_nothing_of_what_is_hidden(tmp_path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.chunk(b"".join(DELTAS))
        await exchange.reader.read()

    async with Upstream(behave) as model:
        made = configuration(tmp_path, model.url, route=DETECT, gateway={"drain_s": 0.1})
        async with working(made) as worker:
            async with Client.to(worker) as c:
                await c.request(body=BODY)
                await c.head()
                await c.chunk()
            await settled(worker, 1)
            async with Client.to(worker) as c:
                await c.request(body=BODY)
                await c.head()
                await c.chunk()
                await worker.stop()
        evidence = Evidence.of(worker)
        gone, ended = evidence.entries("decision")
        assert (gone["stream"]["state"], ended["stream"]["state"]) == ("client_aborted", "gateway_lost")
        for entry in (gone, ended):
            assert entry["redacted"]["response"] == {"detected": {"card": 1}}
        hides(evidence, (CARD, IBAN, "11 11"))
        balanced(worker)


async def test_a_large_body_is_redacted_off_the_loop_and_recorded_alike(tmp_path: Path) -> None:
    body = orjson.dumps({"applicant": {"name": NAME}, "texts": [f"{CARD} and {'x' * 50}"] * 4_000})
    async with Upstream(answering) as model:
        async with working(configuration(tmp_path, model.url, route=ROUTE)) as worker, Client.to(worker) as c:
            await c.ask(body=body)
            evidence = Evidence.of(worker)
            (entry,) = evidence.calls()
            assert entry["redacted"]["request"]["detected"] == {"card": 4_000}
            hides(evidence)


def held(database: Any) -> Iterator[tuple[str, str]]:
    """Every value of every table, as text."""
    for (table,) in database.rows("SELECT name FROM system.tables WHERE database = currentDatabase()", {}):
        for row in database.rows(f"SELECT * FROM {table}", {}):
            for value in row:
                yield table, value.decode("latin-1") if isinstance(value, bytes) else str(value)


@pytest.mark.timeout(240)
async def test_no_secret_stands_in_journal_database_or_log_even_where_workers_are_killed(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        if b"stream" not in exchange.asked.body:
            await answering(exchange)
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.chunk(b"".join(DELTAS))
        await never.wait()

    route = {"name": "m", "prefix": "/m", "capture": {"subject": "applicant.ssn"}, **ROUTE}
    route["extract"] = {"label": "decision", "adverse": ["denied"], "case": "applicant.name"}
    async with Upstream(behave) as model:
        deployment = Deployment(
            tmp_path, model.url, callers={"mode": "open"}, routes=[{**route, "upstream": model.url}]
        )
        try:
            deployment.start("gateway")
            await deployment.ready("gateway")
            reader, writer = await asyncio.open_connection("127.0.0.1", deployment.port)
            c = Client(reader, writer)
            got = await c.ask(target=f"/m/x?iban={IBAN}", body=BODY, headers={"X-Customer": NAME})
            assert got.status == 200
            assert (await c.ask(body=b"no json " + CARD.encode())).status == 200
            assert (await c.ask(target="/unknown", body=BODY)).status == 404
            await c.request(body=BODY[:-1] + b',"kind":"stream"}')
            await c.head()
            await c.chunk()
            deployment.kill("gateway")
            writer.transport.abort()
            deployment.start("gateway")
            await deployment.ready("gateway")
            assert deployment.kill("gateway", 15) == 0
            deployment.start("keeper", "--no-desk")
            async with asyncio.timeout(60):
                while not any(entry["kind"] == "extraction" for entry in deployment.entries("keeper")):
                    await asyncio.sleep(0.1)
            await asyncio.sleep(2)  # what is extracted is shipped too
            assert deployment.kill("keeper", 15) == 0
        finally:
            deployment.close()

        evidence = Evidence(deployment.data / "journal" / "gateway-0", deployment.data)
        *_, lost = evidence.entries("decision")
        assert lost["stream"]["state"] == "gateway_lost"
        assert lost["redacted"]["response"] == {"withheld": "unfinished"}
        assert lost["redacted"]["request"]["detected"] == {"card": 2, "iban": 1}
        assert hides(evidence) >= 5

        logs = deployment.log("gateway") + deployment.log("keeper")
        assert "worker_listens" in logs
        for path in (path for directory in shards(deployment.data) for path in directory.rglob("*")):
            logs += path.read_bytes().decode("latin-1") if path.is_file() else ""
        for path in (deployment.data / "clickhouse").rglob("*"):
            logs += path.read_bytes().decode("latin-1") if path.is_file() else ""
        assert [secret for secret in SECRETS if secret in logs] == []
        parts = await Parts.open(deployment.configuration)
        try:
            values = await asyncio.to_thread(lambda: list(held(parts.database)))
        finally:
            await parts.close()
        assert {"entries", "parts", "decisions"} <= {table for table, _ in values}
        assert sum(got.header("Decision-Id") in value for _, value in values) >= 2, "the decision itself is there"
        assert [(table, value) for table, value in values for secret in SECRETS if secret in value] == []
        rows = [row for entry in deployment.entries("keeper") if entry["kind"] == "extraction" for row in entry["rows"]]
        told = {row[0]: row for row in rows}[got.header("Decision-Id")]
        assert told[2] == "denied"
        assert told[-1] == "case: redacted before recording", "a token is no case"


async def test_a_long_call_is_begun_with_its_redacted_request(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await go_on.wait()
        await answering(exchange)

    async with Upstream(behave) as model:
        async with working(configuration(tmp_path, model.url, route=ROUTE)) as worker, Client.to(worker) as c:
            await c.request(body=BODY)
            evidence = Evidence.of(worker)
            async with asyncio.timeout(answers.PATIENCE_S + 2):
                while not evidence.entries("begin"):
                    await asyncio.sleep(0.02)
            go_on.set()
            assert (await c.answer()).body == ANSWER
            begin, entry = evidence.calls()
            assert begin["redacted"]["request"] == entry["redacted"]["request"]
            assert entry["redacted"]["response"]["detected"] == {"card": 1}
            hides(evidence)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("request_rules", "error"),
    [
        ([{"path": "income", "how": "mask"}], "features_redacted"),
        ([{"path": "income", "how": "drop"}], "features_redacted"),
        ([{"path": "nothing", "how": "drop"}], None),
    ],
)
async def test_a_decision_whose_feature_was_redacted_is_not_explained_and_says_why(
    tmp_path: Path, request_rules: list[dict[str, str]], error: str | None
) -> None:
    loans = Loans(tmp_path)
    features = applicant(0)
    numbers = {name: value for name, value in features.items() if name != "case"}

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(orjson.dumps(loans.answer(numbers)), "200 OK", "Content-Type: application/json")

    async with Upstream(behave) as model:
        route = {**LOANS_ROUTE, "upstream": model.url, "redact": {"request": request_rules}}
        made = written(tmp_path, loans=loans, routes=[route])
        async with working(made) as worker, Client.to(worker) as c:
            got = await c.ask(target="/loans/score", body=orjson.dumps(features))
            assert got.status == 200
        async with kept(made) as keeper:
            await decided(keeper)
        entries = Evidence(made.data / "journal" / "keeper", made.data).entries("explanation", "extraction")
        (explanation,) = [entry for entry in entries if entry["kind"] == "explanation"]
        assert explanation["error"] == error
        assert explanation["state"] == ("failed" if error else "ready")
        if error:
            assert explanation["message"] == "features: redacted before recording"
        (row,) = [row for entry in entries if entry["kind"] == "extraction" for row in entry["rows"]]
        assert row[2] == orjson.loads(got.body)["decision"], "the label is that of the answer all the same"


@pytest.mark.parametrize("mode", ["strict", "spool", "best_effort"])
async def test_in_every_evidence_mode_short_and_streamed_answers_are_redacted(tmp_path: Path, mode: str) -> None:
    async def behave(exchange: Exchange) -> None:
        if exchange.asked.target == "/stream":
            await events(*DELTAS, DONE)(exchange)
        else:
            await answering(exchange)

    async with Upstream(behave) as model:
        made = configuration(tmp_path, model.url, route={**DETECT, "evidence": mode})
        async with working(made) as worker, Client.to(worker) as c:
            assert (await c.ask(body=BODY)).body == ANSWER
            assert (await c.ask(target="/m/stream", body=BODY)).body == b"".join(DELTAS) + DONE
            await settled(worker, 2)
        evidence = Evidence.of(worker)
        short, streamed = evidence.entries("decision")
        for entry in (short, streamed):
            assert entry["redacted"]["response"] == {"detected": {"card": 1}}
            assert evidence.part(entry, "response")
        hides(evidence, (CARD, IBAN, "11 11"))
