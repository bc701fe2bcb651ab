"""The path of one call through the gateway, read from the top down.

Who calls, which route, the whole request under its limits, admission by the journal, the model, the closing entry,
and only then the end of the answer. Whatever goes wrong after admission is closed in the journal with its true
state too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from config.errors import AnswerableError
from gateway.proxy.admission import Admission
from gateway.proxy.answers import Answer
from gateway.proxy.call import Call
from gateway.proxy.callers import Callers
from gateway.proxy.calling import ask, ask_one_of
from gateway.proxy.claims import Claim, Claims
from gateway.proxy.counts import Counts
from gateway.proxy.direct import Driver
from gateway.proxy.errors import (
    BadRequest,
    HeadTooLarge,
    NotForwarded,
    UpstreamFailed,
    UpstreamSlow,
)
from gateway.proxy.exchange import NOTHING, Asked, Caller
from gateway.proxy.exchangelog import ExchangeLog
from gateway.proxy.forwarded import Hop
from gateway.proxy.framing import Cut
from gateway.proxy.heads import Head, Heads
from gateway.proxy.inbound import Inbound, Reply, Whole, error_reply, new_request_id
from gateway.proxy.intake import Intake
from gateway.proxy.lanes import Lane, Models
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.message import Message
from gateway.proxy.own import Own
from gateway.proxy.quotas import Quotas
from gateway.proxy.recording import Recorder
from gateway.proxy.redacting import Redacting
from gateway.proxy.repeating import Repetition, repeat
from gateway.proxy.replicas import Seat, Steering
from gateway.proxy.routes import Routes
from gateway.proxy.streams import stream
from storage.errors import JournalFull
from storage.firsts import First

ENDS_CONNECTION = frozenset({NotForwarded.code, HeadTooLarge.code, BadRequest.code})


class Handler:
    """Handles every request of one worker."""

    def __init__(
        self,
        *,
        intake: Intake,
        callers: Callers,
        routes: Routes,
        lanes: Sequence[Lane],
        models: Models,
        recorder: Recorder,
        budget: Budget,
        gauge: Gauge,
        counts: Counts,
        own: Own,
        claims: Claims,
        quotas: Quotas | None = None,
        log: ExchangeLog | None,
    ) -> None:
        """All parts are the worker's own; `draining` is set when it shall close connections after their answers."""
        self._intake = intake
        self._callers = callers
        self._routes = routes
        self._lanes = lanes
        self._models = models
        self._recorder = recorder
        self._budget = budget
        self._gauge = gauge
        self._counts = counts
        self._own = own
        self._quotas = quotas
        self._claims = claims
        self._log = log
        self._heads = Heads()
        self._now = asyncio.get_running_loop().time
        self.draining = False
        self._handled = 0  # by tasks
        self._admission = Admission(recorder, counts)
        self._driver = Driver(
            () if quotas is not None else lanes,  # which are asked for off the loop
            callers=callers,
            intake=intake,
            admission=self._admission,
            budget=budget,
            gauge=gauge,
            counts=counts,
            models=models,
            keeps=self._keeps,
            exchange=self._exchange,
            told=self._told,
        )

    async def __call__(self, request: Inbound) -> Reply:
        """Answer one request; errors in the one shape."""
        return await self._told(request, self._handle(request))

    def direct(self, request: Inbound) -> bool:
        """Answer a request whose head was seen before without a task, if it is of the usual kind (`direct.py`)."""
        return self._driver.begin(request)

    @property
    def under_way(self) -> int:
        """Requests, from their head to their answer's end."""
        return self._handled + self._driver.under_way

    async def _told(self, request: Inbound, work: Coroutine[Any, Any, Reply]) -> Reply:
        """What `work` answers; its errors in the one shape."""
        self._handled += 1
        try:
            return await work
        except AnswerableError as error:
            if request.answering:  # its head is out: no other answer can follow
                request.abort(reset=True)
                return Reply(b"", keep_alive=False)
            request_id = new_request_id()
            if not request.admitted:
                self.refused(error, request_id)
            return error_reply(
                error, request_id, keep_alive=self._keeps(request, error), body=request.head.method != "HEAD"
            )
        finally:
            self._handled -= 1

    def seen(self, cut: Cut, hop: Hop | None) -> tuple[Message, Head] | None:
        """What a head of these bytes means, if one was parsed and understood before; `hop` as `Wire.hop`."""
        return self._heads.find_bytes(cut, hop)

    def knows(self, head: Head) -> bool:
        """Whether it was this handler who understood the head."""
        return any(lane is head.lane for lane in self._lanes)

    def refused(self, error: AnswerableError, request_id: str = "") -> None:
        """Count a request that was refused before admission; its id is what its caller was told, if anything."""
        self._counts.refused(error.code)
        if self._log is not None:
            self._log.refused(error, request_id)
        if not isinstance(error, JournalFull):  # which the journal has counted itself
            self._recorder.refused()

    def _keeps(self, request: Inbound, error: AnswerableError | None = None) -> bool:
        # who asks for a tunnel, or sends a head that others read otherwise, has nothing to say to us behind it
        whole = error is None or (request.stream.is_eof() and error.code not in ENDS_CONNECTION)
        return request.keeps_alive and whole and not self.draining

    async def _handle(self, request: Inbound) -> Reply:
        received_ns = time.time_ns()
        message = request.head
        stream = request.stream
        head = stream.seen if isinstance(stream, Whole) else self._heads.find(message, request.wire.hop)
        if head is None:
            path = message.path.partition("?")[0]
            self._intake.check_head(request)
            if path.startswith("/-/"):
                return await self._own.answer(path, request, keep_alive=self._keeps(request))
            credential = self._callers.credential(message.raw_headers)
        else:
            credential = head.credential
        caller = self._callers.by_key(credential, request)
        if caller is None:
            caller = await self._callers.by_token(credential)
        match = self._routes.match(path) if head is None else head.match
        self._lanes[match.index].check_scopes(caller)
        if self._quotas is not None:
            await self._quotas.take(caller, received_ns)
        self._gauge.enter()
        try:
            if head is None:
                self._intake.check_body(request)
            body = self._intake.at_hand(request)
            if body is None:
                body = await self._intake.arriving(request)
            try:
                if head is None:
                    hop = request.wire.hop
                    head = Head(message, credential, match, self._lanes[match.index], hop=hop)
                    self._heads.keep(message, head, request.cut, hop)
                if head.key is not None:
                    return await self._once(request, caller, head, head.key, body=body, received_ns=received_ns)
                return await self._seated(request, caller, head, body, received_ns)
            finally:
                self._budget.give_back(len(body))
        finally:
            self._gauge.leave()

    async def _seated(
        self,
        request: Inbound,
        caller: Caller,
        head: Head,
        body: bytes,
        received_ns: int,
        *,
        claim: Claim | None = None,
    ) -> Reply:
        """Take a place at the model, be admitted, and exchange; the place is given back in every case."""
        lane = head.lane
        steering = lane.steering
        seat = None if steering is None else await _seat(request, steering)
        redacting, rows = None, None
        try:
            if lane.redaction is not None and head.match.record != "none":
                redacting = Redacting(lane.redaction, self._recorder.keyed(caller.tenant), self._budget)
                await redacting.asked(request.head, head, body)
            if lane.rows is not None and head.match.record == "decision":
                rows = await lane.rows.asked(
                    body,
                    said=head.said,
                    hidden=self._admission.hidden(caller.tenant, redacting),
                    redacting=redacting,
                    bytes_max=self._recorder.journal.rows_bytes_max,
                )
            tracing, passing = lane.tracing, request.passing
            span = None if tracing is None else tracing.begin(passing.parent)
            trace = passing.trace if span is None else span.trace_hex
            recording = self._admission.admit(
                request.head,
                caller,
                head,
                claim,
                body=body,
                received_ns=received_ns,
                trace=trace,
                redacting=redacting,
                rows=rows,
            )
            request.admitted = True
            lines = head.upstream(len(body), passing, recording.decision, span)
            answer = Answer(
                request,
                lane,
                recording,
                self._models,
                sent_bytes=len(body),
                received_at=self._now(),
                keeps=self._keeps,
                claim=claim,
            )
            answer.span = span
            return await self._exchange(answer, lines, body, seat=seat)
        finally:
            if redacting is not None:
                redacting.let_go()
            if rows is not None:
                rows.let_go()
            if seat is not None:
                seat.leave()

    async def _once(
        self, request: Inbound, caller: Caller, head: Head, key: bytes, *, body: bytes, received_ns: int
    ) -> Reply:
        """A call with an idempotency key: served if it is the first with it, else given the first one's answer.

        Raises:
            KeyReused, NotRepeated, RepeatsUnavailable: as `Claims.claim`.
        """
        message = request.head
        claim = await self._claims.claim(
            caller,
            key,
            (message.method.encode("ascii"), message.path.encode("utf-8", "surrogateescape"), body),
            decision=self._recorder.journal.new_id(),
            lease_s=head.lane.lease_s,
        )
        if isinstance(claim, First):
            return await self._repeat(request, caller, head, body, claim, received_ns=received_ns)
        try:
            return await self._seated(request, caller, head, body, received_ns, claim=claim)
        finally:
            claim.end(ran=request.admitted)

    async def _repeat(
        self, request: Inbound, caller: Caller, head: Head, body: bytes, first: First, *, received_ns: int
    ) -> Reply:
        """The first call's answer once more; the repeat is a call of its own, and the model is not asked.

        Raises:
            storage.errors.JournalFull, JournalStopped: 503.
        """
        received_at = asyncio.get_running_loop().time()
        recorder, lane = self._recorder, head.lane
        about = lane.capturing.about(head.said, body)
        hidden = NOTHING if about is None else recorder.hidden(caller.tenant, about)
        stated: dict[str, object] | None = None
        if lane.redaction is not None:
            redacting = Redacting(lane.redaction, recorder.keyed(caller.tenant), self._budget)
            hidden, stated = redacting.about(hidden), redacting.stated
        asked = Asked(
            decision=recorder.journal.new_id(),
            record="call",
            caller=caller,
            terms=lane.terms,
            method=request.head.method,
            path=head.match.stated,
            received_ns=received_ns,
            trace=request.passing.trace,
            about=hidden,
            headers={},
            redacted=stated or None,  # neither body nor headers are recorded again
        )
        repetition = Repetition(recorder, asked, first)
        request.admitted = True
        answer = Answer(
            request, lane, repetition, self._models, sent_bytes=len(body), received_at=received_at, keeps=self._keeps
        )
        try:
            return await repeat(answer, first)
        except BaseException:
            repetition.lose(answer.lost())
            raise

    async def _exchange(
        self,
        answer: Answer,
        lines: bytes,
        body: bytes,
        *,
        seat: Seat | None = None,
        begun: Call | None = None,
    ) -> Reply:
        """Ask the model with a head of `lines`, and pass its answer on; the recording is closed in every case.

        `begun` is the first attempt, where it was made already.
        """
        recording, lane = answer.recording, answer.lane
        try:
            method = answer.request.head.method
            if seat is None:
                call = await ask(answer, lane.pool, method, lines, body, begun=begun)
            else:
                call = await ask_one_of(seat, answer, method, lines, body)
            if not call.complete and recording.waits_for_whole:
                await call.held()
            self._counts.answered(lane.route.name, call.status)
            if call.complete:
                return await answer.whole(call)
            return await stream(answer, call)
        except (UpstreamFailed, UpstreamSlow) as error:
            self._counts.failed(lane.route.name, error.code)
            return await answer.failed(error)
        except BaseException:  # cancelled, or the journal gave up, or a fault of ours: say so, if it can still be said
            lost = answer.lost()
            recording.lose(lost)
            answer.ended(lost)
            raise


async def _seat(request: Inbound, steering: Steering) -> Seat:
    """A place at a replica; a caller who has gone while waiting for one is refused rather than served."""
    seat = await steering.enter()
    if request.gone:
        seat.leave()
        raise BadRequest("the caller is gone", code="caller_gone")
    return seat
