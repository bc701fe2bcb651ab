"""What each evidence mode costs, and each option of a route that works on every call.

Every row is a gateway of its own, alike but for one line of its route; all take turns under the same load, so that a
ratio is one of neighbours. To measure another option, add a `Choice`. Extraction is no row: it runs in the keeper,
never on the hot path.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from load_tests import gateway, traffic
from load_tests.comparators import Ground, Side
from load_tests.data_plane import Measured, load_rounds
from load_tests.plan import Plan
from load_tests.report import Claim, Results, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One line of a route, and what callers send for it."""

    key: str
    label: str
    route: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


STRICT = "strict"
CHOICES = (
    Choice(key=STRICT, label="evidence: strict", route={}),
    Choice(key="spool", label="evidence: spool", route={"evidence": "spool"}),
    Choice(key="best_effort", label="evidence: best_effort", route={"evidence": "best_effort"}),
    Choice(key="capture", label="strict, capture of the case from the body", route={"capture": {"case": "model"}}),
    Choice(
        key="detect", label="strict, card numbers and IBANs looked for", route={"redact": {"detect": ["card", "iban"]}}
    ),
    Choice(
        key="redact",
        label="strict, the texts of request and answer hashed by path",
        route={
            "redact": {
                "request": [{"path": "messages[*].content", "how": "hash"}],
                "response": [{"path": "choices[*].message.content", "how": "hash"}],
            }
        },
    ),
    Choice(
        key="headers",
        label="strict, two recorded headers",
        route={"request_headers": ["Content-Type"], "response_headers": ["Content-Type"]},
    ),
    Choice(
        key="about",
        label="strict, headers Answerable-Case and -Subject",
        route={},
        headers={"Answerable-Case": "C-1", "Answerable-Subject": "S-1"},
    ),
)


def measure(plan: Plan, ground: Ground) -> Results:
    """All choices in turns; requests a second and processor time against `strict` alone.

    Raises:
        BrokenError: a gateway, the upstream or wrk did not work.
    """
    measured = {choice.key: Measured(side=_start(ground, choice)) for choice in CHOICES}
    load_rounds(plan, ground, measured, path=traffic.CHAT_PATH, body=traffic.chat_request())
    strict = measured[STRICT]
    rows, claims = [], []
    for choice in CHOICES:
        each = measured[choice.key]
        more_us = statistics.median(one - other for one, other in zip(each.cpu_us, strict.cpu_us, strict=True))
        cells = (
            f"{each.per_s / strict.per_s:.2f}",
            f"{statistics.median(each.cpu_us):.0f}",
            f"{more_us:+.1f}",
            f"{each.median(lambda window: window.p50_ms):.2f}",
            f"{each.median(lambda window: window.p99_ms):.2f}",
        )
        rows.append(Row(key=choice.key, label=choice.label, cells=cells, bar=each.per_s / strict.per_s))
        claims += _tallied(choice, each)
    return Results(
        name="modes",
        title="What an evidence mode and an option of a route cost, 64 connections, one core",
        columns=("route", "requests/s ÷ strict", "CPU µs a call", "more than strict", "p50 ms", "p99 ms"),
        rows=rows,
        claims=claims,
        absent=[],
        measured={key: each.as_json() for key, each in measured.items()},
    )


def _start(ground: Ground, choice: Choice) -> Side:
    running = gateway.start(
        ground.work / choice.key,
        ground.stack,
        upstream_port=ground.upstream_port,
        cores=(ground.cores.gateway,),
        route=choice.route,
    )
    return Side(
        name=choice.label,
        port=running.port,
        processes=running.workers,
        headers={"Authorization": f"Bearer {running.key}", **choice.headers},
        gateway=running,
    )


def _tallied(choice: Choice, each: Measured) -> list[Claim]:
    running = each.side.gateway
    assert running is not None
    running.stop()
    tally = running.tally()
    unstated = tally.open + (0 if choice.route.get("evidence") == "best_effort" else tally.lost)
    return [
        Claim(f"{choice.label}: calls open, or lost where none may be", unstated, 0, at_most=True),
        Claim(f"{choice.label}: answers that were errors", each.errors, 0, at_most=True),
    ]
