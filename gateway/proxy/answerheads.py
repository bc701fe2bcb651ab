"""What the head of an answer means, worked out once where heads repeat (pure).

A model's answers differ in few headers, often only in a date: what a head says of framing and media type, and the lines
of it that go on to the caller, is kept for the next answer that has the same bytes.
"""

from __future__ import annotations

from gateway.proxy import headers as heads

REMEMBERED_MAX = 256  # heads; those with a date last a second, those with an id of their own not even that
EVENT_STREAM = b"text/event-stream"


class AnswerHead:
    """One head, understood. `lines` go on to the caller, status line first; `media` is as a part states it."""

    __slots__ = ("chunked", "declared_bytes", "event_stream", "lines", "media")

    def __init__(
        self, status: int, headers: heads.RawHeaders, *, dropped: frozenset[bytes], allowed: frozenset[bytes] | None
    ) -> None:
        """ValueError where the framing is not one that we can pass on, or a header would smuggle another line in."""
        self.declared_bytes: int | None = None
        self.chunked = self.event_stream = False
        media = ""
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
        self.media = heads.media(media)
        lines = heads.passed(heads.only(headers, allowed), dropped, heads.OURS_IN_ANSWERS)
        passed = b"".join(lines)
        if not heads.is_clean(passed, len(lines)):
            raise ValueError("the answer's headers hold control characters")
        self.lines = heads.status_line(status) + passed


class AnswerHeads:
    """Heads of one route's answers that were seen before."""

    def __init__(
        self, *, dropped: frozenset[bytes] = heads.ANSWER_DROPPED, allowed: frozenset[bytes] | None = None
    ) -> None:
        """None yet. Headers in `dropped` do not go on, and with `allowed` only these do."""
        self._dropped = dropped
        self._allowed = allowed
        self._known: dict[tuple[object, ...], AnswerHead] = {}

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
