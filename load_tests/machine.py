"""The machine under test: its cores, what is installed on it, where the bench may write, what processes hold."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "ANSWERABLE_BENCH_CACHE"
FREE_BYTES_MIN = 6 * 1024**3  # a full run journals a few GB; the short form next to nothing
FREE_BYTES_MIN_SHORT = 512 * 1024**2
PACKAGES = {"nginx": "nginx", "wrk": "wrk", "taskset": "util-linux"}  # tool → Debian package
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class UnfitError(Exception):
    """This machine cannot run the bench; the message says what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Who runs where: the proxy under test on one core, load and upstream on the other."""

    gateway: int
    load: int
    all: tuple[int, ...]

    @property
    def apart(self) -> bool:
        """False where one core has to do both, and the ratios flatter whoever does least."""
        return self.gateway != self.load


def cores() -> Cores:
    usable = tuple(sorted(os.sched_getaffinity(0)))
    return Cores(gateway=usable[0], load=usable[-1], all=usable)


def which(tool: str) -> str | None:
    """The tool's path; Debian keeps nginx where an ordinary PATH does not look."""
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def tool(name: str) -> str:
    """The path of a tool that has to be there.

    Raises:
        UnfitError: it is not.
    """
    path = which(name)
    if path is None:
        raise UnfitError(
            f"{name} is missing. On Debian: apt-get install --no-install-recommends {PACKAGES.get(name, name)}"
        )
    return path


def check_tools() -> None:
    """Every tool that the bench itself needs is there, or one message names all the packages to install."""
    missing = [name for name in PACKAGES if which(name) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[name] for name in missing))
        raise UnfitError(
            f"missing: {', '.join(missing)}. On Debian: apt-get install --no-install-recommends {packages}\n"
            "(stop the service that nginx's package may start: systemctl disable --now nginx)"
        )


def cache() -> Path:
    """Where comparators are installed and runs write their journals: outside the repository, kept between runs."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "answerable-bench"


def check_space(path: Path, *, short: bool) -> None:
    free = shutil.disk_usage(path).free
    least = FREE_BYTES_MIN_SHORT if short else FREE_BYTES_MIN
    if free < least:
        raise UnfitError(
            f"{free / 1024**3:.1f} GB are free for journals, {least / 1024**3:.1f} are needed: set {CACHE_VARIABLE}"
        )


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants; 0 for what is gone."""
    return sum(_resident(each) for each in _family(pid))


def cpu_s(pid: int) -> float:
    """Processor time that a process and its living descendants have used so far, seconds (in ticks of 10 ms)."""
    return sum(_used_ticks(each) for each in _family(pid)) / TICKS_PER_S


def _used_ticks(pid: int) -> int:
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(after_name[11]) + int(after_name[12])  # utime, stime: proc(5) fields 14 and 15
    except (OSError, IndexError, ValueError):
        return 0


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def _family(pid: int) -> list[int]:
    family = [pid]
    for member in family:  # grows while it is walked
        try:
            for task in Path(f"/proc/{member}/task").iterdir():
                family += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return family


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on, e.g. ext4."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split(" ")
        inside = path == Path(mount) or Path(mount) in path.parents
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def facts(work: Path) -> dict[str, object]:
    """What a reader must know to judge the figures; no names, no paths."""
    where = cores()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": len(where.all),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES / 1024**3),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": file_system(work),
        "load_before": round(os.getloadavg()[0], 2),
        "cores_apart": where.apart,
    }
