from datetime import UTC, datetime

import pytest

from gateway.desk.errors import ForbiddenError
from gateway.desk.roles import RIGHTS, Right, Role, Viewer, time_ns, viewer

MATTER = {"id": "2026-17", "routes": ["mortgage"], "from": "2026-01-01", "to": "2026-07-01T00:00:00Z"}


def who(*roles: str, matter: object = None, trying: bool = False) -> Viewer:
    return viewer(tenant="t", issuer="i", subject="amy", roles=frozenset(roles), matter=matter, trying=trying)


def test_the_table_gives_each_role_what_it_may_see_and_nothing_more():
    may = {role: {right for right in Right if who(role.value, matter=MATTER, trying=True).may(right)} for role in Role}
    assert may == {role: set(rights) for role, rights in RIGHTS.items()}
    assert Right.ATTRIBUTIONS not in may[Role.SUPPORT] | may[Role.DPO]
    assert Right.PERSON not in may[Role.MODEL_OWNER]
    assert may[Role.ADMIN] == {Right.PROOF}
    assert [role for role in Role if Right.CONTENT in may[role]] == [Role.REGULATOR, Role.DEVELOPER]


def test_rights_of_several_roles_add_up():
    assert who("support", "model_owner").may(Right.PERSON)
    assert who("support", "model_owner").may(Right.ATTRIBUTIONS)


def test_an_administrator_reads_no_content_whatever_else_they_are():
    assert not who("admin", "compliance").may(Right.REASONS)
    assert who("admin", "compliance").may(Right.PROOF)


def test_support_needs_a_ticket_unless_another_role_allows_the_same_without():
    assert who("support").needs_ticket(Right.REASONS)
    assert not who("support", "compliance").needs_ticket(Right.REASONS)
    assert not who("compliance").needs_ticket(Right.REASONS)


def test_the_role_developer_exists_only_under_try():
    assert who("developer", trying=True).may(Right.TRY)
    with pytest.raises(ForbiddenError):
        who("developer")


def test_unknown_roles_give_nothing():
    with pytest.raises(ForbiddenError):
        who("root", "Support", "")


def test_a_regulator_sees_the_matter_and_nothing_else_even_with_other_roles():
    inside = time_ns("2026-03-01") or 0
    for one in (who("regulator", matter=MATTER), who("regulator", "compliance", matter=MATTER)):
        assert one.sees("mortgage", inside)
        assert not one.sees("cards", inside)
        assert not one.sees("mortgage", time_ns("2025-12-31T23:59:59") or 0)
        assert not one.sees("mortgage", time_ns("2026-07-01") or 0)  # the end lies outside


def test_a_regulator_without_a_matter_may_do_nothing():
    for right in Right:
        with pytest.raises(ForbiddenError) as refused:
            who("regulator").require(right)
        assert refused.value.code == "matter_missing"


@pytest.mark.parametrize(
    "matter",
    [
        "mortgage",
        [],
        {},
        {**MATTER, "id": ""},
        {**MATTER, "id": "x" * 101},
        {**MATTER, "id": "a\nb"},
        {**MATTER, "routes": "mortgage"},
        {**MATTER, "routes": [1]},
        {**MATTER, "routes": ["r"] * 201},
        {**MATTER, "from": "yesterday"},
        {**MATTER, "to": None},
    ],
)
def test_a_matter_that_is_none_refuses_the_regulator(matter):
    with pytest.raises(ForbiddenError):
        who("regulator", matter=matter)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-03", datetime(2026, 3, 3, tzinfo=UTC)),
        ("2026-03-03T14:05:09.120Z", datetime(2026, 3, 3, 14, 5, 9, 120_000, tzinfo=UTC)),
        ("2026-03-03T14:05:09+02:00", datetime(2026, 3, 3, 12, 5, 9, tzinfo=UTC)),
    ],
)
def test_times_are_utc_where_they_name_no_zone(text, moment):
    assert time_ns(text) == int(moment.timestamp()) * 10**9 + moment.microsecond * 1_000


@pytest.mark.parametrize("text", ["", "now", "2026-13-01", "1772546709", "0x10"])
def test_what_is_no_time_is_none(text):
    assert time_ns(text) is None
