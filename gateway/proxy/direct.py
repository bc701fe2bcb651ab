"""The usual call without a task: a short answer over a kept connection, driven by the bytes as they come.

Waking a task three times a call costs more than what it does between. So a request whose head was seen before, of a
route that asks for nothing special, is admitted and sent on where it arrives; its answer is sealed where that arrives,
and goes out where the journal says that it is durable. Whatever is not usual (a stream, a second attempt, an answer
that is late or broken, a journal that gives up, a caller that takes nothing) is handed to the connection's task in
the state that it is in, and goes on there as it would have from the beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Protocol, cast

from gateway.proxy.admission import Admission
from gateway.proxy.answers import Answer, media_of
from gateway.proxy.call import Call
from gateway.proxy.callers import Callers
from gateway.proxy.calling import send
from gateway.proxy.counts import Counts
from gateway.proxy.errors import UpstreamFailed
from gateway.proxy.exchange import Answered, Caller
from gateway.proxy.heads import Head
from gateway.proxy.inbound import Inbound, Reply, Whole
from gateway.proxy.intake import Intake
from gateway.proxy.lanes import Lane, Models
from gateway.proxy.limits import Budget, Gauge
from gateway.proxy.recording import Recording
from storage.journal import Appended

Work = Coroutine[Any, Any, Reply]


class Exchange(Protocol):
    """`Handler._exchange`: a call from the state that it is in to its reply."""

    def __call__(self, answer: Answer, lines: bytes, body: bytes, *, begun: Call | None) -> Work:
        """The recording is closed in every case."""


class Driver:
    """Begins such calls; one per handler."""

    def __init__(
        self,
        lanes: Iterable[Lane],
        *,
        callers: Callers,
        intake: Intake,
        admission: Admission,
        budget: Budget,
        gauge: Gauge,
        counts: Counts,
        models: Models,
        keeps: Callable[[Inbound], bool],
        exchange: Exchange,
        told: Callable[[Inbound, Work], Work],
    ) -> None:
        """`exchange` goes on with what is not usual; `told` makes replies of its errors."""
        self._lanes = frozenset(lane for lane in lanes if _is_usual(lane))
        self._callers = callers
        self._intake = intake
        self._admission = admission
        self._budget = budget
        self._gauge = gauge
        self._models = models
        self._keeps = keeps
        self._now = asyncio.get_running_loop().time
        self.counts = counts
        self.exchange = exchange
        self.told = told
        self.under_way = 0

    def begin(self, request: Inbound) -> bool:
        """Admit a request and send it on; false, and nothing has been done, where it is for a task.

        On true its connection will hear of it: by `Wire.answered`, or by `Wire.hand_over`.
        """
        received_ns = time.time_ns()
        stream = cast("Whole", request.stream)
        head = stream.seen
        lane = head.lane
        if lane not in self._lanes or head.key is not None or head.match.record == "none":
            return False
        if self._gauge.now >= self._gauge.most:  # a task refuses it, and says why
            return False
        pool = lane.pool
        connection = pool.idle()
        if connection is None:
            return False
        known = self._known(request, head)
        if known is None:
            pool.give_back(connection)
            return False
        caller, body = known
        self._gauge.enter()
        self.under_way += 1
        passing = stream.passing
        try:
            recording = self._admission.admit(
                request.head, caller, head, None, body=body, received_ns=received_ns, trace=passing.trace
            )
        except Exception as error:  # noqa: BLE001 - whatever it is: a task makes it the caller's answer
            pool.give_back(connection)
            request.wire.hand_over(request, partial(self.resumed, body=body, work=partial(_raised, error)))
            return True
        request.admitted = True
        answer = Answer(
            request,
            lane,
            recording,
            self._models,
            sent_bytes=len(body),
            received_at=self._now(),
            keeps=self._keeps,
        )
        lines = head.upstream(len(body), passing, recording.decision, None)
        if not isinstance(recording, Recording):  # it passes without an entry
            pool.give_back(connection)
            work = partial(self.exchange, answer, lines, body, begun=None)
            request.wire.hand_over(request, partial(self.resumed, body=body, work=work))
            return True
        driven = request.driven = Driven(self, answer, recording, lines, body)
        try:
            send(connection, answer, request.head.method, lines, body).watcher = driven.woken
        except UpstreamFailed:  # nothing was written: the first attempt is still to be made
            answer.call = None
            driven.hand_over(driven.go_on)
        return True

    def _known(self, request: Inbound, head: Head) -> tuple[Caller, bytes] | None:
        """Who calls, and the body, held in the budget; None where a task must ask, or refuse and say why."""
        try:
            caller = self._callers.by_key(head.credential, request)
            if caller is None:
                return None
            head.lane.check_scopes(caller)
            body = self._intake.at_hand(request)
        except Exception:  # noqa: BLE001 - the task will meet the same, and say so
            return None
        assert body is not None, "it came whole"
        return caller, body

    def leave(self, body: bytes) -> None:
        """One of them is over."""
        self.under_way -= 1
        self._budget.give_back(len(body))
        self._gauge.leave()

    def resumed(self, request: Inbound, body: bytes, work: Callable[[], Work]) -> Work:
        """What a task has to do for a call that is handed over to it."""
        request.driven = None
        self.under_way -= 1
        return self.told(request, self._held(body, work()))

    async def _held(self, body: bytes, work: Work) -> Reply:
        """`work`, with the body's place in memory held until it ends."""
        try:
            return await work
        finally:
            self._budget.give_back(len(body))
            self._gauge.leave()


class Driven:
    """One such call, from the request that was sent on to the answer's end; also who waits for its closing entry."""

    __slots__ = ("_answer", "_answered", "_body", "_driver", "_lines", "_over", "_recording", "_request", "_said")

    def __init__(self, driver: Driver, answer: Answer, recording: Recording, lines: bytes, body: bytes) -> None:
        """`lines` are the head that the model gets, `body` is what it is sent."""
        self._driver = driver
        self._request = answer.request
        self._answer = answer
        self._recording = recording
        self._lines = lines
        self._body = body
        self._said = b""  # the answer's body
        self._answered: Answered | None = None
        self._over = False  # nothing that comes later is news here

    def woken(self) -> None:
        """The call is complete, or there is something to decide."""
        answer = self._answer
        call = answer.call
        assert call is not None
        if not call.complete or call.error is not None:
            self.hand_over(self.go_on)
            return
        try:
            self._driver.counts.answered(answer.lane.route.name, call.status)
            self._answered, self._said = answer.taken(call)
            self._recording.close_for(self, self._answered, self._said, media=media_of(call))
        except Exception as error:  # noqa: BLE001 - whatever it is: a task makes it the caller's answer
            self.hand_over(partial(self._broken, error))

    # --- as who waits for the closing entry

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return self._over

    def set_result(self, appended: Appended, /) -> None:
        """The closing entry is durable: the answer may go."""
        answer, request = self._answer, self._request
        call, answered = answer.call, self._answered
        assert call is not None
        assert answered is not None
        try:
            answer.ended(answered)
            keep_alive = answer.keep_alive
            data = answer.data(call, self._recording.headers(appended), self._said, keep_alive=keep_alive)
            if request.write(data) and request.wire.writing_paused:
                self.hand_over(partial(self._drained, keep_alive))
                return
        except Exception as error:  # noqa: BLE001 - as above
            self.hand_over(partial(self._broken, error))
            return
        self._over = True
        request.driven = None  # each holds the other
        self._driver.leave(self._body)
        request.wire.answered(request, keep_alive=keep_alive)

    def set_exception(self, error: Exception, /) -> None:
        """It never will be."""
        self.hand_over(partial(self._broken, error))

    # --- what is not usual

    def hand_over(self, work: Callable[[], Work]) -> None:
        """Let the connection's task go on with `work`; until it does, `cancel` may still come."""
        self._over = True
        resumed = partial(self._driver.resumed, body=self._body, work=work)
        self._request.wire.hand_over(self._request, resumed)

    def go_on(self) -> Work:
        """From the state that the call is in."""
        return self._driver.exchange(self._answer, self._lines, self._body, begun=self._answer.call)

    async def _broken(self, error: Exception) -> Reply:
        """Its closing entry cannot be made or will not be durable."""
        answer = self._answer
        self._recording.failed(error)
        lost = answer.lost()
        self._recording.lose(lost)
        answer.ended(lost)
        raise error

    async def _drained(self, keep_alive: bool) -> Reply:  # noqa: FBT001 - of `partial`
        """The answer was written; return when its caller has taken enough of it."""
        await self._request.drained()
        return Reply(b"", keep_alive=keep_alive)

    def cancel(self) -> None:
        """The worker ends: say what can still be said."""
        self._over = True
        answer = self._answer
        lost = answer.lost()
        if answer.call is not None:
            answer.call.watcher = None
            answer.call.give_up()
        self._recording.lose(lost)
        answer.ended(lost)
        self._request.driven = None
        self._driver.leave(self._body)


def _is_usual(lane: Lane) -> bool:
    """Whether the lane's calls have nothing to wait for but model and journal."""
    special = (lane.steering, lane.redaction, lane.rows, lane.tracing)
    return all(each is None for each in special) and lane.route.evidence != "best_effort"


async def _raised(error: Exception) -> Reply:
    raise error
