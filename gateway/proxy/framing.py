"""One HTTP/1.1 message whose head was seen before, cut from its bytes without parsing them again (pure).

What a strict parser made of a head once, it makes of the same bytes again (RFC 9112 §6: framing is a matter of the
head alone). So `cut` says only where the body begins and by which bytes the head is to be known; it decides nothing.
Who uses it remembers heads that the parser has read, and hands all other bytes to the parser. The digits of
Content-Length are no part of what a head is known by: they are compared with the bytes that are there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.proxy.passing import NOTHING, Passing, chosen

HEAD_BYTES_MAX = 2048  # a longer head is for the parser: who sends such heads will not send the same one again
_LENGTH_DIGITS_MAX = 9
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")  # as clients and servers spell it; others are parsed
_LENGTH_BYTES = len(_LENGTHS[0])
_HINTS = (b"\r\ntrace", b"equest-")  # of headers that differ in each call; cheaper than to look for each
_OF_ONE_CALL = re.compile(rb"\r\n(traceparent|tracestate|x-request-id): ([ -~]*)(?=\r\n)", re.IGNORECASE)


class Cut(NamedTuple):
    """One whole message: `head` without the digits of its length, `digits` (empty: none), the body from `at` on.

    A request's head is also without the values that name one call, which are in `passing`.
    """

    head: bytes
    digits: bytes
    at: int
    passing: Passing = NOTHING


def cut(data: bytes) -> Cut | None:
    """The message that `data` is, if it is exactly one with a head of the usual kind; else None.

    A second Content-Length, in whatever spelling, stays in `head`, which no parser has let through then.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        return None
    body_bytes = len(data) - end - 4
    at = data.find(_LENGTHS[0], 0, end)
    if at < 0:
        at = data.find(_LENGTHS[1], 0, end)
        if at < 0:
            return None if body_bytes else Cut(data, b"", end + 4)
    first = at + _LENGTH_BYTES
    last = data.find(b"\r", first, end + 1)
    digits = data[first:last]
    if len(digits) > _LENGTH_DIGITS_MAX or not digits.isdigit() or int(digits) != body_bytes:
        return None
    return Cut(data[:first] + data[last:end], digits, end + 4)


def cut_request(data: bytes) -> Cut | None:
    """`cut` of a request: what names this one call is no part of what its head is known by either."""
    message = cut(data)
    if message is None or (message.head.find(_HINTS[0]) < 0 and message.head.find(_HINTS[1]) < 0):
        return message
    found: list[tuple[bytes, bytes]] = []

    def blanked(header: re.Match[bytes]) -> bytes:
        found.append((header[1].lower(), header[2]))
        return b"\r\n%b: " % header[1]

    head = _OF_ONE_CALL.sub(blanked, message.head + b"\r\n")
    return Cut(head, message.digits, message.at, chosen(found)) if found else message
