"""The head of a request, as whoever handles it sees it."""

from __future__ import annotations

from typing import Protocol

from aiohttp import HttpVersion
from multidict import CIMultiDictProxy

from gateway.proxy.headers import RawHeaders


class Message(Protocol):
    """A request's head as aiohttp's parser leaves it: there it is a class of C, though it is typed as a tuple."""

    @property
    def method(self) -> str:
        """As it came."""

    @property
    def path(self) -> str:
        """The target, query included."""

    @property
    def version(self) -> HttpVersion:
        """Of HTTP."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """By name."""

    @property
    def raw_headers(self) -> RawHeaders:
        """As they came, in their order."""

    @property
    def should_close(self) -> bool:
        """Whether the connection ends with this message."""

    @property
    def upgrade(self) -> bool:
        """Whether another protocol is asked for."""

    @property
    def chunked(self) -> bool:
        """Whether the body is."""
