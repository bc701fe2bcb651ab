# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway import keysets
from storage import applications
from tests.support.evidence import Evidence, balanced
from tests.support.tokens import AUDIENCE, ISSUER, TokenIssuer
from tests.support.upstreams import Upstream, good
from tests.support.workers import Client, configuration, working


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def jwt_mode(issuer: TokenIssuer, folder: Path, mode: str = "jwt", **changes: Any) -> dict[str, Any]:
    settings = issuer.settings(folder / "jwks.json", **changes)
    return {"mode": mode, "issuers": [settings.model_dump(mode="json")]}


def hand_made(header: dict[str, Any], claims: dict[str, Any], sign: Any) -> str:
    def packed(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    text = packed(header) + b"." + packed(claims)
    return (text + b"." + base64.urlsafe_b64encode(sign(text)).rstrip(b"=")).decode()


async def test_a_token_says_which_tenant_and_application_calls(tmp_path: Path):
    issuer = TokenIssuer()
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, callers=jwt_mode(issuer, tmp_path))
        async with working(made) as worker, Client.to(worker) as c:
            now = time.time()
            for claims in ({"tenant": "acme", "app": "chat"}, {"sub": "a person"}):
                assert (await c.ask(headers=bearer(issuer.token(now_s=now, **claims)))).status == 200
            first, second = Evidence.of(worker).calls()
        assert all("authorization" not in asked.names() for asked in model.seen), "the token is not the model's to see"
    assert (first["tenant"], first["app"], first["actor"]) == ("acme", "chat", "app:chat")
    assert second["tenant"] == "default"
    assert second["actor"].startswith("subject:")
    assert "a person" not in json.dumps(second)


async def test_each_credential_that_proves_nothing_is_refused_before_anything_else_happens(tmp_path: Path):
    issuer, stranger = TokenIssuer("RS256"), TokenIssuer("RS256")
    now = time.time()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": int(now) + 600}
    public = issuer.keys["k1"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"typ": "JWT", "kid": "k1"}
    cases = {
        "credential_missing": {},
        "credential_scheme": {"Authorization": "Basic eDp5"},
        "key_refused": bearer("ans_" + "x" * 43),
        "token_malformed": bearer("no.token"),
        "token_expired": bearer(issuer.token(now_s=now - 3600)),
        "token_audience": bearer(issuer.token(now_s=now, aud="else")),
        "token_issuer": bearer(issuer.token(now_s=now, iss="https://else.example")),
        "token_signature": bearer(stranger.token(now_s=now)),
    }
    unsigned = hand_made({**header, "alg": "none"}, claims, lambda _text: b"")
    by_public_key = hand_made(
        {**header, "alg": "HS256"}, claims, lambda text: hmac.digest(public, text, hashlib.sha256)
    )
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, callers=jwt_mode(issuer, tmp_path, "jwt+keys"))
        async with working(made) as worker, Client.to(worker) as c:
            for code, headers in cases.items():
                got = await c.ask(headers=headers)
                assert (got.status, got.code) == (401, code)
                assert (got.header("WWW-Authenticate") or "").startswith("Bearer")
            for token in (unsigned, by_public_key):
                got = await c.ask(headers=bearer(token))
                assert (got.status, got.code) == (401, "token_algorithm")
            assert (await c.ask(target="/unknown")).status == 401, "who calls comes before what is there"
            assert (await c.ask(headers=bearer(issuer.token(now_s=now)))).status == 200
            assert (await c.ask(target="/unknown", headers=bearer(issuer.token(now_s=now)))).code == "route_unknown"
            assert len(model.seen) == 1
            assert len(Evidence.of(worker).calls()) == 1
            assert worker.journal.counters.refused == len(cases) + 4
            balanced(worker)
        (stated,) = Evidence.of(worker).entries("metric")
        assert stated["counts"]["token_algorithm"] == 2
        assert stated["counts"]["token_expired"] == 1


async def test_application_keys_count_within_two_seconds_of_being_made_and_revoked(tmp_path: Path):
    data = tmp_path / "data"
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, callers={"mode": "keys"})
        first = applications.create(data, app="first", tenant="acme", now_ns=1)
        async with working(made) as worker, Client.to(worker) as c:
            assert (await c.ask(headers=bearer(first))).status == 200
            second = applications.create(data, app="second", tenant="other", now_ns=2)
            await _until(c, second, 200)
            applications.revoke(data, applications.read(data)[0].id)
            await _until(c, first, 401)
            assert (await c.ask(headers={"x-api-key": second})).status == 200
            assert (await c.ask(headers={"X-Api-Key": "sk-else"})).code == "key_refused"
            assert {entry["app"] for entry in Evidence.of(worker).calls()} == {"first", "second"}
        assert all(not asked.names() & {"authorization", "x-api-key"} for asked in model.seen)


async def test_a_damaged_key_file_leaves_the_known_keys_in_force_and_is_told(tmp_path: Path):
    data = tmp_path / "data"
    key = applications.create(data, app="first", tenant="acme", now_ns=1)
    async with Upstream(good) as model:
        made = configuration(tmp_path, model.url, callers={"mode": "keys"})
        async with working(made) as worker, Client.to(worker) as c:
            whole = (data / applications.FILE).read_bytes()
            (data / applications.FILE).write_bytes(b"{")
            async with asyncio.timeout(5):
                while not (problems := (ready := await c.ask("GET", "/-/readyz", b"")).json()["problems"]):
                    await asyncio.sleep(0.05)
            assert "damaged" in problems[0]
            assert (ready.status, ready.json()["status"]) == (200, "degraded"), "every worker sees it: none does better"
            assert (await c.ask(headers=bearer(key))).status == 200
            (data / applications.FILE).write_bytes(whole)
            async with asyncio.timeout(5):
                while (await c.ask("GET", "/-/readyz", b"")).json()["problems"]:
                    await asyncio.sleep(0.05)


async def test_keys_are_refused_where_only_tokens_count_and_tokens_where_only_keys_do(tmp_path: Path):
    issuer = TokenIssuer()
    key = applications.create(tmp_path / "data", app="a", tenant="t", now_ns=1)
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, callers=jwt_mode(issuer, tmp_path))) as worker:
            async with Client.to(worker) as c:
                assert (await c.ask(headers=bearer(key))).code == "key_refused"
        async with working(configuration(tmp_path, model.url, callers={"mode": "keys"})) as worker:
            async with Client.to(worker) as c:
                assert (await c.ask(headers=bearer(issuer.token(now_s=time.time())))).code == "key_refused"


async def test_rotated_keys_are_found_and_made_up_key_ids_cause_no_flood(tmp_path: Path, monkeypatch):
    issuer = TokenIssuer()
    monkeypatch.setattr(keysets, "REFETCH_FLOOR_S", 0.3)
    fetched = 0

    async def serve(exchange: Any) -> None:
        nonlocal fetched
        fetched += 1
        await exchange.answer(issuer.jwks())

    async with Upstream(good) as model, Upstream(serve) as login:
        settings = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": login.url + "/jwks"}
        made = configuration(tmp_path, model.url, callers={"mode": "jwt", "issuers": [settings]})
        async with working(made) as worker, Client.to(worker) as c:
            now = time.time()
            assert (await c.ask(headers=bearer(issuer.token(now_s=now)))).status == 200
            strangers = TokenIssuer()
            for number in range(40):
                strangers.add(f"made-up-{number}")
                token = strangers.token(now_s=now, key_id=f"made-up-{number}")
                assert (await c.ask(headers=bearer(token))).code == "token_key_unknown"
            assert fetched <= 4
            await asyncio.sleep(0.35)
            issuer.add("k2")
            assert (await c.ask(headers=bearer(issuer.token(now_s=now, key_id="k2")))).status == 200


async def test_an_issuer_whose_keys_cannot_be_read_is_503(tmp_path: Path):
    issuer = TokenIssuer()
    callers = jwt_mode(issuer, tmp_path)
    (tmp_path / "jwks.json").unlink()
    async with Upstream(good) as model, working(configuration(tmp_path, model.url, callers=callers)) as worker:
        async with Client.to(worker) as c:
            got = await c.ask(headers=bearer(issuer.token(now_s=time.time())))
            assert (got.status, got.code) == (503, "issuer_keys_unavailable")
            assert got.header("Retry-After") == "1"


async def _until(client: Client, key: str, status: int) -> None:
    async with asyncio.timeout(2):
        while (await client.ask(headers=bearer(key))).status != status:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("count", [5000])
async def test_made_up_keys_do_not_fill_the_memory(tmp_path: Path, count: int):
    from gateway.proxy.callers import KEYS_REMEMBERED_MAX, Applications

    key = applications.create(tmp_path, app="a", tenant="t", now_ns=1)
    known = Applications(tmp_path)
    for number in range(count):
        assert known.find(b"ans_%d" % number) is None
    assert len(known._remembered) <= KEYS_REMEMBERED_MAX
    found = known.find(key.encode())
    assert found is not None
    assert found.app == "a"
