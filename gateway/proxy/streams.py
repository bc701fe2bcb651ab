"""Answers that are passed on while they come, their end held until the decision is durable.

First the begin entry is durable; its receipt goes out with the head. Each piece goes to the journal and to the
caller as it comes; how much of it may leave is for `holding.py` to say. At the end the closing entry is made
durable, and only then what was held leaves, with the end of the answer. A stream that breaks is never given an end:
the connection is cut.
"""

from __future__ import annotations

import asyncio

from config.errors import AnswerableError
from gateway.proxy import headers as heads
from gateway.proxy.answers import Answer, length_line, media_of
from gateway.proxy.call import Call
from gateway.proxy.claims import Claim
from gateway.proxy.errors import UpstreamFailed, UpstreamSlow
from gateway.proxy.exchange import State
from gateway.proxy.holding import Holding
from gateway.proxy.inbound import Reply

_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


async def stream(answer: Answer, call: Call) -> Reply:
    """Pass the answer on; on return it is sent to its end or its connection is cut, and the call is closed.

    Raises:
        UpstreamFailed, UpstreamSlow: it broke off while nothing was sent yet; the call is still to be closed.
        AnswerableError: the journal refused while nothing was sent yet.
    """
    try:
        ours = await answer.recording.begun()
        if call.error is not None:
            raise call.error  # noqa: TRY301 - handled as a head that cannot pass is
        if call.complete:  # it came whole while its begin entry was on its way to the disk
            return await answer.whole(call)
        outlet = _Outlet(answer, call, ours)
    except (UpstreamFailed, UpstreamSlow) as error:
        call.fail(error)  # what had come stays: it is evidence, and `answer.failed` takes it
        raise
    except BaseException:
        call.give_up()
        raise
    return await outlet.run()


class _Outlet:
    """One stream towards its caller."""

    def __init__(self, answer: Answer, call: Call, ours: bytes) -> None:
        self._answer = answer
        self._call = call
        self._request = answer.request
        self._declared = call.declared_bytes
        self._recorded = ours
        self._claim = answer.claim
        self._chunked = self._declared is None and self._request.speaks_chunks
        if self._declared is not None:
            ours += length_line(self._declared)
        elif self._chunked:
            ours += _CHUNKED
        else:
            answer.ends_connection = True  # HTTP/1.0: the end of the connection is the end of the answer
        self._keep_alive = answer.keep_alive
        self._head = answer.head(call, ours, keep_alive=self._keep_alive)
        readable = call.event_stream and not any(heads.lowered(name) == b"content-encoding" for name, _ in call.headers)
        self._holding = Holding(events=readable)
        self._rest = b""  # held because it meets the declared length
        self._budgeted_bytes = 0  # of what is held
        self._media = media_of(call)

    async def run(self) -> Reply:
        """Send head, pieces and end."""
        call = self._call
        self._request.on_gone = self._caller_gone
        try:
            self._request.write(self._head)
            if self._request.gone:
                self._caller_gone()
            await self._pieces()
            await self._close("client_aborted" if self._request.gone else "complete", None)
            if self._claim is not None:
                await self._keep(self._claim)
        except (AnswerableError, asyncio.CancelledError) as error:
            await self._broken(error)
            return Reply(b"", keep_alive=False)
        finally:
            self._request.on_gone = None
            call.give_up()
            self._budget(0)
        self._send(self._rest or self._holding.rest(), last=True)
        await self._request.drained()
        return Reply(b"", keep_alive=self._keep_alive and not self._request.gone)

    async def _pieces(self) -> None:
        call = self._call
        recording = self._answer.recording
        taken = 0  # what has come meanwhile is not this piece's business
        while piece := await call.take():
            taken += len(piece)
            await recording.piece(piece, self._media)
            if self._claim is not None:
                self._claim.piece(piece)
            if not recording.holds:
                leaving = piece
            elif self._declared is None:
                leaving = self._may_leave(piece)
            elif taken < self._declared:
                leaving = piece
            else:
                self._rest = piece
                continue
            if leaving:
                self._send(leaving)
                await self._request.drained()
            if self._holding.overrun:
                raise UpstreamFailed("the model's stream goes on behind its end", code="upstream_malformed", sent=True)

    def _may_leave(self, piece: bytes) -> bytes:
        leaving = self._holding.feed(piece)
        self._budget(self._holding.held_bytes)
        return leaving

    def _budget(self, held_bytes: int) -> None:
        """Have the worker's budget say that so much of this stream is held."""
        self._call.limits.budget.add(held_bytes - self._budgeted_bytes)
        self._budgeted_bytes = held_bytes

    async def _close(self, state: State, error: str | None) -> None:
        answered = self._answer.answered(self._call, state, streamed=True, error=error)
        await self._answer.recording.close(answered, None, media=self._media)
        self._answer.ended(answered)

    async def _keep(self, claim: Claim) -> None:
        call = self._call
        assert call.head is not None
        await claim.keep(call.status, call.headers, call.head.lines + self._recorded)

    async def _broken(self, error: BaseException) -> None:
        """Cut the connection and close the call with its true state."""
        gone = self._request.gone
        self._abort()
        if isinstance(error, asyncio.CancelledError):
            self._answer.recording.lose(self._answer.answered(self._call, "gateway_lost", streamed=True))
            raise error
        if gone:
            await self._close("client_aborted", None)
        elif isinstance(error, UpstreamFailed | UpstreamSlow):
            self._call.fail(error)
            if behind := self._call.drain():  # it came, though it goes no further
                await self._answer.recording.piece(behind, self._media)
            await self._close("upstream_aborted", error.code)
        else:  # the journal writes no more: what was begun is closed by recovery
            raise error
        if self._claim is not None:
            await self._claim.settle("incomplete")

    def _caller_gone(self) -> None:
        self._call.fail(UpstreamFailed("the caller is gone", code="caller_gone", sent=True))

    def _abort(self) -> None:
        self._request.abort(reset=self._declared is None and not self._chunked)

    def _send(self, data: bytes, *, last: bool = False) -> None:
        if not self._chunked:
            if data:
                self._request.write(data)
            return
        framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._request.write(framed + _LAST_CHUNK if last else framed)
