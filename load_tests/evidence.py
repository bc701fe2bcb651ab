"""What evidence itself costs: journal, shipping, verification and proofs, each in a process of its own, nothing pinned.

Most of what is asked for is absolute, so it says something about this machine too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.comparators import Ground
from load_tests.plan import Plan
from load_tests.process import BrokenError
from load_tests.report import Claim, Results, Row

SYNC_MS = 2.0  # added to each fdatasync: a cloud disk's, where group commit pays
PROOF_BYTES = 1_500
Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured."""

    seconds: float
    decisions: int
    leaves: int
    proofs: int


FULL = Sizes(seconds=2, decisions=100_000, leaves=10_000_128, proofs=500)
SHORT = Sizes(seconds=0.2, decisions=2_000, leaves=70_016, proofs=20)


def measure(plan: Plan, ground: Ground) -> Results:
    """All of it once.

    Raises:
        BrokenError: one of the programs failed.
    """
    os.sched_setaffinity(0, ground.cores.all)
    sizes = SHORT if plan.short else FULL
    one, many = (
        _by("callers", _run("journal", ground.work, "--seconds", sizes.seconds, "--callers", 1, 64, *more))
        for more in ((), ("--sync-ms", SYNC_MS))
    )
    stored = _by("what", _run("database", ground.work, "--decisions", sizes.decisions))
    proven = _by("what", _run("proofs", ground.work, "--leaves", sizes.leaves, "--proofs", sizes.proofs))
    rates = {
        "shipped rows/s": ("ship", 50_000),
        "projected decisions/s": ("project", 5_000),
        "verified entries/s (entries and tree)": ("verify: entries and tree", 50_000),
        "verified entries/s (leaves inside ClickHouse)": ("verify: leaves inside ClickHouse", 100_000),
    }
    claims = [
        Claim(f"group commit, 64 writers ÷ one, {SYNC_MS:g} ms a sync", many[64]["to_one_caller"], 20),
        Claim("journal with integrity ÷ without, 64 writers", one[64]["to_plain"], 0.75),
        *(Claim(text, stored[what]["per_s"], bound) for text, (what, bound) in rates.items()),
        Claim("bytes of a proof", proven["cold"]["bytes_max"], PROOF_BYTES, at_most=True),
        Claim("a proof out of cached tiles, p99 ms", proven["cached"]["p99_ms"], 1, at_most=True),
        Claim("a proof out of ClickHouse, p99 ms", proven["cold"]["p99_ms"], 50, at_most=True),
    ]
    rows = [
        Row(
            key=f"journal-{count}",
            label=f"journal, {count} writers, records/s",
            cells=(f"{one[count]['records_s']:,}",),
        )
        for count in (1, 64)
    ]
    rows += [
        Row(key=f"slow-{count}", label=f"the same, {SYNC_MS:g} ms a sync", cells=(f"{many[count]['records_s']:,}",))
        for count in (1, 64)
    ]
    rows += [Row(key=what, label=f"{what}, a second", cells=(f"{line['per_s']:,}",)) for what, line in stored.items()]
    rows += [
        Row(
            key=what,
            label=f"proof, {what}, ms p50 / p99",
            cells=(f"{proven[what]['p50_ms']} / {proven[what]['p99_ms']}",),
        )
        for what in ("cold", "cached")
    ]
    return Results(
        name="evidence",
        title=f"Evidence: {sizes.decisions:,} decisions in embedded ClickHouse, proofs at {sizes.leaves:,} leaves",
        columns=("what", "measured"),
        rows=rows,
        claims=claims,
        absent=[],
        measured={"journal": one, "journal, slow disk": many, "database": stored, "proofs": proven},
    )


def _run(program: str, work: Path, *arguments: object) -> list[Line]:
    """The JSON lines of one of our programs."""
    command = [sys.executable, "-m", f"load_tests.{program}", "--data", str(work), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokenError(f"load_tests.{program} failed: {done.stderr[-2_000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _by(name: str, lines: list[Line]) -> dict[Any, Line]:
    return {
        line[name]: line
        for line in lines
        if name in line and ("per_s" in line or "p50_ms" in line or name == "callers")
    }
