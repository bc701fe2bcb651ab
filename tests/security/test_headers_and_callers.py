# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
"""Headers that try to be more than they are, on both sides, and credentials that try to be somebody else's."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import Evidence, balanced
from tests.support.strict_upstream import StrictUpstream
from tests.support.tokens import AUDIENCE, TokenIssuer
from tests.support.upstreams import Upstream, good, raw
from tests.support.workers import Client, configuration, working

SECRET = "S3CRET-of-nobody-else"
NAMES = ("Answerable-Case", "Answerable-Subject", "Answerable-Purpose", "Answerable-Corrects")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    [
        b"a\rX-Injected: 1",
        b"a\nX-Injected: 1",
        b"a\0b",
        b"a\x1b[2Jb",
        b"a\r\n X-Injected: 1",
    ],
)
async def test_what_calls_are_about_cannot_carry_a_line_end_into_anything(tmp_path: Path, name: str, value: bytes):
    async with StrictUpstream() as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.send(b"GET /m/x HTTP/1.1\r\nHost: t\r\n%b: %b\r\n\r\n" % (name.encode(), value))
        assert (await c.answer()).status == 400
        assert await c.ended()
        assert (model.heard, worker.journal.counters.accepted) == ([], 0)


@pytest.mark.parametrize(
    "value", ["é" * 100, "\u202eevil", "\u2028line", "caf\u0301", '{"a":1}', "'; DROP TABLE x; --", "<script>"]
)
async def test_what_calls_are_about_is_recorded_hidden_or_refused_whatever_its_letters(tmp_path: Path, value: str):
    async with StrictUpstream() as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        await c.send(b"GET /m/x HTTP/1.1\r\nHost: t\r\nAnswerable-Case: " + value.encode() + b"\r\n\r\n")
        got = await c.answer()
        assert got.status in {200, 400}
        entries = Evidence.of(worker).calls()
        assert len(entries) == len(model.heard) == (got.status == 200)
        assert value not in json.dumps(entries, ensure_ascii=False)
        assert not model.faults


async def test_connection_cannot_take_away_what_we_add_nor_name_more_than_hops(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    route = {"upstream_auth": {"header": "Authorization", "scheme": "Bearer", "secret": f"file:{secret}"}}
    async with StrictUpstream() as model:
        async with working(configuration(tmp_path, model.url, route=route)) as worker:
            for listed in ("authorization", "close, x-internal", "host, via, content-length", "X-Internal , ,,"):
                async with Client.to(worker) as c:
                    got = await c.ask(headers={"Connection": listed, "X-Internal": "1", "Authorization": "Bearer mine"})
                    assert got.status == 200
                heard = model.heard[-1]
                assert heard.all("authorization") == [f"Bearer {SECRET}"]
                assert len(heard.all("host")) == len(heard.all("via")) == len(heard.all("content-length")) == 1
                assert heard.all("connection") == []
                assert heard.all("x-internal") == ([] if "internal" in listed.lower() else ["1"])
            assert not model.faults
        journal = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        assert SECRET.encode() not in journal


async def test_a_credential_reaches_neither_model_nor_disk_in_any_spelling(tmp_path: Path):
    issuer = TokenIssuer()
    settings = issuer.settings(tmp_path / "jwks.json").model_dump(mode="json")
    made = None
    async with StrictUpstream() as model:
        made = configuration(tmp_path, model.url, callers={"mode": "jwt+keys", "issuers": [settings]})
        async with working(made) as worker, Client.to(worker) as c:
            key = issuer.token(now_s=time.time())
            for name in ("Authorization", "AUTHORIZATION", "authorization"):
                assert (await c.ask(headers={name: f"Bearer {key}", "Connection": "authorization"})).status == 200
            for name in ("X-Api-Key", "api-key", "API-KEY"):
                assert (await c.ask(headers={name: key})).status == 200
            both = {"Authorization": f"Bearer {key}", "x-api-key": SECRET, "api-key": SECRET}
            assert (await c.ask(headers=both)).status in {200, 401}
            got = await c.ask(headers={"Authorization": f"Bearer {SECRET}"})
            assert got.status == 401
            assert SECRET.encode() not in got.body
            kept = b"".join(bytes(one) for one in model.raw)
            assert key.encode() not in kept
            assert SECRET.encode() not in kept
        journal = b"".join(path.read_bytes() for path in made.data.rglob("*") if path.is_file())
        assert key.encode() not in journal
        assert SECRET.encode() not in journal


async def test_a_key_of_one_issuer_speaks_for_no_other_though_both_name_it_alike(tmp_path: Path):
    first, second = TokenIssuer(), TokenIssuer()  # both call their key k1
    issuers: list[dict[str, Any]] = []
    for name, issuer in (("a", first), ("b", second)):
        made = issuer.settings(tmp_path / f"{name}.json", issuer=f"https://{name}.example")
        issuers.append(made.model_dump(mode="json"))
    now = time.time()
    async with StrictUpstream() as model:
        async with (
            working(configuration(tmp_path, model.url, callers={"mode": "jwt", "issuers": issuers})) as worker,
            Client.to(worker) as c,
        ):
            for issuer, name, status in (
                (first, "a", 200),
                (second, "b", 200),
                (first, "b", 401),
                (second, "a", 401),
                (first, "a/", 401),
                (first, "A", 401),
            ):
                token = issuer.token(now_s=now, iss=f"https://{name}.example")
                for _ in range(2):  # the second time through what is remembered
                    got = await c.ask(headers={"Authorization": f"Bearer {token}"})
                    assert got.status == status, (name, got.body)
            for claims in ({"iss": ["https://a.example"]}, {"aud": [AUDIENCE, "x"], "iss": {"a": 1}}, {"iss": 1}):
                try:
                    token = first.token(now_s=now, **claims)
                except TypeError:
                    continue
                assert (await c.ask(headers={"Authorization": f"Bearer {token}"})).status == 401
            pointing = {"jku": "https://evil.example/k", "x5u": "https://evil.example/c", "jwk": {"kty": "OKP"}}
            stranger = TokenIssuer()
            token = stranger.token(now_s=now, iss="https://a.example", headers=pointing)
            assert (await c.ask(headers={"Authorization": f"Bearer {token}"})).code == "token_signature"
            balanced(worker)


async def test_who_stands_before_us_says_nothing_about_who_calls(tmp_path: Path):
    async with StrictUpstream() as model, working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
        spoofed = {
            "X-Forwarded-For": "10.9.8.7",
            "Forwarded": "for=10.9.8.7;host=evil",
            "X-Forwarded-Host": "evil",
            "X-Real-IP": "10.9.8.7",
            "X-Original-URL": "/-/metrics",
            "X-Rewrite-URL": "/other",
            "X-HTTP-Method-Override": "DELETE",
            "Cookie": "a=b; c=d",
        }
        assert (await c.ask(headers=spoofed)).status == 200
        (heard,) = model.heard
        assert (heard.method, heard.target) == ("POST", "/x")
        assert heard.all("host") == [model.url.removeprefix("http://")]
        text = json.dumps(Evidence.of(worker).calls())
        assert all(value not in text for value in ("10.9.8.7", "evil", "a=b"))


@pytest.mark.parametrize(
    "head",
    [
        b"X: a\rSet-Cookie: evil=1",
        b"X: a\nSet-Cookie: evil=1",
        b"X: a\0b",
        b"X: a\r\n Set-Cookie: evil=1",
        b"X : a",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: +2",
        b"Content-Length: 2, 2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
    ],
)
async def test_an_answer_that_would_split_or_smuggle_never_reaches_the_caller(tmp_path: Path, head: bytes):
    behind = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with Upstream(raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n{}" + behind, then="close")) as model:
        async with working(configuration(tmp_path, model.url)) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert got.status == 502
            assert got.code in {"upstream_malformed", "upstream_cut"}
            assert got.header("Set-Cookie") is None
            model.behaviour = good
            assert (await c.ask()).json()["decision"] == "approved", "nothing of the other answer is left"
            assert [entry["stream"]["state"] for entry in Evidence.of(worker).entries("decision")] == [
                "upstream_aborted",
                "complete",
            ]
            balanced(worker)


async def test_our_own_headers_cannot_be_forged_by_the_model(tmp_path: Path):
    forged = b"HTTP/1.1 200 OK\r\nDecision-Id: forged\r\nDECISION-RECEIPT: forged\r\nContent-Length: 2\r\n\r\n{}"
    async with Upstream(raw(forged)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask()
            assert "forged" not in str(got.headers)
            Evidence.of(worker).check_receipt(got, "decision")


async def test_a_decompression_bomb_passes_as_the_bytes_it_is(tmp_path: Path):
    bomb = gzip.compress(b"\0" * 50_000_000, 9)
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    async with Upstream(raw(answer)) as model, working(configuration(tmp_path, model.url)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
            assert (got.status, got.body) == (200, bomb)
            assert model.seen[0].body == bomb
            (entry,) = Evidence.of(worker).entries("decision")
            assert Evidence.of(worker).part(entry, "request") == bomb


async def test_no_spelling_of_a_path_reaches_what_is_recorded_by_way_of_what_is_not(tmp_path: Path):
    route = {"record": [{"path": "/health/**", "as": "none"}, {"path": "/**", "as": "decision"}]}
    tricks = [
        "/m/health/../score", "/m/health/%2e%2e/score", "/m/health/..%2fscore", "/m/health/..;/score",
        "/m/health/..%5cscore", "/m/health/%252e%252e/score", "/m/score#/health/x", "/m/health/.%00./score",
        "/m/health//../score", "/m//score", "/m/%68ealth/x", "/m/HEALTH/x", "/m/health%2f..%2fscore",
        "/m/health/%2e/../score", "/m/health/%c0%ae%c0%ae/score",
    ]  # fmt: skip
    async with StrictUpstream() as model, working(configuration(tmp_path, model.url, route=route)) as worker:
        for target in tricks:
            before = worker.journal.counters.accepted, len(model.heard)
            async with Client.to(worker) as c:
                await c.send(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
                got = await c.answer()
            if got.status == 400:
                assert (worker.journal.counters.accepted, len(model.heard)) == before, target
                continue
            reached = model.heard[-1].target
            unrecorded = worker.journal.counters.accepted == before[0]
            assert not unrecorded or (
                ".." not in reached and reached.lower() in {"/%68ealth/x", "/health/%252e%252e/score"}
            )
        assert not model.faults


@pytest.mark.parametrize("trickle", [b"X", b"X: y\r\n"])
async def test_a_head_that_never_ends_is_cut_however_steadily_it_comes(tmp_path: Path, trickle: bytes):
    async with StrictUpstream() as model:
        made = configuration(tmp_path, model.url, gateway={"header_timeout_s": 0.5})
        async with working(made) as worker, Client.to(worker) as c:
            started = asyncio.get_running_loop().time()
            await c.send(b"GET /m/x HTTP/1.1\r\nHost: t\r\n")
            answer = asyncio.create_task(c.answer())
            while not answer.done():
                assert asyncio.get_running_loop().time() - started < 5
                c.writer.write(trickle)
                await asyncio.sleep(0.02)
            assert (await answer).status in {408, 431}
            assert model.heard == []


async def test_a_body_that_trickles_for_ever_is_cut(tmp_path: Path):
    async with StrictUpstream() as model:
        made = configuration(tmp_path, model.url, gateway={"body_timeout_s": 0.5})
        async with working(made) as worker, Client.to(worker) as c:
            started = asyncio.get_running_loop().time()
            await c.send(b"POST /m/x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
            answer = asyncio.create_task(c.answer())
            while not answer.done():
                assert asyncio.get_running_loop().time() - started < 5
                c.writer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.02)
            assert (await answer).code == "request_timeout"
            assert (model.heard, worker._budget.held_bytes) == ([], 0)
