"""What stands between the connections of a worker and whoever serves now: connections stay, handlers are replaced."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from config.errors import AnswerableError
from gateway.proxy.forwarded import Hop
from gateway.proxy.framing import Cut
from gateway.proxy.handler import Handler
from gateway.proxy.heads import Head
from gateway.proxy.inbound import Inbound, Reply, Whole
from gateway.proxy.message import Message


class Front:
    """Passes each request on to the handler of now; what the one before has understood already is its own."""

    __slots__ = ("_before", "_now")

    def __init__(self, handler: Handler) -> None:
        self._now = handler
        self._before: Handler | None = None

    def replace(self, handler: Handler) -> None:
        """`handler` serves from now on; the one before may still be handed what it knew, until `forget`."""
        self._before, self._now = self._now, handler

    def forget(self, handler: Handler) -> None:
        """Nothing waits for this one any more."""
        if self._before is handler:
            self._before = None

    def __call__(self, request: Inbound) -> Coroutine[Any, Any, Reply]:
        """Handle one request; whoever begins it ends it."""
        if self._before is not None:  # a moment ago: a head that it knew may wait for its task
            stream = request.stream
            if isinstance(stream, Whole) and self._before.knows(stream.seen):
                return self._before(request)
        return self._now(request)

    def direct(self, request: Inbound) -> bool:
        """As `Handler.direct`; the request's head was `seen` a moment ago, so it is one of the handler of now."""
        return self._now.direct(request)

    def seen(self, cut: Cut, hop: Hop | None) -> tuple[Message, Head] | None:
        """As `Handler.seen`."""
        return self._now.seen(cut, hop)

    def refused(self, error: AnswerableError) -> None:
        """As `Handler.refused`, of what never became a request."""
        self._now.refused(error)
