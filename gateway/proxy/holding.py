"""How much of a streamed answer may leave before its decision is durable (pure).

The end never may. Where the stream is of a known dialect, its events pass at once and the terminal one is held.
Where the length was declared, the piece that meets it is held. In every other stream nobody can know which piece is
the last, so each is held until the next one comes.
"""

from __future__ import annotations

import re

SNIFFED_BYTES_MAX = 16 * 1024  # a dialect shows itself in its first events or not at all

# what the first events of a dialect contain, and the lines that its terminal event begins with
_DIALECTS: tuple[tuple[re.Pattern[bytes], tuple[bytes, ...]], ...] = (
    (re.compile(rb'"object": ?"(?:chat\.completion\.chunk|text_completion)"'), (b"data: [DONE]", b"data:[DONE]")),
    (re.compile(rb"^event: ?message_start", re.MULTILINE), (b"event: message_stop", b"event:message_stop")),
    (
        re.compile(rb"^event: ?response\.", re.MULTILINE),
        tuple(
            b"event:%b%b" % (space, name)
            for space in (b" ", b"")
            for name in (b"response.completed", b"response.incomplete", b"response.failed")
        ),
    ),
)


class Holding:
    """The held tail of one stream. Feed pieces, send what is returned, and `rest()` when the decision is durable."""

    def __init__(self, *, events: bool) -> None:
        """`events`: a readable `text/event-stream`, so its dialect may be looked for."""
        self._sniffs = events
        self._sniffed = b""
        self._markers: tuple[bytes, ...] = ()
        self._held = b""
        self._line_starts = True  # whether `_held` begins at the start of a line
        self._ended = False

    def feed(self, piece: bytes) -> bytes:
        """The bytes that may leave now that `piece` has come."""
        if self._sniffs:
            self._sniff(piece)
        if not self._markers:
            released, self._held = self._held, piece
            if released:
                self._line_starts = released.endswith(b"\n")
            return released
        self._held += piece
        return b"" if self._ended else self._before_the_end()

    def rest(self) -> bytes:
        """What is held, to be sent last."""
        rest, self._held = self._held, b""
        return rest

    def _sniff(self, piece: bytes) -> None:
        self._sniffed += piece
        for shows, markers in _DIALECTS:
            if shows.search(self._sniffed):
                self._sniffs, self._sniffed, self._markers = False, b"", markers
                return
        if len(self._sniffed) > SNIFFED_BYTES_MAX:
            self._sniffs, self._sniffed = False, b""

    def _before_the_end(self) -> bytes:
        """Cut `_held` before the terminal event, or before an unfinished last line that may become its beginning."""
        held = self._held
        at = 0
        if not self._line_starts:
            at = held.find(b"\n") + 1
            if not at:
                self._held = b""
                return held
        while not held.startswith(self._markers, at):
            following = held.find(b"\n", at) + 1
            if not following:
                break
            at = following
        else:
            self._ended = True
        unfinished = held[at:]
        self._line_starts = self._ended or any(marker.startswith(unfinished) for marker in self._markers)
        cut = at if self._line_starts else len(held)
        self._held = held[cut:]
        return held[:cut]
