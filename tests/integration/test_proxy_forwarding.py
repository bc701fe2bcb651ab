# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
"""What passes to the model and back, and by whom it is believed: header lists, own CA, client certificates."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from config.errors import ConfigError
from tests.support.certificates import Authority, authority, demanding_context, server_context
from tests.support.evidence import Evidence, balanced
from tests.support.upstreams import Exchange, Upstream, good
from tests.support.workers import Client, configuration, working

SAID = {"Content-Type": "application/json", "X-One": "1", "X-Two": "2", "X-Three": "3", "X-Api-Key": "secret-key"}


async def telling(exchange: Exchange) -> None:
    await exchange.answer(b"{}", "200 OK", "Content-Type: application/json", "X-One: a", "X-Two: b", "Set-Cookie: s=1")


@pytest.mark.parametrize(
    ("lists", "passes", "stays"),
    [
        ({}, {"x-one", "x-two", "x-three"}, set()),
        ({"deny": ["X-TWO"]}, {"x-one", "x-three", "x-api-key"}, {"x-two"}),
        ({"allow": ["x-one"]}, {"x-one", "content-type", "host", "content-length"}, {"x-two", "x-three", "x-api-key"}),
        ({"allow": ["x-one", "x-two"], "deny": ["x-one"]}, {"x-two", "content-type"}, {"x-one", "x-three"}),
        ({"allow": []}, {"content-type"}, {"x-one", "x-two", "x-three"}),
    ],
)
async def test_only_listed_headers_reach_the_model(tmp_path: Path, lists: Any, passes: set[str], stays: set[str]):
    route = {"forward": {"request": lists}, "request_headers": ["X-Two"]}
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            assert (await c.ask(headers=SAID)).status == 200
            assert (await c.ask(headers=SAID)).status == 200
            for asked in model.seen:
                assert passes <= asked.names()
                assert not stays & asked.names()
            for entry in Evidence.of(worker).calls():
                assert entry["headers"]["request"] == {"x-two": "2"}, "recorded is what came"
                assert "secret-key" not in str(entry)


async def test_a_header_that_connection_names_ends_here_though_it_is_allowed(tmp_path: Path):
    route = {"forward": {"request": {"allow": ["x-one", "x-two"]}}}
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            await c.ask(headers={**SAID, "Connection": "keep-alive, X-One"})
            assert {"x-one", "x-two", "connection"} & model.seen[0].names() == {"x-two"}


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({}, {"content-type", "x-one", "x-two", "set-cookie"}),
        ({"deny": ["set-cookie", "X-One"]}, {"content-type", "x-two"}),
        ({"allow": ["X-Two"]}, {"content-type", "x-two"}),
    ],
)
async def test_only_listed_headers_come_back(tmp_path: Path, lists: Any, expected: set[str]):
    route = {"forward": {"response": lists}}
    async with Upstream(telling) as model:
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            got = await c.ask()
            names = {name.lower() for name, _ in got.headers}
            assert names - {"content-length"} == expected | {"decision-id", "decision-receipt"}


def own_certificate(made: Authority) -> dict[str, str]:
    return {"ca": made.ca.name, "certificate": made.certificate.name, "key": made.key.name}


async def test_a_route_trusts_its_own_authority_and_shows_its_certificate(tmp_path: Path):
    made = authority(tmp_path)
    async with Upstream(good, tls=demanding_context(made)) as model:
        route = {"upstream_tls": own_certificate(made)}
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            assert [(await c.ask()).status for _ in range(2)] == [200, 200]
            assert model.connections == 1
            balanced(worker)
        route = {"upstream_tls": {"ca": made.ca.name}}
        made_without = configuration(tmp_path, model.url, route=route, data="data-2")
        async with working(made_without) as worker, Client.to(worker) as c:
            got = await c.ask()
            assert (got.status, model.connections) == (502, 1)


async def test_a_certificate_must_name_the_host_or_who_it_is_said_to_be(tmp_path: Path):
    made = authority(tmp_path)
    async with Upstream(good, tls=server_context(made)) as model:
        other = model.url.replace("127.0.0.1", "localhost")
        for name, status in ((None, 502), ("127.0.0.1", 200)):
            tls = {"ca": made.ca.name, "server_name": name}
            made_here = configuration(tmp_path, other, route={"upstream_tls": tls}, data=f"data-{status}")
            async with working(made_here) as worker, Client.to(worker) as c:
                assert (await c.ask()).status == status


async def test_a_key_may_have_a_password_and_a_wrong_one_is_told_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = authority(tmp_path)
    key = load_pem_private_key(made.key.read_bytes(), None)
    demanding = demanding_context(made)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"right"))
    made.key.write_bytes(sealed)
    async with Upstream(good, tls=demanding) as model:
        route = {"upstream_tls": {**own_certificate(made), "password": "env:KEY_PASSWORD"}}
        monkeypatch.setenv("KEY_PASSWORD", "right")
        async with working(configuration(tmp_path, model.url, route=route)) as worker, Client.to(worker) as c:
            assert (await c.ask()).status == 200
        monkeypatch.setenv("KEY_PASSWORD", "wrong-one")
        with pytest.raises(ConfigError, match=r"routes\.m\.upstream_tls") as refusal:
            async with working(configuration(tmp_path, model.url, route=route, data="data-2")):
                pass
        assert "wrong-one" not in str(refusal.value)
        with pytest.raises(ConfigError, match=r"routes\.m\.upstream_tls"):  # and nobody is asked for one at a terminal
            async with working(configuration(tmp_path, model.url, route={"upstream_tls": own_certificate(made)})):
                pass


@pytest.mark.parametrize("tls", [{"ca": "nowhere.pem"}, {"ca": "empty.pem"}])
async def test_a_certificate_that_is_not_there_is_told_at_start(tmp_path: Path, tls: dict[str, str]):
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"routes\.m\.upstream_tls"):
        async with working(configuration(tmp_path, "https://127.0.0.1:1", route={"upstream_tls": tls})):
            pass


async def test_routes_that_say_the_same_share_their_connections(tmp_path: Path):
    made = authority(tmp_path)
    async with Upstream(good, tls=server_context(made)) as model:
        tls = {"upstream_tls": {"ca": made.ca.name}}
        other = {"name": "n", "prefix": "/n", "upstream": model.url, **tls}
        strict = {"name": "o", "prefix": "/o", "upstream": model.url}
        configured = configuration(tmp_path, model.url, route=tls, routes=[other, strict])
        async with working(configured) as worker, Client.to(worker) as c:
            assert [(await c.ask(target=f"/{name}/x")).status for name in "mno"] == [200, 200, 502]
            assert model.connections == 1


def test_the_system_s_authorities_are_not_believed_beside_one_s_own(tmp_path: Path):
    made = authority(tmp_path)
    assert len(ssl.create_default_context(cafile=str(made.ca)).get_ca_certs()) == 1
