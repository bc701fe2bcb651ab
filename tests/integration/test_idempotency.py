"""Repeats under an `Idempotency-Key`, over real sockets: one model call, one decision, every repeat an entry."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.proxy import claims
from gateway.proxy.app import Worker
from gateway.proxy.claims import Claims
from gateway.proxy.errors import NotRepeated
from gateway.proxy.exchange import Caller
from gateway.proxy.limits import Budget
from storage import repeats
from storage.firsts import ANSWER_BYTES_MAX, KEPT_S, NS
from tests.support.evidence import Evidence
from tests.support.journals import until
from tests.support.upstreams import Exchange, Upstream, dead_url, events, good
from tests.support.workers import Client, Got, configuration, working

KEY = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
ASKED = b'{"case": "c1", "person": "Ada Lovelace"}'


def rows(folder: Path) -> int:
    connection = sqlite3.connect(folder / repeats.NAME)
    try:
        return int(connection.execute("SELECT count(*) FROM firsts").fetchone()[0])
    finally:
        connection.close()


async def settled(worker: Worker) -> Got:
    """The answer to a repeat, once the first call is no longer under way."""
    async with asyncio.timeout(10), Client.to(worker) as client:
        while (got := await client.ask(body=ASKED, headers=KEY)).status == 409:
            if got.code != "idempotency_in_flight":
                break
            await asyncio.sleep(0.02)
        return got


async def test_a_repeat_gets_the_first_answer_and_is_an_entry_that_names_the_first_decision(tmp_path: Path):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            first = await client.ask(body=ASKED, headers=KEY)
            again = await client.ask(body=ASKED, headers=KEY)
            bare = await client.ask(body=ASKED, headers={"Idempotency-Key": KEY["Idempotency-Key"].strip('"')})
        assert len(model.seen) == 1
        assert model.seen[0].header("Idempotency-Key") is None
        assert first.header("Idempotency-Replayed") is None
        for repeat in (again, bare):
            assert (repeat.status, repeat.body) == (first.status, first.body)
            assert repeat.header("Idempotency-Replayed") == "true"
            for name in ("Decision-Id", "Decision-Receipt", "Content-Type"):
                assert repeat.header(name) == first.header(name), name
        decision, *calls = Evidence.of(worker).calls()
        assert decision["kind"] == "decision"
        assert "repeats" not in decision
        assert [call["kind"] for call in calls] == ["call", "call"]
        assert [call["id"] for call in calls] == [again.header("Decision-Repeat"), bare.header("Decision-Repeat")]
        assert {call["repeats"] for call in calls} == {first.header("Decision-Id")} == {decision["id"]}
        assert all(call["parts"] == [] and call["decision"] == call["id"] for call in calls)
        counters = worker.journal.counters
        assert (counters.accepted, counters.closed, counters.lost) == (3, 3, 0)


async def test_a_repeat_on_a_route_that_redacts_records_nothing_that_the_first_call_hid(tmp_path: Path):
    number = "4111 1111 1111 1111"  # the test number of the card schemes
    headers = {**KEY, "Answerable-Purpose": number}
    redact = {"redact": {"detect": ["card"]}}
    async with Upstream(good) as model, working(configuration(tmp_path, model.url, route=redact)) as worker:
        async with Client.to(worker) as client:
            await client.ask(body=ASKED, headers=headers)
            assert (await client.ask(body=ASKED, headers=headers)).header("Idempotency-Replayed") == "true"
        decision, call = Evidence.of(worker).calls()
        assert call["repeats"] == decision["id"]
        assert call["purpose"] == decision["purpose"] != number
        assert call["redacted"]["purpose"] == decision["redacted"]["purpose"]


async def test_hundreds_of_concurrent_repeats_run_the_model_once(tmp_path: Path):
    go_on = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await go_on.wait()
        await good(exchange)

    async def ask(worker: Worker) -> tuple[int, str | None]:
        async with Client.to(worker) as client:
            got = await client.ask(body=ASKED, headers=KEY)
            if got.status == 409:
                assert got.code == "idempotency_in_flight"
                assert got.header("Retry-After") == "1"
                assert got.header("Decision-Id")
            return got.status, got.header("Decision-Id")

    async with Upstream(slow) as model, working(configuration(tmp_path, model.url)) as worker:
        asking = [asyncio.create_task(ask(worker)) for _ in range(200)]
        await until(lambda: sum(task.done() for task in asking) == 199, 20)
        go_on.set()
        got = await asyncio.gather(*asking)
        assert len(model.seen) == 1
        assert sorted(status for status, _ in got) == [200] + [409] * 199
        assert len({decision for _, decision in got}) == 1
        assert worker.journal.counters.refused == 199


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [("POST", "/m/x", b"{}"), ("POST", "/m/y", ASKED), ("POST", "/m/x?a=1", ASKED), ("PUT", "/m/x", ASKED)],
)
async def test_another_body_target_or_method_under_the_same_key_is_422(tmp_path: Path, method, target, body):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            await client.ask(body=ASKED, headers=KEY)
            got = await client.ask(method, target, body, headers=KEY)
        assert got.status == 422
        assert got.code == "idempotency_key_reused"
        assert len(model.seen) == 1


@pytest.mark.parametrize("key", ['"', '"a', 'a"b', "a b", '""', "", "a" * 256, '"é"', '"a";x=1', "a, b"])
async def test_a_malformed_key_is_400_and_nothing_runs(tmp_path: Path, key):
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            got = await client.ask(body=ASKED, headers={"Idempotency-Key": key})
        assert got.status == 400
        assert got.code == "idempotency_key_malformed"
        assert model.seen == []


async def test_a_route_may_require_a_key_or_leave_it_to_the_model(tmp_path: Path):
    off = {"name": "off", "prefix": "/off", "idempotency": False}  # what YAML makes of a bare off
    async with Upstream(good) as model:
        off["upstream"] = model.url
        made = configuration(tmp_path, model.url, route={"idempotency": "required"}, routes=[off])
        async with working(made) as worker, Client.to(worker) as client:
            missing = await client.ask(body=ASKED)
            assert missing.status == 400
            assert missing.code == "idempotency_key_missing"
            assert (await client.ask("GET", body=b"")).status == 200
            assert (await client.ask(body=ASKED, headers=KEY)).status == 200
            for _ in range(2):
                assert (await client.ask(target="/off/x", body=ASKED, headers=KEY)).status == 200
        assert [asked.header("Idempotency-Key") for asked in model.seen] == [None, None, *[KEY["Idempotency-Key"]] * 2]


async def test_the_key_goes_to_the_model_where_forward_lists_it(tmp_path: Path):
    allow = {"forward": {"request": {"allow": ["Idempotency-Key"]}}}
    async with Upstream(good) as model, working(configuration(tmp_path, model.url, route=allow)) as worker:
        async with Client.to(worker) as client:
            await client.ask(body=ASKED, headers=KEY)
        assert model.seen[0].header("Idempotency-Key") == KEY["Idempotency-Key"]


async def test_a_streamed_answer_is_repeated_whole(tmp_path: Path):
    pieces = (b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n")
    async with Upstream(events(*pieces)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            first = await client.ask(body=ASKED, headers=KEY)
            again = await client.ask(body=ASKED, headers=KEY)
        assert first.body == again.body == b"".join(pieces)
        assert again.header("Content-Type") == "text/event-stream"
        assert again.header("Decision-Id") == first.header("Decision-Id")
        assert again.header("Decision-Receipt") == first.header("Decision-Receipt")
        assert len(model.seen) == 1
        assert worker._budget.held_bytes == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_over_1_mib_is_409_with_its_decision(tmp_path: Path, streamed):
    async def large(exchange: Exchange) -> None:
        await exchange.answer(b"x" * (ANSWER_BYTES_MAX + 1))

    gateway = {} if streamed else {"buffer_bytes_max": 4 * ANSWER_BYTES_MAX}
    async with Upstream(large) as model, working(configuration(tmp_path, model.url, gateway=gateway)) as worker:
        async with Client.to(worker) as client:
            first = await client.ask(body=ASKED, headers=KEY)
            again = await client.ask(body=ASKED, headers=KEY)
        assert len(first.body) == ANSWER_BYTES_MAX + 1
        assert again.status == 409
        assert again.code == "idempotency_answer_too_large"
        assert again.header("Decision-Id") == first.header("Decision-Id")
        assert again.header("Retry-After") is None
        assert len(model.seen) == 1
        assert worker._budget.held_bytes == 0


async def test_a_stream_that_broke_off_is_409_with_its_decision(tmp_path: Path):
    go_on = asyncio.Event()

    async def broken(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\n")
        await exchange.send(b"data: one\n\n")
        await go_on.wait()
        exchange.close()

    async with Upstream(broken) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            await client.request(body=ASKED, headers=KEY)
            assert (await client.head()).status == 200
            assert await client.reader.readexactly(11) == b"data: one\n\n"
            go_on.set()
            assert await client.ended()
        again = await settled(worker)
        assert again.status == 409
        assert again.code == "idempotency_answer_incomplete"
        assert again.header("Decision-Id") == Evidence.of(worker).entries("decision")[0]["id"]
        assert len(model.seen) == 1


async def test_an_error_of_the_model_and_a_failure_after_it_may_have_run_are_repeated(tmp_path: Path):
    async def failing(exchange: Exchange) -> None:
        if exchange.asked.target == "/close":
            exchange.close()
        else:
            await exchange.answer(b"no", "500 Internal Server Error", "X-Model: m")

    async with Upstream(failing) as model, working(configuration(tmp_path, model.url)) as worker:
        for number, (target, status) in enumerate((("/m/x", 500), ("/m/close", 502))):
            key = {"Idempotency-Key": f"k{number}"}
            async with Client.to(worker) as client:
                first = await client.ask(target=target, body=ASKED, headers=key)
                again = await client.ask(target=target, body=ASKED, headers=key)
            assert first.status == again.status == status
            assert first.body == again.body
            assert again.header("Idempotency-Replayed") == "true"
            assert again.header("Decision-Id") == first.header("Decision-Id") is not None
        assert len(model.seen) == 2


@pytest.mark.parametrize(
    ("status", "headers", "runs"),
    [("429 Too Many Requests", (), 2), ("503 Service Unavailable", ("Retry-After: 1",), 2),
     ("503 Service Unavailable", (), 1), ("400 Bad Request", (), 1)],
)  # fmt: skip
async def test_only_a_model_that_says_it_did_not_take_the_call_leaves_the_key_free(
    tmp_path: Path, status, headers, runs
):
    async def refusing(exchange: Exchange) -> None:
        await exchange.answer(b"no", status, *headers)

    async with Upstream(refusing) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            for _ in range(2):
                assert (await client.ask(body=ASKED, headers=KEY)).status == int(status[:3])
        assert len(model.seen) == runs


async def test_a_call_that_never_reached_the_model_may_run_again(tmp_path: Path):
    async with working(configuration(tmp_path, dead_url())) as worker, Client.to(worker) as client:
        first = await client.ask(body=ASKED, headers=KEY)
        again = await client.ask(body=ASKED, headers=KEY)
        assert first.status == again.status == 502
        assert again.header("Idempotency-Replayed") is None
        assert again.header("Decision-Id") != first.header("Decision-Id")


async def test_a_caller_who_left_gets_the_answer_by_repeating(tmp_path: Path):
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await go_on.wait()
        await good(exchange)

    async with Upstream(slow) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            await client.request(body=ASKED, headers=KEY)
            await asked.wait()
        go_on.set()
        again = await settled(worker)
        assert again.status == 200
        assert again.header("Idempotency-Replayed") == "true"
        assert len(model.seen) == 1


async def test_a_repeat_after_a_restart_gets_the_first_answer_and_the_journal_says_so(tmp_path: Path):
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url)
        async with working(made) as worker, Client.to(worker) as client:
            first = await client.ask(body=ASKED, headers=KEY)
        async with working(made) as worker, Client.to(worker) as client:
            again = await client.ask(body=ASKED, headers=KEY)
            assert again.header("Decision-Receipt") == first.header("Decision-Receipt")
            assert Evidence.of(worker).entries("call")[-1]["repeats"] == first.header("Decision-Id")
        assert len(model.seen) == 1


async def test_what_is_stored_shows_neither_key_nor_body_nor_answer_and_erasing_leaves_409(tmp_path: Path):
    async def personal(exchange: Exchange) -> None:
        await exchange.answer(b'{"name": "Grace Hopper"}', "200 OK", "Content-Type: application/json")

    async with Upstream(personal) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            first = await client.ask(body=ASKED, headers=KEY)
            decision = str(first.header("Decision-Id"))
            data = worker._configuration.data
            folder = data / repeats.DIRECTORY
            stored = b"".join(path.read_bytes() for path in folder.iterdir())
            assert decision.encode() in stored
            for secret in (b"Ada", b"Grace", b"8e03978e"):
                assert secret not in stored
            assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}
            with sqlite3.connect(folder / repeats.NAME) as connection:
                ((answer, content),) = connection.execute("SELECT answer, content FROM firsts").fetchall()
            connection.close()
            assert await asyncio.to_thread(repeats.erase, data, [decision, "unknown"]) == 1
            stored = b"".join(path.read_bytes() for path in folder.iterdir())
            assert answer not in stored
            assert content not in stored
            again = await client.ask(body=ASKED, headers=KEY)
            assert again.status == 409
            assert again.code == "idempotency_answer_erased"
            assert again.header("Decision-Id") == decision
        assert len(model.seen) == 1


@pytest.mark.parametrize("damage", ["garbage", "locked", "unreadable"])
async def test_a_store_that_fails_refuses_calls_with_a_key_alone_and_serves_them_again(
    tmp_path: Path, damage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(repeats, "BUSY_S", 0.2)
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url)
        folder = made.data / repeats.DIRECTORY
        path = folder / repeats.NAME
        holder = None
        if damage == "garbage":
            folder.mkdir(parents=True)
            path.write_bytes(b"this is no database" * 1000)
        elif damage == "unreadable":
            made.data.mkdir(exist_ok=True)
            folder.write_text("no directory")
        async with working(made) as worker, Client.to(worker) as client:
            if damage == "locked":
                assert (await client.ask(body=ASKED, headers={"Idempotency-Key": "first"})).status == 200
                holder = sqlite3.connect(path, isolation_level=None)
                holder.execute("BEGIN IMMEDIATE")
            got = await client.ask(body=ASKED, headers=KEY)
            assert got.status == 503
            assert got.code == "idempotency_unavailable"
            assert got.header("Retry-After")
            assert (await client.ask(body=ASKED)).status == 200
            if holder is not None:
                holder.execute("ROLLBACK")
                holder.close()
            else:
                (folder if damage == "unreadable" else path).unlink()
            assert (await client.ask(body=ASKED, headers=KEY)).status == 200
            assert (await client.ask(body=ASKED, headers=KEY)).header("Idempotency-Replayed") == "true"


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same_and_its_repeat_is_409(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(repeats, "DATABASE_BYTES_MAX", 16 * repeats.PAGE_BYTES)  # a disk that is full, for this file

    async def long(exchange: Exchange) -> None:
        await exchange.answer(b"y" * 200_000)

    async with Upstream(long) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as client:
            first = await client.ask(body=ASKED, headers=KEY)
            assert first.status == 200
            assert len(first.body) == 200_000
            again = await settled(worker)
            assert again.code == "idempotency_answer_not_kept"
            assert again.header("Decision-Id") == first.header("Decision-Id")
        assert len(model.seen) == 1


async def test_after_24_hours_the_key_is_free_its_row_gone_and_its_day_key_deleted_once(tmp_path: Path):
    now_ns = [1_790_000_000 * NS]
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        keys: Claims = worker._claims
        keys.clock_ns = lambda: now_ns[0]
        folder = worker._configuration.data / repeats.DIRECTORY
        async with Client.to(worker) as client:
            assert (await client.ask(body=ASKED, headers=KEY)).status == 200
            day = {path.name for path in folder.glob("2*.key")}
            assert len(day) == 1
            now_ns[0] += (KEPT_S - 1) * NS
            keys.tick(1e9)
            assert (await client.ask(body=ASKED, headers=KEY)).header("Idempotency-Replayed") == "true"
            now_ns[0] += 24 * 3600 * NS
            keys.tick(2e9)
            await until(lambda: not day & {path.name for path in folder.glob("2*.key")})
            await until(lambda: rows(folder) == 0)
            got = await client.ask(body=ASKED, headers=KEY)
            assert got.status == 200
            assert got.header("Idempotency-Replayed") is None
        assert len(model.seen) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_when_the_thread_ends_by_a_fault_of_ours_nobody_waits_for_it_and_calls_without_a_key_are_served(
    tmp_path: Path,
):
    def fault(_: object) -> None:
        raise ZeroDivisionError

    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        worker._claims._put(fault)
        async with Client.to(worker) as client:
            for _ in range(2):
                got = await client.ask(body=ASKED, headers=KEY)
                assert got.status == 503
                assert got.code == "idempotency_unavailable"
            assert (await client.ask(body=ASKED)).status == 200


async def test_a_claim_that_its_caller_gave_up_waiting_for_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "PATIENCE_S", 0.1)
    free = threading.Event()
    async with Upstream(good) as model, working(configuration(tmp_path, model.url)) as worker:
        worker._claims._put(lambda _: free.wait(10))
        async with Client.to(worker) as client:
            got = await client.ask(body=ASKED, headers=KEY)
            assert got.code == "idempotency_unavailable"
            free.set()
            monkeypatch.setattr(claims, "PATIENCE_S", 5.0)
            assert (await settled(worker)).status == 200
        assert len(model.seen) == 1


async def test_a_key_belongs_to_one_caller_of_one_tenant(tmp_path: Path):
    keys = Claims(tmp_path, "gateway-0", Budget(1024))
    keys.start()
    callers = [
        Caller(tenant="a", app="loans", actor="app:loans"),
        Caller(tenant="b", app="loans", actor="app:loans"),
        Caller(tenant="a", app="cards", actor="app:cards"),
        Caller(tenant="a", app="token", actor="subject:ada"),
        Caller(tenant="a", app="token", actor="subject:grace"),
    ]
    for number, caller in enumerate(callers):
        claim = await keys.claim(caller, b"k", (b"POST", b"/", b""), decision=f"d{number}", lease_s=60)
        assert isinstance(claim, claims.Claim)
        with pytest.raises(NotRepeated) as caught:
            await keys.claim(caller, b"k", (b"POST", b"/", b""), decision="other", lease_s=60)
        assert caught.value.decision == f"d{number}"
    await keys.close()
