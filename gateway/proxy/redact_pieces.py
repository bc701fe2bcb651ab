"""Redaction of answers that come in pieces: server-sent events, and lines of JSON (pure).

Each event's data, or each line, is a document of its own: rules look in each. A text that is told in pieces (a
language model's deltas) is put together first, piece by piece along its *channel*: the place in the document where
the pieces stand, with the indices that tell one choice, block or tool call from another. What is found in the whole is
hidden in every piece that holds a part of it: the mark stands where it began.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.proxy.detectors import Detectors
from gateway.proxy.redact_text import Tally, Withheld, document_of, spelled

DONE: Final = "[DONE]"
_LINE = re.compile(r"([^\r\n]*)(\r\n|\n|\r)")
_TELLING: Final = ("type", "index", "output_index", "content_index", "item_id")  # which of several texts it is about
# what is said as a whole and again with each event: no piece of a text
_SAID_WHOLE: Final = frozenset(
    {"id", "object", "type", "role", "name", "model", "created_at", "system_fingerprint", "service_tier"}
    | {"finish_reason", "stop_reason", "done_reason", "item_id", "call_id", "response_id", "obfuscation"}
)


@dataclass(slots=True)
class _Piece:
    """The data of one event or line: where its lines stand, and what they say."""

    lines: list[int]
    document: Any
    is_json: bool
    changed: bool = False


@dataclass(slots=True)
class _Fragment:
    """A part of a channel's text: `holder[key]`."""

    piece: _Piece
    holder: Any
    key: Any
    edits: list[tuple[int, int, str]] = field(default_factory=list)


def divided(
    text: str, media: str, hide: Callable[[Any], None] | None, detectors: Detectors | None, tally: Tally
) -> str:
    """The text with each document redacted; what is unfinished at its end is left out, and its bytes are stated.

    Raises:
        Withheld: `hide` is given, and what is no JSON stands there.
    """
    lines, rest = _lines(text)
    is_lines = "ndjson" in media or "jsonl" in media
    if rest and is_lines:  # the last line may do without its end
        lines, rest = [*lines, (rest, "")], ""
    pieces, whole = (_of_lines(lines) if is_lines else _of_events(lines)), len(lines)
    kept: list[_Piece] = []
    for at, data in pieces:
        if data is None:  # an event that has no end
            whole = at[0]
            break
        kept.append(_piece(at, data, hide))
    unfinished = rest if whole == len(lines) else "".join(map("".join, lines[whole:])) + rest
    if unfinished:
        before = tally.more.get("unfinished_bytes", 0)  # of a character that does not come whole
        tally.more["unfinished_bytes"] = len(unfinished.encode("utf-8")) + int(str(before))
    if detectors is not None:
        _hide_across(kept, detectors, tally)
    prefix = "" if is_lines else "data: "
    for piece in kept:
        if piece.changed:
            document = piece.document[0]
            said = spelled(document) if piece.is_json else str(document)
            lines[piece.lines[0]] = (prefix + said, lines[piece.lines[0]][1])
            for more in piece.lines[1:]:
                lines[more] = ("", "")
    return "".join(map("".join, lines[:whole]))


def _lines(text: str) -> tuple[list[tuple[str, str]], str]:
    """Lines with their ends, and what follows the last end."""
    found = [(line[1], line[2]) for line in _LINE.finditer(text)]
    return found, text[sum(len(line) + len(end) for line, end in found) :]


def _of_lines(lines: list[tuple[str, str]]) -> Iterator[tuple[list[int], str | None]]:
    for at, (line, _) in enumerate(lines):
        if line.strip():
            yield [at], line


def _of_events(lines: list[tuple[str, str]]) -> Iterator[tuple[list[int], str | None]]:
    """The data of each event, with the numbers of its lines; None for one without its blank line at the end."""
    begin = 0
    at: list[int] = []
    data: list[str] = []
    for number, (line, _) in enumerate(lines):
        if not line:
            if data:
                yield at, "\n".join(data)
            begin, at, data = number + 1, [], []
            continue
        name, _, value = line.partition(":")
        if name == "data":
            at.append(number)
            data.append(value.removeprefix(" "))
    if begin < len(lines):
        yield [begin], None


def _piece(at: list[int], data: str, hide: Callable[[Any], None] | None) -> _Piece:
    """Raises Withheld as `divided`."""
    is_json = data.lstrip().startswith(("{", "[", '"'))
    if is_json and data != DONE:
        try:
            document = document_of(data)
        except Withheld:
            is_json = False
            if hide is not None:
                raise
        else:
            held = [document]
            if hide is not None:
                hide(document)
            return _Piece(at, held, is_json=True, changed=hide is not None)
    if hide is not None and data.strip() not in ("", DONE):
        raise Withheld("not_json")
    return _Piece(at, [data], is_json=False)


def _hide_across(pieces: list[_Piece], detectors: Detectors, tally: Tally) -> None:
    """Hide what the channels say, wherever its parts stand."""
    channels: dict[tuple[Any, ...], list[_Fragment]] = {}
    for piece in pieces:
        for channel, holder, key in _texts(piece.document):
            channels.setdefault(channel, []).append(_Fragment(piece, holder, key))
    for fragments in channels.values():
        whole = "".join([fragment.holder[fragment.key] for fragment in fragments])
        if not detectors.may_find(whole):
            continue
        found = detectors.find(whole)
        end = first = 0
        begins = [0]
        for fragment in fragments:
            end += len(fragment.holder[fragment.key])
            begins.append(end)
        for one in found:
            tally.detected[one.kind] = tally.detected.get(one.kind, 0) + 1
            while begins[first + 1] <= one.start:
                first += 1
            at = first
            while at < len(fragments) and begins[at] < one.end:
                begin = max(one.start, begins[at])
                mark = one.mark if begin == one.start else ""
                fragments[at].edits.append((begin - begins[at], min(one.end, begins[at + 1]) - begins[at], mark))
                at += 1
        for fragment in fragments:
            _edit(fragment)


def _edit(fragment: _Fragment) -> None:
    if not fragment.edits:
        return
    text = fragment.holder[fragment.key]
    kept: list[str] = []
    at = 0
    for start, end, mark in fragment.edits:
        kept += (text[at:start], mark)
        at = end
    fragment.holder[fragment.key] = "".join((*kept, text[at:]))
    fragment.piece.changed = True


def _texts(held: list[Any]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Each text of a document that may be a piece of a longer one: its channel, and where it stands, in order."""
    waiting: list[tuple[Any, Any, tuple[Any, ...]]] = [(held, 0, ())]
    while waiting:
        holder, key, channel = waiting.pop()
        value = holder[key]
        if isinstance(value, str):
            if value:
                yield channel, holder, key
        elif isinstance(value, dict):
            telling = tuple((name, value[name]) for name in _TELLING if isinstance(value.get(name), int | str))
            inner = (*channel, telling)
            waiting.extend((value, name, (*inner, name)) for name in reversed(value) if name not in _SAID_WHOLE)
        elif isinstance(value, list):
            told = [isinstance(item, dict) and isinstance(item.get("index"), int) for item in value]
            waiting.extend((value, at, (*channel, "[]" if told[at] else at)) for at in range(len(value) - 1, -1, -1))
