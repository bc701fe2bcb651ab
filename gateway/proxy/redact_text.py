"""A body as text: decoded within bounds, parsed, written again, and without what detectors find in it (pure)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from gateway.proxy.detectors import Detectors
from gateway.proxy.spelling import Meant, Spelling, bare_numbers
from storage.protocols.documents import parsed_text, plain
from storage.protocols.faults import Unreadable

Reason = Literal["too_large", "not_json", "encoding", "memory_full", "unfinished"]
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "zstd"})  # what `plain` opens within bounds
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"})
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_LONG_INTEGER = re.compile(r"\d{19}")  # what orjson may read as a float
_BEGINS_EVENTS: Final = ("data:", "event:", "id:", "retry:", ":")  # what no JSON begins with
_BEGINS_JSON = re.compile(r'[\ufeff \t\r\n]*[\[{"]')


class Withheld(Exception):  # noqa: N818 (a state of the bytes, recorded; nobody fails by it)
    """It cannot be redacted as declared."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(slots=True)
class Tally:
    """What was hidden so far."""

    paths: dict[str, tuple[str, int]] = field(default_factory=dict)
    detected: dict[str, int] = field(default_factory=dict)
    more: dict[str, object] = field(default_factory=dict)

    def hid(self, name: str, how: str) -> None:
        """One value more, by this path or name."""
        self.paths[name] = (how, self.paths.get(name, ("", 0))[1] + 1)

    def stated(self) -> dict[str, object]:
        """The same as an entry says it; empty where nothing was hidden."""
        told: dict[str, object] = {}
        if self.paths:
            told["paths"] = {name: {"how": how, "values": count} for name, (how, count) in self.paths.items()}
        if self.detected:
            told["detected"] = dict(self.detected)
        return {**told, **self.more}


def text_of(raw: bytes, *, media: str, coding: str, bytes_max: int, tally: Tally) -> str:
    """The text of a body, without content coding; never more than `bytes_max` of it. `tally` is told what is left out.

    Raises:
        Withheld: it is too large, coded otherwise, or no text in UTF-8.
    """
    if len(raw) > bytes_max:
        raise Withheld("too_large")
    charset = _CHARSET.search(media)
    codings = [one for one in coding.lower().replace(" ", "").split(",") if one not in ("", "identity")]
    if (charset and charset[1].lower() not in _CHARSETS) or len(codings) > 1 or not _CODINGS.issuperset(codings):
        raise Withheld("encoding")
    text = None if codings else _decoded(raw)
    if text is None and not codings and is_divided("", media.lower()):  # it may have broken off within a character
        cut = _cut_bytes(raw)
        tally.more["unfinished_bytes"] = cut
        text = _decoded(raw[: len(raw) - cut])
    opened = text is None
    if opened:
        try:
            body = plain(raw, "body", bytes_max)
        except Unreadable as fault:
            raise Withheld("encoding" if "broken" in fault.what else "too_large") from fault
        text = None if body is raw else _decoded(body)
        tally.more = {"decoded": True}
    if text is None or "\0" in text:  # a NUL is no text; UTF-16 is full of them
        raise Withheld("encoding")
    return text


def _cut_bytes(raw: bytes) -> int:
    """How many bytes at the end begin a character that does not come whole."""
    for count in range(1, min(4, len(raw) + 1)):
        if raw[-count] >= 0xC0:  # the first byte of a character of several
            return count
    return 0


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def is_json_like(text: str, media: str) -> bool:
    """Whether what stands outside of quotes is to stay JSON: a document, or several."""
    return "json" in media or _BEGINS_JSON.match(text) is not None or is_divided(text, media)


def is_divided(text: str, media: str) -> bool:
    """Whether a body is a sequence of documents: events, or a line each."""
    if media.startswith("text/event-stream") or "ndjson" in media or "jsonl" in media:
        return True
    return text.startswith(_BEGINS_EVENTS)


def document_of(text: str) -> Any:
    """The JSON document in `text`. Of a key that stands twice the last one counts.

    Raises:
        Withheld: there is none.
    """
    try:
        if _LONG_INTEGER.search(text) is None:
            return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass  # NaN, which Python servers write, is told by the other parser
    try:
        return parsed_text(text, "body")
    except Unreadable as fault:
        raise Withheld("not_json") from fault


def spelled(document: Any, *, sort: bool = False) -> str:
    """A document as JSON text.

    Raises:
        Withheld: it is nested too deeply.
    """
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS if sort else None).decode("utf-8")
    except TypeError:  # an integer beyond 64 bits, or nested deeper than orjson writes, which reads deeper
        try:
            return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)
        except RecursionError as error:
            raise Withheld("not_json") from error


def without(text: str, detectors: Detectors, spelling: Spelling, tally: Tally, *, is_json: bool = False) -> str:
    """The text with marks in the place of what the detectors find; outside of quotes, JSON stays JSON."""
    escaped = ("\\u" in text) if spelling == "json" else ("%" in text or "+" in text)
    if not escaped and not detectors.may_find(text):
        return text
    meant = Meant(text, spelling)
    found = detectors.find(meant.text) if not escaped or detectors.may_find(meant.text) else []
    if not found:
        return text
    spans = [meant.spelled(one.start, one.end) for one in found]
    wider = bare_numbers(text, spans) if is_json else ((*one, False) for one in spans)
    pieces: list[str] = []
    at = 0
    for one, (start, end, bare) in zip(found, wider, strict=True):
        tally.detected[one.kind] = tally.detected.get(one.kind, 0) + 1
        pieces += (text[at:start], f'"{one.mark}"' if bare else one.mark)
        at = end
    return "".join((*pieces, text[at:]))
