"""Lines on their way to a descriptor, written by a thread: whoever reads a pipe slowly, or not at all, delays no call.

What is put here waits for the thread, at most `LINES_MAX` lines; beyond that lines are dropped and counted. A line is
written whole: several processes may share the descriptor, so what goes into a pipe goes in pieces that the kernel
does not split (pipe(7), PIPE_BUF).
"""

from __future__ import annotations

import os
import queue
import select as polling
import stat
import threading
from collections.abc import Callable, Iterator, Sequence

LINES_MAX = 8192  # about 2 s of a busy worker, and some MiB
LINE_BYTES_MAX = 16 * 1024  # a longer one is cut: it holds a traceback
PIPE_BYTES = 4096  # PIPE_BUF on Linux
END_S = 2.0  # for the last lines when the process ends; a reader that is gone must not keep it

Encode = Callable[[], Sequence[bytes]]


class LineWriter:
    """Writes to one descriptor; `put` from any thread."""

    def __init__(self, descriptor: int = 2, *, lines_max: int = LINES_MAX) -> None:
        """The thread starts now."""
        self._descriptor = descriptor
        self._lines_max = lines_max
        mode = os.fstat(descriptor).st_mode
        self._piece_bytes = PIPE_BYTES if stat.S_ISFIFO(mode) else 1 << 20
        self._jobs: queue.SimpleQueue[tuple[int, Encode] | None] = queue.SimpleQueue()
        self._put = self._done = 0  # lines: the first is written by who puts, the second by the thread
        self._putting = threading.Lock()  # held for a moment, by who puts alone
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def put(self, count: int, encode: Encode) -> None:
        """Have what `encode()` returns written: `count` lines, each ended by a newline. It is called in the thread."""
        with self._putting:
            if self._put - self._done + count > self._lines_max:
                self.dropped += count
                return
            self._put += count
            self._jobs.put((count, encode))

    def write(self, line: str) -> None:
        """One line, as structlog's WriteLogger writes it."""
        raw = line.encode("utf-8", "replace")
        if len(raw) > LINE_BYTES_MAX:
            raw = raw[:LINE_BYTES_MAX] + b"\n"
        self.put(1, lambda: (raw,))

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Return when everything is written, or `END_S` have passed."""
        self._jobs.put(None)
        self._thread.join(END_S)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            count, encode = job
            try:
                for piece in _pieces(encode(), self._piece_bytes):
                    self._write(piece)
            except OSError:  # nobody reads any more, or the disk is full
                self.dropped += count  # of two writers one may be missed: this is a log
            self._done += count

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares it made it so
                polling.select([], [self._descriptor], [])


def _pieces(lines: Sequence[bytes], piece_bytes: int) -> Iterator[bytes]:
    """The lines joined, as many as fit in a piece; a longer one by itself."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > piece_bytes:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)
