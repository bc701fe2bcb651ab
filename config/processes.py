"""The only place that starts a process: no shell, no inherited descriptors but those named, its own group."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    own_group: bool = True,
) -> subprocess.Popen[bytes]:
    """Start `argv` without a shell and return at once; standard input is empty.

    With `own_group` a Ctrl-C at the terminal reaches the parent only, which then ends its children in order.

    Raises:
        OSError: the program is not there or cannot be started.
    """
    return subprocess.Popen(  # noqa: S603 (argv comes from our own code, never from a request)
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=None if env is None else dict(env),
        pass_fds=tuple(pass_fds),
        close_fds=True,
        process_group=0 if own_group else None,
    )
