"""How a call ends for its caller: whole and short, failed, or (see streams.py) piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from config.errors import AnswerableError
from gateway.proxy import headers as heads
from gateway.proxy.call import Call
from gateway.proxy.claims import Claim
from gateway.proxy.exchange import Answered, State
from gateway.proxy.exchangelog import Exchange
from gateway.proxy.idempotency import IDEMPOTENT, NEVER_SENT
from gateway.proxy.inbound import Inbound, Reply, error_body, error_lines, error_reply, new_request_id
from gateway.proxy.lanes import Lane, Models
from gateway.proxy.recording import Evidence
from gateway.proxy.tracing import Span

PATIENCE_S = 1.0  # an answer that is not complete by then is begun in the journal, and streamed
_CLOSE = b"Connection: close\r\n"


class Answer:
    """The answer to one admitted call."""

    __slots__ = (
        "_keeps",
        "_models",
        "_now",
        "_told",
        "call",
        "claim",
        "ends_connection",
        "lane",
        "origin",
        "patience_until",
        "received_at",
        "recording",
        "request",
        "sent_bytes",
        "span",
    )  # fmt: skip

    def __init__(
        self,
        request: Inbound,
        lane: Lane,
        recording: Evidence,
        models: Models,
        *,
        sent_bytes: int,
        received_at: float,
        keeps: Callable[[Inbound], bool],
        claim: Claim | None = None,
    ) -> None:
        """`sent_bytes` are those of the request's body; `received_at` is on the loop's clock, in seconds.

        `keeps` is asked when the head is made; `claim` is that of a call with an idempotency key.
        """
        self.request = request
        self.lane = lane
        self.recording = recording
        self.sent_bytes = sent_bytes
        self.span: Span | None = None  # of a call that is traced
        self.origin = lane.pool.origin  # that the model was asked at
        self.ends_connection = False  # set where only the connection's end can end the answer
        self._keeps = keeps
        self._models = models
        self.received_at = received_at
        self.claim = claim
        self.patience_until = received_at + PATIENCE_S
        self._now = asyncio.get_running_loop().time
        self.call: Call | None = None  # the last attempt
        self._told = False

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow on the caller's connection."""
        return not self.ends_connection and self._keeps(self.request)

    def late(self) -> None:
        """Patience is over without a complete answer: the call is begun in the journal."""
        self.recording.begin()

    async def whole(self, call: Call) -> Reply:
        """Close the call with its complete answer, then give it to the caller in one piece."""
        answered, body = self.taken(call)
        recorded = await self.recording.close(answered, body, media=media_of(call))
        self.ended(answered)
        if self.claim is not None:
            await self.claim.keep(call.status, call.headers, lines_of(call) + recorded, body)
        keep_alive = self.keep_alive
        return Reply(self.data(call, recorded, body, keep_alive=keep_alive), keep_alive=keep_alive)

    def taken(self, call: Call) -> tuple[Answered, bytes]:
        """A complete answer as the closing entry states it, and its body."""
        body = call.drain()
        state: State = "client_aborted" if self.request.gone else "complete"
        return self.answered(call, state, streamed=False), body

    def data(self, call: Call, recorded: bytes, body: bytes, *, keep_alive: bool) -> bytes:
        """A complete answer as it goes onto the wire; `recorded` are the lines that name its decision."""
        if call.bodiless:
            length = b"" if call.declared_bytes is None or call.status == 204 else length_line(call.declared_bytes)
        else:
            length = length_line(len(body))
        return b"".join((lines_of(call), recorded, length, b"" if keep_alive else _CLOSE, b"\r\n", body))

    async def failed(self, error: AnswerableError) -> Reply:
        """Close the call with its failure and what had come, then tell the caller, to whom nothing was sent yet."""
        call = self.call
        body = call.drain() if call is not None else b""
        answered = self.answered(call, "upstream_aborted", streamed=False, status=error.status, error=error.code)
        recorded = await self.recording.close(answered, body, media=media_of(call) if call else "")
        self.ended(answered)
        request_id = self.recording.decision or new_request_id()
        if self.claim is not None:
            await self._keep_failure(self.claim, error, error_lines(error, extra=recorded), request_id)
        return error_reply(
            error,
            request_id,
            keep_alive=self.keep_alive,
            extra=recorded,
            body=self.request.head.method != "HEAD",
        )

    async def _keep_failure(self, claim: Claim, error: AnswerableError, lines: bytes, request_id: str) -> None:
        # an idempotent method may have been sent on a kept connection before the last attempt found none
        attempted = self.call is not None and self.request.head.method in IDEMPOTENT
        if error.code in NEVER_SENT and not attempted:
            await claim.release()
        else:
            await claim.keep(error.status, (), lines, error_body(error, request_id))

    def head(self, call: Call, ours: bytes, *, keep_alive: bool) -> bytes:
        """Status line and headers for the caller; `ours` are whole lines, framing included."""
        return b"%b%b%b\r\n" % (lines_of(call), ours, b"" if keep_alive else _CLOSE)

    def answered(
        self, call: Call | None, state: State, *, streamed: bool, status: int | None = None, error: str | None = None
    ) -> Answered:
        """What the closing entry says; without `call` the model was never reached."""
        now = self._now()
        lane = self.lane
        total_us = int((now - self.received_at) * 1e6)
        if call is None:
            return Answered(
                status=status or 502,
                error=error,
                state=state,
                streamed=streamed,
                bytes=0,
                first_us=None,
                upstream_us=None,
                total_us=total_us,
                model=lane.model((), self._models),
                headers={},
            )
        return Answered(
            status=call.status if status is None else status,
            error=error,
            state=state,
            streamed=streamed,
            bytes=call.received_bytes,
            first_us=int((call.first_byte_at - call.started_at) * 1e6) if call.first_byte_at else None,
            upstream_us=int(((call.last_byte_at or now) - call.started_at) * 1e6),
            total_us=total_us,
            model=lane.model(call.headers, self._models),
            headers=heads.recorded(call.headers, lane.recorded_response) if lane.recorded_response else {},
            coding=call.head.coding if call.head is not None else "",
        )

    def lost(self) -> Answered:
        """What can be said where the gateway itself gave up."""
        return self.answered(self.call, "gateway_lost", streamed=False, status=500, error="gateway_lost")

    def ended(self, answered: Answered) -> None:
        """The call is closed, and its closing entry durable, or on its way where the gateway gave up."""
        if self._told:  # it was closed, and broke off behind that
            return
        self._told = True
        lane = self.lane
        meter, took_s = lane.meter, self._now() - self.received_at
        meter.call_s.add(took_s)
        if answered.first_us is not None:
            meter.first_us.add(answered.first_us)
        if answered.upstream_us is not None and answered.error is None:
            meter.upstream_us.add(answered.upstream_us)
        span = self.span
        if lane.tell or span is not None:
            recording = self.recording
            address = self.request.client if lane.addresses else None
            ended = Exchange(recording.asked, answered, recording.holds, self.sent_bytes, round(took_s * 1e6), address)
            for tell in lane.tell:
                tell(ended)
            if span is not None and lane.tracing is not None:
                lane.tracing.end(span, ended, self.call, received_at=self.received_at, origin=self.origin)


def lines_of(call: Call) -> bytes:
    """Status line and headers of an answer whose head is there, as the caller gets them."""
    assert call.head is not None
    return call.head.lines


def media_of(call: Call) -> str:
    """The answer's media type as the part states it."""
    return call.head.media if call.head is not None else heads.media("")


def length_line(count: int) -> bytes:
    """The Content-Length line."""
    return b"Content-Length: %d\r\n" % count
