"""JSON as strangers send it, read within bounds or not at all. Pure.

What two readers could understand differently is not read: a key that stands twice, text that is no Unicode. NaN and
infinities are no JSON (RFC 8259, 6) but Python servers write them; they are read as such and refused where a number is
asked for. Integers keep all their digits.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, Final, TypeVar

import zstandard

from storage.protocols.faults import Unreadable

DEPTH_MAX: Final = 64  # of nested lists and objects; the parsers behind the gateway differ beyond some hundreds
ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024  # RFC 9659: what an HTTP sender may ask of a receiver's memory
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)  # never fails at a quote: linear
_NOT_BRACKETS: Final = {code: None for code in range(128) if chr(code) not in "[]{}"}
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKET_OR_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

_T = TypeVar("_T")


class _TwiceError(ValueError):
    """A key that stands twice in one object."""


def plain(raw: bytes, where: str, bytes_max: int) -> bytes:
    """`raw` without its content coding, told by its first bytes: gzip, zlib and zstd; never more than `bytes_max`.

    Brotli has no mark and is not read: it ends as `not JSON`.

    Raises:
        Unreadable: it is larger than `bytes_max`, before or after, or the coding is broken.
    """
    if len(raw) > bytes_max:
        raise Unreadable(where, f"{len(raw)} bytes, at most {bytes_max} are parsed")
    try:
        if raw.startswith((b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")):
            inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            opened = inflater.decompress(raw, bytes_max + 1)
            whole = inflater.eof and not inflater.unused_data
        elif raw.startswith(b"\x28\xb5\x2f\xfd"):
            expander = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
            with expander.stream_reader(raw, read_across_frames=True) as reader:
                opened = reader.read(bytes_max + 1)
            whole = True
        else:
            return raw
    except (zlib.error, zstandard.ZstdError, MemoryError) as error:
        raise Unreadable(where, "its content coding is broken") from error
    if len(opened) > bytes_max:
        raise Unreadable(where, f"more than {bytes_max} bytes when expanded")
    if not whole:
        raise Unreadable(where, "its content coding is broken")
    return opened


def parsed(raw: bytes, where: str) -> Any:
    """The JSON document in `raw`; `raw` is already bounded.

    Raises:
        Unreadable: in stable words.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(where, "not UTF-8") from error
    return parsed_text(text, where)


def parsed_text(text: str, where: str) -> Any:
    """As `parsed`, of text."""
    _check_depth(text, where)
    try:
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _TwiceError as error:
        raise Unreadable(where, "a key stands twice") from error
    except UnicodeEncodeError as error:
        raise Unreadable(where, "not Unicode") from error
    except json.JSONDecodeError as error:
        raise Unreadable(where, "not JSON") from error
    except (ValueError, RecursionError) as error:  # an integer of more digits than Python converts
        raise Unreadable(where, "a number is too long") from error
    return value


def json_part(raw: bytes, where: str) -> bytes:
    """The leading JSON object of a body that goes on in binary.

    Raises:
        Unreadable: it does not begin with an object, or the object does not end.
    """
    if not raw.lstrip(b" \t\r\n").startswith(b"{"):
        raise Unreadable(where, "not JSON")
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(raw):
        first = raw[found.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
            if depth == 0:
                return raw[: found.end()]
        if depth > DEPTH_MAX:
            raise Unreadable(where, f"nested more than {DEPTH_MAX} deep")
    raise Unreadable(where, "not JSON")


def typed(value: Any, kind: type[_T], where: str, what: str) -> _T:
    """`value` if it is of `kind`.

    Raises:
        Unreadable: it is not; `what` names the place that the protocol gives it.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Unreadable(where, f"{what} is not what the protocol says")
    return value


def _check_depth(text: str, where: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return
    brackets = _NOT_ASCII.sub("", _STRINGS.sub("", text)).translate(_NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return
        brackets = brackets.replace("[]", "").replace("{}", "")
    if brackets.count("[") + brackets.count("{") > 0:
        raise Unreadable(where, f"nested more than {DEPTH_MAX} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _TwiceError
    return made


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)
