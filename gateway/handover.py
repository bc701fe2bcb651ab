"""How a configuration gets from the supervisor to the processes of a host: in a file without a name.

Each inherits its descriptor, or is sent it; so a worker that is restarted a month later runs what was activated, not
what the file says by then. A worker that runs is sent the next one over its link: `PREPARE` to all, and only when all
have made what it needs, `COMMIT`.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import IO

import orjson

from config.load import Configuration, from_tree


def hand_over(configuration: Configuration) -> IO[bytes]:
    """A file that holds `configuration`; the caller closes it."""
    file = tempfile.TemporaryFile("w+b", prefix="answerable-")  # noqa: SIM115 (the caller closes it)
    file.write(orjson.dumps({"path": str(configuration.path)}) + b"\n" + configuration.canonical)
    file.flush()
    return file


def take_over(descriptor: int) -> Configuration:
    """The configuration that `hand_over` wrote, and close `descriptor`; read by position: the offset is shared.

    Raises:
        config.errors.ConfigError: it is none that this program understands.
    """
    try:
        raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
    head, _, canonical = raw.partition(b"\n")
    return from_tree(orjson.loads(canonical), Path(orjson.loads(head)["path"]))


PREPARE, COMMIT, ABORT = b"prepare", b"commit", b"abort"  # to a worker; `PREPARE` comes with a descriptor
DONE, FAILED = b"done", b"failed"  # from it
MESSAGE_BYTES_MAX = 4096


def link() -> tuple[socket.socket, socket.socket]:
    """Both ends of what supervisor and worker talk through: whole messages, in order; the end of one ends the other."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def message(word: bytes, number: int, said: str = "") -> bytes:
    """`number` is that of the reload, in both directions, so that nobody takes a late answer for another one's."""
    return (b"%b %d %b" % (word, number, said.encode()))[:MESSAGE_BYTES_MAX]


def parsed(raw: bytes) -> tuple[bytes, int, str]:
    """Word, number and what is said of a message; an empty word where the other end is gone."""
    if not raw:
        return b"", 0, ""
    word, number, said = raw.split(b" ", 2)
    return word, int(number), said.decode("utf-8", "replace")
