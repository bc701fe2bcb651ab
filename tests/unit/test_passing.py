"""What names one call: read as the specifications say, and passed on where the route lets it."""

from __future__ import annotations

import pytest

from gateway.proxy.framing import cut_request
from gateway.proxy.passing import NOTHING, Lines, Parent, Passing, passing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (SAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)),
        (UNSAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-bring", Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)),
        (f"00-{TRACE}-{SPAN}-01-what", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_traceparents_are_read_as_w3c_says(value: str, expected: Parent | None):
    assert passing([(b"TraceParent", value.encode())]).parent == expected


def test_two_traceparents_are_none():
    assert passing([(b"traceparent", SAMPLED.encode()), (b"Traceparent", SAMPLED.encode())]).parent is None


def test_the_trace_id_is_that_of_a_valid_traceparent() -> None:
    assert passing([(b"traceparent", SAMPLED.encode())]).trace == TRACE
    assert passing([(b"traceparent", b"00-1-2-3")]).trace is None
    assert passing([]) is NOTHING


@pytest.mark.parametrize("value", ["", "a b", "x" * 129, "caf\u00e9", "a\tb"])
def test_a_request_id_that_is_long_or_not_printable_is_none(value: str) -> None:
    assert passing([(b"X-Request-Id", value.encode())]).request_id == b""


def test_a_tracestate_goes_with_its_traceparent_alone() -> None:
    state = (b"tracestate", b"dd=s:1")
    assert passing([state]).tracestate == b""
    assert passing([state, (b"traceparent", b"rubbish")]).tracestate == b""
    assert passing([state, (b"traceparent", SAMPLED.encode())]).tracestate == b"dd=s:1"


def test_the_model_gets_the_callers_names_or_the_decisions_and_only_what_the_route_lets_pass() -> None:
    call = Passing(b"r-1", SAMPLED.encode(), b"dd=s:1")
    all_of_them = Lines(denied=frozenset(), allowed=None)
    assert all_of_them.of(call, "d-1", None) == (
        f"X-Request-Id: r-1\r\ntraceparent: {SAMPLED}\r\ntracestate: dd=s:1\r\n".encode()
    )
    assert all_of_them.of(call, "d-1", b"our-span").count(b"traceparent: our-span\r\n") == 1
    assert all_of_them.of(NOTHING, "d-1", None) == b"X-Request-Id: d-1\r\n"
    assert all_of_them.of(NOTHING, "", None) == b""
    assert Lines(denied=frozenset({b"x-request-id", b"tracestate"}), allowed=None).of(call, "d-1", None) == (
        f"traceparent: {SAMPLED}\r\n".encode()
    )
    assert Lines(denied=frozenset(), allowed=frozenset({b"x-other"})).of(call, "d-1", b"our-span") == b""


def test_a_head_is_known_without_what_names_one_call() -> None:
    def post(request_id: str, span: str, more: str = "") -> bytes:
        lines = f"X-Request-Id: {request_id}\r\ntraceparent: 00-{TRACE}-{span}-01\r\n{more}Content-Length: 2\r\n"
        return f"POST /a HTTP/1.1\r\nHost: x\r\n{lines}\r\n{{}}".encode()

    one, other = cut_request(post("a", SPAN)), cut_request(post("b", SPAN[::-1]))
    assert one is not None
    assert other is not None
    assert one.head == other.head
    assert (one.passing.request_id, other.passing.request_id) == (b"a", b"b")
    assert one.passing.traceparent != other.passing.traceparent
    third = cut_request(post("c", SPAN, "X-Trace: 7\r\n"))
    assert third is not None
    assert third.head != one.head
    twice = cut_request(post("c", SPAN, "x-request-id: d\r\n"))
    assert twice is not None
    assert twice.passing.request_id == b""
