"""Metrics of a host: one directory of mapped files, one set for each role, which any process of the host adds up.

A role is a process that exists once (`gateway-0`, `keeper`, `desk`, `supervisor`). Its files bear its name, not its
process id: a worker that is started again goes on counting where the last one stopped, and the directory holds as many
files as there are roles, however often they die. A role holds a lock while it lives, so whoever adds up leaves out the
gauges of the dead, and says who they are.

`share` must run before anything else imports prometheus_client, which looks at the environment once.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from urllib.parse import quote, unquote

DIRECTORY = "metrics"
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's
ALIVE = ".alive"
_TRIES, _TRY_S = 10, 0.02  # somebody who adds up holds the lock for microseconds
_held: list[int] = []  # descriptors of this process' locks, let go when it ends


def share(data: Path, role: str) -> bool:
    """Count as `role` of the host, in files that its other processes read.

    False, and nothing has changed, if another process lives under that name.
    """
    directory = data / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    name = _name_of(role)
    if not _lock(directory / f"{name}{ALIVE}"):
        return False
    for stale in directory.glob(f"gauge_*_{name}.db"):
        stale.unlink()
    os.environ[VARIABLE] = str(directory)
    from prometheus_client import values  # noqa: PLC0415 (see above)

    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: name)  # type: ignore[no-untyped-call]  # the library has no types here
    return True


def clear(data: Path) -> None:
    """Forget the counters of roles that do not live: a host that starts counts from zero, as Prometheus expects."""
    directory = data / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    living = {name for name, lives in _roles(directory).items() if lives}
    for file in [*directory.glob("*.db"), *directory.glob(f"*{ALIVE}")]:
        if file.stem.rpartition("_")[2] not in living:
            file.unlink(missing_ok=True)


def look(directory: Path) -> tuple[list[str], dict[str, bool]]:
    """The files to add up (all counters and histograms, and the gauges of those who live), and who lives.

    Every role is named that was ever seen here since the host started.
    """
    roles = _roles(directory)
    files = [
        str(file)
        for file in sorted(directory.glob("*.db"))
        if not file.name.startswith("gauge_live") or roles.get(name := file.stem.rpartition("_")[2]) or name.isdigit()
    ]
    return files, {unquote(name): lives for name, lives in roles.items()}


def _roles(directory: Path) -> dict[str, bool]:
    return {path.name.removesuffix(ALIVE): _is_locked(path) for path in sorted(directory.glob(f"*{ALIVE}"))}


def _name_of(role: str) -> str:
    """The role as a part of a file's name: prometheus-client splits names at underscores."""
    return quote(role, safe="").replace("_", "%5F").replace(".", "%2E")


def _lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(_TRY_S)
        else:
            _held.append(descriptor)
            return True
    os.close(descriptor)
    return False


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
