r"""Text as it is meant, beside the text as it is spelled: escapes of JSON and of URLs, with a way back (pure).

What stands in a body between quotes may be escaped character by character (``\u0034``), in a query string too
(``%34``). Detectors read the meant text; what they find is replaced where it is spelled.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, Literal

Spelling = Literal["json", "url"]
UNKNOWN: Final = "\ufffd"  # an escape that means no character that is looked for; it keeps its neighbours apart
_JSON = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[\"\\/bfnrt]"
)  # what RFC 8259, 7 calls escapes; another backslash is text
_URL = re.compile(r"(?:%[0-9a-fA-F]{2})++|\+")
_STRING = re.compile(r'"[^"\\\r\n]*+(?:\\.[^"\\\r\n]*+)*+(?:"|$)?')
_NUMBER_BEFORE = re.compile(r"[-+.0-9eE]*\Z")
_NUMBER_AFTER = re.compile(r"[-+.0-9eE]*")
_NUMBER_CHARS_MAX: Final = 64  # of a bare number around a find: beyond it, none that a parser keeps


class Meant:
    """`text` is what is meant; `spelled(start, end)` says where that stands in the spelled text."""

    __slots__ = ("_ends", "_starts", "text")

    def __init__(self, raw: str, spelling: Spelling) -> None:
        """Time is linear in `raw`."""
        pieces: list[str] = []
        self._starts: list[int] = []  # in the meant text, of the character behind each escape
        self._ends: list[int] = []  # in the spelled text, of each escape
        at = length = 0
        for begin, end, char in _escapes(raw, spelling):
            pieces += (raw[at:begin], char)
            length += begin - at + 1
            self._starts.append(length)
            self._ends.append(end)
            at = end
        self.text = "".join((*pieces, raw[at:])) if pieces else raw

    def spelled(self, start: int, end: int) -> tuple[int, int]:
        """The place in the spelled text of what is meant from `start` to `end`, which is not empty."""
        return self._place(start), self._place(end)

    def _place(self, meant: int) -> int:
        escapes = bisect_right(self._starts, meant)
        return meant if not escapes else self._ends[escapes - 1] + meant - self._starts[escapes - 1]


def _escapes(raw: str, spelling: Spelling) -> Iterator[tuple[int, int, str]]:
    """Each escape: where it begins and ends, and the one character that it means."""
    if spelling == "json":
        if "\\" in raw:
            for found in _JSON.finditer(raw):
                yield found.start(), found.end(), _json_char(found[0])
        return
    if "%" not in raw and "+" not in raw:
        return
    for found in _URL.finditer(raw):
        at = found.start()
        if found[0] == "+":
            yield at, at + 1, " "
            continue
        octets = bytes.fromhex(found[0].replace("%", ""))
        try:
            chars = octets.decode("utf-8")
        except UnicodeDecodeError:
            chars = octets.decode("ascii", "surrogateescape").translate(_NO_SURROGATES)
        for char in chars:
            count = 3 * (1 if char == UNKNOWN and len(chars) == len(octets) else len(char.encode("utf-8")))
            yield at, at + count, char
            at += count


_NO_SURROGATES: Final = dict.fromkeys(range(0xD800, 0xE000), UNKNOWN)
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _json_char(escape: str) -> str:
    if escape[1] != "u":
        return _SHORT.get(escape[1], escape[1])
    if len(escape) == 12:  # RFC 8259, 7: a surrogate pair
        high, low = int(escape[2:6], 16), int(escape[8:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    code = int(escape[2:6], 16)
    return UNKNOWN if 0xD800 <= code < 0xE000 else chr(code)


def bare_numbers(raw: str, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """For each span, in order: the whole JSON number where it stands in one outside of strings, and whether it does.

    Strings are told line by line, since none holds a raw line end; so this holds for JSON, JSON lines and events.
    """
    strings = _STRING.finditer(raw)
    string = next(strings, None)
    for start, end in spans:
        while string is not None and string.end() <= start:
            string = next(strings, None)
        if string is not None and string.start() < end:
            yield start, end, False
            continue
        before = _NUMBER_BEFORE.search(raw[max(0, start - _NUMBER_CHARS_MAX) : start])
        after = _NUMBER_AFTER.match(raw, end, end + _NUMBER_CHARS_MAX)
        assert before is not None, "it matches the empty text"
        assert after is not None, "it matches the empty text"
        yield start - len(before[0]), after.end(), True
