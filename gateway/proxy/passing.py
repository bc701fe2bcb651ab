"""What names one call and passes on to the model: request id and trace context (pure).

Such headers differ in every call where the rest of a head repeats, so that heads are known without them
(`framing.py`, `heads.py`), and the model gets them behind the rest. `X-Request-Id` passes where it is short and
printable; without one the model is told the Decision-Id, so that its log can be joined with the ledger. `traceparent`
passes where it is valid, `tracestate` with it alone (W3C Trace Context §3.2, §3.3.1); a sampled call of a traced route
names the gateway's own span instead.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.proxy.headers import RawHeaders, lowered

REQUEST_ID, TRACEPARENT, TRACESTATE = b"x-request-id", b"traceparent", b"tracestate"
NAMES = frozenset({REQUEST_ID, TRACEPARENT, TRACESTATE})
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_TRACESTATE = re.compile(rb"[ -~]{1,512}")  # W3C §3.3.1.1 asks for 512 characters to be passed on
# version 00 has nothing behind the flags; later ones may (W3C Trace Context §3.2, §4)
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent(NamedTuple):
    """A caller's span."""

    trace: int
    span: int
    sampled: bool


class Passing(NamedTuple):
    """The valid ones of a request, as they came; empty where there is none."""

    request_id: bytes = b""
    traceparent: bytes = b""
    tracestate: bytes = b""

    @property
    def trace(self) -> str | None:
        """The trace id, 32 hex digits: what entries state."""
        return self.traceparent[3:35].decode("ascii") or None

    @property
    def parent(self) -> Parent | None:
        """The caller's span."""
        found = _TRACEPARENT.fullmatch(self.traceparent)
        return None if found is None else Parent(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & 1))


NOTHING = Passing()


def passing(headers: RawHeaders) -> Passing:
    """Those in a head as the parser made it; one that comes twice, or is malformed, counts as none."""
    found = [(low, value) for name, value in headers if (low := lowered(name)) in NAMES]
    return chosen(found) if found else NOTHING


def chosen(found: list[tuple[bytes, bytes]]) -> Passing:
    """The valid ones among headers by lower-case name."""
    values: dict[bytes, bytes] = {}
    for name, value in found:
        values[name] = b"" if name in values else value.strip(b" \t")
    request_id = values.get(REQUEST_ID, b"")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = b""
    traceparent = values.get(TRACEPARENT, b"")
    shape = _TRACEPARENT.fullmatch(traceparent)
    if shape is None or (shape[1] == b"00" and shape[5] is not None):
        return Passing(request_id)
    tracestate = values.get(TRACESTATE, b"")
    return Passing(request_id, traceparent, tracestate if _TRACESTATE.fullmatch(tracestate) else b"")


class Lines:
    """What one route lets pass of them, as lines for the model."""

    __slots__ = ("_request_id", "_traceparent", "_tracestate")

    def __init__(self, *, denied: frozenset[bytes], allowed: frozenset[bytes] | None) -> None:
        """Names in lower case, as the route's `forward.request` lists them."""
        self._request_id, self._traceparent, self._tracestate = (
            name not in denied and (allowed is None or name in allowed)
            for name in (REQUEST_ID, TRACEPARENT, TRACESTATE)
        )

    def of(self, call: Passing, decision: str, span: bytes | None) -> bytes:
        """The lines of one call; `decision` is empty where nothing is recorded, `span` a `traceparent` of our own."""
        lines = b""
        if self._request_id:
            request_id = call.request_id or decision.encode("ascii")
            if request_id:
                lines = b"X-Request-Id: %b\r\n" % request_id
        if self._traceparent and (span or call.traceparent):
            lines += b"traceparent: %b\r\n" % (span or call.traceparent)
        if self._tracestate and call.tracestate:
            lines += b"tracestate: %b\r\n" % call.tracestate
        return lines
