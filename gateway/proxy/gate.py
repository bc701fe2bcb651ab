"""How many calls of a route are under way at once, and who waits for a place, in the order of arrival.

The queue is bounded twice, by number and by time: who cannot be let in soon is told so while he can still go
elsewhere, and before anything was recorded or sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from gateway.proxy.errors import RouteBusy


class Gate:
    """At most `calls_max` inside, at most `waiting_max` before it, none of these for longer than `wait_s`."""

    def __init__(self, *, calls_max: int, waiting_max: int, wait_s: float) -> None:
        """Nobody is inside."""
        self.calls_max = calls_max
        self.waiting_max = waiting_max
        self.wait_s = wait_s
        self.inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self) -> None:
        """Return with a place, which `leave` gives back.

        Raises:
            RouteBusy: too many wait already, or none became free in time.
        """
        if self.inside < self.calls_max:  # then nobody waits: `leave` hands places on
            self.inside += 1
            return
        if len(self._waiting) >= self.waiting_max:
            raise RouteBusy(f"{self.inside} calls are under way on this route and {len(self._waiting)} wait")
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self.wait_s):
                await place
        except TimeoutError as error:
            if _is_given(place):  # in the very moment that patience ended
                return
            self._forget(place)
            raise RouteBusy(f"no place became free on this route within {self.wait_s:g} s") from error
        except BaseException:
            if _is_given(place):
                self.leave()
            else:
                self._forget(place)
            raise

    def leave(self) -> None:
        """Give a place back: to the one who has waited longest, if anybody has."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.inside -= 1
        assert self.inside >= 0

    def _forget(self, place: asyncio.Future[None]) -> None:
        with suppress(ValueError):  # `leave` has passed over it
            self._waiting.remove(place)


def _is_given(place: asyncio.Future[None]) -> bool:
    return place.done() and not place.cancelled()
