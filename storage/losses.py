"""Losses: calls that no entry states. Gap entries say how many, as soon as there is room for them.

Losses of one second share a gap entry for each tenant, route and reason. On a full disk they wait: what the disk
refuses is owed again, and what a stopped shard still owes stays open in its watermark, so its next start states it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from storage.entries import SYSTEM_TENANT
from storage.items import Item
from storage.opening import Opening

Loss = tuple[str, str | None, str]  # what shares a gap entry: tenant, route, why
RUNNING: Loss = (SYSTEM_TENANT, None, "running")  # the entry of an admitted call could not be written
SHED = "shed"  # a `best_effort` call was given up under pressure
DELAY_S = 1.0
DECISIONS_MAX = 200  # begun calls that one gap entry names
GAP_BYTES = 2048  # room for one gap entry, and to spare …
NAME_BYTES = 40  # … and for each begun call that it names


class Losses:
    """The losses of one shard; used from its event loop."""

    def __init__(self, *, own: Opening, put: Callable[[Item], None], room_bytes: Callable[[], int]) -> None:
        """``put`` hands an item to the writer, ``room_bytes`` says how much space is left."""
        self._own, self._put, self._room_bytes = own, put, room_bytes
        self._loop = asyncio.get_running_loop()
        self._owed: dict[Loss, tuple[int, int, tuple[str, ...]]] = {}  # lost, shed, those of them that had begun
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self.unstated = 0  # calls given up that no gap entry states which is written

    def add(self, loss: Loss, *, shed: bool, begun: str | None = None) -> None:
        """One call more; ``begun`` is its decision where a begin entry may stand, which nothing else will close."""
        self.unstated += 1
        self._owe(loss, 1, int(shed), () if begun is None else (begun,))

    def state(self) -> None:
        """Have all gap entries written that are owed."""
        owed, self._owed = self._owed, {}
        for loss, (lost, shed, begun) in owed.items():
            whole = (len(begun) - 1) // DECISIONS_MAX if begun else 0  # gap entries that are full of names
            for at in range(0, whole * DECISIONS_MAX, DECISIONS_MAX):
                self._state(loss, DECISIONS_MAX, 0, begun[at : at + DECISIONS_MAX])
            self._state(loss, lost - whole * DECISIONS_MAX, shed, begun[whole * DECISIONS_MAX :])

    def _state(self, loss: Loss, lost: int, shed: int, begun: tuple[str, ...]) -> None:
        item = self._own.gap(*loss, lost=lost, shed=shed, decisions=begun)
        item.waiter = self._loop.create_future()
        item.waiter.add_done_callback(partial(self._stated, loss, lost, shed, begun))
        self._put(item)

    def end(self) -> None:
        """Nothing is tried again from here on."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _owe(self, loss: Loss, lost: int, shed: int, begun: tuple[str, ...]) -> None:
        before = self._owed.get(loss, (0, 0, ()))
        self._owed[loss] = (before[0] + lost, before[1] + shed, before[2] + begun)
        self._later()

    def _later(self) -> None:
        if self._timer is None and not self._ended:
            self._timer = self._loop.call_later(DELAY_S, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._room_bytes() > sum(GAP_BYTES + NAME_BYTES * len(begun) for _, _, begun in self._owed.values()):
            self.state()
        else:  # what must wait for the disk holds up nobody else
            self._later()

    def _stated(self, loss: Loss, lost: int, shed: int, begun: tuple[str, ...], stated: asyncio.Future[object]) -> None:
        if stated.exception() is not None:
            self._owe(loss, lost, shed, begun)
        else:
            self.unstated -= lost
