from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from config.route import Route
from tests.support.workers import configuration


def route(tmp_path: Path, upstream: str = "https://a.example/v1", **said: Any) -> Route:
    return configuration(tmp_path, upstream, route=said).settings.routes[0]


def test_one_upstream_alone_has_no_replicas_no_breaker_and_no_limit(tmp_path: Path):
    made = route(tmp_path)
    assert (made.replicas, made.breaker, made.concurrency, made.health, made.upstream_tls) == (
        (),
        None,
        None,
        None,
        None,
    )
    assert made.forward.request.allow is None


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"replicas": ["https://a.example/v1"]}, "replicas: an endpoint stands there twice"),
        (
            {"replicas": ["https://b.example/v2"]},
            "https://b.example/v2 differs from upstream in more than host and port",
        ),
        ({"replicas": ["http://b.example/v1"]}, "differs from upstream in more than host and port"),
        ({"replicas": ["b.example"]}, "replicas.0: expected http://host"),
        ({"upstream_tls": {"certificate": "own.pem"}}, "a certificate and its key are given together"),
        ({"upstream_tls": {"password": "env:P"}}, "there is no key that it would open"),
        ({"upstream_tls": {"password": "hunter2"}}, "a secret is given by reference"),
        ({"upstream": "http://a.example", "upstream_tls": {}}, "upstream_tls: the upstream is not https"),
        ({"health": {"path": "health"}}, "health.path: string should match"),
        ({"health": {"path": "/x\r\nHost: b"}}, "health.path: string should match"),
        ({"breaker": {"rate": 1.5}}, "breaker.rate: input should be less than or equal to 1"),
        ({"breaker": {"statuses": [200]}}, "breaker.statuses.0: input should be greater than or equal to 400"),
        ({"concurrency": {"waiting_max": 5}}, "concurrency.calls_max: missing"),
        ({"forward": {"request": {"deny": ["a b"]}}}, "forward.request.deny.0: string should match"),
        ({"request_headers": ["X-Api-Key"]}, "x-api-key carries a credential and is never recorded"),
        ({"response_headers": ["Set-Cookie"]}, "set-cookie carries a credential and is never recorded"),
    ],
)
def test_what_makes_no_upstream_side_is_refused_by_name(tmp_path: Path, said: dict[str, Any], says: str):
    with pytest.raises(ConfigError) as refusal:
        route(tmp_path, **said)
    assert says in str(refusal.value)
