"""What a worker counts: plain integers on the hot path, moved to prometheus-client once a second.

Counters of calls (accepted, closed, open, lost, refused) live in the journals' watermarks, which survive SIGKILL; these
here say why and how fast. Labels are names of the configuration, codes of ours and statuses: their number is bounded.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.series import PaceSeries, Series
from storage.buckets import Buckets, Pace

CALL_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)
REASONS_MAX = 100  # codes are ours and few; a bound all the same


class Meter:
    """How long the calls of one route take, in seconds and microseconds, since the last look."""

    __slots__ = ("call_s", "first_us", "upstream_us")

    def __init__(self) -> None:
        self.call_s = Buckets(CALL_BOUNDS_S)  # from the request to its durable closing entry
        bounds_us = [seconds * 1e6 for seconds in CALL_BOUNDS_S]
        self.first_us = Buckets(bounds_us)
        self.upstream_us = Buckets(bounds_us)


class Counts:
    """One worker's counts since its start."""

    def __init__(self) -> None:
        """All at zero, in a registry of its own (in files that all processes of the host share: `gateway.metering`)."""
        self.registry = registry = CollectorRegistry()
        self._refused: Tally[str] = Tally()
        self._refused_total: Tally[str] = Tally()
        self._answers: Tally[tuple[str, int]] = Tally()
        self._failures: Tally[tuple[str, str]] = Tally()
        self._unrecorded: Tally[str] = Tally()
        self._unsplit: Tally[tuple[str, str]] = Tally()
        self._upstream: Tally[tuple[str, str, str]] = Tally()
        self._meters: dict[str, tuple[Meter, list[tuple[Buckets, Series]]]] = {}
        self._p_refused = _counter("refused", "Requests refused before admission.", ["code"], registry)
        self._p_answers = _counter("answers", "Answers of models.", ["route", "status"], registry)
        self._p_failures = _counter("failures", "Calls without a whole answer.", ["route", "code"], registry)
        self._p_unrecorded = _counter("unrecorded", "Calls that no entry states.", ["route"], registry)
        self._p_unsplit = _counter(
            "unsplit", "Calls of several rows that one entry states, and why.", ["route", "why"], registry
        )
        self._p_upstream = _counter(
            "upstream",
            "Outcomes of attempts at one replica, and what became of it: opened, closed, unhealthy, healthy.",
            ["route", "replica", "reason"],
            registry,
        )
        self._p_call = _seconds("call", "From request to durable closing entry.", registry)
        self._p_first = _seconds("upstream_first_byte", "From sending a call to its answer's first byte.", registry)
        self._p_total = _seconds("upstream_answer", "From sending a call to its answer's last byte.", registry)
        self._p_dropped = _counter("log_lines_dropped", "Log lines that nobody took in time.", ["role"], registry)
        self._p_untraced = _counter("spans_dropped", "Sampled calls whose spans no collector took.", ["role"], registry)
        self._dropped = self._untraced = 0
        self._pace = PaceSeries(registry)

    def refused(self, code: str) -> None:
        """One request was refused before admission."""
        if len(self._refused) < REASONS_MAX or code in self._refused:
            self._refused[code] += 1

    def answered(self, route: str, status: int) -> None:
        """A model answered."""
        self._answers[route, status] += 1

    def failed(self, route: str, code: str) -> None:
        """A model gave no answer, or not a whole one."""
        self._failures[route, code] += 1

    def upstream(self, route: str, replica: str, reason: str) -> None:
        """An attempt at a replica had this outcome, or the replica changed its state."""
        self._upstream[route, replica, reason] += 1

    def unrecorded(self, route: str) -> None:
        """A call was let through that no entry will state."""
        self._unrecorded[route] += 1

    def unsplit(self, route: str, why: str) -> None:
        """A call with one entry for all of its rows."""
        self._unsplit[route, why] += 1

    def meter(self, route: str) -> Meter:
        """Where the calls of `route` say how long they took."""
        known = self._meters.get(route)
        if known is None:
            meter = Meter()
            self._p_unrecorded.labels(route)
            fed = [
                (meter.call_s, Series(self._p_call.labels(route))),
                (meter.first_us, Series(self._p_first.labels(route), unit=1e-6)),
                (meter.upstream_us, Series(self._p_total.labels(route), unit=1e-6)),
            ]
            known = self._meters[route] = (meter, fed)
        return known[0]

    def publish(self) -> None:
        """Move what was counted to prometheus-client; called each second, off the hot path."""
        for code, count in self._refused.items():
            self._p_refused.labels(code).inc(count)
        self._refused_total.update(self._refused)
        self._refused.clear()
        for counter, tally in (
            (self._p_answers, self._answers),
            (self._p_failures, self._failures),
            (self._p_unsplit, self._unsplit),
            (self._p_upstream, self._upstream),
        ):
            _move(counter, tally)
        for route, count in self._unrecorded.items():
            self._p_unrecorded.labels(route).inc(count)
        self._unrecorded.clear()
        for _, fed in self._meters.values():
            for buckets, series in fed:
                series.feed(buckets)

    def dropped(self, role: str, lines: int) -> None:
        """So many log lines were dropped since the start."""
        self._p_dropped.labels(role).inc(lines - self._dropped)
        self._dropped = lines

    def untraced(self, role: str, calls: int) -> None:
        """The spans of so many calls were dropped since the start."""
        self._p_untraced.labels(role).inc(calls - self._untraced)
        self._untraced = calls

    def pace(self, shard: str, pace: Pace) -> None:
        """Move how a journal's batches go; called each second."""
        self._pace.feed(shard, pace)

    def refusals(self) -> dict[str, int]:
        """Refusals by code since this was last asked: for the one aggregate entry a minute."""
        self.publish()
        taken = dict(self._refused_total)
        self._refused_total.clear()
        return taken


def _move(counter: Counter, tally: Tally[Any]) -> None:
    for labels, count in tally.items():
        counter.labels(*labels).inc(count)
    tally.clear()


def _counter(name: str, says: str, labels: Sequence[str], registry: CollectorRegistry) -> Counter:
    return Counter(f"answerable_{name}", says, labels, registry=registry)


def _seconds(name: str, says: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(f"answerable_{name}_seconds", says, ["route"], buckets=CALL_BOUNDS_S, registry=registry)
