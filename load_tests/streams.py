"""Streamed answers: many at once, how much later their first byte comes than from the upstream itself."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from load_tests import gateway, openloop, traffic, upstream
from load_tests.comparators import Ground, Side
from load_tests.fdatasync import Disk
from load_tests.openloop import Outcome
from load_tests.plan import Plan
from load_tests.process import BrokenError
from load_tests.report import Claim, Results, Row, say

ANSWER_BYTES = len(upstream.EVENT) * upstream.EVENTS + len(upstream.DONE)
RSS_MIB_MAX = 300.0
BEYOND_SYNC_MS = 1.0


@dataclass(slots=True)
class Series:
    """The windows of one side."""

    side: Side
    windows: list[Outcome] = field(default_factory=list)

    def first(self, percent: float) -> float:
        return statistics.median(window.first(percent) for window in self.windows)

    @property
    def failed(self) -> int:
        return sum(window.failed for window in self.windows)


def measure(plan: Plan, ground: Ground) -> Results:
    """Open `plan.streams` streams evenly over `plan.stream_ramp_s`, directly and through our gateway, by turns.

    Raises:
        BrokenError: our gateway or the stream server did not work.
    """
    port = upstream.streaming(ground.work / "streaming", ground.stack, cores=(ground.cores.load,))
    running = gateway.start(ground.work / "streams", ground.stack, upstream_port=port, cores=(ground.cores.gateway,))
    headers = {"Authorization": f"Bearer {running.key}"}
    direct = Series(Side(name="upstream alone", port=port, processes=[]))
    ours = Series(Side(name="Answerable", port=running.port, processes=running.workers, headers=headers))
    disk = Disk(ground.work)
    for number in range(plan.rounds):
        for each in (direct, ours) if number % 2 else (ours, direct):
            each.windows.append(_window(each.side, plan))
        disk.measure(plan.syncs)
        say(f"round {number + 1} of {plan.rounds}")
    running.stop()
    return _results(plan, direct, ours, disk, running.tally())


def _window(side: Side, plan: Plan) -> Outcome:
    data = openloop.request(traffic.STREAM_PATH, traffic.chat_request(), side.headers)
    outcome = openloop.run(
        side.port,
        data,
        openloop.evenly(plan.streams, plan.stream_ramp_s),
        connections=plan.streams,
        answer_bytes=ANSWER_BYTES,
        sample=lambda: side.rss_mib,
    )
    if not outcome.first_ms:
        raise BrokenError(f"{side.name}: none of {plan.streams} streams came through whole")
    return outcome


def _results(plan: Plan, direct: Series, ours: Series, disk: Disk, tally: gateway.Tally) -> Results:
    memory = [value for window in ours.windows for value in window.samples]
    later50, later99 = ours.first(50) - direct.first(50), ours.first(99) - direct.first(99)
    rows = [
        Row(
            key="ours",
            label="Answerable",
            cells=(f"{later50:.2f}", f"{later99:.2f}", f"{memory[0]:.0f} → {memory[-1]:.0f}, most {max(memory):.0f}"),
            bar=max(later50, 0.0),
            ours=True,
        ),
        Row(
            key="fdatasync", label="fdatasync", cells=(f"{disk.p50_ms:.2f}", f"{disk.p99_ms:.2f}", ""), bar=disk.p50_ms
        ),
    ]
    failed = ours.failed + direct.failed
    claims = [
        Claim("first byte ≤ fdatasync + 1 ms later, ms", later50, disk.p50_ms + BEYOND_SYNC_MS, at_most=True),
        Claim("resident memory of the worker, MiB", max(memory), RSS_MIB_MAX, at_most=True),
        Claim("streams that did not come through whole", failed, 0, at_most=True),
        Claim("calls lost or open", tally.lost + tally.open, 0, at_most=True),
        Claim("decisions closed ÷ streams", tally.closed / (plan.streams * plan.rounds), 1.0),
    ]
    return Results(
        name="streams",
        title=f"{plan.streams} streams of {upstream.EVENTS} events at once",
        columns=("proxy", "first byte later, p50 ms", "p99 ms", "RSS MiB"),
        rows=rows,
        claims=claims,
        absent=[],
        measured={"direct": _figures(direct), "ours": _figures(ours), "fdatasync": disk.as_json(), "rss_mib": memory},
        bar_title="median milliseconds by which the first byte comes later than from the upstream alone",
    )


def _figures(each: Series) -> dict[str, object]:
    return {
        "first_p50_ms": round(each.first(50), 3),
        "first_p99_ms": round(each.first(99), 3),
        "generator_late_p99_ms": round(statistics.median(window.late_p99_ms for window in each.windows), 3),
        "failed": each.failed,
    }
