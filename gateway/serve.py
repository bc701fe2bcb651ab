"""The supervisor of one host: starts N gateway workers and the keeper, restarts what dies, ends all in order.

It decides nothing about decisions. The configuration is read once and handed to every process through an
inherited descriptor, so that a worker that is restarted a month later runs what was activated, not what the
file says by then. On SIGTERM or SIGINT the workers drain first (they finish what they accepted), then the
keeper ships what they left.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

import orjson
import structlog

from config.load import Configuration, from_tree
from config.processes import start
from gateway import logs, metering, ports

if TYPE_CHECKING:  # imports prometheus_client, which looks at the environment once: see metering
    from gateway.restarts import Restarts

POLL_S = 0.1  # how late a death or a signal may be noticed
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0  # a process that cannot live must not eat the machine by being started
HEALTHY_S = 10.0  # one that lived so long starts again without delay
KEEPER_DRAIN_S = 30.0  # what is not shipped by then is on disk and is shipped at the next start
GRACE_S = 5.0  # between the end of a drain and SIGKILL
_PR_SET_PDEATHSIG = 1  # prctl(2)
EXIT_REFUSED = 2  # a port in use, the data held, a faulty configuration: starting again cannot help

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Child:
    """One process that shall run, and how its last attempts went."""

    role: str
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    due_s: float = 0.0  # when it may be started (again), on the monotonic clock
    backoff_s: float = field(default=BACKOFF_FIRST_S)
    lived: bool = False  # it was healthy once: from then on its death is a reason to start it again, whatever it says


def serve(configuration: Configuration, *, desk: bool = True) -> int:
    """Run the whole of one host until SIGTERM or SIGINT; returns the exit code of the command.

    0: ended as asked. `EXIT_REFUSED`: a process refused to start (it has said why on standard error).
    """
    return Supervisor(configuration, desk=desk).run()


class Supervisor:
    """Starts, watches, restarts and ends the processes of one host."""

    def __init__(self, configuration: Configuration, *, desk: bool) -> None:
        shards = [f"gateway-{number}" for number in range(configuration.settings.gateway.workers)]
        self._configuration = configuration
        self._workers = [_Child(shard) for shard in shards]
        self._keeper = _Child("keeper" if desk else "keeper-without-desk")
        self._stopping = False
        self._port = ports.PortLock()
        self._restarts: Restarts

    def run(self) -> int:
        """Start everything, keep it running, end it in order.

        Raises:
            config.errors.ConfigError: another deployment has the gateway's port.
        """
        self._port = ports.take(self._configuration)
        try:
            return self._run()
        finally:
            self._port.release()

    def _run(self) -> int:
        metering.clear(self._configuration.data)
        metering.share(self._configuration.data, "supervisor")
        from gateway.restarts import Restarts  # noqa: PLC0415 (see metering)

        self._restarts = Restarts([_role_of(child.role) for child in (self._keeper, *self._workers)])
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        refused = False
        try:
            with _handed_over(self._configuration) as handover:
                while not (self._stopping or refused):
                    refused = any(self._tend(child, handover) for child in (self._keeper, *self._workers))
                    time.sleep(POLL_S)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return EXIT_REFUSED if refused else 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _tend(self, child: _Child, handover: IO[bytes]) -> bool:
        """Start `child` if it is due, look after it if it runs; true if it refused to start at all."""
        now_s = time.monotonic()
        if child.process is None:
            if now_s >= child.due_s:
                argv = [sys.executable, "-m", "gateway.serve", child.role, str(handover.fileno()), str(os.getpid())]
                inherited = (handover.fileno(), *self._port.descriptors)  # the port is held while any of them lives
                child.process = start(argv, env=os.environ, pass_fds=inherited, own_group=True)
                child.started_s = now_s
            return False
        code = child.process.poll()
        if code is None:
            if now_s - child.started_s >= HEALTHY_S:
                child.lived, child.backoff_s = True, BACKOFF_FIRST_S
            return False
        child.process = None
        if code == EXIT_REFUSED and not child.lived:
            return True
        self._restarts.ended(_role_of(child.role))
        _log.warning("process_ended", role=child.role, code=code, restart_in_s=child.backoff_s)
        child.due_s = now_s + child.backoff_s
        child.backoff_s = min(child.backoff_s * 2, BACKOFF_MAX_S)
        return False

    def _end(self) -> None:
        _end_all(self._workers, within_s=self._configuration.settings.gateway.drain_s + GRACE_S)
        _end_all([self._keeper], within_s=KEEPER_DRAIN_S + GRACE_S)


def _end_all(children: list[_Child], *, within_s: float) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline_s = time.monotonic() + within_s
    for process in running:
        try:
            process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.error("process_killed", pid=process.pid, after_s=within_s)
            process.kill()
            process.wait()
    for child in children:
        child.process = None


def _handed_over(configuration: Configuration) -> IO[bytes]:
    """A file without a name that holds `configuration` for the processes that inherit it."""
    file = tempfile.TemporaryFile("w+b", prefix="answerable-")  # noqa: SIM115 (the caller closes it)
    file.write(orjson.dumps({"path": str(configuration.path)}) + b"\n" + configuration.canonical)
    file.flush()
    return file


def _take_over(descriptor: int) -> Configuration:
    """The configuration that `_handed_over` wrote; read by position, since all processes share the offset."""
    raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    head, _, canonical = raw.partition(b"\n")
    return from_tree(orjson.loads(canonical), Path(orjson.loads(head)["path"]))


def _role_of(role: str) -> str:
    """The role as metrics name it: with or without a desk, the keeper is the keeper."""
    return "keeper" if role.startswith("keeper") else role


def _end_with(parent: int) -> None:
    """Have SIGTERM sent to this process when the supervisor dies, so that a new one finds ports and journals free."""
    with contextlib.suppress(OSError, AttributeError):  # prctl is Linux's; elsewhere orphans are found by a person
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(EXIT_REFUSED)


def main(arguments: list[str]) -> int:
    """One process of the host: ``ROLE DESCRIPTOR PARENT``, as the supervisor starts it."""
    role, descriptor, parent = arguments
    _end_with(int(parent))
    logs.configure()
    configuration = _take_over(int(descriptor))
    metering.share(configuration.data, _role_of(role))
    logs.configure(level=configuration.settings.log.level)
    # a gateway worker must load neither database nor numbers, so each role imports its own
    if role.startswith("keeper"):
        from gateway.keeper.app import run_keeper  # noqa: PLC0415

        with logs.off_loop(configuration.settings.log.level):
            return asyncio.run(run_keeper(configuration, desk=role == "keeper"))
    import uvloop  # noqa: PLC0415

    from gateway.proxy.app import run  # noqa: PLC0415

    return uvloop.run(run(configuration, shard=role))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
