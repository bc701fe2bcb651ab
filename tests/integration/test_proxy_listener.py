"""TLS towards callers, certificates that speak for applications, and scopes: over real sockets."""

# ruff: noqa: SIM117 - a worker stands inside its model, and a client inside its worker
import asyncio
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from storage import applications
from tests.support.certificates import Authority, Signer, authority
from tests.support.certificates import Client as Shown
from tests.support.evidence import Evidence
from tests.support.tokens import TokenIssuer
from tests.support.upstreams import Upstream, good
from tests.support.workers import Client, configuration, working


def tls(made: Authority, **more: Any) -> dict[str, Any]:
    return {"tls": {"certificate": str(made.certificate), "key": str(made.key), **more}}


def believing(made: Authority, shown: Shown | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(made.ca))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


async def test_calls_over_tls_are_recorded_like_others_and_a_plain_one_is_none(tmp_path: Path):
    made = authority(tmp_path)
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, gateway=tls(made))) as worker:
            async with Client.to(worker, believing(made)) as c:
                for _ in range(3):
                    assert (await c.ask()).header("Decision-Receipt")
                used = c.writer.get_extra_info("ssl_object")
                assert used.version() in ("TLSv1.2", "TLSv1.3")
            async with Client.to(worker) as plain:
                await plain.request()
                assert await plain.ended()
            assert len(Evidence.of(worker).calls()) == 3


async def test_old_versions_of_tls_are_refused_and_http_1_1_is_what_is_agreed_on(tmp_path: Path):
    made = authority(tmp_path)
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, gateway=tls(made))) as worker:
            old = believing(made)
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                old.minimum_version, old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with Client.to(worker, old):
                    pass
            offers = believing(made)
            offers.set_alpn_protocols(["h2", "http/1.1"])
            async with Client.to(worker, offers) as c:
                assert c.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_a_handshake_that_never_ends_is_cut(tmp_path: Path):
    made = authority(tmp_path)
    async with Upstream(good) as model:
        short = configuration(tmp_path, model.url, gateway={**tls(made), "header_timeout_s": 0.5})
        async with working(short) as worker:
            async with Client.to(worker) as mute:
                assert await mute.ended()


async def test_a_renewed_certificate_counts_without_a_restart_and_a_broken_one_changes_nothing(tmp_path: Path):
    first, second = authority(tmp_path), authority(_folder(tmp_path, "second"))
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, gateway=tls(first))) as worker:
            async with Client.to(worker, believing(first)) as staying:
                assert (await staying.ask()).status == 200
                first.key.write_bytes(b"no key")
                await _until(lambda: worker._watch.now().status == "degraded")
                async with Client.to(worker, believing(first)) as c:
                    assert (await c.ask()).status == 200
                _replace(second.key, first.key)
                _replace(second.certificate, first.certificate)
                await _until(lambda: worker._watch.now().status != "degraded")
                async with Client.to(worker, believing(second)) as c:
                    assert (await c.ask()).status == 200
                with pytest.raises(ssl.SSLError):
                    async with Client.to(worker, believing(first)):
                        pass
                assert (await staying.ask()).status == 200, "who was connected stays"


async def test_a_certificate_speaks_for_the_application_that_is_listed_for_it(tmp_path: Path):
    made, signer = authority(tmp_path), Signer.made(tmp_path)
    by_name, by_hash, other = signer.client("loans.internal"), signer.client("cards.internal"), signer.client("else")
    listed = [
        {"san": "loans.internal", "app": "loans", "tenant": "acme", "scopes": ["score"]},
        {"sha256": by_hash.sha256, "app": "cards"},
    ]
    async with Upstream(good) as model:
        settings = configuration(
            tmp_path,
            model.url,
            gateway=tls(made, client_ca=str(signer.ca), client_certificates="optional"),
            callers={"mode": "certificates", "certificates": listed},
            routes=[{"name": "s", "prefix": "/s", "upstream": model.url, "scopes": ["score"]}],
        )
        async with working(settings) as worker:
            async with Client.to(worker, believing(made, by_name)) as c:
                assert (await c.ask()).status == (await c.ask(target="/s/x")).status == 200
            async with Client.to(worker, believing(made, by_hash)) as c:
                assert (await c.ask()).status == 200
                refused = await c.ask(target="/s/x")
                assert (refused.status, refused.code) == (403, "scope_missing")
            for context, code in (
                (believing(made, other), "certificate_unknown"),
                (believing(made), "certificate_missing"),
            ):
                async with Client.to(worker, context) as c:
                    refused = await c.ask()
                    assert (refused.status, refused.code) == (401, code)
                    # a key does not help who has to show a certificate
                    assert (await c.ask(headers={"Authorization": "Bearer ans_x"})).code == code
            callers = [(call["tenant"], call["app"], call["actor"]) for call in Evidence.of(worker).calls()]
    assert callers == [("acme", "loans", "app:loans")] * 2 + [("default", "cards", "app:cards")]


async def test_other_authorities_of_callers_count_without_a_restart_and_no_session_outlives_them(tmp_path: Path):
    made = authority(tmp_path)
    first, second = Signer.made(_folder(tmp_path, "first")), Signer.made(_folder(tmp_path, "second"))
    before, after = believing(made, first.client("a.internal")), believing(made, second.client("b.internal"))
    asking = tls(made, client_ca=str(first.ca), client_certificates="required")
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, gateway=asking)) as worker:
            async with Client.to(worker, before) as staying:
                assert (await staying.ask()).status == 200
                assert not await _is_served(worker, after)
                _replace(second.ca, first.ca)
                await _until_true(lambda: _is_served(worker, after))
                assert not await _is_served(worker, before)
                assert (await staying.ask()).status == 200, "who was connected stays"
                first.ca.unlink()
                await _until(lambda: worker._watch.now().status == "degraded")
                assert await _is_served(worker, after), "the last good ones stay in force"


async def test_a_name_counts_as_what_it_is_listed_for_and_as_nothing_else(tmp_path: Path):
    made, signer = authority(tmp_path), Signer.made(tmp_path)
    listed = [{"san": "spiffe://bank/loans", "app": "uri"}, {"san": "Loans.Internal", "app": "dns"}]
    asking = tls(made, client_ca=str(signer.ca), client_certificates="required")
    callers = {"mode": "certificates", "certificates": listed}
    async with Upstream(good) as model:
        async with working(configuration(tmp_path, model.url, gateway=asking, callers=callers)) as worker:
            for name in ("spiffe://bank/loans", "loans.internal"):
                async with Client.to(worker, believing(made, signer.client(name))) as c:
                    assert (await c.ask()).status == 200
            mail = signer.client("loans.internal", kind="email")
            async with Client.to(worker, believing(made, mail)) as c:
                assert (await c.ask()).code == "certificate_unknown"
            assert [call["app"] for call in Evidence.of(worker).calls()] == ["uri", "dns"]


async def test_certificates_that_are_too_old_or_of_another_authority_end_the_handshake(tmp_path: Path):
    made, signer, stranger = authority(tmp_path), Signer.made(tmp_path), Signer.made(_folder(tmp_path, "other"))
    async with Upstream(good) as model:
        settings = configuration(
            tmp_path, model.url, gateway=tls(made, client_ca=str(signer.ca), client_certificates="required")
        )
        async with working(settings) as worker:
            for shown in (None, signer.client("late", hours=-1), stranger.client("strange")):
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    async with Client.to(worker, believing(made, shown)) as c:
                        await c.ask()
            async with Client.to(worker, believing(made, signer.client("good"))) as c:
                assert (await c.ask()).status == 200
            assert len(Evidence.of(worker).calls()) == 1


@pytest.mark.parametrize(
    ("gateway", "says"),
    [
        ({"certificate": "none.pem", "key": "leaf.key"}, r"gateway.tls: .*none.pem: no such file"),
        (
            {"certificate": "leaf.pem", "key": "other.key"},
            r"gateway.tls: leaf.pem, other.key: .*KEY_VALUES_MISMATCH",
        ),
        (
            {"certificate": "leaf.pem", "key": "leaf.key", "client_ca": "no.pem", "client_certificates": "required"},
            r"gateway.tls: .*no.pem: no such file",
        ),
    ],
)
async def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, gateway: dict[str, str], says: str):
    authority(tmp_path)
    shutil.copy(authority(_folder(tmp_path, "other")).key, tmp_path / "other.key")
    with pytest.raises(ConfigError, match=says):
        async with working(configuration(tmp_path, "http://127.0.0.1:9", gateway={"tls": gateway})):
            pass


def _says(tmp_path: Path, **said: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        configuration(tmp_path, "http://127.0.0.1:9", **said)
    return refused.value.message


def test_what_cannot_hold_of_callers_and_tls_is_named(tmp_path: Path):
    pem = {"certificate": "a", "key": "b"}
    listed = {"mode": "certificates", "certificates": [{"san": "a", "app": "a"}]}
    assert "client_ca: given where" in _says(tmp_path, gateway={"tls": {**pem, "client_certificates": "required"}})
    assert "client_ca: given where" in _says(tmp_path, gateway={"tls": {**pem, "client_ca": "c"}})
    assert "certificates needs gateway.tls" in _says(tmp_path, callers=listed)
    assert "needs at least one" in _says(tmp_path, callers={"mode": "certificates"})
    assert "mode keys does not look at them" in _says(tmp_path, callers={**listed, "mode": "keys"})
    both = [{"san": "a", "sha256": "0" * 64, "app": "a"}]
    assert "one of them alone" in _says(tmp_path, callers={"mode": "certificates", "certificates": both})
    twice = [{"san": "a", "app": "a"}, {"san": "a", "app": "b"}]
    assert "a speaks for more than one" in _says(tmp_path, callers={"mode": "certificates", "certificates": twice})
    assert "routes.m.scopes: nobody has scopes" in _says(tmp_path, route={"scopes": ["x"]})
    assert "routes.0.scopes.0" in _says(tmp_path, route={"scopes": ['a"b']}, callers={"mode": "keys"})


async def test_a_route_is_open_to_keys_and_tokens_that_have_all_its_scopes(tmp_path: Path):
    issuer = TokenIssuer()
    async with Upstream(good) as model:
        made = configuration(
            tmp_path,
            model.url,
            route={"scopes": ["credit:score", "pii"]},
            callers={"mode": "jwt+keys", "issuers": [issuer.settings(tmp_path / "jwks.json").model_dump(mode="json")]},
        )
        now = time.time_ns()
        keys = {
            scopes: applications.create(made.data, app="a", tenant="t", now_ns=now, scopes=scopes)
            for scopes in ((), ("pii",), ("pii", "credit:score", "more"))
        }
        tokens = {
            "none": issuer.token(now_s=time.time()),
            "half": issuer.token(now_s=time.time(), scope="pii other"),
            "both": issuer.token(now_s=time.time(), scope="pii credit:score"),
            "scp": issuer.token(now_s=time.time(), scp=["pii", "credit:score"]),
            "bad": issuer.token(now_s=time.time(), scope=7),
        }
        async with working(made) as worker, Client.to(worker) as c:
            for expected, shown in (
                (403, keys[()]), (403, keys["pii",]), (200, keys["pii", "credit:score", "more"]),
                (403, tokens["none"]), (403, tokens["half"]), (200, tokens["both"]), (200, tokens["scp"]),
                (401, tokens["bad"]),
            ):  # fmt: skip
                for _ in range(2):  # the second time the head is known
                    got = await c.ask(headers={"Authorization": f"Bearer {shown}"})
                    assert got.status == expected
                    if expected == 403:
                        assert got.code == "scope_missing"
                        challenge = got.header("WWW-Authenticate")
                        assert challenge == (
                            'Bearer realm="answerable", error="insufficient_scope", scope="credit:score pii"'
                        )
            assert len(Evidence.of(worker).calls()) == 6
            assert worker.journal.counters.refused == 10


def test_a_file_of_keys_from_before_there_were_scopes_is_read(tmp_path: Path):
    applications.create(tmp_path, app="a", tenant="t", now_ns=1, scopes=["x"])
    path = tmp_path / applications.FILE
    path.write_text(path.read_text().replace('"scopes": [\n        "x"\n      ],\n', ""))
    assert "scopes" not in path.read_text()
    assert [known.scopes for known in applications.read(tmp_path)] == [()]
    with pytest.raises(applications.ApplicationsError, match="scope 'a b'"):
        applications.create(tmp_path, app="a", tenant="t", now_ns=1, scopes=["a b"])


def _folder(base: Path, name: str) -> Path:
    made = base / name
    made.mkdir()
    return made


def _replace(source: Path, target: Path) -> None:
    shutil.copy(source, target.with_suffix(".new"))
    target.with_suffix(".new").replace(target)


async def _is_served(worker: Any, context: ssl.SSLContext) -> bool:
    try:
        async with Client.to(worker, context) as c:
            return (await c.ask()).status == 200
    except (OSError, EOFError):
        return False


async def _until_true(asked: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await asked():
            await asyncio.sleep(0.1)


async def _until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.05)
