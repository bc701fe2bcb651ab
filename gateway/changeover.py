"""Putting another configuration in force in the workers of a host: all of them, or none.

First each makes what it needs (`prepare`); one that cannot, or does not answer, and all of them forget it. Then each is
told to serve under it (`commit`). A worker that dies in between is no obstacle: it is started again with whichever is
in force by then. Blocking; the supervisor does nothing else meanwhile.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping

from gateway import handover

PREPARE_S = 30.0  # thousands of routes take a second
COMMIT_S = 30.0  # one sync of the journal; a disk that is full is waited for
POLL_S = 0.1

Problems = dict[str, str]  # by role


def change_over(
    links: Mapping[str, socket.socket], descriptor: int, number: int, *, stopping: Callable[[], bool]
) -> tuple[Problems, Problems]:
    """Have the workers at the other ends of `links` take up the configuration behind `descriptor`, the `number`th.

    Returns who refused it: then none has it; and who failed to begin to serve under it: all others do.
    """
    there = {}
    for role, link in links.items():
        try:
            socket.send_fds(link, [handover.message(handover.PREPARE, number)], [descriptor])
            there[role] = link
        except OSError:
            continue  # it has just died
    refused = _answers(there, number, within_s=PREPARE_S, stopping=stopping)
    if refused:
        for link in there.values():
            _tell(link, handover.message(handover.ABORT, number))
        return refused, {}
    committed = {role: link for role, link in there.items() if _tell(link, handover.message(handover.COMMIT, number))}
    return {}, _answers(committed, number, within_s=COMMIT_S, stopping=lambda: False)


def _answers(
    links: Mapping[str, socket.socket], number: int, *, within_s: float, stopping: Callable[[], bool]
) -> Problems:
    """Wait for an answer of each; what is not well."""
    problems: Problems = {}
    waiting = {link: role for role, link in links.items()}
    deadline_s = time.monotonic() + within_s
    while waiting and time.monotonic() < deadline_s and not stopping():
        ready, _, _ = select.select(list(waiting), [], [], POLL_S)
        for link in ready:
            word, answered, said = handover.parsed(_heard(link))
            if word and answered != number:
                continue  # of a reload that was given up
            role = waiting.pop(link)  # one without a word has died, and is started again with what is in force then
            if word == handover.FAILED:
                problems[role] = said
    late = "the host is ending" if stopping() else f"no answer within {within_s:g} s"
    return problems | dict.fromkeys(waiting.values(), late)


def _heard(link: socket.socket) -> bytes:
    try:
        return link.recv(handover.MESSAGE_BYTES_MAX)
    except OSError:
        return b""


def _tell(link: socket.socket, message: bytes) -> bool:
    try:
        link.send(message)
    except OSError:
        return False
    return True
