"""An explainer worker: ``python -m explainers.worker --fd N --data DIR``.

It reads frames from the inherited socket N and answers them one after the other until the socket ends. It opens no
network connection and writes no file. A frame it does not know ends it with an error: the keeper starts another.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explainers.base import ExplanationRequest, ExplanationResult, failed
from explainers.errors import ArtifactError
from explainers.explanation import ENVIRONMENT, explain
from explainers.messages import Decoder, Frame, FrameError, encode, request_of, result_frame
from explainers.prepared import Shelf

READ_BYTES = 1 << 20
GRACE_S = 5.0  # past the keeper's own time limit: the worker ends itself only where the keeper is gone
EXIT_FRAME = 3


class Worker:
    """The loop of one worker process over one socket."""

    def __init__(self, connection: socket.socket, data: Path) -> None:
        self._connection = connection
        self._shelf = Shelf(data)

    def run(self) -> None:
        """Say hello, then answer until the keeper closes the socket.

        Raises:
            FrameError: the keeper sent something else than frames of this version.
        """
        self._send(Frame(type="hello", fields={"pid": os.getpid(), "versions": ENVIRONMENT}))
        decoder = Decoder()
        while data := self._connection.recv(READ_BYTES):
            for frame in decoder.feed(data):
                self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        match frame.type:
            case "prepare":
                with _alarm(frame.fields):
                    answer = self._prepare(frame)
                self._send(answer)
            case "plan":
                with _alarm(frame.fields):
                    answer = result_frame(self._explain(request_of(frame)))
                self._send(answer)
            case "cancel":
                pass  # frames are answered in order, so the job it names is over
            case _:
                raise FrameError(f"a worker takes no frame of type {frame.type}")

    def _prepare(self, frame: Frame) -> Frame:
        try:
            self._shelf.get(str(frame.fields.get("registration")))
        except ArtifactError as error:
            return Frame(
                type="failure", job=frame.job, fields={"error": {"code": error.code, "message": error.message}}
            )
        return Frame(type="result", job=frame.job)

    def _explain(self, request: ExplanationRequest) -> ExplanationResult:
        try:
            return explain(request, self._shelf)
        except Exception as error:  # noqa: BLE001 (whatever a method raises concerns this job only, and becomes its failure)
            traceback.print_exc()
            # the exception's text may hold a person's values; its type does not
            return failed(request, "explainer_error", f"{type(error).__name__} in the explainer; see the keeper's log")

    def _send(self, frame: Frame) -> None:
        self._connection.sendall(encode(frame))


@contextlib.contextmanager
def _alarm(fields: Any) -> Iterator[None]:
    """End this process if one frame takes much longer than the keeper waits, even inside C code."""
    timeout_s = fields.get("timeout_s")
    if not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise FrameError("expected timeout_s, a number of seconds")
    signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> int:
    """Run a worker on the inherited socket; 0 when the keeper closed it, 3 when it sent what is no frame."""
    arguments = argparse.ArgumentParser(prog="python -m explainers.worker", description=__doc__)
    arguments.add_argument("--fd", type=int, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    given = arguments.parse_args()
    with socket.socket(fileno=given.fd) as connection:
        try:
            Worker(connection, given.data).run()
        except FrameError as error:
            sys.stderr.write(f"explainer worker: {error.message}\n")
            return EXIT_FRAME
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the keeper went away while an answer was under way; it will ask again
    return 0


if __name__ == "__main__":
    sys.exit(main())
