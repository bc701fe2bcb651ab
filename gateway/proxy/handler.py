"""The path of one call through the gateway, read from the top down.

Who calls, which route, the whole request under its limits, admission by the journal, the model, the closing entry,
and only then the end of the answer. Whatever goes wrong after admission is closed in the journal with its true
state too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from aiohttp.http_parser import RawRequestMessage

from config.errors import AnswerableError
from gateway.proxy.answers import Answer
from gateway.proxy.callers import Callers
from gateway.proxy.calling import ask, ask_one_of
from gateway.proxy.claims import Claim, Claims
from gateway.proxy.counts import Counts
from gateway.proxy.errors import (
    BadRequest,
    HeadTooLarge,
    NotForwarded,
    UpstreamFailed,
    UpstreamSlow,
)
from gateway.proxy.exchange import NOTHING, About, Asked, Caller
from gateway.proxy.exchangelog import ExchangeLog
from gateway.proxy.forwarded import Hop
from gateway.proxy.framing import Cut
from gateway.proxy.heads import Head, Heads
from gateway.proxy.inbound import Inbound, Reply, Whole, error_reply, new_request_id
from gateway.proxy.intake import Intake
from gateway.proxy.lanes import Lane, Models
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.own import Own
from gateway.proxy.quotas import Quotas
from gateway.proxy.recording import Recorder, Recording, Unrecorded
from gateway.proxy.redacting import Redacting
from gateway.proxy.repeating import Repetition, repeat
from gateway.proxy.replicas import Seat, Steering
from gateway.proxy.routes import Routes
from gateway.proxy.rows import CallRows
from gateway.proxy.streams import stream
from gateway.proxy.tracing import Span
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
        self.under_way = 0  # requests, from their head to their answer's end

    async def __call__(self, request: Inbound) -> Reply:
        """Answer one request; errors in the one shape."""
        self.under_way += 1
        try:
            return await self._handle(request)
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
            self.under_way -= 1

    def seen(self, cut: Cut, hop: Hop | None) -> tuple[RawRequestMessage, Head] | None:
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
                    hidden=self._hidden(caller.tenant, redacting),
                    redacting=redacting,
                    bytes_max=self._recorder.journal.rows_bytes_max,
                )
            tracing, passing = lane.tracing, request.passing
            span = None if tracing is None else tracing.begin(passing.parent)
            trace = passing.trace if span is None else span.trace_hex
            recording = self._admit(
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
            return await self._exchange(request, lane, lines, body, recording, seat=seat, span=span, claim=claim)
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

    def _admit(
        self,
        message: RawRequestMessage,
        caller: Caller,
        head: Head,
        claim: Claim | None,
        *,
        body: bytes,
        received_ns: int,
        trace: str | None,
        redacting: Redacting | None,
        rows: CallRows | None,
    ) -> Recording | Unrecorded:
        """Admission by the journal: from here on the call is closed by exactly one entry.

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
            hidden = NOTHING if about is None else self._hidden(tenant, redacting)(about)
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

    def _hidden(self, tenant: str, redacting: Redacting | None) -> Callable[[About], About]:
        """What is recorded of a call's or row's `About`."""
        hide = partial(self._recorder.hidden, tenant)
        return hide if redacting is None else lambda about: redacting.about(hide(about))

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
        request: Inbound,
        lane: Lane,
        lines: bytes,
        body: bytes,
        recording: Recording | Unrecorded,
        *,
        seat: Seat | None,
        span: Span | None,
        claim: Claim | None,
    ) -> Reply:
        """Ask the model with a head of `lines`, and pass its answer on; the recording is closed in every case."""
        received_at = self._now()
        answer = Answer(
            request,
            lane,
            recording,
            self._models,
            sent_bytes=len(body),
            received_at=received_at,
            keeps=self._keeps,
            claim=claim,
        )
        answer.span = span
        try:
            method = request.head.method
            if seat is None:
                call = await ask(answer, lane.pool, method, lines, body)
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
