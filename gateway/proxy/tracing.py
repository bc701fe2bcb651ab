"""Spans of sampled calls: one for the call as its caller sees it (server), one for the model (client).

The caller's W3C `traceparent` is the parent, and its sampled flag decides; without one a share of calls begins a
trace of its own. The model gets a `traceparent` that names the client span. On the loop a sampled call costs its ids
and a tuple; spans are made and sent in a thread (`gateway.spans`). This file knows nothing of OpenTelemetry, so that
a worker without telemetry imports none of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.proxy.call import Call
from gateway.proxy.exchangelog import Exchange
from gateway.proxy.passing import Parent
from gateway.proxy.pool import Origin

GATHERED_MAX = 256  # calls that are handed over at once
_RATIO_BITS = 64


class Span(NamedTuple):
    """A sampled call's two spans: their ids, and who began the trace."""

    trace: int
    parent: Parent | None
    server: int
    client: int

    @property
    def trace_hex(self) -> str:
        """As entries and logs name the trace."""
        return f"{self.trace:032x}"

    @property
    def traceparent(self) -> bytes:
        """What the model gets."""
        return b"00-%032x-%016x-01" % (self.trace, self.client)


class Ended(NamedTuple):
    """A sampled call that has ended; times in Unix ns, None where the model was never reached."""

    span: Span
    exchange: Exchange
    sent_ns: int | None
    answered_ns: int | None
    status: int  # of the model's answer; 0: none
    origin: Origin


class Tracing:
    """One worker's sampling, and its spans on their way out."""

    def __init__(self, *, ratio: float, put: Callable[[Sequence[Ended]], None]) -> None:
        """`ratio` of the traces that begin here are sampled; `put` takes what was gathered, and never waits."""
        self._below = round(ratio * 2**_RATIO_BITS)
        self._put = put
        self._gathered: list[Ended] = []

    def begin(self, parent: Parent | None) -> Span | None:
        """The spans of a call that is sampled; None for any other."""
        if parent is not None:
            if not parent.sampled:
                return None
            trace = parent.trace
        else:
            trace = _id(128)
            if trace % 2**_RATIO_BITS >= self._below:  # as OpenTelemetry's TraceIdRatioBased
                return None
        return Span(trace, parent, _id(64), _id(64))

    def end(self, span: Span, exchange: Exchange, call: Call | None, *, received_at: float, origin: Origin) -> None:
        """The call has ended; `received_at` is on the loop's clock, as the times of `call` are."""
        sent_ns = answered_ns = None
        status = 0
        if call is not None:
            received_ns = exchange.asked.received_ns
            sent_ns = received_ns + round((call.started_at - received_at) * 1e9)
            last_s = (call.last_byte_at or call.started_at) - received_at
            answered_ns = max(sent_ns, received_ns + round(last_s * 1e9))
            status = call.status
        self._gathered.append(Ended(span, exchange, sent_ns, answered_ns, status, origin))
        if len(self._gathered) >= GATHERED_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand over what was gathered."""
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._put(gathered)


def _id(bits: int) -> int:
    return random.getrandbits(bits) or 1
