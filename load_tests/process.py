"""A process under load: pinned, logged, ended with the bench, however the bench ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.processes import start
from load_tests import machine

STOP_S = 15.0  # a gateway drains and closes its journal; then it is killed
TAIL_BYTES = 2_000


class BrokenError(Exception):
    """A process did not start or died; the message ends with what it said last."""


class Process:
    """One process (and its children, as one group) on the given cores, its output in a file."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cores: Sequence[int],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        whole = [machine.tool("taskset"), "--cpu-list", ",".join(map(str, cores)), *argv]
        setpriv = machine.which("setpriv")
        if setpriv is not None:  # SIGKILL of the bench leaves nothing behind
            whole = [setpriv, "--pdeathsig", "KILL", *whole]
        if cwd is not None:
            whole = [machine.tool("env"), "--chdir", str(cwd), *whole]
        with log.open("ab") as output:
            self._process = start(
                whole, env=None if env is None else {**os.environ, **env}, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        return machine.rss_bytes(self.pid)

    @property
    def cpu_s(self) -> float:
        return machine.cpu_s(self.pid)

    def wait_for_port(self, port: int, *, within_s: float) -> None:
        """Return when the process listens on loopback.

        Raises:
            BrokenError: it ended first, or takes too long.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BrokenError(f"ended with code {self._process.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return
            time.sleep(0.05)
        raise BrokenError(f"does not listen after {within_s:g} s: {self.last_words()}")

    def last_words(self) -> str:
        with self.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self, *, within_s: float = STOP_S) -> int:
        """End the whole group, gently first; returns the exit code."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self._signal(signal.SIGKILL)
        return self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def free_port() -> int:
    """A port that was free a moment ago, chosen by the system, for programs that cannot be told 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
