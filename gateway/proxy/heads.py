"""What the head of a request means, worked out once where heads repeat.

A client that keeps its connection sends the same head, byte for byte, with every request of a kind. So the bytes are
the key: what they say of route and media type, and the head that the model gets for them, is kept for the next one.
What names the one call (request id, trace context) is no part of the key. Who the credential speaks for is not kept:
that is asked each time, since keys are revoked. Heads that name people (`Answerable-…`), carry an
idempotency key, expect something or are long are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.proxy import forwarded
from gateway.proxy import headers as heads
from gateway.proxy.errors import BadRequest
from gateway.proxy.exchange import said_in
from gateway.proxy.framing import Cut
from gateway.proxy.idempotency import SAFE, key_in
from gateway.proxy.lanes import Lane
from gateway.proxy.message import Message
from gateway.proxy.passing import NAMES, Passing, passing
from gateway.proxy.routes import Match
from gateway.proxy.tracing import Span

REMEMBERED_MAX = 1024  # heads; beyond it all are forgotten, since who makes up so many will make up more
REMEMBERED_BYTES_MAX = 2048  # of one head: 2 MiB in all, about three times that with what is worked out
_HAS_BODY = frozenset({"POST", "PUT", "PATCH"})  # these state a length even where it is 0 (RFC 9110 §8.6)


class Head:
    """One head, understood."""

    __slots__ = (
        "_states_length",
        "_upstream",
        "coding",
        "credential",
        "key",
        "lane",
        "match",
        "media",
        "recorded",
        "said",
    )

    def __init__(
        self,
        message: Message,
        credential: bytes | None,
        match: Match,
        lane: Lane,
        *,
        hop: forwarded.Hop | None = None,
    ) -> None:
        """`hop` is the trusted proxy that sent it. Raises BadRequest for what cannot be recorded, or smuggles lines."""
        raw = message.raw_headers
        query = message.path.partition("?")[2]
        if "#" in query:
            raise BadRequest("a request's target has no fragment", code="path_malformed")
        self.credential = credential
        self.match = match
        self.lane = lane
        self._upstream = lane.head(message.method, match.target, query, forwarded.passed_on(_repeating(raw), hop))
        self._states_length = message.method in _HAS_BODY
        self.said: Mapping[str, str] = {} if match.record == "none" else said_in(raw)
        self.recorded = heads.recorded(raw, lane.recorded_request) if lane.recorded_request else {}
        self.key: bytes | None = None
        if lane.idempotency != "off" and match.record != "none" and message.method not in SAFE:
            self.key = key_in(raw, required=lane.idempotency == "required")
        self.media = heads.media(message.headers.get("Content-Type", ""))
        self.coding = ",".join(message.headers.getall("Content-Encoding", []))

    def upstream(self, body_bytes: int, call: Passing, decision: str, span: Span | None = None) -> bytes:
        """The whole head as the model gets it; with `span` its `traceparent` in place of the caller's."""
        own = self.lane.passing.of(call, decision, None if span is None else span.traceparent)
        lines = self._upstream + own
        if body_bytes or self._states_length:
            return b"%bContent-Length: %d\r\n\r\n" % (lines, body_bytes)
        return lines + b"\r\n"


def _repeating(headers: heads.RawHeaders) -> heads.RawHeaders:
    """The headers that may come again with the next call; the same object where that is all of them."""
    kept = tuple(pair for pair in headers if heads.lowered(pair[0]) not in NAMES)
    return headers if len(kept) == len(headers) else kept


class Heads:
    """Heads that were seen before: by what the parser made of them, and by their bytes but for the body's length."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Head] = {}
        self._by_bytes: dict[object, tuple[Message, Head]] = {}

    def find(self, message: Message, hop: forwarded.Hop | None = None) -> Head | None:
        """What this head means, if it was seen before from that trusted proxy, or from nobody trusted."""
        raw = message.raw_headers
        known = self._known.get((raw, message.path, message.method, message.version, hop))
        if known is not None:
            return known
        rest = _repeating(raw)
        return None if rest is raw else self._known.get((rest, message.path, message.method, message.version, hop))

    def find_bytes(self, cut: Cut, hop: forwarded.Hop | None = None) -> tuple[Message, Head] | None:
        """The same for a head that was not parsed; the message says another length where the body has another."""
        return self._by_bytes.get(cut.head if hop is None else (cut.head, hop))

    def keep(self, message: Message, head: Head, cut: Cut | None, hop: forwarded.Hop | None = None) -> None:
        """Remember it, unless it names people, is long, or expects to be told to go on; `cut` is how it came."""
        raw = message.raw_headers
        size_bytes = len(message.path) + sum(len(name) + len(value) for name, value in raw)
        if head.said or head.key is not None or size_bytes > REMEMBERED_BYTES_MAX or "Expect" in message.headers:
            return
        if not NAMES.isdisjoint(head.lane.recorded_request):  # an entry would state those of another call
            return
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[_repeating(raw), message.path, message.method, message.version, hop] = head
        if cut is None or message.chunked or message.upgrade or b"content-length" in head.lane.recorded_request:
            return
        if passing(raw) != cut.passing:  # spelled in a way that only the parser reads
            return
        if len(self._by_bytes) >= REMEMBERED_MAX:
            self._by_bytes.clear()
        self._by_bytes[cut.head if hop is None else (cut.head, hop)] = message, head
