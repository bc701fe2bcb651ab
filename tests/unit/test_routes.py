import pytest

from config.route import Route
from gateway.proxy.errors import BadRequest, RouteUnknown
from gateway.proxy.routes import REMEMBERED_MAX, Routes, unrecorded_beside_recorded


def route(name: str, prefix: str, **more: object) -> Route:
    return Route.model_validate({"name": name, "prefix": prefix, "upstream": "http://127.0.0.1:9", **more})


def test_a_prefix_matches_on_a_segment_boundary_and_is_stripped():
    routes = Routes([route("m", "/mortgage")])
    assert routes.match("/mortgage/predict").target == b"/predict"
    assert routes.match("/mortgage").target == b"/"
    assert routes.match("/mortgage/").target == b"/"
    with pytest.raises(RouteUnknown):
        routes.match("/mortgages")


def test_the_longest_prefix_wins_whatever_the_order():
    routes = Routes([route("all", "/"), route("short", "/a"), route("long", "/a/b")])
    assert routes.match("/a/b/c").route.name == "long"
    assert routes.match("/a/bc").route.name == "short"
    assert routes.match("/else").route.name == "all"
    assert routes.match("/a/b/c").index == 2


def test_a_prefix_stays_where_the_route_says_so_and_the_base_comes_before_it():
    kept = Routes([route("m", "/v1", strip_prefix=False, upstream="http://127.0.0.1:9/base")])
    assert kept.match("/v1/chat").target == b"/base/v1/chat"
    stripped = Routes([route("m", "/v1", upstream="http://127.0.0.1:9/base")])
    assert stripped.match("/v1").target == b"/base"
    assert stripped.match("/v1/x").target == b"/base/x"


def test_the_first_record_rule_that_fits_decides_and_without_one_a_decision_is_recorded():
    rules = [
        {"path": "/health", "as": "none"},
        {"path": "/v1/*/meta", "as": "none"},
        {"path": "/calls/**", "as": "call"},
    ]
    routes = Routes([route("m", "/m", record=rules)])
    recorded = {
        path: routes.match("/m" + path).record
        for path in ("/health", "/health/x", "/v1/a/meta", "/v1/a/b/meta", "/calls", "/calls/x/y", "/callsx", "/")
    }
    assert recorded == {
        "/health": "none",
        "/health/x": "decision",
        "/v1/a/meta": "none",
        "/v1/a/b/meta": "decision",
        "/calls": "call",
        "/calls/x/y": "call",
        "/callsx": "decision",
        "/": "decision",
    }


def test_rules_see_the_decoded_path_and_the_model_gets_it_as_it_came():
    routes = Routes([route("m", "/m", record=[{"path": "/health", "as": "none"}])])
    found = routes.match("/m/he%61lth")
    assert found.record == "none"
    assert found.target == b"/he%61lth"


@pytest.mark.parametrize(
    "path",
    [
        "/m/../x",
        "/m/./x",
        "/m/%2e%2E/x",
        "/m/..;a=b/x",
        "/m/health#x",
        "/m/health%23x",
        "/m/health%3Fx",
        "/m/health;v=1",
        "/m/health%3bv=1",
        "/m//health",
        "/m/health//",
        "//m/health",
        "/m/a%2fb",
        "/m/a%5Cb",
        "/m/a\\b",
        "/m/a%00",
        "/m/a%zz",
        "/m/a%",
        "/m/a b",
        "/m/a\x7f",
        "/m/ä",
        "/m/%ff",
        "m/x",
        "http://elsewhere/m",
        "*",
        "",
    ],
)
def test_a_path_with_two_readings_is_refused(path):
    with pytest.raises(BadRequest):
        Routes([route("m", "/m", record=[{"path": "/health/**", "as": "none"}])]).match(path)


def test_entries_state_the_rule_and_never_what_the_path_says_beyond_it():
    rules = [{"path": "/score", "as": "decision"}, {"path": "/customers/*/score", "as": "decision"}]
    routes = Routes([route("m", "/m", record=rules), route("root", "/", record=rules)])
    stated = {path: routes.match(path).stated for path in ("/m/score", "/m/customers/1-2/score", "/m/1-2", "/score")}
    assert stated == {
        "/m/score": "/m/score",
        "/m/customers/1-2/score": "/m/customers/*/score",
        "/m/1-2": "/m/**",
        "/score": "/score",
    }


def test_a_wildcard_that_says_none_after_a_recorded_rule_is_worth_a_warning():
    def warned(*rules: tuple[str, str]) -> list[str]:
        made = [{"path": path, "as": as_} for path, as_ in rules]
        return unrecorded_beside_recorded(route("m", "/m", record=made))

    assert warned(("/health/**", "none"), ("/score", "decision"), ("/health", "none"), ("/**", "call")) == []
    (warning,) = warned(("/score", "decision"), ("/**", "none"))
    assert "route m: /**" in warning
    assert "/score" in warning


def test_made_up_paths_do_not_fill_the_memory():
    routes = Routes([route("m", "/m")])
    for number in range(REMEMBERED_MAX + 10):
        routes.match(f"/m/{number}")
    assert len(routes._remembered) <= REMEMBERED_MAX


def test_a_path_that_the_protocol_names_is_stated_and_any_other_is_not():
    routes = Routes([route("chat", "/chat", protocol="openai"), route("plain", "/plain")])
    assert routes.match("/chat/v1/chat/completions").stated == "/chat/v1/chat/completions"
    assert routes.match("/chat/v1/chat/completions/123").stated == "/chat/**"
    assert routes.match("/plain/v1/chat/completions").stated == "/plain/**"
    none = [{"path": "/v1/models", "as": "none"}, {"path": "/**", "as": "call"}]
    ruled = Routes([route("chat", "/chat", protocol="openai", record=none)])
    assert (ruled.match("/chat/v1/models").record, ruled.match("/chat/v1/responses").record) == ("none", "call")
