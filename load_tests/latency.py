"""What a proxy adds to a call's time at a load that does not saturate it, beside what the disk takes.

In each round and at each rate the same arrivals go to the upstream alone and through each proxy; *added* is the
median over rounds of the difference between their percentiles.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from load_tests import openloop, traffic, wrk
from load_tests.comparators import COMPARATORS, Ground, Side
from load_tests.fdatasync import Disk
from load_tests.installs import AbsentError
from load_tests.openloop import Outcome
from load_tests.plan import Plan
from load_tests.process import BrokenError
from load_tests.report import Claim, Results, Row, say

OURS, DIRECT = "ours", "direct"
KEYS = (OURS, "nginx", "bare")
ASKED_RATE = 500  # requests a second; where it is not run, nothing is asked
P50_BEYOND_SYNC_MS = 0.6
P99_BEYOND_SYNC_MS = 4.0
GENERATOR_LATE_MS = 2.0  # beyond this the load's core was taken by others, and the table says so


@dataclass(slots=True)
class Series:
    """The windows of one side at one rate."""

    side: Side
    records: str
    windows: list[Outcome] = field(default_factory=list)

    def added(self, direct: Series, percent: float) -> float:
        """Milliseconds more than the upstream alone takes."""
        return statistics.median(
            mine.whole(percent) - alone.whole(percent) for mine, alone in zip(self.windows, direct.windows, strict=True)
        )

    @property
    def failed(self) -> int:
        return sum(window.failed for window in self.windows)


def measure(plan: Plan, ground: Ground) -> Results:
    """The open loop at every rate.

    Raises:
        BrokenError: our gateway or the upstream did not work.
    """
    direct = Side(name="upstream alone", port=ground.upstream_port, processes=[])
    sides = [(DIRECT, direct, "nothing")]
    absent = []
    for comparator in COMPARATORS:
        if comparator.key in plan.only & set(KEYS):
            try:
                sides.append((comparator.key, comparator.start(ground), comparator.records))
            except AbsentError as problem:
                absent.append(str(problem))
    series = {(rate, key): Series(side, records) for rate in plan.rates for key, side, records in sides}
    disk = Disk(ground.work)
    for number in range(plan.rounds):
        for rate in plan.rates:
            due = openloop.poisson(rate, plan.open_s, seed=number)
            turned = sides[number % len(sides) :] + sides[: number % len(sides)]
            for key, side, _ in turned:
                series[rate, key].windows.append(_window(side, due))
                side.tidy()
            disk.measure(plan.syncs)
        say(f"round {number + 1} of {plan.rounds}")
    return _results(series, disk, absent)


def _window(side: Side, due: list[float]) -> Outcome:
    data = openloop.request(traffic.CHAT_PATH, traffic.chat_request(), side.headers)
    outcome = openloop.run(side.port, data, due, connections=wrk.CONNECTIONS)
    if not outcome.whole_ms:
        raise BrokenError(f"{side.name} answered none of {len(due)} calls")
    return outcome


def _results(series: dict[tuple[int, str], Series], disk: Disk, absent: list[str]) -> Results:
    rows: list[Row] = []
    claims: list[Claim] = []
    for (rate, key), each in series.items():
        direct = series[rate, DIRECT]
        if key == DIRECT:
            continue
        p50, p99 = each.added(direct, 50), each.added(direct, 99)
        cells = (f"{p50:.2f}", f"{p99:.2f}", f"{p50 / disk.p50_ms:.2f}", f"{each.failed}", each.records)
        label = f"{each.side.name}, {rate}/s"
        rows.append(Row(key=f"{key}-{rate}", label=label, cells=cells, bar=max(p50, 0.0), ours=key == OURS))
        if key == OURS:
            claims.append(Claim(f"{rate}/s: calls without a whole answer", each.failed, 0, at_most=True))
        if key == OURS and rate == ASKED_RATE:
            allowed50, allowed99 = disk.p50_ms + P50_BEYOND_SYNC_MS, disk.p99_ms + P99_BEYOND_SYNC_MS
            claims.append(Claim(f"{rate}/s: added p50 ≤ fdatasync + 0.6 ms, ms", p50, allowed50, at_most=True))
            claims.append(Claim(f"{rate}/s: added p99 ≤ fdatasync's p99 + 4 ms, ms", p99, allowed99, at_most=True))
    rows.append(_disk_row(disk))
    figures: dict[str, object] = {f"{key}-{rate}": _figures(each) for (rate, key), each in series.items()}
    return Results(
        name="latency",
        title="Added to a call, against the upstream alone (open loop, Poisson arrivals)",
        columns=("proxy", "p50 ms", "p99 ms", "p50 ÷ fdatasync", "failed", "records"),
        rows=rows,
        claims=claims,
        absent=absent,
        measured=figures | {"fdatasync": disk.as_json()},
        bar_title="median milliseconds added; fdatasync of the same run below",
        notes=_notes(series),
    )


def _disk_row(disk: Disk) -> Row:
    cells = (f"{disk.p50_ms:.2f}", f"{disk.p99_ms:.2f}", "1.00", "", "what the disk takes for one batch")
    return Row(key="fdatasync", label="fdatasync", cells=cells, bar=disk.p50_ms)


def _figures(each: Series) -> dict[str, object]:
    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "p50_ms": median([window.whole(50) for window in each.windows]),
        "p99_ms": median([window.whole(99) for window in each.windows]),
        "generator_late_p99_ms": median([window.late_p99_ms for window in each.windows]),
        "failed": each.failed,
        "rounds": [{"p50_ms": window.whole(50), "p99_ms": window.whole(99)} for window in each.windows],
    }


def _notes(series: dict[tuple[int, str], Series]) -> list[str]:
    late = max(statistics.median(window.late_p99_ms for window in each.windows) for each in series.values())
    if late <= GENERATOR_LATE_MS:
        return []
    return [f"the generator itself was up to {late:.1f} ms late (p99): the load's core was not its own"]
