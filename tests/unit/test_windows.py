"""A rate by windows lets no more pass than a token bucket would."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.windows import Rate

WINDOW_S = 1.0


def let_through(rate: Rate, times: list[float]) -> list[float]:
    """Those of the calls at `times`, which grow, that pass."""
    counts: dict[int, int] = {}
    passed = []
    for now_s in times:
        index = rate.index(now_s)
        if rate.wait_s(now_s, current=counts.get(index, 0), previous=counts.get(index - 1, 0)) == 0:
            counts[index] = counts.get(index, 0) + 1
            passed.append(now_s)
    return passed


@given(
    st.integers(1, 12),
    st.lists(st.one_of(st.floats(0, 0.6), st.just(0.0), st.floats(0, 0.02)), max_size=120),
)
def test_in_any_stretch_of_time_at_most_a_burst_and_the_rate_pass(burst: int, gaps: list[float]) -> None:
    rate = Rate(burst, WINDOW_S)
    now_s, times = 1_000.0, []
    for gap in gaps:
        now_s += gap
        times.append(now_s)
    passed = let_through(rate, times)
    for first, begun_s in enumerate(passed):
        for last in range(first, len(passed)):
            most = burst + burst / WINDOW_S * (passed[last] - begun_s)
            assert last - first + 1 <= most + 1e-6


@given(st.integers(1, 12), st.integers(0, 24), st.integers(0, 12), st.floats(0, 0.999))
def test_who_waits_as_long_as_told_is_let_through(burst: int, previous: int, current: int, elapsed: float) -> None:
    rate = Rate(burst, WINDOW_S)
    previous, current = min(previous, burst), min(current, burst)
    now_s = 1_000.0 + elapsed
    wait_s = rate.wait_s(now_s, current=current, previous=previous)
    later_s = now_s + wait_s + 1e-6
    moved = rate.index(later_s) - rate.index(now_s)
    counts = {0: (current, previous), 1: (0, current)}.get(moved, (0, 0))
    assert rate.wait_s(later_s, current=counts[0], previous=counts[1]) <= 1e-6
