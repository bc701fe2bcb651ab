"""Which bytes are one message with a head that may be known, and by what."""

from __future__ import annotations

import pytest

from gateway.proxy.framing import HEAD_BYTES_MAX, Cut, cut

POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX: 1\r\n\r\n%b"


def test_heads_that_differ_in_the_length_alone_are_known_by_the_same_bytes() -> None:
    short, long = cut(POST % (2, b"ab")), cut(POST % (11, b"abcdefghijk"))
    assert short is not None
    assert long is not None
    assert short.head == long.head == b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: \r\nX: 1"
    assert (short.digits, long.digits) == (b"2", b"11")
    assert (POST % (11, b"abcdefghijk"))[long.at :] == b"abcdefghijk"


def test_a_request_without_a_body_is_known_by_all_its_bytes() -> None:
    get = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    assert cut(get) == Cut(get, b"", len(get))


@pytest.mark.parametrize(
    "data",
    [
        POST % (3, b"ab"),  # more is to come
        POST % (1, b"ab"),  # something follows
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET",
        b"GET /a HTTP/1.1\r\nHost: x\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: +2\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nContent-Length:  2\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nContent-Length: 2 \r\n\r\nab",
        b"POST /a HTTP/1.1\r\nContent-Length: 2, 2\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nContent-Length: \xb2\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nCONTENT-LENGTH: 2\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nContent-Length: 2\n\r\n\r\nab",
        b"POST /a HTTP/1.1\r\nContent-Length: 0000000002\r\n\r\nab",
        b"",
        b"\r\n\r\nab",
    ],
)
def test_all_other_bytes_are_for_the_parser(data: bytes) -> None:
    assert cut(data) is None


def test_a_second_length_stays_in_what_the_head_is_known_by() -> None:
    twice = cut(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nab")
    assert twice is not None
    assert b"Content-Length: 9" in twice.head


def test_a_long_head_is_for_the_parser() -> None:
    assert cut(b"GET /a HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n") is None
