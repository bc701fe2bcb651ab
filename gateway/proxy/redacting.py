"""One route's redaction on its way: what of a call is recorded, made before it is.

Large bodies are redacted in a thread. A streamed answer passes to its caller untouched; the copy for the record is
held in memory until its end, since a number may stand across any of its pieces. So a killed worker loses what it
held of a stream (not its begin entry), and what would be too much to hold is withheld.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from config.redaction import Redact
from gateway.proxy.detectors import Detectors
from gateway.proxy.exchange import About, Answered
from gateway.proxy.limits import Budget
from gateway.proxy.message import Message
from gateway.proxy.redact import Copy, Keyed, Side, named, queried, said, withheld
from gateway.proxy.redact_text import Reason, Tally, without

if TYPE_CHECKING:  # the lane of a head has one of these
    from gateway.proxy.heads import Head

OFF_LOOP_BYTES = 16 * 1024  # of a body: what may take longer than 1 ms is not done on the loop

# one thread: it needs the interpreter all the time, and a second one would only take more of it from the loop
_THREAD: Final = ThreadPoolExecutor(1, thread_name_prefix="redaction")
_UNFINISHED: Final = {"withheld": "unfinished"}


class Redaction:
    """What one route hides, compiled once."""

    def __init__(self, redact: Redact, *, route: str, parse_bytes_max: int) -> None:
        """A body longer than `parse_bytes_max` is withheld: it is not parsed, so nobody knows what it holds."""
        self.route = route
        self.request = Side.of(redact.request, redact, route=route, bytes_max=parse_bytes_max)
        self.response = Side.of(redact.response, redact, route=route, bytes_max=parse_bytes_max)
        self.headers = {rule.name.lower(): rule for rule in redact.headers}
        self.query = {rule.name: rule for rule in redact.query}
        self.detectors = Detectors(redact.detect) if redact.detect else None


class Redacting:
    """The redaction of one call. `body` (None: withheld), `media`, `target` and `headers` are recorded of it."""

    __slots__ = (
        "_budget", "_held", "_held_bytes", "_keyed", "_media", "_redaction", "_taken_bytes", "_too_much", "body",
        "headers", "media", "stated", "target",
    )  # fmt: skip

    def __init__(self, redaction: Redaction, keyed: Keyed, budget: Budget) -> None:
        """Bytes that are held are held in `budget` until `let_go`."""
        self._redaction = redaction
        self._keyed = keyed
        self._budget = budget
        self._held: list[bytes] = []  # of the answer
        self._held_bytes = 0
        self._taken_bytes = 0  # of the budget
        self._media = ""
        self.body: bytes | None = None
        self.media = self.target = ""
        self.headers: Mapping[str, str] = {}
        self._too_much: Reason | None = None
        self.stated: dict[str, object] = {}  # what the begin entry says

    async def asked(self, message: Message, head: Head, body: bytes) -> None:
        """On return `body`, `media`, `target` and `headers` may be recorded; their bytes are held.

        Raises:
            Busy: there is no room for a copy.
        """
        redaction = self._redaction
        copied = Copy(body, {})
        if redaction.request is not None:
            make = partial(redaction.request.copy, body, media=head.media, coding=head.coding, keyed=self._keyed)
            copied = await _made(make, len(body))
            self.stated["request"] = copied.stated
        self.body = copied.body
        if copied.body is not None and copied.body is not body:
            self._budget.take(len(copied.body))
            self._taken_bytes += len(copied.body)
        tally = Tally()
        told = partial(said, self._keyed, redaction.route)
        self.target = self._found_in(queried(message.path, redaction.query, told, tally), "url", tally)
        self._state("target", tally)
        self.headers = self._headers(head.recorded, "request_headers")
        self.media = self._clear(head.media, "request_media")
        if redaction.response is not None:  # so it stays where the worker is killed
            self.stated["response"] = _UNFINISHED

    def about(self, about: About) -> About:
        """The same with nothing in its purpose, which stands in clear, that detectors find."""
        if about.purpose is None:
            return about
        return replace(about, purpose=self._clear(about.purpose, "purpose"))

    @property
    def holds(self) -> bool:
        """Whether the answer is redacted, so that its pieces must be held."""
        return self._redaction.response is not None

    def hold(self, piece: bytes, media: str) -> None:
        """Keep a piece of the answer, or nothing of it any more where it becomes too much."""
        side = self._redaction.response
        assert side is not None, "only what is redacted is held"
        if self._too_much is not None:
            return
        budget = self._budget
        self._media = media
        if self._held_bytes + len(piece) > side.bytes_max:
            self._too_much = "too_large"
        elif budget.held_bytes + len(piece) > budget.bytes_max:
            self._too_much = "memory_full"
        if self._too_much is None:
            budget.add(len(piece))
            self._taken_bytes += len(piece)
            self._held_bytes += len(piece)
            self._held.append(piece)
        else:
            self._held.clear()

    async def answered(self, answered: Answered, body: bytes | None, *, media: str) -> tuple[bytes | None, str]:
        """The answer's body as it is recorded, None where it is withheld, and its media type.

        `answered` then says what is stated.

        `body` is the whole answer, None where it was held.
        """
        copied: Copy | None = None
        if self._redaction.response is not None:
            raw = b"".join(self._held) if body is None else body
            copied = await _made(partial(self._copy, raw, media, answered.coding), len(raw))
        return self._said(answered, copied, body, media)

    def lost(self, answered: Answered) -> tuple[bytes | None, str]:
        """The same at once of what is held, and its media type, where the gateway gives up and nobody waits."""
        copied = None
        if self._redaction.response is not None:
            copied = Copy(None, _UNFINISHED)
            if self._held or self._too_much is not None:
                copied = self._copy(b"".join(self._held), self._media, answered.coding)
        return self._said(answered, copied, None, self._media)

    def let_go(self) -> None:
        """Nothing is held any more."""
        self._held.clear()
        self._budget.give_back(self._taken_bytes)
        self._taken_bytes = self._held_bytes = 0

    def _copy(self, raw: bytes, media: str, coding: str) -> Copy:
        if self._too_much is not None:
            return withheld(self._too_much)
        side = self._redaction.response
        assert side is not None, "only what is redacted is copied"
        return side.copy(raw, media=media, coding=coding, keyed=self._keyed)

    def _said(
        self, answered: Answered, copied: Copy | None, body: bytes | None, media: str
    ) -> tuple[bytes | None, str]:
        self._held.clear()
        answered.headers = self._headers(answered.headers, "response_headers")
        if copied is not None:
            self.stated["response"] = copied.stated
        media = self._clear(media, "response_media")
        answered.redacted = self.stated
        return (body if copied is None else copied.body), media

    def _headers(self, headers: Mapping[str, str], name: str) -> Mapping[str, str]:
        if not headers:
            return headers
        tally = Tally()
        kept = named(headers, self._redaction.headers, partial(said, self._keyed, self._redaction.route), tally)
        kept = {name: self._found_in(value, "json", tally) for name, value in kept.items()}
        self._state(name, tally)
        return kept

    def _clear(self, text: str, name: str) -> str:
        """What stands in clear in an entry, without what detectors find."""
        tally = Tally()
        text = self._found_in(text, "json", tally)
        self._state(name, tally)
        return text

    def _found_in(self, text: str, spelling: str, tally: Tally) -> str:
        detectors = self._redaction.detectors
        if detectors is None:
            return text
        return without(text, detectors, "url" if spelling == "url" else "json", tally)

    def _state(self, name: str, tally: Tally) -> None:
        if stated := tally.stated():
            self.stated[name] = stated


async def _made(make: partial[Copy], size_bytes: int) -> Copy:
    if size_bytes <= OFF_LOOP_BYTES:
        return make()
    return await asyncio.get_running_loop().run_in_executor(_THREAD, make)
