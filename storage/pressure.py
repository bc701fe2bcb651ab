"""Pressure: how full disk and memory are, and what follows from that. Pure.

70 % warns, 85 % sheds what can be recomputed or was declared best effort, 95 % refuses. A level ends five points below
where it began, so that it does not flicker. Three things press: the reserved space of the journal, the free space of
its file system, and what waits in memory; a fourth, a disk that does not answer, only sheds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

WARN_SHARE = 0.70
SHED_SHARE = 0.85
REFUSE_SHARE = 0.95  # what is left belongs to calls that were admitted, and to the shipping that frees space
RELEASE_SHARE = 0.05  # a level is left so far below its threshold
MEMORY_SHED_SHARE = 0.5  # of `pending_bytes_max`: the other half is for calls whose evidence must not be shed
WAIT_SHED_S = 1.0  # a batch takes milliseconds; a disk that needs so long would be asked for still more
HEADROOM_SEGMENTS = 64  # free space counts from there on (4 GiB): terabytes at 96 % are not full …
HEADROOM_PARTS = 10  # … and a small file system is not full at 90 %


class Level(IntEnum):
    """What is done about it; each level includes those before."""

    CALM = 0
    WARN = 1
    SHED = 2
    REFUSE = 3


_THRESHOLDS = ((Level.REFUSE, REFUSE_SHARE), (Level.SHED, SHED_SHARE), (Level.WARN, WARN_SHARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One look: shares from 0 to 1, and how long the oldest batch has been with the disk."""

    space_share: float  # of the reserved journal space
    disk_share: float  # of the file system's headroom, see `used_share`
    memory_share: float  # of the bytes that may wait in memory
    wait_s: float


def used_share(*, free_bytes: int, total_bytes: int, segment_bytes: int) -> float:
    """How much of a file system's headroom is used: 0 where as much is free as anybody needs, 1 where nothing is."""
    headroom_bytes = min(HEADROOM_SEGMENTS * segment_bytes, total_bytes // HEADROOM_PARTS)
    return 0.0 if headroom_bytes <= 0 else max(0.0, 1 - free_bytes / headroom_bytes)


def level(load: Load, before: Level) -> Level:
    """The level now, where it was `before`."""
    share = max(load.space_share, load.disk_share)
    found = Level.CALM
    for each, threshold in _THRESHOLDS:
        if share >= threshold - (RELEASE_SHARE if before >= each else 0):
            found = each
            break
    presses = load.memory_share >= MEMORY_SHED_SHARE or load.wait_s >= WAIT_SHED_S
    return max(found, Level.SHED) if presses else found


def sentence(load: Load, found: Level) -> str:
    """What is the matter, in a sentence for a person; empty where nothing is."""
    if found is Level.CALM:
        return ""
    said = []
    if load.disk_share >= WARN_SHARE - RELEASE_SHARE:
        said.append(f"the journal's file system has little left ({load.disk_share:.0%} of its headroom is used)")
    if load.space_share >= WARN_SHARE - RELEASE_SHARE:
        said.append(f"{load.space_share:.0%} of the reserved journal space is used, and there is no next segment")
    if load.memory_share >= MEMORY_SHED_SHARE:
        said.append(f"{load.memory_share:.0%} of the memory for evidence waits for the disk")
    if load.wait_s >= WAIT_SHED_S:
        said.append(f"the disk has not answered for {load.wait_s:.1f} s")
    done = {
        Level.WARN: "nothing is shed yet",
        Level.SHED: "best_effort calls are shed, explanations pause",
        Level.REFUSE: "calls are refused, or pass without an entry where the route says so",
    }
    return f"{'; '.join(said) or 'the disk fills'}: {done[found]}"
