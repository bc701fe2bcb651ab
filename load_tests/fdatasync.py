"""What the disk itself takes: fdatasync after an append, on the file system that journals are on, in the same run.

As a journal does it: the file is reserved in advance, each batch is written behind the last and synced. What a
gateway adds to a call can be less than this only by not waiting for the disk.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from load_tests.percentile import percentile

FILE_BYTES = 8 * 1024**2
BATCH_BYTES = 3 * 1024  # one decision with its sealed parts


@dataclass(slots=True)
class Disk:
    """Times fdatasync, as often as asked; keeps every sample (ms)."""

    directory: Path
    samples_ms: list[float] = field(default_factory=list)

    def measure(self, calls: int) -> None:
        """Append and sync `calls` batches to a file that is removed again."""
        path = self.directory / "fdatasync"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, FILE_BYTES)
            os.fsync(descriptor)
            batch = os.urandom(BATCH_BYTES)
            for number in range(calls):
                os.pwrite(descriptor, batch, number * BATCH_BYTES % (FILE_BYTES - BATCH_BYTES))
                began = time.perf_counter()
                os.fdatasync(descriptor)
                self.samples_ms.append((time.perf_counter() - began) * 1e3)
        finally:
            os.close(descriptor)
            path.unlink()

    @property
    def p50_ms(self) -> float:
        return percentile(self.samples_ms, 50)

    @property
    def p99_ms(self) -> float:
        return percentile(self.samples_ms, 99)

    def as_json(self) -> dict[str, object]:
        return {"p50_ms": round(self.p50_ms, 3), "p99_ms": round(self.p99_ms, 3), "samples": len(self.samples_ms)}
