"""Lines that a thread writes: whole, in order, and never in anybody's way."""

import fcntl
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson

from gateway.lines import PIPE_BYTES, LineWriter
from gateway.proxy.errors import Unauthenticated
from gateway.proxy.exchange import NOTHING, Answered, Asked, Caller, Terms
from gateway.proxy.exchangelog import GATHERED_MAX, REFUSALS_PER_S_MAX, Exchange, ExchangeLog

RECEIVED_NS = 1_790_000_000_123_456_789


def exchange(**changes: object) -> Exchange:
    asked = Asked(
        decision="01997f6e-0000-7000-8000-000000000001",
        record="decision",
        caller=Caller("acme", 'loans"\n', "app:loans"),
        terms=Terms("credit", "strict", "default", "c0"),
        method="POST",
        path="/credit/customers/*/score",
        received_ns=RECEIVED_NS,
        trace="4bf92f3577b34da6a3ce929d0e0e4736",
        about=NOTHING,
        headers={},
    )
    answered = Answered(
        status=200,
        error=None,
        state="complete",
        streamed=False,
        bytes=41,
        first_us=900,
        upstream_us=1200,
        total_us=1300,
        model=None,
        headers={},
    )
    whole = {"asked": asked, "answered": answered, "recorded": True, "sent_bytes": 17, "took_us": 2500, "address": None}
    return Exchange(**{**whole, **changes})  # type: ignore[arg-type]


def written(folder: Path, *exchanges: Exchange, below_warning: bool = True) -> list[dict[str, object]]:
    path = folder / "log"
    with path.open("wb") as file:
        writer = LineWriter(file.fileno())
        log = ExchangeLog(writer, "gateway-0", below_warning=below_warning)
        for one in exchanges:
            log.tell(one)
        log.flush()
        writer.close()
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_an_exchange_is_a_line_of_json_with_these_fields_and_no_others(tmp_path: Path):
    (line,) = written(tmp_path, exchange())
    assert datetime.fromisoformat(str(line.pop("timestamp"))) == datetime.fromtimestamp(
        (RECEIVED_NS // 1000 + 2500) / 1e6, UTC
    )
    assert line == {
        "level": "info",
        "event": "exchange",
        "worker": "gateway-0",
        "route": "credit",
        "evidence": "strict",
        "tenant": "acme",
        "app": 'loans"\n',
        "method": "POST",
        "path": "/credit/customers/*/score",
        "state": "complete",
        "decision": "01997f6e-0000-7000-8000-000000000001",
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
        "status": 200,
        "streamed": False,
        "request_bytes": 17,
        "response_bytes": 41,
        "first_byte_us": 900,
        "upstream_us": 1200,
        "total_us": 2500,
    }


def test_what_went_wrong_is_a_warning_and_what_no_entry_states_has_no_decision(tmp_path: Path):
    good = exchange()
    failed = Answered(
        status=502, error="upstream_cut", state="upstream_aborted", streamed=True, bytes=3, first_us=None,
        upstream_us=None, total_us=9, model=None, headers={},
    )  # fmt: skip
    lines = written(tmp_path, good, exchange(answered=failed, recorded=False, address="192.0.2.7"), good)
    assert [line["level"] for line in lines] == ["info", "warning", "info"]
    wrong = lines[1]
    assert (wrong["error"], wrong["address"], wrong["streamed"]) == ("upstream_cut", "192.0.2.7", True)
    assert not {"decision", "first_byte_us", "upstream_us"} & set(wrong)
    assert [line["level"] for line in written(tmp_path, good, exchange(answered=failed), below_warning=False)] == [
        "warning"
    ]


def test_a_reader_that_stops_costs_lines_and_nobodys_time(tmp_path: Path):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 64 * 1024)
    writer = LineWriter(writing, lines_max=2000)
    log = ExchangeLog(writer, "gateway-0", below_warning=True)
    count, began_s = 40 * GATHERED_MAX, time.monotonic()
    for _ in range(count):
        log.tell(exchange())
    log.flush()
    assert time.monotonic() - began_s < 30, "it does not hang"
    assert 0 < count - writer.dropped <= 2000 + 64 * 1024 // 100, "what waits is bounded"

    got = bytearray()

    def read() -> None:
        while piece := os.read(reading, 1 << 16):
            got.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    writer.close()
    os.close(writing)
    reader.join(10)
    os.close(reading)
    lines = [orjson.loads(line) for line in got.splitlines()]
    assert len(lines) == count - writer.dropped
    assert all(line["event"] == "exchange" for line in lines)


def test_lines_of_several_writers_on_one_pipe_stay_whole():
    reading, writing = os.pipe()
    writers = [LineWriter(writing) for _ in range(3)]
    got = bytearray()

    def read() -> None:
        while piece := os.read(reading, 100):  # slowly
            got.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    lines = [[b"%d" % number * (PIPE_BYTES // 7) + b"\n"] * 40 for number in range(3)]
    for writer, mine in zip(writers, lines, strict=True):
        writer.put(len(mine), lambda mine=mine: mine)  # type: ignore[misc]
    for writer in writers:
        writer.close()
    os.close(writing)
    reader.join(10)
    os.close(reading)
    found = bytes(got).splitlines(keepends=True)
    assert sorted(found) == sorted(line for mine in lines for line in mine)


def test_a_reader_that_is_gone_is_no_error_and_the_end_does_not_wait_for_one_that_sleeps():
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    os.close(reading)
    writer.write("gone\n")
    writer.write("gone\n")
    writer.close()
    assert writer.dropped == 2
    os.close(writing)
    asleep, held = os.pipe()
    stuck = LineWriter(held)
    stuck.put(1, lambda: (b"x" * (1 << 20),))
    began_s = time.monotonic()
    stuck.close()
    assert time.monotonic() - began_s < 30
    os.close(asleep)  # wakes the thread, which the process' end would not wait for


def test_a_flood_of_refusals_is_told_by_its_number(tmp_path: Path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(file.fileno())
        log = ExchangeLog(writer, "gateway-0", below_warning=True)
        for number in range(REFUSALS_PER_S_MAX + 950):
            log.refused(Unauthenticated("the request carries no credential"), f"r{number}")
        log.second()
        log.second()
        log.refused(Unauthenticated("the request carries no credential"), "")
        writer.close()
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["event"] for line in lines] == [*["refusal"] * REFUSALS_PER_S_MAX, "refusals_left_out", "refusal"]
    assert lines[REFUSALS_PER_S_MAX]["counts"] == {"credential_missing": 950}
    assert (lines[0]["error"], lines[0]["status"], lines[0]["request"]) == ("credential_missing", 401, "r0")
    assert lines[-1]["request"] is None
