"""Who listens on a port: one deployment, with as many workers as it likes.

Workers share their port by SO_REUSEPORT, which the kernel grants to every process of the same user. Without more, a
second deployment on that port would start without a word and take half of the first one's calls into its own journal.
So who starts workers holds a shared lock on a file named after the port, in which the deployment is named. Workers
inherit it, and it ends with the last of them, however they end.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from config.errors import ConfigError
from config.load import Configuration

WAIT_S = 2.0  # for another process that is just writing its name
POLL_S = 0.02
NAME_BYTES_MAX = 4096


class PortLock:
    """A deployment's hold on its port, until `release` and the end of all processes that inherit `descriptors`."""

    def __init__(self, *descriptors: int) -> None:
        """`take` makes it."""
        self.descriptors = descriptors

    def release(self) -> None:
        """Let the port go."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


def take(configuration: Configuration) -> PortLock:
    """Hold the gateway's port for the deployment of `configuration`, beside other processes of the same deployment.

    Raises:
        ConfigError: another deployment, or another program, listens there; the message names the port.
    """
    host, port = configuration.settings.gateway.host, configuration.settings.gateway.port
    if not port:  # the system's choice, which nobody else has
        return PortLock()
    ours = f"{configuration.settings.deployment} in {configuration.data.resolve()}"
    descriptor = os.open(_directory() / f"port-{port}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _hold(descriptor, ours, host, port)
    except BaseException:
        os.close(descriptor)
        raise
    return PortLock(descriptor)


def _hold(descriptor: int, ours: str, host: str, port: int) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        if _locked(descriptor, fcntl.LOCK_EX):  # nobody of Answerable is there: it is ours to name
            _refuse_if_taken(host, port)
            os.pwrite(descriptor, ours.encode(), 0)
            os.ftruncate(descriptor, len(ours.encode()))
        # between the two locks another may come first: its name is then what the next lines read
        if _locked(descriptor, fcntl.LOCK_SH):
            holder = os.pread(descriptor, NAME_BYTES_MAX, 0).decode("utf-8", "replace")
            if holder == ours:
                return
            raise _taken(host, port, f"the deployment {holder}")
        if time.monotonic() > deadline_s:
            raise _taken(host, port, "another deployment that is just starting")
        time.sleep(POLL_S)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_if_taken(host: str, port: int) -> None:
    """Bind without SO_REUSEPORT, which no listener on the port lets pass."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is in TIME_WAIT does not listen
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise _taken(host, port, error.strerror or str(error)) from error


def _taken(host: str, port: int, who: str) -> ConfigError:
    return ConfigError(
        f"gateway.port: {host}:{port} cannot be listened on: {who}",
        advice="End what listens there, or give this deployment another port.",
    )


def _directory() -> Path:
    """Where the locks are: a directory of this user's. Ports belong to a network namespace, and so do the names."""
    namespace = 0
    with suppress(OSError):  # other systems have none
        namespace = Path("/proc/self/ns/net").stat().st_ino
    directory = Path(tempfile.gettempdir()) / f"answerable-{os.getuid()}-{namespace}"
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"{directory} is not this user's directory", advice="Remove it, or set TMPDIR.")
    return directory
