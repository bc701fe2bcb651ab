"""Admission by the journal: from here on a call is owed exactly one closing entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gateway.proxy.claims import Claim
from gateway.proxy.counts import Counts
from gateway.proxy.exchange import NOTHING, About, Asked, Caller
from gateway.proxy.heads import Head
from gateway.proxy.message import Message
from gateway.proxy.recording import Recorder, Recording, Unrecorded
from gateway.proxy.redacting import Redacting
from gateway.proxy.rows import CallRows


class Admission:
    """Admits the calls of one worker under one configuration."""

    def __init__(self, recorder: Recorder, counts: Counts) -> None:
        self._recorder = recorder
        self._counts = counts

    def admit(
        self,
        message: Message,
        caller: Caller,
        head: Head,
        claim: Claim | None,
        *,
        body: bytes,
        received_ns: int,
        trace: str | None,
        redacting: Redacting | None = None,
        rows: CallRows | None = None,
    ) -> Recording | Unrecorded:
        """What closes the call; nothing where its route records nothing, or it passes for want of room.

        Raises:
            storage.errors.JournalFull, JournalStopped: 503, before the model is asked.
        """
        match = head.match
        route = match.route
        tenant = caller.tenant
        lane = head.lane
        if match.record == "none":
            self._counts.unrecorded(route.name)
            return Unrecorded(
                Asked(
                    decision="",
                    record="call",
                    caller=caller,
                    terms=lane.terms,
                    method=message.method,
                    path=match.stated,
                    received_ns=received_ns,
                    trace=trace,
                    about=NOTHING,
                    headers={},
                )
            )
        recorder = self._recorder
        if rows is None:
            about = lane.capturing.about(head.said, body)  # of the body as it came: case and subject become pseudonyms
            hidden = NOTHING if about is None else self.hidden(tenant, redacting)(about)
        else:
            hidden = rows.about
        asked = Asked(
            decision=recorder.journal.new_id() if claim is None else claim.decision,
            record=match.record,
            caller=caller,
            terms=lane.terms,
            method=message.method,
            path=match.stated,
            received_ns=received_ns,
            trace=trace,
            about=hidden,
            headers=head.recorded if redacting is None else redacting.headers,
            redacted=None if redacting is None else dict(redacting.stated),  # what is so far
        )
        recording = recorder.admit(
            asked,
            body if redacting is None else redacting.body,
            media=head.media if redacting is None else redacting.media,
            target=message.path if redacting is None else redacting.target,
            # with a key never: a repeat would name a decision that is nowhere
            may_pass=route.disk_full == "pass" and claim is None,
            redacting=redacting,
            rows=rows,
        )
        if recording is not None:
            return recording
        self._counts.unrecorded(route.name)
        return Unrecorded(asked)

    def hidden(self, tenant: str, redacting: Redacting | None) -> Callable[[About], About]:
        """What is recorded of a call's or row's `About`."""
        hide = partial(self._recorder.hidden, tenant)
        return hide if redacting is None else lambda about: redacting.about(hide(about))
