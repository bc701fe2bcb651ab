import jmespath
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.route import Route
from gateway.desk.errors import RequestError
from gateway.desk.trying import LABELS_MAX, NODES_MAX, Picks, picks, preview, route_yaml, tree

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
ROUTE = Route.model_validate({"name": "try", "prefix": "/", "upstream": "http://127.0.0.1:9000"})
CALLS = [
    ("a", b'{"id": "A-1", "person": {"no": 7}}', b'{"result": {"label": "approved", "p": 0.9}}'),
    ("b", b'{"id": "A-2", "person": {"no": 8}}', b'{"result": {"label": "denied", "p": 0.2}}'),
    ("c", b"not json", b'{"error": "busy"}'),
]
MADE = Picks(
    label="result.label",
    score="result.p",
    case="id",
    subject="person.no",
    favourable=("approved",),
    adverse=("denied",),
)


def leaves(node):
    if node["children"] is None:
        yield node
    for child in node["children"] or ():
        yield from leaves(child)


@given(st.dictionaries(st.text(min_size=1, max_size=12), JSON, min_size=1, max_size=4))
def test_the_path_of_each_shown_value_finds_that_value_again(document):
    body = orjson.dumps(document)
    for node in leaves(tree(body, "answer")["node"]):
        found = jmespath.search(node["path"], orjson.loads(body))
        shown = found if isinstance(found, str) else orjson.dumps(found).decode()
        assert node["value"] == (shown if len(shown) <= 80 else shown[:79] + "\u2026")


def test_a_body_that_is_no_json_is_shown_as_text():
    assert tree(b"plain", "answer")["text"] == "plain"
    assert tree(None, "answer")["text"] == "nothing recorded"
    assert tree(b"\xff", "answer")["text"] == "1 bytes that are not text"


def test_a_large_body_is_cut_and_says_how_much_more_there_is():
    node = tree(orjson.dumps(list(range(5_000))), "answer")["node"]
    assert len(node["children"]) == NODES_MAX - 1
    assert node["more"] == 5_000 - (NODES_MAX - 1)


def test_the_preview_reads_recorded_calls_as_the_keeper_would():
    found = preview(CALLS, MADE)
    assert [(row["label"], row["direction"], row["score"], row["case"], row["subject"]) for row in found["rows"]] == [
        ("approved", "favourable", 0.9, "A-1", "7"),
        ("denied", "adverse", 0.2, "A-2", "8"),
        (None, None, None, None, None),
    ]
    assert found["rows"][2]["error"] is not None
    assert found["complete"] == 2
    assert [(label["value"], label["count"]) for label in found["labels"]] == [("approved", 1), ("denied", 1)]


def test_the_yaml_is_a_route_that_the_configuration_takes():
    (written,) = yaml.safe_load(route_yaml(ROUTE, MADE))["routes"]
    route = Route.model_validate(written)
    assert route.extract is not None
    assert (route.extract.label, route.extract.favourable, route.upstream) == (
        "result.label",
        ("approved",),
        "http://127.0.0.1:9000",
    )


def test_what_was_picked_survives_the_address():
    assert picks(MADE.query()) == MADE


@pytest.mark.parametrize(
    "query",
    [
        [("label", "a.b.[")],
        [("case", "x" * 301)],
        [("label", "a"), *[("favourable", str(n)) for n in range(LABELS_MAX + 1)]],
    ],
)
def test_an_address_that_picks_nonsense_is_refused(query):
    with pytest.raises(RequestError):
        picks(query)


def test_another_label_path_forgets_the_old_labels():
    changed = MADE.with_path("label", "error")
    assert (changed.label, changed.favourable, changed.adverse) == ("error", (), ())
    assert MADE.with_path("case", None).favourable == ("approved",)


def test_a_label_speaks_one_way_at_most():
    assert MADE.with_label("denied", "favourable") == Picks(
        label="result.label", score="result.p", case="id", subject="person.no", favourable=("approved", "denied")
    )
    assert MADE.with_label("denied", "").adverse == ()


def test_there_is_no_yaml_before_a_label_is_named():
    with pytest.raises(RequestError):
        route_yaml(ROUTE, Picks(case="id"))
