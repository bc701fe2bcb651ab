import pytest

from config.places import Place, Wild, places, steps

DOCUMENT = {
    "a": {"b": 1, "c": [{"d": 2}, {"d": 3}, 4]},
    "**": {"*": 5},
    "d": 6,
    "list": [[1, 2], [3]],
}


def found(*paths: str) -> list[tuple[object, int]]:
    return sorted(
        ((holder[key], number) for holder, key, number in places(DOCUMENT, [steps(path) for path in paths])),
        key=str,
    )


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("a.b", [1]),
        ("a.c[*].d", [2, 3]),
        ("a.c[1].d", [3]),
        ("a.c[9].d", []),
        ("a.*", [1, DOCUMENT["a"]["c"]]),
        ("**.d", [2, 3, 6]),
        ("a.**.d", [2, 3]),
        ("**.**.d", [2, 3, 6]),
        ('"**"."*"', [5]),
        ("list[*][0]", [1, 3]),
        ("list[*][*]", [1, 2, 3]),
        ("list.*", []),
        ("a[*]", []),
        ("a.b.c", []),
    ],
)
def test_a_path_selects_each_of_its_places_once(path, values):
    assert [value for value, _ in found(path)] == sorted(values, key=str)


def test_of_two_paths_to_one_place_the_first_counts_and_what_is_selected_is_not_looked_into():
    assert found("a.c[*].d", "**.d") == [(2, 0), (3, 0), (6, 1)]
    assert found("a", "a.b") == [(DOCUMENT["a"], 0)]


def test_places_can_be_changed_and_taken_away_while_they_are_read():
    document = {"a": {"x": 1, "y": {"x": 2}}, "x": [{"x": 3}]}
    for holder, key, _ in places(document, [steps("**.x")]):
        del holder[key]
    assert document == {"a": {"y": {}}}


def test_any_depth_takes_time_linear_in_the_document():
    document: object = {"x": 1}
    for _ in range(3_000):
        document = {"a": document}
    hidden = steps("**.**.**.**.x")
    assert [place.key for place in places(document, [hidden])] == ["x"]
    assert isinstance(next(places(document, [hidden])), Place)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "a step that names the value"),
        ("$.a", "character 1"),
        ("a..b", "character 3"),
        ("a.", "a step"),
        ("a.**", "a step that names the value"),
        ("a[-1]", "a dot, [*] or [0] at character 2"),
        ("a['b']", "character 2"),
        ("a b", "character 2"),
        ('a."b', "character 3"),
        ('a."\\x"', "as JSON spells it"),
        (".".join("a" * 33), "33 steps"),
    ],
)
def test_what_is_no_path_is_refused_with_the_place_of_the_fault(path, says):
    with pytest.raises(ValueError, match="not a path") as refused:
        steps(path)
    if says != "a step":
        assert says in str(refused.value)


def test_wildcards_are_told_from_names():
    assert steps('a[*].*."*"[0]') == ("a", Wild.EACH, Wild.MEMBERS, "*", 0)
