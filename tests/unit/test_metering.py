from itertools import pairwise

import pytest

from config.operations import Metrics
from gateway.exposition import ScrapeRefused, Scrapers
from gateway.keeper.backlog import MARKS_MAX, Backlog
from storage.buckets import Buckets


def test_buckets_hold_their_upper_bounds_and_give_what_came_since_the_last_look():
    buckets = Buckets([1, 10])
    for number in (0, 1, 1.5, 10, 11):
        buckets.add(number)
    assert buckets.take() == ([2, 2, 1], 23.5)
    assert buckets.take() == ([0, 0, 0], 0)


def test_a_backlog_is_as_old_as_the_oldest_that_is_not_done():
    backlog = Backlog()
    assert backlog.age_s(known=0, done=0, now_s=100) == 0
    assert backlog.age_s(known=5, done=0, now_s=101) == 0
    assert backlog.age_s(known=9, done=0, now_s=104) == 3
    assert backlog.age_s(known=9, done=5, now_s=106) == 2
    assert backlog.age_s(known=9, done=7, now_s=107) == 3
    assert backlog.age_s(known=9, done=9, now_s=108) == 0
    assert backlog.age_s(known=9, done=9, now_s=1000) == 0, "nothing waits, however long ago it came"


def test_a_backlog_of_days_is_bounded_and_keeps_its_oldest():
    backlog = Backlog()
    ages = [backlog.age_s(known=second + 1, done=0, now_s=second) for second in range(100_000)]
    assert ages[-1] == 99_999
    assert all(after >= before for before, after in pairwise(ages))
    assert len(backlog._marks) <= MARKS_MAX


@pytest.mark.parametrize(
    ("peer", "headers", "passes"),
    [
        ("127.0.0.1", [], True),
        ("::1", ["Host"], True),
        ("::ffff:127.0.0.1", [], True),
        ("10.2.3.4", [], True),
        ("192.0.2.1", [], False),
        ("::ffff:192.0.2.1", [], False),
        (None, [], False),
        ("127.0.0.1", ["Host", "x-forwarded-for"], False),
    ],
)
def test_who_may_scrape(peer: str | None, headers: list[str], passes: bool):
    scrapers = Scrapers([*Metrics().allow, "10.0.0.0/8"])
    if passes:
        scrapers.check(peer, headers)
    else:
        with pytest.raises(ScrapeRefused):
            scrapers.check(peer, headers)


def test_a_network_that_is_none_is_refused_with_what_was_expected():
    with pytest.raises(ValueError, match=r"expected an address or a network such as 10\.2\.0\.0/16"):
        Metrics(allow=("10.0.0.1/8",))
