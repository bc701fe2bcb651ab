"""What one worker holds at most: calls under way and bytes in memory. Who would pass a bound is refused with 503."""

from __future__ import annotations

from gateway.proxy.errors import Busy

RETRY_AFTER_S = 1


class Budget:
    """Bytes of requests and answers that are held in memory for calls under way.

    The journal bounds what waits for the disk; this bounds what waits for a model or a caller.
    """

    def __init__(self, bytes_max: int) -> None:
        """All of it is free."""
        self.bytes_max = bytes_max
        self.held_bytes = 0

    def take(self, count: int) -> None:
        """Hold `count` more bytes; the caller of this gives them back.

        Raises:
            Busy: there is no room for them.
        """
        if self.held_bytes + count > self.bytes_max:
            raise Busy(f"this worker holds {self.held_bytes} bytes of other calls already", code="memory_full")
        self.held_bytes += count

    def add(self, count: int) -> None:
        """Hold `count` bytes of an answer that has come whether there is room or not; who adds looks at `full`."""
        self.held_bytes += count

    @property
    def full(self) -> bool:
        """Whether answers must go on to caller and journal as they come, and their connections wait in between."""
        return self.held_bytes >= self.bytes_max

    def give_back(self, count: int) -> None:
        """Hold `count` bytes less."""
        self.held_bytes -= count
        assert self.held_bytes >= 0


class Gauge:
    """How many calls are under way, at most `most`."""

    def __init__(self, most: int) -> None:
        """None is."""
        self.most = most
        self.now = 0

    def enter(self) -> None:
        """One more.

        Raises:
            Busy: as many as may be are under way.
        """
        if self.now >= self.most:
            raise Busy(f"{self.now} calls are under way on this worker")
        self.now += 1

    def leave(self) -> None:
        """One less."""
        self.now -= 1
        assert self.now >= 0
