"""Evidence modes: what of a call's evidence must have happened before its answer may end. A class for each.

`strict` (`Recording`): durable. `spool`: written, so that it survives the end of this process; a sync follows within
50 ms. `best_effort`: nothing; and under pressure a call is shed, which its journal counts and states in a gap entry.
What sheds is in the class of best-effort calls alone: strict and spooled ones have no way to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from gateway.proxy.exchange import Answered, Asked
from gateway.proxy.recording import Recorder, Recording
from gateway.proxy.redacting import Redacting
from gateway.proxy.rows import CallRows
from storage.journal import Appended
from storage.pressure import Level


class Spooled(Recording):
    """Awaited until it is written. No receipt: a receipt speaks of what is durable."""

    __slots__ = ()

    awaits_sync: ClassVar[bool] = False

    def headers(self, appended: Appended) -> bytes:  # noqa: ARG002 - of the one that it stands in for
        """The header line that names the decision."""
        return self._named()

    def _named(self) -> bytes:
        return b"Decision-Id: %b\r\n%b" % (self.decision.encode("ascii"), self._rows_lines)


class BestEffort(Spooled):
    """Awaited by nobody, and shed under pressure unless it was begun: then it is owed its closing entry.

    A short answer never waits for the disk. A stream waits where two of its chunks are on their way, as in every mode:
    memory stays bounded.
    """

    __slots__ = ("holds",)

    sheds: ClassVar[bool] = True

    def __init__(
        self,
        recorder: Recorder,
        asked: Asked,
        body: bytes | None,
        *,
        media: str,
        target: str,
        redacting: Redacting | None = None,
        rows: CallRows | None = None,
    ) -> None:
        super().__init__(recorder, asked, body, media=media, target=target, redacting=redacting, rows=rows)
        self.holds = True  # False once it is shed: the end of its answer waits for nothing

    def begin(self) -> None:
        """Append the begin entry, or shed the call."""
        if not self._shed_if_pressed():
            super().begin()

    async def begun(self) -> bytes:
        """The header that names the decision; none where the call was shed."""
        self.begin()
        return self._named() if self.holds else b""

    async def piece(self, data: bytes, media: str) -> None:
        """Keep a piece of a streamed answer, unless the call was shed."""
        if self.holds:
            await super().piece(data, media)

    async def close(self, answered: Answered, body: bytes | None, *, media: str) -> bytes:
        """Append the closing entry without waiting, or shed the call; the header that names it, if it was not."""
        if not self.holds or self._shed_if_pressed():
            return b""
        self._close(*await self._last(answered, body, media)).add_done_callback(self._lost)
        return self._named()

    def lose(self, answered: Answered) -> None:
        """As any recording, unless it was shed or is shed now."""
        if self.holds and not self._closed and not self._shed_if_pressed():
            super().lose(answered)

    def _give_up(self) -> None:
        """Its entry found no room, which it was not to wait for: shed like the others."""
        self._journal.shed(self.asked.caller.tenant, self.asked.terms.route)

    def _shed_if_pressed(self) -> bool:
        """Whether the call is shed, now or before."""
        if self.holds and self._begun is None and not self._closed and self._journal.pressure >= Level.SHED:
            self.holds, self._closed, self._body = False, True, None
            self._unreserve()
            self._journal.shed(self.asked.caller.tenant, self.asked.terms.route)
        return not self.holds


KINDS: Final[Mapping[str, type[Recording]]] = {"strict": Recording, "spool": Spooled, "best_effort": BestEffort}
