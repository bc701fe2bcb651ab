"""Whom a request comes from, where proxies stand before the gateway (RFC 7239, and `X-Forwarded-For`). Pure.

Only what a trusted proxy has written is believed: from the last hop backwards, as long as the hop that wrote an
element is trusted itself. The first address that is not is the client's. Whatever cannot be read ends the walk at
the hop before it. Proxies write one of the two headers and let the other through as a client wrote it, so only the
one that the configuration names is looked at, and the other ends here (RFC 7239 §8.1).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from gateway.proxy.headers import RawHeaders, lowered

FORWARDED, FOR_OLDER = b"forwarded", b"x-forwarded-for"
_ABOUT_PROXIES = frozenset({FORWARDED, b"x-real-ip"})
_OLDER_PREFIX = b"x-forwarded-"
HOPS_MAX = 32  # a longer chain is no longer believed
# a parameter of a forwarded-element: a token, then a token or a quoted string (RFC 7239 §4)
_PAIR = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+))\s*")
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9A-Za-z._-]+)?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Hop(NamedTuple):
    """A trusted proxy at the other end of a connection: its address, and the header that it writes, in lower case."""

    address: str
    header: bytes


def is_about_proxies(name: bytes) -> bool:
    """Whether a header, in lower case, tells of hops: from a stranger it is neither believed nor passed on."""
    return name in _ABOUT_PROXIES or name.startswith(_OLDER_PREFIX)


def is_trusted(address: str | None, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks; an IPv4 address in IPv6's spelling counts as what it is."""
    known = _address(address or "")
    return known is not None and any(known.version == each.version and known in each for each in networks)


def client(hop: Hop, headers: RawHeaders, networks: Sequence[Network]) -> str:
    """The client's address: the first one, from the last hop backwards, that is not in `networks`."""
    found = hop.address
    for address in reversed(_hops(headers, hop.header)[-HOPS_MAX:]):
        if address is None:
            break
        found = address
        if not is_trusted(address, networks):
            break
    return found


def passed_on(headers: RawHeaders, hop: Hop | None) -> RawHeaders:
    """The headers as the model may get them: what tells of hops only from a trusted one, with that hop behind it.

    `hop` is the other end of the connection where it is trusted, else None.
    """
    kept = [pair for pair in headers if not is_about_proxies(lowered(pair[0]))]
    if hop is None:
        return headers if len(kept) == len(headers) else kept
    untold = FOR_OLDER if hop.header == FORWARDED else FORWARDED
    told = [pair for pair in headers if is_about_proxies(name := lowered(pair[0])) and name != untold]
    if hop.header == FORWARDED:
        node = f'"[{hop.address}]"' if ":" in hop.address else hop.address
        return [*kept, *told, (b"Forwarded", f"for={node}".encode("ascii"))]
    address = hop.address.encode("ascii")
    places = [at for at, (name, _) in enumerate(told) if lowered(name) == FOR_OLDER]
    if not places:
        return [*kept, *told, (b"X-Forwarded-For", address)]
    name, value = told[places[-1]]
    told[places[-1]] = (name, value + b", " + address)
    return [*kept, *told]


def _hops(headers: RawHeaders, header: bytes) -> list[str | None]:
    """The addresses that hops have written, first to last; None for one that is hidden, or cannot be read."""
    said = b",".join(value for name, value in headers if lowered(name) == header).decode("latin-1")
    if not said:
        return []
    if header == FORWARDED:
        return [_named(element) for element in _elements(said)]
    return [_node(each.strip()) for each in said.split(",")]


def _elements(text: str) -> list[str]:
    """Split at commas outside of quotes."""
    elements, start, quoted, escaped = [], 0, False, False
    for at, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            elements.append(text[start:at])
            start = at + 1
    return [*elements, text[start:]]


def _named(element: str) -> str | None:
    """The node of an element's one `for`; None unless all of the element can be read."""
    found: str | None = None
    at = 0
    while True:
        pair = _PAIR.match(element, at)
        if pair is None:
            return None
        if pair[1].lower() == "for":
            if found is not None:
                return None
            found = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
        at = pair.end()
        if at == len(element):
            return None if found is None else _node(found)
        if element[at] != ";":
            return None
        at += 1


def _node(text: str) -> str | None:
    shape = _NODE.fullmatch(text)
    known = _address((shape[1] or shape[2]) if shape else text)
    return None if known is None else str(known)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        known = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return mapped or known
