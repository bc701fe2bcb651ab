"""Where a stream ends for its reader, so that the end can be held until the decision is durable. Pure.

Fed with the pieces of an answer as they come, it says how many bytes of the stream belong to whole events before the
terminal one. What is unfinished may still become the terminal event, and counts as held.
"""

from __future__ import annotations

from storage.protocols.faults import Unreadable
from storage.protocols.reading import adapter_for
from storage.protocols.sse import EVENT_BYTES_MAX, Events


class Terminal:
    """The end of one stream of a protocol whose adapter knows its terminal event."""

    def __init__(self, protocol: str, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """KeyError for an unknown protocol; ValueError for one that does not stream (ask `is_streamed`)."""
        ends = adapter_for(protocol).ends
        if ends is None:
            raise ValueError(f"{protocol} has no terminal event")
        self._ends = ends
        self._events: Events | None = Events(event_bytes_max=event_bytes_max)
        self.free_bytes = 0
        self.end_bytes = 0  # where the terminal event is over, once `ended`
        self.ended = False

    def feed(self, piece: bytes) -> int:
        """How many bytes of the stream so far may leave before the decision is durable; never fewer than before.

        Once the terminal event has begun to come whole, that stays as it is. A stream that is no readable event
        stream has no terminal event: then it may all leave but its last piece, which is for the caller to hold.

        Raises:
            Unreadable: it is none; say so once, and hold piece by piece from there on.
        """
        if self._events is None:
            raise Unreadable("answer", "no readable event stream")
        if self.ended:
            return self.free_bytes
        try:
            for event in self._events.feed(piece):
                if self._ends(event):
                    self.ended, self.end_bytes = True, event.end
                    break
                self.free_bytes = event.end
        except Unreadable:
            self._events = None
            raise
        return self.free_bytes


def is_streamed(protocol: str) -> bool:
    """Whether the protocol's adapter knows a terminal event."""
    return adapter_for(protocol).ends is not None
