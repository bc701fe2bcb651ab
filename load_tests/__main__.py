"""`python -m load_tests [section …] [--short]`: the comparison in one command (`make bench`).

Exit codes: 0 all asked for is met (always, with --short, if everything ran); 1 something asked for is not met; 2 it
could not run, and standard error says what to install or what failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from load_tests import comparators, data_plane, evidence, latency, machine, modes, plan, report, streams, upstream
from load_tests.comparators import Ground
from load_tests.plan import Plan
from load_tests.process import BrokenError
from load_tests.report import Results

SECTIONS: dict[str, Callable[[Plan, Ground], Results]] = {
    "data-plane": data_plane.compare,
    "latency": latency.measure,
    "bodies": data_plane.bodies,
    "streams": streams.measure,
    "workers": data_plane.workers,
    "modes": modes.measure,
    "evidence": evidence.measure,
}
MET, NOT_MET, COULD_NOT = 0, 1, 2


def main() -> int:
    wanted = _arguments()
    only = frozenset({*(wanted.only.split(",") if wanted.only else comparators.KEYS), "ours"})
    unknown = sorted(only - set(comparators.KEYS))
    if unknown:
        print(f"--only {unknown[0]}: expected some of {', '.join(comparators.KEYS)}", file=sys.stderr)
        return COULD_NOT
    if wanted.short:
        run = plan.short(only=only, install=wanted.install, results=wanted.results)
    else:
        run = plan.full(
            only=only, rounds=wanted.rounds, seconds=wanted.seconds, install=wanted.install, results=wanted.results
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(COULD_NOT))  # so that what was started is ended
    try:
        met = _run(run, wanted.sections or list(SECTIONS))
    except (machine.UnfitError, BrokenError) as problem:
        print(f"load_tests: {problem}", file=sys.stderr)
        return COULD_NOT
    return MET if met or run.short else NOT_MET


def _run(run: Plan, sections: list[str]) -> bool:
    """Each section by itself, with sides of its own; true if all that was asked is met."""
    machine.check_tools()
    work = machine.cache() / "work"
    work.mkdir(parents=True, exist_ok=True)
    machine.check_space(work, short=run.short)
    facts = machine.facts(work)
    cores = machine.cores()
    met = True
    for section in sections:
        report.say(f"— {section}")
        folder = Path(tempfile.mkdtemp(prefix=f"{section}-", dir=work))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(os.sched_setaffinity, 0, cores.all)
            os.sched_setaffinity(0, {cores.load})  # the open loop's generator is this process
            port = upstream.fixed(folder / "upstream", stack, cores=(cores.load,))
            ground = Ground(work=folder, cores=cores, upstream_port=port, stack=stack, install=run.install)
            results = SECTIONS[section](run, ground)
        report.show(results, facts)
        written = report.write(results, run, facts)
        report.say(f"written: {', '.join(path.name for path in written)}")
        met = met and results.met
    return met


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_tests", description="What evidence costs, as ratios.")
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="default: all")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; figures mean nothing")
    parser.add_argument("--only", help=f"comparators, comma-separated: {','.join(comparators.KEYS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of one window of the closed loop")
    parser.add_argument("--no-install", dest="install", action="store_false", help="leave out what is not in the cache")
    parser.add_argument("--results", type=Path, help="folder for JSON and SVG; default load_tests/results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
