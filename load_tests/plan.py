"""How long a run takes: rounds and seconds, in the full and in the short form, and where its results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
RAW = RESULTS / "raw"  # ignored by git: every window of every round, and what short runs give


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run does; seconds are those of one window."""

    only: frozenset[str]  # comparators' keys; ours is always among them
    rounds: int
    closed_s: float  # a window of the closed loop
    warm_s: float
    open_s: float  # a window of the open loop
    rates: tuple[int, ...]  # requests a second
    streams: int
    stream_ramp_s: float
    syncs: int  # fdatasync calls timed in a round
    install: bool
    short: bool
    results: Path


def full(*, only: frozenset[str], rounds: int, seconds: float, install: bool, results: Path | None) -> Plan:
    """About a quarter of an hour for everything."""
    return Plan(
        only=only,
        rounds=rounds,
        closed_s=seconds,
        warm_s=2,
        open_s=10,
        rates=(100, 500, 1000),
        streams=200,
        stream_ramp_s=5,
        syncs=500,
        install=install,
        short=False,
        results=results or RESULTS,
    )


def short(*, only: frozenset[str], install: bool, results: Path | None) -> Plan:
    """Seconds: it shows that the harness works, and its figures mean nothing."""
    return Plan(
        only=only,
        rounds=1,
        closed_s=1,
        warm_s=1,
        open_s=1,
        rates=(100,),
        streams=8,
        stream_ramp_s=0.2,
        syncs=20,
        install=install,
        short=True,
        results=results or RAW,
    )
