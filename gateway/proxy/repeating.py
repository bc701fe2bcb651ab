"""A repeat: the first call's answer once more, and an entry that says so.

The entry is of kind `call`, has an id of its own and names the first decision in `repeats`. It commits to no
parts: what was asked is what the first call asked, byte for byte, and the answer is the first one's. It is durable
before the answer ends, and counts as every call does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.proxy import exchange
from gateway.proxy.answers import Answer, length_line
from gateway.proxy.exchange import Answered, Asked
from gateway.proxy.inbound import Reply
from gateway.proxy.recording import Recorder
from storage.errors import JournalStopped, StorageError
from storage.firsts import First

_BODILESS = frozenset({204, 304})


class Repetition:
    """The evidence of one admitted repeat, in the place of a `Recording`."""

    holds = True
    waits_for_whole = False

    def __init__(self, recorder: Recorder, asked: Asked, first: First) -> None:
        """Admit it: it is owed a closing entry from here on.

        Raises:
            storage.errors.JournalFull, JournalStopped: 503.
        """
        self.asked = asked
        self.decision = asked.decision
        self._recorder = recorder
        self._first = first
        self._tried = False
        recorder.journal.admit(asked.caller.tenant, asked.terms.route)

    def begin(self) -> None:
        """It is never open for long."""

    async def begun(self) -> bytes:
        """Nothing streams."""
        return b""

    async def piece(self, data: bytes, media: str) -> None:
        """Nothing streams."""

    async def close(self, answered: Answered, _body: bytes | None, *, media: str) -> bytes:  # noqa: ARG002
        """Append the entry, which is durable on return; the header that names it.

        Raises:
            storage.errors.JournalStopped: it never will be.
        """
        self._tried = True
        recorder = self._recorder
        draft = exchange.repeat(self.asked, answered, ts_ns=recorder.clock_ns(), first=self._first.decision)
        try:
            await recorder.journal.append(draft, closes=True)
        except JournalStopped:
            raise
        except StorageError:
            recorder.journal.lose()
            raise
        return b"Decision-Repeat: %b\r\n" % self.decision.encode("ascii")

    def lose(self, answered: Answered) -> None:  # noqa: ARG002
        """Give it up, where `close` was not tried: a gap entry says so."""
        if not self._tried:
            self._tried = True
            self._recorder.journal.lose()


def _of_request(redacted: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """What was hidden, but for the answer: a repeat records none."""
    return None if redacted is None else {name: told for name, told in redacted.items() if name != "response"}


async def repeat(answer: Answer, first: First) -> Reply:
    """Record the repeat, then give the first call's answer again, whole."""
    answered = Answered(
        status=first.status,
        error=None,
        state="client_aborted" if answer.request.gone else "complete",
        streamed=False,
        bytes=0,
        first_us=None,
        upstream_us=None,
        total_us=int((asyncio.get_running_loop().time() - answer.received_at) * 1e6),
        model=None,
        headers={},
        redacted=_of_request(answer.recording.asked.redacted),
    )
    recorded = await answer.recording.close(answered, None, media="")
    answer.ended(answered)
    keep_alive = answer.keep_alive
    length = b"" if first.status in _BODILESS else length_line(len(first.body))
    closing = b"" if keep_alive else b"Connection: close\r\n"
    lines = (first.head, b"Idempotency-Replayed: true\r\n", recorded, length, closing, b"\r\n", first.body)
    return Reply(b"".join(lines), keep_alive=keep_alive)
