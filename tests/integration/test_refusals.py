"""The table "Every refusal is counted" of gateway/README.md, row by row: answer, counters, what the journal says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from storage.pressure import Level
from tests.support.disks import Disk
from tests.support.evidence import Evidence
from tests.support.journals import until
from tests.support.upstreams import Upstream, dead_url, good
from tests.support.workers import Client, configuration, working

GIB = 2**30
BEFORE_ADMISSION = [  # bytes, status, code
    (b"nonsense\r\n\r\n", 400, "request_malformed"),
    (b"GET /m/../x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path_malformed"),
    (b"GET /m/x HTTP/1.1\r\nHost: a\r\nAnswerable-Purpose: ?\r\n\r\n", 400, "capture_invalid"),
    (b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", 404, "route_unknown"),
    (b"POST /m/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413, "body_too_large"),
    (b"GET /m/x HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417, "expectation_failed"),
    (b"GET /m/x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
    (
        b"GET /m/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        501,
        "protocol_not_supported",
    ),
]


async def test_each_refusal_is_a_closing_entry_or_is_counted_and_stated(tmp_path: Path):
    disk = Disk()
    async with Upstream(good) as model:
        made = configuration(
            tmp_path,
            model.url,
            gateway={"body_bytes_max": 2_000},
            routes=[
                {"name": "dead", "prefix": "/dead", "upstream": dead_url()},
                {"name": "passes", "prefix": "/passes", "upstream": model.url, "disk_full": "pass"},
                {"name": "effort", "prefix": "/effort", "upstream": model.url, "evidence": "best_effort"},
            ],
        )
        async with working(made, syscalls=disk) as worker:
            refused: Counter[str] = Counter()
            for sent, status, code in BEFORE_ADMISSION:
                async with Client.to(worker) as c:
                    await c.send(sent)
                    got = await c.answer()
                    assert (got.status, got.code) == (status, code)
                    refused[code] += 1
            assert worker.journal.counters.accepted == 0
            async with Client.to(worker) as c:  # after admission: a closing entry with the true state
                got = await c.ask(target="/dead/x")
                assert (got.status, got.code) == (502, "upstream_unreachable")
                (closing,) = Evidence.of(worker).entries("decision")
                assert (closing["error"], closing["id"]) == ("upstream_unreachable", got.header("Decision-Id"))
                disk.told = (0, 100 * GIB)
                await until(lambda: worker.journal.pressure is Level.REFUSE)
                got = await c.ask()
                assert (got.status, got.code) == (503, "journal_full")
                assert got.header("Retry-After") == "5"
                refused["journal_full"] += 1
                for target in ("/passes/x", "/effort/x"):
                    assert (await c.ask(target=target)).status == 200
                await until(lambda: worker.journal.counters.lost == 2)
                worker._state()
                await until(lambda: Evidence.of(worker).entries("metric") != [])
            stated: Counter[str] = Counter()
            for entry in Evidence.of(worker).entries("metric"):
                stated.update(entry["counts"])
            assert stated == refused
            counters = worker.journal.counters
            assert counters.refused == refused.total()
            assert (counters.accepted, counters.closed, counters.lost, counters.shed) == (3, 1, 2, 2)
            gaps = {(gap["route"], gap["why"], gap["lost"], gap["shed"]) for gap in Evidence.of(worker).entries("gap")}
            assert gaps == {("passes", "disk_full", 1, 1), ("effort", "shed", 1, 1)}
            assert len(model.seen) == 2, "what was refused never reached the model"
