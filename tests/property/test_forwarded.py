"""Hops: read as RFC 7239 writes them, believed as far as trusted proxies reach, and never further."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.forwarded import FOR_OLDER, FORWARDED, Hop, client, is_trusted, passed_on

TRUSTED = tuple(ipaddress.ip_network(each) for each in ("10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "10.0.0.1"),
        ([("Forwarded", "for=192.0.2.60;proto=http;by=203.0.113.43")], "192.0.2.60"),
        ([("Forwarded", "for=192.0.2.43, for=198.51.100.17")], "198.51.100.17"),
        ([("Forwarded", "for=192.0.2.43, for=10.9.9.9")], "192.0.2.43"),
        ([("Forwarded", "for=192.0.2.43"), ("forwarded", "for=10.9.9.9")], "192.0.2.43"),
        ([("Forwarded", 'For="[2001:db8:cafe::17]:4711"')], "2001:db8:cafe::17"),
        ([("Forwarded", 'for="192.0.2.43:47011"')], "192.0.2.43"),
        ([("Forwarded", 'for="[fd00::7]", for=10.0.0.9')], "fd00::7"),
        ([("Forwarded", 'by="a,b;c";for=192.0.2.1')], "192.0.2.1"),
        ([("Forwarded", "for=unknown, for=10.9.9.9")], "10.9.9.9"),
        ([("Forwarded", "for=_hidden")], "10.0.0.1"),
        ([("Forwarded", "for=1.2.3.4;for=5.6.7.8")], "10.0.0.1"),
        ([("Forwarded", "for=1.2.3.4 rubbish")], "10.0.0.1"),
        ([("Forwarded", 'for="1.2.3.4')], "10.0.0.1"),
        ([("X-Forwarded-For", "192.0.2.43, 10.9.9.9")], "192.0.2.43"),
        ([("X-Forwarded-For", "6.6.6.6, 192.0.2.43, 10.9.9.9")], "192.0.2.43"),
        ([("X-Forwarded-For", "2001:db8::1")], "2001:db8::1"),
        ([("X-Forwarded-For", "::ffff:192.0.2.1")], "192.0.2.1"),
        ([("X-Forwarded-For", "rubbish, 10.2.2.2")], "10.2.2.2"),
    ],
)
def test_the_client_is_the_first_address_that_no_trusted_proxy_has(
    headers: list[tuple[str, str]], expected: str
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    written, other = (FORWARDED, FOR_OLDER) if raw and raw[0][0].lower() == FORWARDED else (FOR_OLDER, FORWARDED)
    assert client(Hop("10.0.0.1", written), raw, TRUSTED) == expected
    assert client(Hop("10.0.0.1", other), raw, TRUSTED) == "10.0.0.1", "what proxies do not write, clients do"
    forged = [(other, b"for=6.6.6.6" if other == FORWARDED else b"6.6.6.6"), *raw]
    assert client(Hop("10.0.0.1", written), forged, TRUSTED) == expected


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda each: each.ipv4_mapped is None)).map(str)


@given(
    st.lists(addresses, max_size=6), st.lists(addresses.filter(lambda each: not is_trusted(each, TRUSTED)), max_size=2)
)
def test_whatever_a_client_writes_the_hop_that_met_it_is_found(forged: list[str], met: list[str]) -> None:
    """Strangers write what they like; the trusted hop behind them appends whom it met."""
    chain = [*forged, *met[:1], "10.0.0.2"]
    older, standard = Hop("10.0.0.1", FOR_OLDER), Hop("10.0.0.1", FORWARDED)
    before = [(b"X-Forwarded-For", ", ".join(forged).encode())]
    expected = met[0] if met else client(Hop("10.0.0.2", FOR_OLDER), before, TRUSTED)
    assert client(older, [(b"X-Forwarded-For", ", ".join(chain).encode())], TRUSTED) == expected
    quoted = ", ".join(f'for="[{each}]"' if ":" in each else f"for={each}" for each in chain)
    assert client(standard, [(b"Forwarded", quoted.encode())], TRUSTED) == expected


@given(st.lists(st.tuples(st.sampled_from([b"Forwarded", b"X-Forwarded-For"]), st.binary(max_size=80)), max_size=4))
def test_no_bytes_make_it_fail(headers: list[tuple[bytes, bytes]]) -> None:
    for header in (FORWARDED, FOR_OLDER):
        ipaddress.ip_address(client(Hop("10.0.0.1", header), headers, TRUSTED))


def test_what_strangers_say_of_hops_ends_here_and_what_proxies_say_grows_by_them() -> None:
    told = [(b"X-Forwarded-For", b"192.0.2.1"), (b"x-forwarded-proto", b"https"), (b"X-Real-IP", b"192.0.2.1")]
    headers = [(b"A", b"1"), *told, (b"B", b"2")]
    assert passed_on(headers, None) == [(b"A", b"1"), (b"B", b"2")]
    forged = [*headers, (b"Forwarded", b"for=6.6.6.6")]
    for each in (headers, forged):
        assert passed_on(each, Hop("10.0.0.1", FOR_OLDER)) == [
            (b"A", b"1"), (b"B", b"2"), (b"X-Forwarded-For", b"192.0.2.1, 10.0.0.1"), *told[1:],
        ]  # fmt: skip
    assert passed_on([(b"B", b"2")], Hop("10.0.0.1", FOR_OLDER)) == [(b"B", b"2"), (b"X-Forwarded-For", b"10.0.0.1")]
    twice = [(b"X-Forwarded-For", b"6.6.6.6"), (b"x-forwarded-for", b"192.0.2.1")]
    assert passed_on(twice, Hop("10.0.0.1", FOR_OLDER)) == [twice[0], (b"x-forwarded-for", b"192.0.2.1, 10.0.0.1")]
    assert passed_on([told[0], (b"Forwarded", b"for=192.0.2.1")], Hop("fd00::1", FORWARDED)) == [
        (b"Forwarded", b"for=192.0.2.1"),
        (b"Forwarded", b'for="[fd00::1]"'),
    ]
    nothing = [(b"A", b"1")]
    assert passed_on(nothing, None) is nothing
