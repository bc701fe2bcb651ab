# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
"""Who goes, when, under which kind of answer: one closing entry with the true state, and counters that add up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.proxy.app import Worker
from tests.support.evidence import Evidence, balanced, settled
from tests.support.journals import until
from tests.support.upstreams import Exchange, Upstream, dead_url
from tests.support.workers import SOON_S, Client, configuration, working

PIECES = {  # what the model sends, in five steps
    "buffered": (
        b"HTTP/1.1 200 OK\r\nContent-",
        b"Type: text/plain\r\nContent-Length: 10\r\n\r\n",
        b"0123",
        b"456",
        b"789",
    ),
    "streamed": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-",
        b"Type: text/event-stream\r\n\r\n",
        b"9\r\ndata:",
        b" a\n\n\r\n",
        b"9\r\ndata: b\n\n\r\n0\r\n\r\n",
    ),
}
SENT = {"before_headers": 0, "in_headers": 1, "behind_headers": 2, "in_body": 3, "between_events": 4, "after": 5}


class Play:
    """A model that sends so many pieces, waits for its cue, and then goes on or goes."""

    def __init__(self, kind: str, stage: str, then: str) -> None:
        self.pieces, self.count, self.then = PIECES[kind], SENT[stage], then
        self.said, self.cue = asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        for piece in self.pieces[: self.count]:
            await exchange.send(piece)
            await asyncio.sleep(0.01)  # each piece by itself
        self.said.set()
        await self.cue.wait()
        match self.then:
            case "reset":
                exchange.reset()
            case "close":
                exchange.close()
            case _:
                for piece in self.pieces[self.count :]:
                    await exchange.send(piece)


async def until_alone(worker: Worker) -> None:
    """Return when the worker knows that every caller has gone."""
    async with asyncio.timeout(SOON_S):
        while worker._plane.wires:
            await asyncio.sleep(0.002)


def the_only_closing(worker: Worker, kind: str) -> dict:
    evidence = Evidence.of(worker)
    (entry,) = evidence.entries("decision", "call")
    begun = len(evidence.entries("begin"))
    assert begun == (kind == "streamed") or (begun == 0 and not entry["stream"]["streamed"])
    counters = worker.journal.counters
    assert (counters.accepted, counters.closed, counters.lost) == (1, 1, 0)
    balanced(worker)
    return entry


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["buffered", "streamed"])
@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("before_headers", "upstream_no_answer"),
        ("in_headers", "upstream_cut"),
        ("behind_headers", "upstream_cut"),
        ("in_body", "upstream_cut"),
        ("between_events", "upstream_cut"),
        ("after", None),
    ],
)
async def test_a_model_that_goes_leaves_one_closing_entry_with_the_true_state(
    tmp_path: Path, stage: str, error: str | None, kind: str, how: str
):
    play = Play(kind, stage, how)
    async with Upstream(play) as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.request()
        await asyncio.wait_for(play.said.wait(), SOON_S)
        if stage == "after":  # the answer is there before the model goes
            assert (await c.answer()).status == 200
        play.cue.set()
        if stage != "after":
            try:
                got = await c.answer()
                assert (got.status, got.code) == (502, error)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                assert kind == "streamed", "only what was begun is cut"
        await settled(worker, 1)
        entry = the_only_closing(worker, kind)
        assert (entry["stream"]["state"], entry["error"]) == (
            "complete" if error is None else "upstream_aborted",
            error,
        )
        assert len(model.seen) == 1


async def test_a_model_that_was_never_there_leaves_one_closing_entry(tmp_path: Path):
    async with working(configuration(tmp_path, dead_url())) as worker, Client.to(worker) as c:
        assert (await c.ask()).code == "upstream_unreachable"
        assert the_only_closing(worker, "buffered")["stream"]["state"] == "upstream_aborted"


@pytest.mark.parametrize("kind", ["buffered", "streamed"])
@pytest.mark.parametrize("stage", list(SENT))
async def test_a_caller_who_goes_leaves_one_closing_entry_with_the_true_state(tmp_path: Path, stage: str, kind: str):
    play = Play(kind, stage, "go_on")
    async with Upstream(play) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            await c.request()
            await asyncio.wait_for(play.said.wait(), SOON_S)
            if stage == "after":
                assert (await c.answer()).status == 200
            elif kind == "streamed" and SENT[stage] >= SENT["in_body"]:
                await c.head()
        await until_alone(worker)
        play.cue.set()
        await settled(worker, 1)
        entry = the_only_closing(worker, kind)
        assert (entry["stream"]["state"], entry["error"]) == (
            "complete" if stage == "after" else "client_aborted",
            None,
        )
        if kind == "buffered":
            assert Evidence.of(worker).part(entry, "response") == b"0123456789", "the model did decide"
        assert len(model.seen) == 1


@pytest.mark.parametrize("framing", ["Content-Length: 10\r\n\r\n01234", "Transfer-Encoding: chunked\r\n\r\n5\r\n012"])
@pytest.mark.parametrize("stage", ["before_headers", "in_headers", "in_body"])
async def test_a_caller_who_goes_before_the_request_is_whole_leaves_no_call(tmp_path: Path, stage: str, framing: str):
    whole = b"POST /m/x HTTP/1.1\r\nHost: t\r\n" + framing.encode()
    async with Upstream(Play("buffered", "after", "go_on")) as model:
        async with working(configuration(tmp_path, model.url)) as worker:
            async with Client.to(worker) as c:
                await c.send({"before_headers": b"", "in_headers": whole[:25], "in_body": whole}[stage])
                await asyncio.sleep(0.03)
            await until_alone(worker)
            counters = worker.journal.counters
            assert (counters.accepted, counters.closed, model.seen) == (0, 0, [])
            assert Evidence.of(worker).calls() == []
            await until(lambda: worker._budget.held_bytes == 0)
