"""The compiled form of the program, as `make compiled` leaves it and wheels carry it; the bench measures that one."""

from __future__ import annotations

import filecmp
from pathlib import Path

from load_tests.process import BrokenError

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build" / "compiled"
PACKAGES = ("config", "explainers", "gateway", "storage")


def find() -> Path | None:
    """Where it is; None where it was not built.

    Raises:
        BrokenError: it was made of other sources than those that are here.
    """
    if not list(BUILT.glob("gateway/proxy/*.so")):
        return None
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*.py"):
            made_of = BUILT / source.relative_to(ROOT)
            if not made_of.exists() or not filecmp.cmp(source, made_of, shallow=False):
                raise BrokenError(f"{made_of} is not what {source.name} is now: run `make compiled`")
    return BUILT


def environment() -> dict[str, str]:
    """What a process needs in its environment to run it, if it is there."""
    built = find()
    return {} if built is None else {"PYTHONPATH": str(built)}
