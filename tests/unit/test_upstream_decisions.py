"""Choice, breaker and health: what they decide, step by step, under a clock that the test owns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.breaker import Breaker, Thresholds
from gateway.proxy.choice import least
from gateway.proxy.health import Health


def thresholds(failures: int = 3, rate: float | None = None, window: int = 4) -> Thresholds:
    return Thresholds(failures=failures, rate=rate, window=window, open_s=10)


@pytest.mark.parametrize(
    ("outstanding", "roll", "chosen"),
    [
        ([0], 0.99, 0),
        ([3, 1, 2], 0.5, 1),
        ([1, 1], 0.0, 0),
        ([1, 1], 0.5, 1),
        ([2, 0, 5, 0, 0], 0.0, 1),
        ([2, 0, 5, 0, 0], 0.34, 3),
        ([2, 0, 5, 0, 0], 0.999999, 4),
    ],
)
def test_the_least_busy_replica_is_chosen_and_equals_by_lot(outstanding: list[int], roll: float, chosen: int):
    assert least(outstanding, roll) == chosen


@given(
    st.lists(st.integers(min_value=0, max_value=3), min_size=1, max_size=64),
    st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_whatever_the_lot_nobody_is_less_busy_than_the_chosen(outstanding: list[int], roll: float):
    assert outstanding[least(outstanding, roll)] == min(outstanding)


# a step is (seconds, what happens, the state after it); f: a call fails, s: one succeeds, a: one is abandoned,
# b: a call begins and stays under way, F/S/A: that call fails, succeeds, is abandoned, -: time passes
@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        (thresholds(), "0f:closed 1f:closed 2f:open 11-:open 12-:half_open 13s:closed"),
        (thresholds(), "0f:closed 1f:closed 2s:closed 3f:closed 4f:closed 5f:open"),
        (thresholds(failures=1), "0f:open 10f:open 19-:open 20s:closed 21f:open"),
        (thresholds(failures=1), "0f:open 10a:half_open 10s:closed"),
        (thresholds(), "0f:closed 0a:closed 0f:closed 0a:closed 0f:open"),
        (thresholds(failures=9, rate=0.5), "0f:closed 0s:closed 0f:closed 0s:closed 0f:open"),
        (thresholds(failures=9, rate=0.5), "0s:closed 0f:closed 0s:closed 0f:open"),
        (thresholds(failures=9, rate=0.5), "0s:closed 0s:closed 0s:closed 0f:closed 0s:closed 0f:open"),
        (thresholds(failures=9, rate=1.0), "0f:closed 0f:closed 0f:closed 0f:open"),
        # what was under way when it opened neither closes nor opens it
        (thresholds(failures=1), "0b:closed 0f:open 1S:open 10-:half_open"),
        (thresholds(failures=1), "0b:closed 0f:open 10s:closed 11F:closed"),
        (thresholds(failures=1), "0b:closed 0f:open 9F:open 10-:half_open"),
        (thresholds(failures=1), "0f:open 10b:half_open 11A:half_open 11s:closed"),
    ],
)
def test_a_breaker_goes_through_its_states(rules: Thresholds, steps: str):
    breaker = Breaker(rules)
    under_way = -1
    for step in steps.split():
        done, _, state = step.partition(":")
        now, what = float(done[:-1]), done[-1]
        if what in "fsab":
            assert breaker.allows(now), step
        period = breaker.begin(now) if what in "fsab" else under_way
        match what.lower():
            case "f":
                breaker.failed(period, now)
            case "s":
                breaker.succeeded(period)
            case "a":
                breaker.abandoned(period)
            case "b":
                under_way = period
        assert breaker.state(now) == state, step


def test_an_open_breaker_allows_nothing_and_a_half_open_one_a_single_probe():
    breaker = Breaker(thresholds(failures=1))
    assert breaker.failed(breaker.begin(0), 0) is True
    assert (breaker.allows(9.9), breaker.wait_s(4), breaker.allows(10), breaker.wait_s(12)) == (False, 6, True, 0)
    probe = breaker.begin(10)
    assert not breaker.allows(10)
    breaker.abandoned(probe)
    assert breaker.allows(10)
    assert breaker.succeeded(breaker.begin(10)) is True
    assert (breaker.allows(10), breaker.wait_s(10)) == (True, 0)


@given(st.lists(st.tuples(st.sampled_from("fsa"), st.integers(min_value=0, max_value=12)), max_size=80))
def test_a_breaker_never_stays_open_for_longer_than_it_says_and_never_lets_two_probes_in(steps: list[tuple[str, int]]):
    breaker, now = Breaker(thresholds(failures=2, rate=0.75)), 0
    for what, passes in steps:
        now += passes
        if not breaker.allows(now):
            assert 0 < breaker.wait_s(now) <= 10
            continue
        probe = breaker.state(now) == "half_open"
        period = breaker.begin(now)
        assert breaker.allows(now) is not probe
        if what == "f":
            breaker.failed(period, now)
        elif what == "s":
            breaker.succeeded(period)
        else:
            breaker.abandoned(period)


@pytest.mark.parametrize(
    ("checks", "verdicts"),
    [
        ("+++", "+++"),
        ("--+---", "+++++-"),
        ("---+-++", "++----+"),
        ("---+---++", "++------+"),
    ],
)
def test_a_verdict_takes_several_checks_in_a_row_to_turn(checks: str, verdicts: str):
    health = Health(healthy_after=2, unhealthy_after=3)
    came = ""
    for check in checks:
        before = health.healthy
        changed = health.checked(passed=check == "+")
        assert changed == (before != health.healthy)
        came += "+" if health.healthy else "-"
    assert came == verdicts
