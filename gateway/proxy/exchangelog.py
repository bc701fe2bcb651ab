"""One line of JSON for each exchange: whose call, where to, how it ended, how long it took; never what was said.

On the loop a call costs the append of a tuple. The lines are made and written in a thread (`gateway.lines`), some
hundred at a time. Nothing here names a person: of a path only what the configuration says of it, no query, no header,
no body, and the caller's address only where `log.addresses` says so. SIGKILL loses the lines of the last quarter of a
second; the evidence is the journal's, not the log's.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import orjson

from config.errors import AnswerableError
from gateway.lines import LineWriter
from gateway.proxy.exchange import Answered, Asked

GATHERED_MAX = 256  # lines that are made at once: a fraction of a millisecond with the interpreter's lock
REFUSALS_PER_S_MAX = 50  # a flood of refusals must not flood the log
HEADS_MAX = 1024  # of callers, routes, methods and paths; beyond it all are forgotten
_SECOND_NS = 1_000_000_000


class Exchange(NamedTuple):
    """One call that has ended."""

    asked: Asked
    answered: Answered
    recorded: bool  # an entry states it
    sent_bytes: int  # of the request's body
    took_us: int  # until its closing entry was durable
    address: str | None


class ExchangeLog:
    """The exchanges and refusals of one worker on their way into lines."""

    def __init__(self, writer: LineWriter, worker: str, *, below_warning: bool) -> None:
        """`worker` is the shard; without `below_warning` only calls that went wrong have lines."""
        self._writer = writer
        self._worker = worker
        self._below_warning = below_warning
        self._gathered: list[Exchange] = []
        self._heads: dict[tuple[object, ...], bytes] = {}  # of the thread alone
        self._stamp = _Stamp()
        self._refusals = 0  # of the current second
        self._left_out: Tally[str] = Tally()

    def tell(self, exchange: Exchange) -> None:
        """One call has ended."""
        if self._below_warning or exchange.answered.error is not None or exchange.answered.state != "complete":
            self._gathered.append(exchange)
            if len(self._gathered) >= GATHERED_MAX:
                self.flush()

    def refused(self, error: AnswerableError, request_id: str) -> None:
        """One request was refused before admission; beyond `REFUSALS_PER_S_MAX` only their number is told."""
        self._refusals += 1
        if self._refusals > REFUSALS_PER_S_MAX:
            self._left_out[error.code] += 1
            return
        fields = {"error": error.code, "status": error.status, "request": request_id or None, "worker": self._worker}
        self._say("refusal", fields)

    def flush(self) -> None:
        """Hand over what was gathered."""
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._writer.put(len(gathered), partial(self._lines, gathered))

    def second(self) -> None:
        """A second has passed: tell what was left out of it."""
        self._refusals = 0
        if self._left_out:
            self._say("refusals_left_out", {"counts": dict(self._left_out), "worker": self._worker})
            self._left_out.clear()

    def _say(self, event: str, fields: dict[str, object]) -> None:
        now_ns = time.time_ns()
        self._writer.put(1, lambda: (orjson.dumps({**_opening(_Stamp().of(now_ns), event), **fields}) + b"\n",))

    # in the thread

    def _lines(self, exchanges: Sequence[Exchange]) -> list[bytes]:
        return [self._line(exchange) for exchange in exchanges]

    def _line(self, exchange: Exchange) -> bytes:
        asked, answered, recorded, sent_bytes, took_us, address = exchange
        key = (asked.caller, asked.terms.route, asked.method, asked.path, answered.error, answered.state, address)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            head = self._heads[key] = self._head(asked, answered, address)
        return (
            b'{"timestamp":"%b",%b%b%b"status":%d,"streamed":%b,'
            b'"request_bytes":%d,"response_bytes":%d,%b"total_us":%d}\n'
        ) % (
            self._stamp.of(asked.received_ns + took_us * 1000),
            head,
            b'"decision":"%b",' % asked.decision.encode("ascii") if recorded else b"",
            b'"trace":"%b",' % asked.trace.encode("ascii") if asked.trace else b"",
            answered.status,
            b"true" if answered.streamed else b"false",
            sent_bytes,
            answered.bytes,
            _timings(answered),
            took_us,
        )

    def _head(self, asked: Asked, answered: Answered, address: str | None) -> bytes:
        fields: dict[str, object] = {
            "level": "info" if answered.error is None and answered.state == "complete" else "warning",
            "event": "exchange",
            "worker": self._worker,
            "route": asked.terms.route,
            "evidence": asked.terms.mode,
            "tenant": asked.caller.tenant,
            "app": asked.caller.app,
            "method": asked.method,
            "path": asked.path,
            "state": answered.state,
        }
        if answered.error is not None:
            fields["error"] = answered.error
        if address is not None:
            fields["address"] = address
        return orjson.dumps(fields)[1:-1] + b","


def _timings(answered: Answered) -> bytes:
    if answered.upstream_us is None:
        return b""
    first = b"" if answered.first_us is None else b'"first_byte_us":%d,' % answered.first_us
    return b'%b"upstream_us":%d,' % (first, answered.upstream_us)


def _opening(stamp: bytes, event: str) -> dict[str, object]:
    return {"timestamp": stamp.decode(), "level": "warning", "event": event}


class _Stamp:
    """Moments as structlog's TimeStamper writes them: ISO 8601 with microseconds, UTC."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def of(self, unix_ns: int) -> bytes:
        second, rest = divmod(unix_ns, _SECOND_NS)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode("ascii")
        return b"%b.%06dZ" % (self._text, rest // 1000)


Tell = Callable[[Exchange], None]
