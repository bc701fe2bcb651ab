import os

import pytest

from gateway.desk import sessions
from gateway.desk.roles import Viewer, viewer
from gateway.desk.sessions import CODE_LIFE_S, Grant, Grants, Invitation, Signins

NS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_800_000_000 * NS

    def __call__(self) -> int:
        return self.now_ns


def amy(tenant: str = "t") -> Viewer:
    return viewer(tenant=tenant, issuer="i", subject="amy", roles=frozenset({"support"}), matter=None, trying=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signins(clock: Clock) -> Signins:
    return Signins(session_s=3600, now_ns=clock, random=os.urandom)


def test_a_code_signs_in_once(signins: Signins):
    code = signins.issue_code(Invitation(viewer=amy(), onward="/decisions", grant=None))
    found = signins.redeem(code)
    assert found is not None
    assert found.viewer == amy()
    assert signins.redeem(code) is None


def test_a_code_ends_after_ten_minutes(signins: Signins, clock: Clock):
    code = signins.issue_code(Invitation(viewer=amy(), onward="", grant=None))
    clock.now_ns += CODE_LIFE_S * NS
    assert CODE_LIFE_S == 600
    assert signins.redeem(code) is None


def test_a_session_ends_at_its_time_and_when_it_is_ended(signins: Signins, clock: Clock):
    first, second = signins.begin(amy()), signins.begin(amy())
    assert signins.find(first) is not None
    signins.end(first)
    assert signins.find(first) is None
    clock.now_ns += 3600 * NS - 1
    assert signins.find(second) is not None
    clock.now_ns += 1
    assert signins.find(second) is None


def test_the_store_holds_no_cookie_and_no_code_in_clear(signins: Signins):
    cookie, code = signins.begin(amy()), signins.issue_code(Invitation(viewer=amy(), onward="", grant=None))
    stored = [*signins._sessions._entries, *signins._codes._entries]
    assert cookie.encode() not in stored
    assert code.encode() not in stored
    assert all(len(key) == 32 for key in stored)


def test_the_stores_are_bounded_and_the_oldest_goes_first(signins: Signins):
    signins._sessions._entries_max = 3
    cookies = [signins.begin(amy()) for _ in range(5)]
    assert [signins.find(cookie) is not None for cookie in cookies] == [False, False, True, True, True]
    assert sessions.SESSIONS_MAX == 10_000


def test_two_sessions_have_different_secrets(signins: Signins):
    found = [signins.find(signins.begin(amy())) for _ in range(2)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].csrf != found[1].csrf


def test_a_stated_purpose_holds_for_its_target_viewer_and_tenant_alone(clock: Clock):
    grants = Grants(life_s=60, now_ns=clock)
    stated = Grant(purpose="audit", ticket="T", stated_ns=clock.now_ns)
    grants.state(amy(), "case:c1", stated)
    assert grants.find(amy(), "case:c1") == stated
    assert grants.find(amy(), "case:c2") is None
    assert grants.find(amy("other"), "case:c1") is None
    clock.now_ns += 60 * NS
    assert grants.find(amy(), "case:c1") is None


def test_a_stated_purpose_ends_at_its_time_however_often_it_is_used(clock: Clock):
    grants = Grants(life_s=60, now_ns=clock)
    grants.state(amy(), "case:c1", Grant(purpose="audit", ticket="T", stated_ns=clock.now_ns))
    for _ in range(5):
        clock.now_ns += 11 * NS
        found = grants.find(amy(), "case:c1")
        assert found is not None
        grants.state(amy(), "case:c1", found)
        grants.state(amy(), "decision:d1", found)
    clock.now_ns += 5 * NS
    assert grants.find(amy(), "case:c1") is None
    assert grants.find(amy(), "decision:d1") is None


def test_a_purpose_stated_in_one_session_does_not_hold_in_the_next(signins: Signins, clock: Clock):
    grants = Grants(life_s=60, now_ns=clock)
    first, second = (signins.find(signins.begin(amy())) for _ in range(2))
    assert first is not None
    assert second is not None
    grants.state(first.viewer, "case:c1", Grant(purpose="audit", ticket="T", stated_ns=clock.now_ns))
    assert grants.find(first.viewer, "case:c1") is not None
    assert grants.find(second.viewer, "case:c1") is None
    assert grants.find(amy(), "case:c1") is None


@pytest.mark.parametrize("cookie", ["", "x", "\udcff", "é" * 100])
def test_a_made_up_cookie_opens_nothing(signins: Signins, cookie: str):
    signins.begin(amy())
    assert signins.find(cookie) is None
