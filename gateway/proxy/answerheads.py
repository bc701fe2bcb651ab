"""What the head of an answer means, worked out once where heads repeat (pure).

A model's answers differ in few headers, often only in a date: what a head says of framing and media type, and the lines
of it that go on to the caller, is kept for the next answer that has the same bytes.
"""

from __future__ import annotations

from gateway.proxy import headers as heads
from gateway.proxy.framing import Cut

REMEMBERED_MAX = 256  # heads; those with a date last a second, those with an id of their own not even that
EVENT_STREAM = b"text/event-stream"


class AnswerHead:
    """One head, understood. `lines` go on to the caller, status line first; `coding` is its Content-Encoding.

    `media` is as a part states it.
    """

    __slots__ = ("chunked", "coding", "declared_bytes", "event_stream", "lines", "media")

    def __init__(
        self, status: int, headers: heads.RawHeaders, *, dropped: frozenset[bytes], allowed: frozenset[bytes] | None
    ) -> None:
        """ValueError where the framing is not one that we can pass on, or a header would smuggle another line in."""
        self.declared_bytes: int | None = None
        self.chunked = self.event_stream = False
        media = self.coding = ""
        for name, value in headers:
            match heads.lowered(name):
                case b"content-length":
                    self.declared_bytes = int(value)
                case b"transfer-encoding":
                    if value.lower() != b"chunked":
                        raise ValueError("the answer has a transfer coding other than chunked")
                    self.chunked = True
                case b"content-type":
                    self.event_stream = value[: len(EVENT_STREAM)].lower() == EVENT_STREAM
                    media = media or value.decode("latin-1")
                case b"content-encoding":
                    self.coding += f",{value.decode('latin-1')}" if self.coding else value.decode("latin-1")
        self.media = heads.media(media)
        lines = heads.passed(heads.only(headers, allowed), dropped, heads.OURS_IN_ANSWERS)
        passed = b"".join(lines)
        if not heads.is_clean(passed, len(lines)):
            raise ValueError("the answer's headers hold control characters")
        self.lines = heads.status_line(status) + passed


class SeenAnswer:
    """A head as a connection met it: what the parser made of it, but for its length."""

    __slots__ = ("_length_at", "_raw", "head", "keep_s", "status")

    def __init__(self, status: int, raw: heads.RawHeaders, head: AnswerHead, *, keep_s: float | None) -> None:
        self.status = status
        self.head = head
        self.keep_s = keep_s
        self._raw = raw
        self._length_at = next(at for at, (name, _) in enumerate(raw) if heads.lowered(name) == b"content-length")

    def headers(self, digits: bytes) -> list[tuple[bytes, bytes]]:
        """The header lines of an answer of that length."""
        raw = list(self._raw)
        raw[self._length_at] = (raw[self._length_at][0], digits)
        return raw


class AnswerHeads:
    """Heads of one route's answers that were seen before."""

    def __init__(
        self, *, dropped: frozenset[bytes] = heads.ANSWER_DROPPED, allowed: frozenset[bytes] | None = None
    ) -> None:
        """None yet. Headers in `dropped` do not go on, and with `allowed` only these do."""
        self._dropped = dropped
        self._allowed = allowed
        self._known: dict[tuple[object, ...], AnswerHead] = {}
        self._seen: dict[bytes, SeenAnswer] = {}

    def find(self, cut: Cut) -> SeenAnswer | None:
        """What the parser made of this head when it met it."""
        return self._seen.get(cut.head)

    def see(self, cut: Cut, seen: SeenAnswer) -> None:
        """Remember what the parser made of a whole answer that keeps its connection and is no stream."""
        if len(self._seen) >= REMEMBERED_MAX:
            self._seen.clear()
        self._seen[cut.head] = seen

    def of(self, status: int, headers: heads.RawHeaders) -> AnswerHead:
        """What this head means; ValueError as above."""
        key = (status, *headers)
        known = self._known.get(key)
        if known is None:
            known = AnswerHead(status, headers, dropped=self._dropped, allowed=self._allowed)
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[key] = known
        return known
