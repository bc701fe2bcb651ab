"""What a run says: a table for people, JSON for machines, whether what was asked for is met."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from load_tests import chart
from load_tests.plan import RAW, Plan

VERSION = 1
WIDTH_WHEN_PIPED = 160


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing asked of this section: `value` at least (or at most) `bound`."""

    text: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def as_json(self) -> dict[str, object]:
        relation = "at most" if self.at_most else "at least"
        return {"text": self.text, "value": round(self.value, 4), relation: round(self.bound, 4), "met": self.met}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table and one bar of the chart; `bar` in the chart's unit, none where it has no bar."""

    key: str
    label: str
    cells: tuple[str, ...]
    bar: float | None = None
    ours: bool = False


@dataclass(slots=True, kw_only=True)
class Results:
    """What one section found. `measured` holds this machine's absolute figures, which mean nothing elsewhere."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    claims: list[Claim]
    absent: list[str]
    measured: dict[str, object]
    bar_title: str = "requests a second, ours = 1"
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        return all(claim.met for claim in self.claims)


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


def show(results: Results, facts: dict[str, object]) -> None:
    """The table, what was asked and what is missing, on standard output."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WHEN_PIPED, highlight=False)
    table = Table(*results.columns, title=results.title, title_justify="left")
    for row in results.rows:
        table.add_row(row.label, *row.cells, style="bold" if row.ours else None)
    console.print(table)
    for claim in results.claims:
        relation = "≤" if claim.at_most else "≥"
        verdict = "met" if claim.met else "NOT MET"
        console.print(f"  {verdict:8}{claim.text}: {claim.value:.3g} (asked {relation} {claim.bound:.3g})")
    for text in (*results.notes, *(f"left out: {problem}" for problem in results.absent)):
        console.print(f"  {text}")
    if not facts["cores_apart"]:
        console.print("  this machine has one core: load and proxy share it, and the ratios say little")
    console.print()


def write(results: Results, plan: Plan, facts: dict[str, object]) -> list[Path]:
    """Write `<name>.json` and `<name>.svg` into the plan's folder, every round of it into the raw one."""
    plan.results.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    document: dict[str, object] = {
        "v": VERSION,
        "section": results.name,
        "title": results.title,
        "taken": now.strftime("%Y-%m-%d"),
        "short": plan.short,
        "machine": facts,
        "rounds": plan.rounds,
        "columns": results.columns,
        "rows": [{"key": row.key, "cells": [row.label, *row.cells]} for row in results.rows],
        "claims": [claim.as_json() for claim in results.claims],
        "left_out": results.absent,
        "notes": results.notes,
        "measured_here": {key: _without_rounds(value) for key, value in results.measured.items()},
    }
    written = [plan.results / f"{results.name}.json", plan.results / f"{results.name}.svg"]
    written[0].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    bars = [chart.Bar(row.label, row.bar, ours=row.ours) for row in results.rows if row.bar is not None]
    written[1].write_text(chart.bars(results.title, results.bar_title, bars))
    raw = RAW if not plan.short else plan.results
    raw.mkdir(parents=True, exist_ok=True)
    everything = {**document, "measured_here": results.measured, "taken": now.isoformat(timespec="seconds")}
    (raw / f"{results.name}-{now:%Y%m%dT%H%M%SZ}.json").write_text(json.dumps(everything, ensure_ascii=False))
    return written


def _without_rounds(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_rounds(each) for key, each in value.items() if key != "rounds"}
    return value
