"""A rate holds in every window, a quota in every period, and who waits as told gets through."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.windows import Quota, Rate


class Counted:
    """Calls counted as the table counts them."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.calls: dict[int, int] = {}

    def wait_s(self, now_s: float) -> float:
        index = self.rate.index(now_s)
        return self.rate.wait_s(now_s, current=self.calls.get(index, 0), previous=self.calls.get(index - 1, 0))

    def take(self, now_s: float) -> bool:
        if self.wait_s(now_s):
            return False
        index = self.rate.index(now_s)
        self.calls[index] = self.calls.get(index, 0) + 1
        return True


rates = st.builds(
    Rate.of, st.floats(min_value=0.01, max_value=1_000), st.one_of(st.none(), st.integers(min_value=1, max_value=50))
)
moments = st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=200).map(sorted)


@given(rates, moments)
def test_no_window_holds_more_calls_than_the_rate_and_no_two_neighbours_more_than_twice(
    rate: Rate, moments: list[float]
) -> None:
    counted = Counted(rate)
    for moment in moments:
        counted.take(1_000 + moment * rate.window_s)
    assert max(counted.calls.values(), default=0) <= rate.calls
    taken = sum(counted.calls.values())
    windows = len(range(min(counted.calls), max(counted.calls) + 1))
    assert taken <= rate.calls * windows


@given(rates, moments)
def test_who_waits_as_long_as_told_gets_through(rate: Rate, moments: list[float]) -> None:
    counted = Counted(rate)
    for moment in moments:
        now_s = 1_000 + moment * rate.window_s
        if not counted.take(now_s):
            wait_s = counted.wait_s(now_s)
            assert 0 < wait_s <= 2 * rate.window_s
            assert counted.wait_s(now_s + wait_s + 1e-6 * rate.window_s) == 0


@given(rates)
def test_an_idle_caller_has_its_whole_burst(rate: Rate) -> None:
    counted = Counted(rate)
    now_s = rate.window_s * 1_000.001
    assert [counted.take(now_s) for _ in range(rate.calls + 1)] == [True] * rate.calls + [False]


@pytest.mark.parametrize(
    ("per", "now", "ends"),
    [
        ("minute", (2026, 11, 27, 0, 59, 59), (2026, 11, 27, 1, 0, 0)),
        ("hour", (2026, 11, 27, 23, 0, 0), (2026, 11, 28, 0, 0, 0)),
        ("day", (2028, 2, 28, 23, 59, 59), (2028, 2, 29, 0, 0, 0)),
        ("month", (2026, 12, 31, 23, 59, 59), (2027, 1, 1, 0, 0, 0)),
        ("month", (2028, 2, 1, 0, 0, 0), (2028, 3, 1, 0, 0, 0)),
    ],
)
def test_a_quota_ends_with_its_period_of_the_calendar(per: str, now: tuple[int, ...], ends: tuple[int, ...]) -> None:
    quota = Quota(1, per)  # type: ignore[arg-type]
    now_s, ends_s = (datetime(*each, tzinfo=UTC).timestamp() for each in (now, ends))  # type: ignore[misc]
    assert quota.ends_s(now_s) == ends_s
    assert quota.index(ends_s) == quota.index(ends_s - 1) + 1
    assert quota.index(now_s) == quota.index(ends_s - 1)
