"""Which headers pass, in bytes, without a copy of what does not change (pure).

Hop-by-hop headers end here (RFC 9110 §7.6.1): those named there, those that `Connection` names, and the framing, which
each side sets for itself. Towards the model go no header of ours (`Answerable-…`: they name people) and no credential
that was meant for us. Towards the caller go no `Decision-…` headers of the upstream: only the gateway writes these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
# what `allow` lists need not name: what a body means, and what Connection takes out
NEVER_FILTERED = frozenset({b"content-type", b"content-encoding", b"connection"})
# framing and routing of one hop: set anew for the next
REQUEST_DROPPED = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
ANSWER_DROPPED = HOP_BY_HOP | {b"content-length", b"alt-svc"}
OURS_IN_REQUESTS = b"answerable-"
OURS_IN_ANSWERS = b"decision-"
VIA = b"Via: 1.1 answerable\r\n"  # RFC 9110 §7.6.3: a gateway must add itself towards the origin
NAMES_MAX = 1024  # spellings of header names remembered in lower case; more are lowered each time

_lowered: dict[bytes, bytes] = {}


def lowered(name: bytes) -> bytes:
    """`name` in lower case, remembered: the same few spellings come in every message."""
    known = _lowered.get(name)
    if known is None:
        known = name.lower()
        if len(_lowered) < NAMES_MAX:
            _lowered[name] = known
    return known


def connection_names(value: bytes) -> frozenset[bytes]:
    """The header names that a `Connection` value lists, in lower case (RFC 9110 §7.6.1)."""
    return frozenset(name.strip(b" \t").lower() for name in value.split(b","))


def passed(headers: RawHeaders, dropped: frozenset[bytes], ours: bytes) -> list[bytes]:
    """The header lines that go on, in order, each ending in CRLF.

    Dropped are the names in `dropped`, names beginning with `ours`, and those that a `Connection` header lists.
    """
    lines = []
    listed: frozenset[bytes] = frozenset()
    for name, value in headers:
        low = lowered(name)
        if low in dropped or low.startswith(ours):
            if low == b"connection":
                listed |= connection_names(value)
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    plain = listed - dropped
    if plain:
        lines = [line for line in lines if line[: line.index(b":")].lower() not in plain]
    return lines


def only(headers: RawHeaders, allowed: frozenset[bytes] | None) -> RawHeaders:
    """The headers that `allowed` names, in lower case, and those never filtered; all of them where it is None."""
    if allowed is None:
        return headers
    return [pair for pair in headers if (low := lowered(pair[0])) in allowed or low in NEVER_FILTERED]


def is_clean(head: bytes, lines: int) -> bool:
    """Whether `head` holds exactly `lines` line ends and no stray CR, LF or NUL: nobody has smuggled a header in."""
    return head.count(b"\n") == lines and head.count(b"\r") == lines and b"\0" not in head


def status_line(status: int) -> bytes:
    """The status line for `status`, with the registered reason where there is one."""
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d \r\n" % status


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def recorded(headers: RawHeaders, allowed: frozenset[bytes]) -> dict[str, str]:
    """The headers on the route's allow-list, by lower-case name; repeated ones joined with a comma (RFC 9110 §5.3)."""
    kept: dict[str, str] = {}
    for name, value in headers:
        low = lowered(name)
        if low in allowed:
            key = low.decode("ascii")
            text = value.strip(b" \t").decode("latin-1")
            kept[key] = f"{kept[key]}, {text}" if key in kept else text
    return kept


def media(value: str) -> str:
    """A media type cut to what a part may state."""
    text = value.strip()[:128]
    return text if text and text.isprintable() else "application/octet-stream"


def names(listed: Iterable[str]) -> frozenset[bytes]:
    """Header names from the configuration, as they are compared here."""
    return frozenset(name.lower().encode("ascii") for name in listed)
