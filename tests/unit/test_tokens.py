import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from gateway import keysets
from gateway.keysets import KeysUnavailableError, parse_keys
from gateway.tokens import CACHE_ENTRIES_MAX, TokenError, Tokens
from tests.support.tokens import AUDIENCE, ISSUER, TokenIssuer

NOW_S = 1_800_000_000.0


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


def verifier(issuer, tmp_path, *, wall=None, clock=None, **changes) -> Tokens:
    settings = issuer.settings(tmp_path / "jwks.json", **changes)
    return Tokens([settings], base=tmp_path, wall_clock=wall or Clock(NOW_S), clock=clock or Clock(0.0))


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_a_token_of_each_accepted_algorithm_says_who_calls(tmp_path, algorithm):
    issuer = TokenIssuer(algorithm)
    token = issuer.token(now_s=NOW_S, roles=["support"], app="crm", tenant="north", matter={"routes": ["m"]})
    verified = await verifier(issuer, tmp_path).verify(token)
    assert (verified.subject, verified.app, verified.tenant) == ("amy", "crm", "north")
    assert verified.roles == {"support"}
    assert verified.claims["matter"] == {"routes": ["m"]}


def _segment(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _claims(**changes):
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "amy", "exp": int(NOW_S) + 600, **changes}


async def test_a_token_with_algorithm_none_is_refused(issuer, tmp_path):
    for name in ("none", "None", "NONE"):
        token = f"{_segment({'alg': name, 'kid': 'k1'})}.{_segment(_claims())}."
        with pytest.raises(TokenError) as refused:
            await verifier(issuer, tmp_path).verify(token)
        assert refused.value.code == "token_algorithm"


async def test_a_token_signed_by_hmac_with_the_public_key_is_refused(tmp_path):
    issuer = TokenIssuer("RS256")
    public = issuer.keys["k1"][1].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_segment({'alg': 'HS256', 'kid': 'k1'})}.{_segment(_claims())}"
    mac = base64.urlsafe_b64encode(hmac.digest(pem, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
    with pytest.raises(TokenError) as refused:
        await verifier(issuer, tmp_path).verify(f"{signed}.{mac}")
    assert refused.value.code == "token_algorithm"


async def test_a_symmetric_key_in_a_published_set_is_left_out():
    secret = base64.urlsafe_b64encode(b"k" * 32).rstrip(b"=").decode()
    assert parse_keys(json.dumps({"keys": [{"kty": "oct", "k": secret, "kid": "k1", "alg": "HS256"}]}).encode()) == ()


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": int(NOW_S) - 31}, "token_expired"),
        ({"exp": None}, "token_claims"),
        ({"exp": float("inf")}, "token_claims"),
        ({"exp": True}, "token_claims"),
        ({"nbf": int(NOW_S) + 31}, "token_not_yet_valid"),
        ({"aud": "somebody-else"}, "token_audience"),
        ({"aud": None}, "token_claims"),
        ({"iss": "https://evil.example"}, "token_issuer"),
        ({"sub": None}, "token_claims"),
        ({"sub": ""}, "token_claims"),
        ({"sub": "a\nb"}, "token_claims"),
        ({"roles": [1]}, "token_claims"),
        ({"roles": {"support": True}}, "token_claims"),
        ({"app": "x" * 201}, "token_claims"),
    ],
)
async def test_a_claim_that_is_missing_or_wrong_is_named(issuer, tmp_path, claims, code):
    with pytest.raises(TokenError) as refused:
        await verifier(issuer, tmp_path).verify(issuer.token(now_s=NOW_S, **claims))
    assert refused.value.code == code
    assert refused.value.status == 401


async def test_a_token_lives_for_the_leeway_beyond_its_expiry_and_no_longer(issuer, tmp_path):
    wall = Clock(NOW_S)
    tokens = verifier(issuer, tmp_path, wall=wall, leeway_s=30)
    token = issuer.token(now_s=NOW_S, exp=int(NOW_S))
    wall.now_s = NOW_S + 29
    await tokens.verify(token)
    wall.now_s = NOW_S + 30
    with pytest.raises(TokenError, match="expired"):
        await tokens.verify(token)  # it had been remembered


async def test_a_token_signed_with_another_key_is_refused(issuer, tmp_path):
    tokens = verifier(issuer, tmp_path)
    stranger = TokenIssuer()
    with pytest.raises(TokenError) as refused:
        await tokens.verify(stranger.token(now_s=NOW_S))
    assert refused.value.code == "token_signature"


async def test_an_algorithm_that_the_issuer_does_not_list_is_refused(tmp_path):
    issuer = TokenIssuer("ES256")
    with pytest.raises(TokenError) as refused:
        await verifier(issuer, tmp_path, algorithms=("EdDSA",)).verify(issuer.token(now_s=NOW_S))
    assert refused.value.code == "token_algorithm"


async def test_a_token_that_demands_an_unknown_extension_is_refused(issuer, tmp_path):
    token = issuer.token(now_s=NOW_S, headers={"crit": ["answers"], "answers": 1})
    with pytest.raises(TokenError) as refused:
        await verifier(issuer, tmp_path).verify(token)
    assert refused.value.code == "token_malformed"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "\udcff.x.y", "é.é.é", "x" * 9000, "e30.e30.e30"])
async def test_what_is_no_token_is_refused_as_such(issuer, tmp_path, text):
    with pytest.raises(TokenError):
        await verifier(issuer, tmp_path).verify(text)


async def test_a_rotated_key_is_read_when_a_token_names_it_and_a_withdrawn_one_ends_remembered_tokens(issuer, tmp_path):
    clock = Clock(0.0)
    tokens = verifier(issuer, tmp_path, clock=clock)
    old = issuer.token(now_s=NOW_S)
    await tokens.verify(old)
    issuer.add("k2")
    new = issuer.token(now_s=NOW_S, key_id="k2")
    del issuer.keys["k1"]
    issuer.publish(tmp_path / "jwks.json")
    with pytest.raises(TokenError) as refused:
        await tokens.verify(new)  # within the floor of the last reading nothing is read again
    assert refused.value.code == "token_key_unknown"
    clock.now_s = keysets.REFETCH_FLOOR_S + 1
    await tokens.verify(new)
    with pytest.raises(TokenError) as refused:
        await tokens.verify(old)
    assert refused.value.code == "token_key_unknown"


async def test_two_issuers_with_one_name_are_told_apart_by_audience(issuer, tmp_path):
    one = issuer.settings(tmp_path / "jwks.json", audience="one")
    two = issuer.settings(tmp_path / "jwks.json", audience="two")
    tokens = Tokens([one, two], base=tmp_path, wall_clock=Clock(NOW_S))
    assert (await tokens.verify(issuer.token(now_s=NOW_S, aud="two"))).subject == "amy"


async def test_the_cache_of_verified_tokens_is_bounded(issuer, tmp_path):
    tokens = verifier(issuer, tmp_path)
    verified = await tokens.verify(issuer.token(now_s=NOW_S))
    remembered = next(iter(tokens._cache.values()))
    assert remembered.token is verified
    for number in range(CACHE_ENTRIES_MAX + 5):
        tokens._remember(number.to_bytes(32, "big"), remembered)
    assert len(tokens._cache) == CACHE_ENTRIES_MAX


@pytest.fixture
async def address(issuer) -> AsyncIterator[dict]:
    state = {"body": issuer.jwks(), "status": 200, "asked": 0}

    async def answer(_request: web.Request) -> web.Response:
        state["asked"] += 1
        return web.Response(status=state["status"], body=state["body"], headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_get("/jwks", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    yield state
    await runner.cleanup()


async def test_keys_come_from_an_address_and_a_short_outage_signs_nobody_out(issuer, tmp_path, address):
    clock = Clock(0.0)
    tokens = verifier(issuer, tmp_path, clock=clock, jwks=address["url"], jwks_refresh_s=60)
    await tokens.verify(issuer.token(now_s=NOW_S))
    address["status"] = 500
    clock.now_s = 3600.0
    await tokens.verify(issuer.token(now_s=NOW_S, sub="ben"))
    clock.now_s = keysets.STALE_MAX_S + 1
    with pytest.raises(KeysUnavailableError) as unavailable:
        await tokens.verify(issuer.token(now_s=NOW_S, sub="cid"))
    assert unavailable.value.status == 503
    await tokens.close()


@pytest.mark.parametrize(
    ("status", "body"), [(302, b"{}"), (200, b"not json"), (200, b"[]"), (200, b" " * (256 * 1024 + 1)), (500, b"{}")]
)
async def test_an_address_that_gives_no_set_of_keys_is_unavailable(issuer, tmp_path, address, status, body):
    address.update(status=status, body=body)
    with pytest.raises(KeysUnavailableError):
        await verifier(issuer, tmp_path, jwks=address["url"]).verify(issuer.token(now_s=NOW_S))


async def test_made_up_key_ids_do_not_flood_the_issuer(issuer, tmp_path, address):
    tokens = verifier(issuer, tmp_path, jwks=address["url"])
    for number in range(50):
        token = issuer.token(now_s=NOW_S, headers={"kid": f"made-up-{number}"})
        with pytest.raises(TokenError):
            await tokens.verify(token)
    assert address["asked"] == 1


async def test_a_set_with_one_broken_key_still_serves_the_others(issuer, tmp_path):
    tokens = verifier(issuer, tmp_path)
    published = json.loads(issuer.jwks())
    published["keys"] = [
        {"kty": "RSA", "n": "AQAB", "e": "!"},
        {"kty": "EC", "crv": "P-256"},
        {},
        7,
        *published["keys"],
    ]
    (tmp_path / "jwks.json").write_text(json.dumps(published))
    assert (await tokens.verify(issuer.token(now_s=NOW_S))).subject == "amy"
