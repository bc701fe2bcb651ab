import pytest

from gateway.proxy.errors import BadRequest, KeyReused, NotRepeated
from gateway.proxy.idempotency import is_kept, judge, key_in
from storage.firsts import First, framed


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', b"8e03978e-40d5-43dd-bc93-6894a57f9324"),  # the draft's example
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", b"8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"KG5LxwFBepaKHyUD", b"KG5LxwFBepaKHyUD"),  # what Stripe's documentation sends
        (b"stainless-python-retry-0b8a", b"stainless-python-retry-0b8a"),
        (b"YWJj+/==", b"YWJj+/=="),
        (b'"a \\"b\\" \\\\c"', b'a "b" \\c'),
        (b' \t"a"\t ', b"a"),
        (b'"' + b"a" * 255 + b'"', b"a" * 255),
    ],
)
def test_a_key_is_a_structured_string_or_a_bare_token(value: bytes, key: bytes):
    assert key_in([(b"idempotency-KEY", value), (b"Host", b"h")], required=True) == key


@pytest.mark.parametrize(
    "value", [b"", b'""', b'"', b'"a', b'a"', b'"a"b', b'"\\a"', b"a b", b"a,b", b'"a";p=1', b"\xff", b'"\x7f"', b"(a)"]
)
def test_anything_else_is_400(value: bytes):
    with pytest.raises(BadRequest) as caught:
        key_in([(b"Idempotency-Key", value)], required=False)
    assert (caught.value.status, caught.value.code) == (400, "idempotency_key_malformed")


@pytest.mark.parametrize("value", [b"a" * 256, b'"' + b"a" * 256 + b'"'])
def test_a_key_of_more_than_255_characters_is_400(value: bytes):
    with pytest.raises(BadRequest, match="255"):
        key_in([(b"Idempotency-Key", value)], required=False)


def test_two_keys_are_400_and_none_is_only_where_it_is_required():
    with pytest.raises(BadRequest, match="twice"):
        key_in([(b"Idempotency-Key", b"a"), (b"idempotency-key", b"a")], required=False)
    assert key_in([(b"Host", b"h")], required=False) is None
    with pytest.raises(BadRequest) as caught:
        key_in([(b"Host", b"h")], required=True)
    assert caught.value.code == "idempotency_key_missing"


@pytest.mark.parametrize(
    ("status", "headers", "kept"),
    [
        (200, [], True),
        (400, [], True),
        (500, [(b"Retry-After", b"1")], True),
        (429, [], False),
        (503, [], True),
        (503, [(b"retry-after", b"1")], False),
    ],
)
def test_an_answer_is_kept_unless_the_model_says_that_it_did_not_take_the_call(status, headers, kept):
    assert is_kept(status, headers) is kept


def first(**fields: object) -> First:
    known: dict = {"decision": "d", "state": "kept", "same": True, "lease_ns": 10, **fields}
    return First(**known)


def test_another_body_is_422_whatever_became_of_the_first():
    for state in ("running", "kept", "lost", "too_large", "incomplete", "unkept", "erased"):
        with pytest.raises(KeyReused):
            judge(first(state=state, same=False), now_ns=0)


@pytest.mark.parametrize(
    ("state", "now_ns", "code"),
    [
        ("running", 9, "idempotency_in_flight"),
        ("running", 10, "idempotency_outcome_unknown"),
        ("lost", 0, "idempotency_outcome_unknown"),
        ("too_large", 0, "idempotency_answer_too_large"),
        ("incomplete", 0, "idempotency_answer_incomplete"),
        ("unkept", 0, "idempotency_answer_not_kept"),
        ("erased", 0, "idempotency_answer_erased"),
    ],
)
def test_what_has_no_answer_is_409_with_the_decision_and_only_what_runs_is_worth_asking_again(state, now_ns, code):
    with pytest.raises(NotRepeated) as caught:
        judge(first(state=state), now_ns=now_ns)
    error = caught.value
    assert (error.status, error.code, error.decision) == (409, code, "d")
    assert (error.retry_after_s is not None) is (code == "idempotency_in_flight")


def test_a_kept_answer_is_given_and_values_that_run_into_each_other_stay_apart():
    assert judge(first(), now_ns=99) == first()
    assert framed([b"ab", b"c"]) != framed([b"a", b"bc"])
