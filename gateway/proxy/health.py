"""Whether a replica is well, by the checks that are made of it (pure).

One check proves little in either direction: `unhealthy_after` failed ones in a row take a replica out, `healthy_after`
passed ones in a row bring it back. Until the first verdict it is taken for healthy: a gateway that starts refuses
nobody on suspicion.
"""

from __future__ import annotations


class Health:
    """What the checks of one replica have come to."""

    __slots__ = ("_against", "_healthy_after", "_unhealthy_after", "healthy")

    def __init__(self, *, healthy_after: int, unhealthy_after: int) -> None:
        """Healthy, nothing checked."""
        self._healthy_after = healthy_after
        self._unhealthy_after = unhealthy_after
        self._against = 0  # checks in a row that speak against the present verdict
        self.healthy = True

    def checked(self, *, passed: bool) -> bool:
        """One more check was made; returns whether the verdict has changed."""
        if passed == self.healthy:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._unhealthy_after if self.healthy else self._healthy_after):
            return False
        self.healthy = passed
        self._against = 0
        return True
