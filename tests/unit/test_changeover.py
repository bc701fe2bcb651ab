"""Two phases over real sockets: all workers or none, whatever they answer, and whenever."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.changes import FIXED, check
from config.errors import ConfigError
from config.load import from_tree
from gateway import changeover, handover

Answer = Callable[[bytes, int], bytes | None]


class Peer:
    """The other end of a link: answers as told, in a thread; `None` ends it, as death would."""

    def __init__(self, answer: Answer) -> None:
        self.ours, self._theirs = handover.link()
        self.heard: list[tuple[bytes, int]] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._theirs:
            while True:
                raw, *_ = socket.recv_fds(self._theirs, handover.MESSAGE_BYTES_MAX, 1)
                word, number, _ = handover.parsed(raw)
                if not word:
                    return
                self.heard.append((word, number))
                reply = self._answer(word, number)
                if reply is None:
                    return
                if reply:
                    self._theirs.send(reply)

    def close(self) -> None:
        self.ours.close()
        self._thread.join(5)


def done(word: bytes, number: int) -> bytes:
    return b"" if word == handover.ABORT else handover.message(handover.DONE, number)


def refuses(at: bytes) -> Answer:
    def answer(word: bytes, number: int) -> bytes:
        return handover.message(handover.FAILED, number, "no é") if word == at else done(word, number)

    return answer


def dies(at: bytes) -> Answer:
    return lambda word, number: None if word == at else done(word, number)


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def changed(peers: dict[str, Peer], descriptor: int, number: int = 1) -> tuple[dict[str, str], dict[str, str]]:
    links = {role: peer.ours for role, peer in peers.items()}
    return changeover.change_over(links, descriptor, number, stopping=lambda: False)


@pytest.mark.parametrize(
    ("answers", "refused", "failed", "heard"),
    [
        ([done, done], {}, {}, [[handover.PREPARE, handover.COMMIT]] * 2),
        ([done, refuses(handover.PREPARE)], {"1": "no é"}, {}, [[handover.PREPARE, handover.ABORT]] * 2),
        ([done, refuses(handover.COMMIT)], {}, {"1": "no é"}, [[handover.PREPARE, handover.COMMIT]] * 2),
        ([done, dies(handover.PREPARE)], {}, {}, [[handover.PREPARE, handover.COMMIT], [handover.PREPARE]]),
        ([done, dies(handover.COMMIT)], {}, {}, [[handover.PREPARE, handover.COMMIT]] * 2),
    ],
)
def test_all_workers_take_it_up_or_none(
    descriptor: int, answers: list[Answer], refused: dict[str, str], failed: dict[str, str], heard: list[list[bytes]]
) -> None:
    peers = {str(number): Peer(answer) for number, answer in enumerate(answers)}
    assert changed(peers, descriptor) == (refused, failed)
    for peer in peers.values():
        peer.close()
    assert [[word for word, _ in peer.heard] for peer in peers.values()] == heard


def test_one_that_does_not_answer_refuses_and_its_late_answer_is_not_taken_for_the_next(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changeover, "PREPARE_S", 0.3)
    late = threading.Event()

    def answer(word: bytes, number: int) -> bytes:
        if word == handover.PREPARE and number == 1:
            late.wait(5)
        if word == handover.PREPARE and number == 2:
            return handover.message(handover.FAILED, 2, "not this one")
        return done(word, number)

    peer = Peer(answer)
    refused, _ = changed({"0": peer}, descriptor, 1)
    assert "no answer within 0.3 s" in refused["0"]
    late.set()
    monkeypatch.setattr(changeover, "PREPARE_S", 5)
    assert changed({"0": peer}, descriptor, 2) == ({"0": "not this one"}, {})
    peer.close()


def test_a_problem_too_long_for_a_message_is_cut() -> None:
    raw = handover.message(handover.FAILED, 7, "x" * 10_000)
    assert len(raw) == handover.MESSAGE_BYTES_MAX
    assert handover.parsed(raw)[:2] == (handover.FAILED, 7)


def test_every_key_that_needs_a_restart_is_one_that_settings_have() -> None:
    tree = {"deployment": "a", "callers": {"mode": "open"}, "routes": [{"name": "m", "upstream": "http://127.0.0.1:9"}]}
    tree["routes"][0]["prefix"] = "/m"  # type: ignore[index]
    made = from_tree(tree, Path("a.yaml"))
    check(made, made)
    other = from_tree(tree | {"deployment": "b", "gateway": {"port": 1}}, Path("a.yaml"))
    with pytest.raises(ConfigError, match=r"a.yaml: deployment, gateway.port: changed, which needs a restart"):
        check(made, other)
    assert len(set(FIXED)) == len(FIXED)
