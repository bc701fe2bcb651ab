"""Requests a second through each proxy, 64 connections, one core each: ours beside what records less.

Also the closed loop's other two questions: bodies of 1, 8 and 64 KB, and two workers on two cores against one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from load_tests import gateway, traffic, upstream, wrk
from load_tests.comparators import COMPARATORS, Comparator, Ground, Side
from load_tests.installs import AbsentError
from load_tests.plan import Plan
from load_tests.process import BrokenError
from load_tests.report import Claim, Results, Row, say

OURS = "ours"
ASKED = {"bare": 1.3, "nginx-log": 0.25, "portkey": 8.0, "litellm": 60.0}  # ours ÷ it, requests/s, at least
BODY_KEYS = (OURS, "nginx", "bare")
RSS_MIB_MAX = 300.0
NO_SLOWER = 0.95  # two workers against one: what medians of a shared machine can tell apart


@dataclass(slots=True, kw_only=True)
class Measured:
    """One side's windows, in order, and what its processes held after each (MiB)."""

    side: Side
    comparator: Comparator | None = None
    windows: list[wrk.Window] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # processor time for one request
    rss_mib: list[float] = field(default_factory=list)

    def median(self, of: Callable[[wrk.Window], float]) -> float:
        return statistics.median(of(window) for window in self.windows)

    @property
    def per_s(self) -> float:
        return self.median(lambda window: window.per_s)

    @property
    def errors(self) -> int:
        return sum(window.errors for window in self.windows)

    def as_json(self) -> dict[str, object]:
        return {
            "per_s": round(self.per_s, 1),
            "p50_ms": round(self.median(lambda window: window.p50_ms), 3),
            "p99_ms": round(self.median(lambda window: window.p99_ms), 3),
            "cpu_us": round(statistics.median(self.cpu_us), 1),
            "rss_mib": [round(value, 1) for value in self.rss_mib],
            "errors": self.errors,
            "rounds": [{"per_s": round(w.per_s, 1), "p50_ms": w.p50_ms, "p99_ms": w.p99_ms} for w in self.windows],
        }


def compare(plan: Plan, ground: Ground) -> Results:
    """The comparison of proxies.

    Raises:
        BrokenError: our gateway, the upstream or wrk did not work.
    """
    measured, absent = _start(ground, [each for each in COMPARATORS if each.key in plan.only])
    load_rounds(plan, ground, measured, path=traffic.CHAT_PATH, body=traffic.chat_request())
    ours = measured[OURS]
    rows = []
    claims = []
    for key, each in sorted(measured.items(), key=lambda item: -item[1].per_s):
        assert each.comparator is not None
        rows.append(_row(key, each, ours))
        if key in ASKED:
            ratio = ours.per_s / each.per_s
            claims.append(Claim(f"requests/s at least {ASKED[key]:g} times {each.comparator.name}", ratio, ASKED[key]))
    if "bare" in measured:
        ratio = ours.median(lambda window: window.p99_ms) / measured["bare"].median(lambda window: window.p99_ms)
        claims.append(Claim("p99 not above bare aiohttp's", ratio, 1.0, at_most=True))
    claims += _tallied(ours)
    return Results(
        name="data-plane",
        title="Requests a second through one core, 64 connections",
        columns=("proxy", "ours ÷ it", "p50 ÷ ours", "p99 ÷ ours", "CPU/call ÷ ours", "RSS MiB", "records"),
        rows=rows,
        claims=claims,
        absent=absent,
        measured={key: each.as_json() for key, each in measured.items()},
    )


def bodies(plan: Plan, ground: Ground) -> Results:
    """Requests and answers of 1, 8 and 64 KB, through ours, nginx and bare aiohttp.

    Raises:
        BrokenError: as `compare`.
    """
    started, absent = _start(ground, [each for each in COMPARATORS if each.key in plan.only & set(BODY_KEYS)])
    rows = []
    claims = []
    figures: dict[str, object] = {}
    for size in traffic.SIZES_KB:
        measured = {key: Measured(side=each.side, comparator=each.comparator) for key, each in started.items()}
        load_rounds(plan, ground, measured, path=traffic.sized_path(size), body=traffic.sized_request(size))
        for key, each in measured.items():
            row = _row(key, each, measured[OURS])
            rows.append(
                Row(key=f"{key}-{size}", label=f"{row.label}, {size} KB", cells=row.cells, bar=row.bar, ours=row.ours)
            )
            figures[f"{key}-{size}"] = each.as_json()
            started[key].windows += each.windows
        if size == max(traffic.SIZES_KB):
            most = max(measured[OURS].rss_mib)
            claims.append(Claim(f"resident memory with {size} KB bodies, MiB", most, RSS_MIB_MAX, at_most=True))
    return Results(
        name="bodies",
        title="Bodies of 1, 8 and 64 KB, asked and answered",
        columns=("proxy", "ours ÷ it", "p50 ÷ ours", "p99 ÷ ours", "CPU/call ÷ ours", "RSS MiB", "records"),
        rows=rows,
        claims=claims + _tallied(started[OURS]),
        absent=absent,
        measured=figures,
    )


def workers(plan: Plan, ground: Ground) -> Results:
    """Two workers beside one, nothing pinned: wrk and the upstream take their share of the same cores.

    Raises:
        BrokenError: as `compare`.
    """
    every = ground.cores.all
    port = upstream.fixed(ground.work / "upstream-free", ground.stack, cores=every)
    measured: dict[str, Measured] = {}
    for count in (1, 2):
        base = ground.work / f"workers-{count}"
        running = gateway.start(base, ground.stack, upstream_port=port, cores=every, workers=count)
        side = Side(
            name=f"{count} worker{'s' if count > 1 else ''}",
            port=running.port,
            processes=running.workers,
            headers={"Authorization": f"Bearer {running.key}"},
            gateway=running,
        )
        side.probe()
        measured[str(count)] = Measured(side=side)
    load_rounds(plan, ground, measured, path=traffic.CHAT_PATH, body=traffic.chat_request(), cores=every)
    one, two = measured["1"], measured["2"]
    ratio = two.per_s / one.per_s
    rows = [
        Row(
            key=key,
            label=each.side.name,
            cells=(f"{each.per_s / one.per_s:.2f}", _mib(each)),
            bar=each.per_s / one.per_s,
        )
        for key, each in measured.items()
    ]
    claims = [Claim("two workers no slower than one (measured to 5 %)", ratio, NO_SLOWER)]
    return Results(
        name="workers",
        title="Two workers on the cores that load and upstream use too",
        columns=("workers", "requests/s ÷ one", "RSS MiB"),
        rows=rows,
        claims=claims + _tallied(one) + _tallied(two),
        absent=[],
        measured={key: each.as_json() for key, each in measured.items()},
    )


def _start(ground: Ground, comparators: list[Comparator]) -> tuple[dict[str, Measured], list[str]]:
    measured: dict[str, Measured] = {}
    absent: list[str] = []
    for comparator in comparators:
        try:
            measured[comparator.key] = Measured(side=comparator.start(ground), comparator=comparator)
        except AbsentError as problem:
            absent.append(str(problem))
            say(f"left out: {problem}")
    return measured, absent


def load_rounds(
    plan: Plan,
    ground: Ground,
    measured: dict[str, Measured],
    *,
    path: str,
    body: bytes,
    cores: tuple[int, ...] | None = None,
) -> None:
    """Warm every side, then load them in turns; each round begins with another, so that none has one neighbour only."""
    keys = list(measured)
    for number in range(-1, plan.rounds):
        turned = keys[number % len(keys) :] + keys[: number % len(keys)]
        for key in turned:
            each = measured[key]
            seconds = plan.warm_s if number < 0 else plan.closed_s
            before_s = each.side.cpu_s
            window = wrk.load(
                ground.work,
                port=each.side.port,
                path=path,
                body=body,
                headers=each.side.headers,
                seconds=seconds,
                cores=cores or (ground.cores.load,),
            )
            if not window.requests:
                raise BrokenError(f"{each.side.name} answered nothing for {seconds:g} s")
            if number >= 0:
                each.windows.append(window)
                each.cpu_us.append((each.side.cpu_s - before_s) * 1e6 / window.requests)
                each.rss_mib.append(each.side.rss_mib)
            each.side.tidy()
        say(f"round {number + 1} of {plan.rounds}" if number >= 0 else "warm")


def _row(key: str, each: Measured, ours: Measured) -> Row:
    comparator = each.comparator
    assert comparator is not None
    p50 = each.median(lambda w: w.p50_ms) / ours.median(lambda w: w.p50_ms)
    p99 = each.median(lambda w: w.p99_ms) / ours.median(lambda w: w.p99_ms)
    cpu = statistics.median(each.cpu_us) / max(statistics.median(ours.cpu_us), 1e-9)
    errors = f" ({each.errors} errors)" if each.errors else ""
    cells = (
        f"{ours.per_s / each.per_s:.2f}{errors}",
        f"{p50:.2f}",
        f"{p99:.2f}",
        f"{cpu:.2f}",
        _mib(each),
        comparator.records,
    )
    return Row(key=key, label=comparator.name, cells=cells, bar=each.per_s / ours.per_s, ours=key == OURS)


def _mib(each: Measured) -> str:
    first, last = each.rss_mib[0], each.rss_mib[-1]
    return f"{first:.0f} → {last:.0f}"


def _tallied(ours: Measured) -> list[Claim]:
    """End our gateway and ask its watermark whether every call that wrk counted is in the journal."""
    running = ours.side.gateway
    assert running is not None
    running.stop()
    tally = running.tally()
    answered = sum(window.requests for window in ours.windows)
    return [
        Claim(f"{ours.side.name}: calls lost or open", tally.lost + tally.open, 0, at_most=True),
        Claim(f"{ours.side.name}: decisions closed ÷ answers counted", tally.closed / max(answered, 1), 1.0),
        Claim(f"{ours.side.name}: answers that were errors", ours.errors, 0, at_most=True),
    ]
