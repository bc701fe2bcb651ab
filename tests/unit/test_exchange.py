import orjson
import pytest

from config.route import Capture
from gateway.proxy import exchange
from gateway.proxy.errors import BadRequest
from gateway.proxy.exchange import NOTHING, About, Answered, Asked, Caller, Capturing, Model, RowOf, Terms
from storage.entries import encode, finish
from storage.seal import Sealer

DECISION = "01890a5d-ac96-774b-bcce-b302099a8057"
OTHER = "01890a5d-ac96-774b-bcce-b302099a8058"


def asked(**more) -> Asked:
    known = {
        "decision": DECISION,
        "record": "decision",
        "caller": Caller(tenant="acme", app="chat", actor="app:chat"),
        "terms": Terms(route="mortgage", mode="strict", retention="default", config="ab" * 32),
        "method": "POST",
        "path": "/mortgage/predict",
        "received_ns": 1_700_000_000_000_000_001,
        "trace": None,
        "about": NOTHING,
        "headers": {},
    }
    return Asked(**{**known, **more})


def answered(**more) -> Answered:
    known = {
        "status": 200,
        "error": None,
        "state": "complete",
        "streamed": False,
        "bytes": 10,
        "first_us": 5,
        "upstream_us": 6,
        "total_us": 7,
        "model": None,
        "headers": {},
    }
    return Answered(**{**known, **more})


def test_a_closing_entry_has_the_decisions_id_and_states_what_happened():
    model = Model(name="m", version="7", digest="cd" * 32, source="announced")
    draft = exchange.closing(asked(), answered(model=model), ts_ns=1, parts=(), prev=())
    entry = orjson.loads(encode(draft, origin="d/gateway-0/1", seq=0, scope_seq=0))
    assert entry["kind"] == "decision"
    assert entry["id"] == entry["decision"] == DECISION
    assert entry["model"] == {"name": "m", "version": "7", "digest": "cd" * 32, "source": "announced"}
    assert entry["stream"] == {"state": "complete", "streamed": False, "bytes": 10}
    assert entry["timing"] == {
        "received_ns": "1700000000000000001",
        "upstream_first_us": 5,
        "upstream_us": 6,
        "total_us": 7,
    }
    assert entry["call"] == {"method": "POST", "path": "/mortgage/predict", "request_id": DECISION}
    assert "headers" not in entry


@pytest.mark.parametrize(
    ("more", "how"),
    [
        ({}, {}),
        ({"record": "call", "method": "GET", "path": '/a"b%d'}, {"status": 502, "error": "upstream_cut"}),
        (
            {"about": About(case="p.x", subject="p.y", purpose="a b", corrects=DECISION), "trace": "ab" * 16},
            {"first_us": None, "upstream_us": None, "state": "upstream_aborted", "streamed": True},
        ),
        ({}, {"redacted": {"response": {"withheld": "too_large"}, "request": {"paths": {'a."%b"': {"values": 1}}}}}),
        ({"record": "call"}, {"redacted": {}, "error": "upstream_cut"}),
        ({"row_of": RowOf(DECISION, 6, 7, None), "decision": OTHER, "record": "call"}, {"redacted": {}}),
        ({"row_of": RowOf(DECISION, 0, 1, None)}, {}),
        ({"caller": Caller(tenant="té%b", app='"', actor="app:\\")}, {"model": Model("m%", "7", None, "declared")}),
    ],
)
@pytest.mark.parametrize("parts", [0, 1, 3])
def test_a_filled_form_is_byte_for_byte_what_encoding_gives(more, how, parts):
    closings = exchange.Closings("d/gateway-0/1")
    sealer = Sealer(bytes(32), DECISION, "d/gateway-0/1")
    sealed = tuple(sealer.seal(f"p{n}", 'text/"%s"', b"x" * 700 * n, n)[0] for n in range(parts))
    for ts_ns in (5, 6):  # once making the form, once out of it
        line = closings.line(asked(**more), answered(**how), ts_ns=ts_ns, parts=sealed)
        draft = exchange.closing(asked(**more), answered(**how), ts_ns=ts_ns, parts=sealed, prev=())
        assert finish(line, seq=12, scope_seq=3) == encode(draft, origin="d/gateway-0/1", seq=12, scope_seq=3)


def test_an_entry_for_a_whole_call_of_several_rows_says_why_and_fits_no_form():
    unsplit = asked(row_of=RowOf(DECISION, 0, None, "too_many"))
    assert exchange.Closings("d/g/1").line(unsplit, answered(), ts_ns=1, parts=()) is None
    draft = exchange.closing(unsplit, answered(), ts_ns=1, parts=(), prev=())
    assert draft.fields["call"] == {
        "method": "POST",
        "path": "/mortgage/predict",
        "request_id": DECISION,
        "row": 0,
        "rows": None,
        "unsplit": "too_many",
    }


def test_recorded_headers_fit_no_form():
    assert exchange.Closings("d/g/1").line(asked(headers={"x": "y"}), answered(), ts_ns=1, parts=()) is None


def test_what_was_redacted_stands_on_begin_and_closing_entry_and_on_no_other():
    stated = {"request": {"detected": {"card": 1}}}
    begun = exchange.begin(asked(redacted=stated), entry="other", ts_ns=1, parts=(), key="k")
    assert (begun.fields["redacted"], begun.fields["key"]) == (stated, "k")
    closed = exchange.closing(asked(redacted=stated), answered(redacted=stated), ts_ns=1, parts=(), prev=())
    assert closed.fields["redacted"] == stated
    assert "redacted" not in exchange.begin(asked(), entry="other", ts_ns=1, parts=()).fields
    assert "redacted" not in exchange.closing(asked(), answered(), ts_ns=1, parts=(), prev=()).fields


def test_a_begin_entry_names_its_decision_and_has_an_id_of_its_own():
    draft = exchange.begin(asked(record="call"), entry="other", ts_ns=1, parts=())
    assert (draft.kind, draft.id, draft.decision, draft.fields["record"]) == ("begin", "other", DECISION, "call")


def test_long_paths_and_headers_are_cut_so_that_an_entry_can_always_be_made():
    long = asked(path="/" + "x" * 20_000, headers={f"h{n}": "y" * 16_000 for n in range(40)})
    draft = exchange.closing(long, answered(headers={"r": "z" * 60_000}), ts_ns=1, parts=(), prev=())
    assert len(encode(draft, origin="d/g/1", seq=0, scope_seq=0)) < 65_535


def test_headers_win_over_the_body_and_both_may_say_something():
    capturing = Capturing(Capture(case="application.id", subject="who"), parse_bytes_max=1000)
    body = b'{"application": {"id": 17}, "who": "ann"}'
    assert capturing.of([], body) == About(case="17", subject="ann")
    assert capturing.of([(b"Answerable-Case", b"C-1")], body) == About(case="C-1", subject="ann")


def test_what_the_body_does_not_say_is_missing_and_nothing_is_guessed():
    capturing = Capturing(Capture(case="id", purpose="why", corrects="which"), parse_bytes_max=50)
    assert capturing.of([], b"no json") is None
    assert capturing.of([], b'{"id": {"nested": true}}') is None
    assert capturing.of([], b'{"id": true}') is None
    assert capturing.of([], b'{"why": "\\u00fcber", "which": "not an id"}') is None
    assert capturing.of([], b'{"id": "x"}' + b" " * 50) is None, "longer than parse_bytes_max"
    assert capturing.of([], b'{"id": ""}') is None


def test_an_expression_that_fails_on_this_body_captures_nothing():
    capturing = Capturing(Capture(case="sum(items)"), parse_bytes_max=1000)
    assert capturing.of([], b'{"items": "text"}') is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Answerable-Case", b""),
        (b"Answerable-Case", b"x" * 257),
        (b"Answerable-Subject", b"\xff"),
        (b"Answerable-Purpose", "für alle".encode()),
        (b"Answerable-Corrects", b"1234"),
    ],
)
def test_a_header_of_ours_that_cannot_be_recorded_is_refused(name, value):
    with pytest.raises(BadRequest, match="Answerable-"):
        Capturing(Capture(), parse_bytes_max=10).of([(name, value)], b"")


def test_a_header_of_ours_given_twice_is_refused_and_an_unknown_one_ignored():
    capturing = Capturing(Capture(), parse_bytes_max=10)
    with pytest.raises(BadRequest, match="twice"):
        capturing.of([(b"Answerable-Case", b"a"), (b"answerable-case", b"b")], b"")
    assert capturing.of([(b"Answerable-Else", b"a")], b"") is None
    assert capturing.of([(b"Answerable-Corrects", DECISION.encode())], b"") == About(corrects=DECISION)
