"""How much of a streamed answer may leave before its decision is durable (pure).

The end never may. Where the stream is of a known dialect, its whole events pass at once and the terminal one is held
(`storage.protocols.terminals`). Where the length was declared, the piece that meets it is held. In every other stream
nobody can know which piece is the last, so each is held until the next one comes.
"""

from __future__ import annotations

import re
from collections import deque

from storage.protocols.faults import Unreadable
from storage.protocols.terminals import Terminal

SNIFFED_BYTES_MAX = 16 * 1024  # a dialect shows itself in its first events or not at all
AFTER_END_BYTES_MAX = 64 * 1024  # held behind a terminal event; no dialect sends more there than a comment

# what the first events of a dialect contain, and the protocol that knows its terminal event
_DIALECTS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb'"object": ?"(?:chat\.completion\.chunk|text_completion)"'), "openai"),
    (re.compile(rb'^event: ?message_start|"type": ?"message_start"', re.MULTILINE), "anthropic"),
    (re.compile(rb'^event: ?response\.|"type": ?"response\.(?:created|queued|in_progress)"', re.MULTILINE), "openai"),
)


class Holding:
    """The held tail of one stream. Feed pieces, send what is returned, and `rest()` when the decision is durable."""

    def __init__(self, *, events: bool) -> None:
        """`events`: a readable `text/event-stream`, so its dialect may be looked for."""
        self._sniffs = events
        self._sniffed: list[bytes] = []
        self._sniffed_bytes = 0
        self._terminal: Terminal | None = None
        self._held: deque[bytes] = deque()
        self.held_bytes = 0
        self._left_bytes = 0

    @property
    def overrun(self) -> bool:
        """Whether the stream has gone on for too long behind its terminal event: it must be cut."""
        terminal = self._terminal
        if terminal is None or not terminal.ended:
            return False
        return self._left_bytes + self.held_bytes - terminal.end_bytes > AFTER_END_BYTES_MAX

    def feed(self, piece: bytes) -> bytes:
        """The bytes that may leave now that `piece` has come."""
        self._held.append(piece)
        self.held_bytes += len(piece)
        unread = piece
        if self._sniffs:
            self._sniffed.append(piece)
            self._sniffed_bytes += len(piece)
            unread = b"".join(self._sniffed)
            self._sniff(unread)
        if self._terminal is not None:
            try:
                return self._release(self._terminal.feed(unread) - self._left_bytes)
            except Unreadable:
                self._terminal = None
        return self._release(self.held_bytes - len(piece))

    def rest(self) -> bytes:
        """What is held, to be sent last."""
        return self._release(self.held_bytes)

    def _sniff(self, begun: bytes) -> None:
        """Look for a dialect in the stream so far; when the looking ends, what was kept for it is forgotten."""
        for shows, protocol in _DIALECTS:
            if shows.search(begun):
                self._terminal = Terminal(protocol)
                break
        if self._terminal is not None or self._sniffed_bytes > SNIFFED_BYTES_MAX:
            self._sniffs, self._sniffed = False, []

    def _release(self, count: int) -> bytes:
        """Take the first `count` bytes out of what is held; none where it is below zero."""
        if count <= 0:
            return b""
        self.held_bytes -= count
        self._left_bytes += count
        leaving = []
        while count:
            piece = self._held.popleft()
            if len(piece) > count:
                self._held.appendleft(piece[count:])
                piece = piece[:count]
            leaving.append(piece)
            count -= len(piece)
        return leaving[0] if len(leaving) == 1 else b"".join(leaving)
