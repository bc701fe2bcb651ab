import asyncio

import pytest

from gateway.proxy.errors import RouteBusy
from gateway.proxy.gate import Gate


async def turn() -> None:
    """Let everybody who can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_handed_on_in_the_order_of_arrival():
    gate = Gate(calls_max=1, waiting_max=3, wait_s=5)
    await gate.enter()
    came: list[int] = []

    async def wait(number: int) -> None:
        await gate.enter()
        came.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await turn()
    assert (gate.inside, gate.waiting, came) == (1, 3, [])
    for expected in ([0], [0, 1], [0, 1, 2]):
        gate.leave()
        await turn()
        assert (came, gate.inside) == (expected, 1)
    gate.leave()
    assert (gate.inside, gate.waiting) == (0, 0)
    await asyncio.gather(*tasks)


async def test_who_finds_the_queue_full_is_refused_at_once():
    gate = Gate(calls_max=1, waiting_max=0, wait_s=5)
    await gate.enter()
    with pytest.raises(RouteBusy, match="1 calls are under way"):
        await gate.enter()
    gate.leave()
    await gate.enter()
    assert gate.inside == 1


async def test_who_waits_too_long_is_refused_and_forgotten():
    gate = Gate(calls_max=1, waiting_max=1, wait_s=0.01)
    await gate.enter()
    with pytest.raises(RouteBusy, match="no place became free"):
        await gate.enter()
    assert (gate.inside, gate.waiting) == (1, 0)
    gate.leave()
    assert gate.inside == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_a_place_given_to_one_who_is_cancelled_in_that_moment_is_not_lost(granted: bool):
    gate = Gate(calls_max=1, waiting_max=1, wait_s=5)
    await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await turn()
    if granted:
        gate.leave()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (gate.inside, gate.waiting) == (0 if granted else 1, 0)
