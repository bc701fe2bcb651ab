"""The supervisor of one host: starts N gateway workers and the keeper, restarts what dies, ends all in order.

It decides nothing about decisions. The configuration is read once and handed to every process (`handover.py`), and
read again on SIGHUP: the workers take it up without dropping a connection (`changeover.py`), then the keeper is
started again with it. On SIGTERM or SIGINT the workers drain first (they finish what they accepted), then the keeper
ships what they left; a second one cuts `drain_notice_s` short.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, TYPE_CHECKING

import structlog

from config import changes
from config.errors import AnswerableError
from config.load import Configuration, load
from config.processes import start
from gateway import handover, logs, metering, ports
from gateway.changeover import change_over

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
    link: socket.socket | None = None  # to a gateway worker that runs
    is_expected: bool = False  # its end: it was told to, and is started again at once


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
        self._stopping = self._hurried = self._reload_asked = False
        self._had_terminal = _has_terminal()
        self._reloads = 0
        self._handed_over: IO[bytes]
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
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hung_up)
        self._handed_over = handover.hand_over(self._configuration)
        refused = False
        try:
            while not (self._stopping or refused):
                refused = any(self._tend(child) for child in (self._keeper, *self._workers))
                if self._reload_asked and not self._stopping:
                    self._reload_asked = False
                    self._reload()
                time.sleep(POLL_S)
        finally:
            self._end()
            self._handed_over.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return EXIT_REFUSED if refused else 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._hurried = self._stopping
        self._stopping = True

    def _hung_up(self, _number: int, _frame: FrameType | None) -> None:
        """Reload; but where a terminal has started this, and is gone, nobody is there who would end it."""
        if self._had_terminal and not _has_terminal():
            self._stopping = True
        self._reload_asked = True

    def _reload(self) -> None:
        """Read the file again and put it in force; what cannot be is told to the log, and all goes on as it was."""
        try:
            configuration = load(self._configuration.path, os.environ)
            changes.check(self._configuration, configuration)
            handed_over = handover.hand_over(configuration)
        except (AnswerableError, OSError) as error:
            _log.error("reload_refused", problem=str(error))
            return
        links = {child.role: child.link for child in self._workers if child.link is not None}
        self._reloads += 1
        refused, failed = change_over(links, handed_over.fileno(), self._reloads, stopping=lambda: self._stopping)
        if refused:
            handed_over.close()
            for role, problem in refused.items():
                _log.error("reload_refused", role=role, problem=problem)
            return
        # from here on it is in force: whoever is started again runs it
        self._handed_over.close()
        self._configuration, self._handed_over = configuration, handed_over
        for child in self._workers:
            child.lived = True
            if child.role in failed:
                _log.error("reload_failed", role=child.role, problem=failed[child.role], says="it is started again")
                _end_expectedly(child)
        self._keeper.lived = True
        _end_expectedly(self._keeper)
        _log.info("reloaded", path=str(configuration.path), digest=configuration.digest)

    def _tend(self, child: _Child) -> bool:
        """Start `child` if it is due, look after it if it runs; true if it refused to start at all."""
        now_s = time.monotonic()
        if child.process is None:
            if now_s >= child.due_s:
                self._start(child)
                child.started_s = now_s
            return False
        code = child.process.poll()
        if code is None:
            if now_s - child.started_s >= HEALTHY_S:
                child.lived, child.backoff_s = True, BACKOFF_FIRST_S
            return False
        child.process = None
        if child.link is not None:
            child.link.close()
            child.link = None
        if child.is_expected:
            child.is_expected = False
            return False
        if code == EXIT_REFUSED and not child.lived:
            return True
        self._restarts.ended(_role_of(child.role))
        _log.warning("process_ended", role=child.role, code=code, restart_in_s=child.backoff_s)
        child.due_s = now_s + child.backoff_s
        child.backoff_s = min(child.backoff_s * 2, BACKOFF_MAX_S)
        return False

    def _start(self, child: _Child) -> None:
        handed_over = self._handed_over.fileno()
        # the port is held while any of them lives
        inherited = [handed_over, *self._port.descriptors]
        argv = [sys.executable, "-m", "gateway.serve", child.role, str(handed_over), str(os.getpid())]
        theirs: socket.socket | None = None
        if child is not self._keeper:
            child.link, theirs = handover.link()
            inherited.append(theirs.fileno())
            argv.append(str(theirs.fileno()))
        try:
            child.process = start(argv, env=os.environ, pass_fds=inherited, own_group=True)
        finally:
            if theirs is not None:
                theirs.close()

    def _end(self) -> None:
        gateway = self._configuration.settings.gateway
        self._end_all(self._workers, within_s=gateway.drain_notice_s + gateway.drain_s + GRACE_S)
        self._end_all([self._keeper], within_s=KEEPER_DRAIN_S + GRACE_S)

    def _end_all(self, children: list[_Child], *, within_s: float) -> None:
        running = [child.process for child in children if child.process is not None]
        for process in running:
            process.terminate()
        deadline_s = time.monotonic() + within_s
        hurried = False
        while any(process.poll() is None for process in running) and time.monotonic() < deadline_s:
            if self._hurried and not hurried:
                hurried = True
                for process in running:
                    process.terminate()
            time.sleep(POLL_S)
        for process in running:
            if process.poll() is None:
                _log.error("process_killed", pid=process.pid, after_s=within_s)
                process.kill()
                process.wait()
        for child in children:
            child.process = None


def _end_expectedly(child: _Child) -> None:
    """Have it end in order, to be started again at once."""
    if child.process is not None:
        child.is_expected = True
        child.process.terminate()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


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
    """One process of the host: ``ROLE DESCRIPTOR PARENT [LINK]``, as the supervisor starts it."""
    role, descriptor, parent, *link = arguments
    _end_with(int(parent))
    logs.configure()
    configuration = handover.take_over(int(descriptor))
    metering.share(configuration.data, _role_of(role))
    logs.configure(level=configuration.settings.log.level)
    # a gateway worker must load neither database nor numbers, so each role imports its own
    if role.startswith("keeper"):
        from gateway.keeper.app import run_keeper  # noqa: PLC0415

        with logs.off_loop(configuration.settings.log.level):
            return asyncio.run(run_keeper(configuration, desk=role == "keeper"))
    import uvloop  # noqa: PLC0415

    from gateway.proxy.app import run  # noqa: PLC0415

    return uvloop.run(run(configuration, shard=role, link=socket.socket(fileno=int(link[0]))))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
