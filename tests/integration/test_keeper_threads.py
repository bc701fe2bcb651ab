"""Long work in a thread: its progress is told, its result and its errors arrive, and it ends when nobody listens."""

import threading

import pytest

from gateway.keeper.threads import Tell, Told


async def test_progress_comes_before_the_result() -> None:
    def work(tell: Tell) -> int:
        tell({"done": 1})
        return 7

    told = Told(work)
    assert [line async for line in told.lines()] == [{"progress": {"done": 1}}]
    assert told.result == 7


async def test_what_the_work_raises_reaches_whoever_listens() -> None:
    def work(_: Tell) -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        _ = [line async for line in Told(work).lines()]


async def test_work_that_nobody_listens_to_ends_at_its_next_step() -> None:
    ended, left = threading.Event(), threading.Event()

    def work(tell: Tell) -> None:
        try:
            tell({"done": 0})
            left.wait(10)
            while True:
                tell({"done": 1})
        finally:
            ended.set()

    lines = Told(work).lines()
    await anext(lines)
    await lines.aclose()
    left.set()
    assert ended.wait(10)
