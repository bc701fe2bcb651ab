"""Server-sent events (WHATWG HTML, 9.2 "Server-sent events"), fed in any pieces. Pure.

Lines end in CRLF, LF or CR; a blank line ends an event; lines that begin with a colon are comments; several data lines
are joined by LF; an event without its blank line at the end of the stream is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from storage.protocols.faults import ANSWER, Unreadable

EVENT_BYTES_MAX: Final = 1024 * 1024  # of one event's lines: a final event may carry a whole answer
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
_LOOKS_LIKE_EVENTS = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:(?:data|event|id|retry)?:|(?:data|event|id|retry)[\r\n])")


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `end` is how many bytes of the stream were read when it was complete."""

    type: str
    data: str
    end: int


def looks_like_events(raw: bytes) -> bool:
    """Whether a body begins as an event stream does; no JSON document does."""
    return _LOOKS_LIKE_EVENTS.match(raw) is not None


class Events:
    """A reader of one stream; memory is bounded by `event_bytes_max` beside the piece that is fed."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()  # the unfinished last line
        self._event_bytes = 0
        self._read_bytes = 0
        self._after_cr = False  # a line feed that comes now belongs to the line end before it
        self._first = True
        self._type = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that `piece` completes; to be read to the end before the next piece is fed.

        Raises:
            Unreadable: `not UTF-8` or `an event is too large`; the reader is of no use afterwards.
        """
        if piece and self._after_cr:
            self._after_cr = False
            if piece.startswith(b"\n"):
                piece = piece[1:]
                self._read_bytes += 1
        at = 0
        for line_end in _LINE_END.finditer(piece):
            self._take(piece[at : line_end.start()])
            self._read_bytes += line_end.end() - at
            at = line_end.end()
            event = self._ended_line()
            if event is not None:
                yield event
        self._after_cr = piece.endswith(b"\r")
        self._take(piece[at:])
        self._read_bytes += len(piece) - at

    def _take(self, part: bytes) -> None:
        self._event_bytes += len(part)
        if self._event_bytes > self._event_bytes_max:
            raise Unreadable(ANSWER, "an event is too large")
        self._line += part

    def _ended_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            line = line.removeprefix(_BOM)
            self._first = False
        if not line:
            return self._ended_event()
        if not line.startswith(b":"):
            self._field(line)
        return None

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name not in (b"data", b"event"):
            return
        try:
            text = value.removeprefix(b" ").decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(ANSWER, "not UTF-8") from error
        if name == b"data":
            self._data.append(text)
        else:
            self._type = text

    def _ended_event(self) -> Event | None:
        event = Event(self._type or "message", "\n".join(self._data), self._read_bytes) if self._data else None
        self._type, self._data, self._event_bytes = "", [], 0
        return event
