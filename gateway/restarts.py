"""What the supervisor counts. Imported after `gateway.metering.share`."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter


class Restarts:
    """How often each process of the host ended without having been asked to."""

    def __init__(self, roles: Sequence[str]) -> None:
        """All at zero, so that an alert sees the first one."""
        self._ended = Counter("answerable_process_ends", "Ends of a process that was to go on running.", ["role"])
        for role in roles:
            self._ended.labels(role)

    def ended(self, role: str) -> None:
        """`role` ended and is started again."""
        self._ended.labels(role).inc()
