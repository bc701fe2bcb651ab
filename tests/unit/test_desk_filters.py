import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.desk.errors import NotFoundError, RequestError
from gateway.desk.filters import is_pseudonym, limit, needed, open_cursor, parse, seal_cursor, wanted
from gateway.desk.roles import Right, Viewer, time_ns, viewer

KEY = b"k" * 32
PERIOD = {"from": "2026-01-01", "to": "2026-02-01"}
PSEUDONYM = "2026-11-23." + "A" * 43


def who(*roles: str, matter: object = None, tenant: str = "t", subject: str = "amy") -> Viewer:
    return viewer(tenant=tenant, issuer="i", subject=subject, roles=frozenset(roles), matter=matter, trying=False)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"from": "2026-01-01"},
        {"to": "2026-01-01"},
        {"from": "2026-02-01", "to": "2026-01-01"},
        {**PERIOD, "case": "4711"},
        {**PERIOD, "subject": "jane.doe@example.com"},
        {**PERIOD, "direction": "sideways"},
        {**PERIOD, "status": "ok"},
        {**PERIOD, "label": "x" * 201},
        {**PERIOD, "label": "a\x00b"},
        {**PERIOD, "reference": "4711"},
        {**PERIOD, "call": "4711"},
        {"call": "4711"},
    ],
)
def test_a_list_needs_a_bounded_period_and_known_parameters(query):
    with pytest.raises(RequestError) as refused:
        parse(query, who("compliance"))
    assert "4711" not in refused.value.message  # what may be a customer's number is never repeated
    assert "jane" not in refused.value.message


def test_the_rows_of_a_call_are_listed_by_its_id_which_says_when_it_was():
    call = "01890a5d-ac96-774b-bcce-b302099a8057"
    asked = parse({"call": call}, who("compliance"))
    assert wanted(asked, "t").call == call
    assert asked.from_ns < time_ns("2023-06-30") < time_ns("2023-07-01") < asked.to_ns
    assert asked.to_ns - asked.from_ns == 8 * 86_400 * 10**9
    narrowed = parse({"call": call, **PERIOD}, who("compliance"))
    assert (narrowed.from_ns, narrowed.to_ns) == (time_ns("2026-01-01"), time_ns("2026-02-01"))
    assert needed(asked)[0] is Right.LIST


@pytest.mark.parametrize("text", ["0", "501", "-1", "1e3", "٣", "9999999999"])
def test_a_page_holds_one_to_five_hundred_rows(text):
    with pytest.raises(RequestError):
        limit({"limit": text})


def test_a_page_holds_fifty_rows_unless_it_says_otherwise():
    assert (limit({}), limit({"limit": "500"})) == (50, 500)


def test_a_regulators_list_is_narrowed_to_the_matter():
    matter = {"id": "m", "routes": ["cards", "mortgage"], "from": "2026-01-10", "to": "2026-01-20"}
    asked = parse(PERIOD, who("regulator", matter=matter))
    assert asked.routes == ("cards", "mortgage")
    assert (asked.from_ns, asked.to_ns) == (time_ns("2026-01-10"), time_ns("2026-01-20"))
    assert parse({**PERIOD, "route": "cards"}, who("regulator", matter=matter)).routes == ("cards",)


def test_a_regulators_list_of_a_route_outside_is_not_found():
    matter = {"id": "m", "routes": ["cards"], "from": "2026-01-10", "to": "2026-01-20"}
    with pytest.raises(NotFoundError):
        parse({**PERIOD, "route": "mortgage"}, who("regulator", matter=matter))


def test_a_regulators_list_outside_the_period_is_empty():
    matter = {"id": "m", "routes": ["cards"], "from": "2025-01-10", "to": "2025-01-20"}
    asked = wanted(parse(PERIOD, who("regulator", matter=matter)), "t")
    assert asked.span.low >= asked.span.high


def test_a_list_of_one_case_needs_the_right_to_look_up_and_any_other_the_right_to_list():
    assert needed(parse({**PERIOD, "case": PSEUDONYM}, who("support"))) == (Right.LOOKUP, f"case:{PSEUDONYM}")
    assert needed(parse({**PERIOD, "subject": PSEUDONYM}, who("support"))) == (Right.LOOKUP, f"subject:{PSEUDONYM}")
    assert needed(parse(PERIOD, who("support"))) == (Right.LIST, "list")


@given(st.text(min_size=1, max_size=60), st.integers(0, 400), st.integers(1, 255))
def test_a_changed_cursor_is_refused(place, at, bit):
    asked, viewer_ = parse(PERIOD, who("compliance")), who("compliance")
    place = place.encode("utf-8", "ignore").decode()
    cursor = seal_cursor(place, asked, viewer_, KEY)
    assert open_cursor(cursor, asked, viewer_, KEY) == place
    at %= len(cursor)
    changed = cursor[:at] + chr(ord(cursor[at]) ^ bit) + cursor[at + 1 :]
    with pytest.raises(RequestError) as refused:
        open_cursor(changed, asked, viewer_, KEY)
    assert refused.value.code == "cursor_invalid"


def test_a_cursor_belongs_to_one_query_one_viewer_and_one_process():
    asked, amy = parse(PERIOD, who("compliance")), who("compliance")
    cursor = seal_cursor("place", asked, amy, KEY)
    others = [
        (parse({**PERIOD, "label": "denied"}, amy), amy, KEY),
        (asked, who("compliance", tenant="other"), KEY),
        (asked, who("compliance", subject="ben"), KEY),
        (asked, amy, b"other" * 7),
    ]
    for other_asked, other_viewer, other_key in others:
        with pytest.raises(RequestError):
            open_cursor(cursor, other_asked, other_viewer, other_key)


@pytest.mark.parametrize("cursor", ["", "A", "====", "é", "A" * 5_000])
def test_what_is_no_cursor_is_refused(cursor):
    with pytest.raises(RequestError):
        open_cursor(cursor, parse(PERIOD, who("compliance")), who("compliance"), KEY)


@pytest.mark.parametrize(
    "text", ["", "4711", "A" * 43, "2026-11-23.", PSEUDONYM + "=", PSEUDONYM[:-1], PSEUDONYM + "\n"]
)
def test_a_customers_number_is_never_taken_for_a_pseudonym(text):
    assert is_pseudonym(PSEUDONYM)
    assert not is_pseudonym(text)
