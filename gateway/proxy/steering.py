"""What a route's settings make of its upstream side: TLS, pools, replicas, gate; made once, at start."""

from __future__ import annotations

import os
import random
import ssl
from urllib.parse import urlsplit

from config.errors import ConfigError
from config.load import Configuration
from config.route import BreakerRules, Route, UpstreamTls
from config.secrets import reveal
from gateway.proxy.breaker import Breaker, Thresholds
from gateway.proxy.counts import Counts
from gateway.proxy.gate import Gate
from gateway.proxy.health import Health
from gateway.proxy.pool import Pool, Upstreams
from gateway.proxy.replicas import Replica, Steering

DEFAULT_RULES = BreakerRules()


def pools(route: Route, configuration: Configuration, upstreams: Upstreams) -> list[Pool]:
    """The pools of a route's endpoints, in order; routes with the same endpoint and the same TLS share one.

    Raises:
        ConfigError: a certificate or key cannot be read.
    """
    tls = route.upstream_tls
    context = None if tls is None else upstreams.context(tls, lambda: _context(tls, route.name, configuration))
    name = None if tls is None else tls.server_name
    return [upstreams.pool(url, tls=context, server_name=name) for url in (route.upstream, *route.replicas)]


def steering(route: Route, pools: list[Pool], counts: Counts) -> Steering | None:
    """The route's replicas and gate; None where there is nothing to choose, to limit or to judge."""
    rules = route.breaker or (DEFAULT_RULES if route.replicas else None)
    limit, check = route.concurrency, route.health
    if rules is None and limit is None and check is None:
        return None
    replicas = [
        Replica(
            urlsplit(url).netloc,
            pool,
            breaker=None if rules is None else Breaker(_thresholds(rules)),
            health=None
            if check is None
            else Health(healthy_after=check.healthy_after, unhealthy_after=check.unhealthy_after),
        )
        for url, pool in zip((route.upstream, *route.replicas), pools, strict=True)
    ]
    gate = (
        None if limit is None else Gate(calls_max=limit.calls_max, waiting_max=limit.waiting_max, wait_s=limit.wait_s)
    )
    return Steering(
        route.name,
        replicas,
        gate=gate,
        bad_statuses=() if rules is None else rules.statuses,
        counts=counts,
        roll=random.random,
    )


def _thresholds(rules: BreakerRules) -> Thresholds:
    return Thresholds(failures=rules.failures, rate=rules.rate, window=rules.window, open_s=rules.open_s)


def _context(tls: UpstreamTls, route: str, configuration: Configuration) -> ssl.SSLContext:
    base = configuration.base
    password = "" if tls.password is None else reveal(tls.password, base=base, environ=os.environ)
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else base / tls.ca)
        if tls.certificate is not None and tls.key is not None:
            # given always: without one OpenSSL would ask the terminal
            context.load_cert_chain(base / tls.certificate, base / tls.key, password=lambda: password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"routes.{route}.upstream_tls: {error}") from error
    return context
