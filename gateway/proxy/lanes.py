"""One route as the hot path needs it: everything that does not depend on the request, made once at start."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from config.load import Configuration
from config.route import HeaderLists, Route, RouteModel
from config.secrets import reveal
from gateway.proxy import headers as heads
from gateway.proxy.answerheads import AnswerHeads
from gateway.proxy.call import Limits
from gateway.proxy.callers import CARRIERS
from gateway.proxy.checking import watch
from gateway.proxy.counts import Counts
from gateway.proxy.errors import BadRequest, Forbidden
from gateway.proxy.exchange import Caller, Capturing, Model, Terms
from gateway.proxy.exchangelog import Tell
from gateway.proxy.idempotency import HEADER as KEY_HEADER
from gateway.proxy.limits import Budget
from gateway.proxy.passing import Lines
from gateway.proxy.pool import Pool, Upstreams
from gateway.proxy.redacting import Redaction
from gateway.proxy.rows import Rows
from gateway.proxy.steering import pools, steering
from gateway.proxy.tracing import Tracing
from storage.protocols.splitting import Splitter

MODELS_FILE = "models.json"
VERSION_CHARS_MAX = 128  # of a version as an answer announces it
LEASE_MORE_S = 120.0  # a slow disk, a caller that stalls
VERSIONS_MAX = 100  # announced versions that are remembered with their digests


class Models:
    """The digests of registered models by name and version, as `DATA/models.json` said when it was last looked at."""

    def __init__(self, data: Path) -> None:
        """Read the file once, now."""
        self._path = data / MODELS_FILE
        self._seen: tuple[int, int] | None = None
        self._digests: Mapping[tuple[str, str], str] = {}
        self.generation = 0  # grows when the file's content has changed
        self.look()

    def digest(self, name: str, version: str | None) -> str | None:
        """The artifact's digest of a registered version, else None."""
        return None if version is None else self._digests.get((name, version))

    def look(self) -> None:
        """Read the file if it has changed; one that is being written, or damaged, leaves things as they are."""
        try:
            state = self._path.stat()
            seen = (state.st_mtime_ns, state.st_ino)
            if seen == self._seen:
                return
            self._digests = dict(_digests(orjson.loads(self._path.read_bytes())))
            self._seen = seen
            self.generation += 1
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # a decision without a digest says so; it is not refused for it


def _digests(document: Any) -> list[tuple[tuple[str, str], str]]:
    rows = document["models"]
    return [((str(row["name"]), str(row["version"])), str(row["digest"])) for row in rows]


class Lane:
    """One route, ready to be driven on."""

    def __init__(
        self, route: Route, configuration: Configuration, upstreams: Upstreams, budget: Budget, counts: Counts
    ) -> None:
        """Reveal the upstream's credential and compile what the route declares.

        Raises:
            config.errors.ConfigError: the credential is not there, or a certificate cannot be read.
        """
        settings = configuration.settings.gateway
        self.route = route
        endpoints = pools(route, configuration, upstreams)
        self.pool: Pool = endpoints[0]
        self.meter = counts.meter(route.name)
        self.tell: tuple[Tell, ...] = ()  # who hears of each call that has ended
        self.addresses = configuration.settings.log.addresses
        self.tracing: Tracing | None = None
        denied, allowed = heads.names(route.forward.request.deny), _allowed(route.forward.request)
        self.passing = Lines(denied=denied, allowed=allowed)
        self.steering = steering(route, endpoints, counts)
        answers_dropped = heads.ANSWER_DROPPED | heads.names(route.forward.response.deny)
        self.limits = Limits(
            buffer_bytes=max(settings.buffer_bytes_max, settings.parse_bytes_max if route.batch == "rows" else 0),
            timeouts=route.timeouts,
            budget=budget,
            heads=AnswerHeads(dropped=answers_dropped, allowed=_allowed(route.forward.response)),
        )
        self.scopes = frozenset(route.scopes) if route.scopes else None
        self.capturing = Capturing(route.capture, parse_bytes_max=settings.parse_bytes_max)
        self.redaction = (
            None
            if route.redact is None
            else Redaction(route.redact, route=route.name, parse_bytes_max=settings.parse_bytes_max)
        )
        self.rows: Rows | None = None
        if route.batch == "rows":
            splitter = Splitter(route.protocol, parse_bytes_max=settings.parse_bytes_max, rows_max=settings.rows_max)
            self.rows = Rows(splitter, self.capturing, route=route.name, budget=budget, counts=counts)
        self.terms = Terms(
            route=route.name, mode=route.evidence, retention=route.retention, config=configuration.digest
        )
        self.recorded_request = heads.names(route.request_headers)
        self.recorded_response = heads.names(route.response_headers)
        dropped = heads.REQUEST_DROPPED | heads.names(route.forward.request.deny)
        if configuration.settings.callers.mode != "open":
            dropped |= frozenset(CARRIERS)  # what proves the caller to us is not the model's to see
        self.idempotency = route.idempotency
        self.lease_s = _lease_s(route)
        if route.idempotency != "off" and KEY_HEADER not in heads.names(route.forward.request.allow or ()):
            # applications share the upstream's credential there: two that use the same key would share an answer
            dropped |= {KEY_HEADER}
        self._fixed = b"Host: " + self.pool.origin.authority + b"\r\n" + heads.VIA
        if route.upstream_auth is not None:
            self._fixed += _credential(route, configuration)
            dropped |= heads.names([route.upstream_auth.header])
        self._dropped = dropped
        self._allowed = _allowed(route.forward.request)
        self._fixed_lines = self._fixed.count(b"\n")
        self._version_header = (
            route.model.version_header.lower().encode("ascii")
            if route.model is not None and route.model.version_header is not None
            else None
        )
        self._known_models: dict[str | None, Model] = {}  # by announced version; None: as declared
        self._known_generation = -1

    def head(self, method: str, target: bytes, query: str, headers: heads.RawHeaders) -> bytes:
        """The request's head as the model gets it, but for Content-Length and the empty line.

        Raises:
            BadRequest: a header or the query would smuggle another line in.
        """
        lines = heads.passed(heads.only(headers, self._allowed), self._dropped, heads.OURS_IN_REQUESTS)
        if query:
            target = target + b"?" + query.encode("utf-8", "surrogateescape")
        head = b"%b %b HTTP/1.1\r\n%b%b" % (method.encode("ascii"), target, self._fixed, b"".join(lines))
        if not heads.is_clean(head, 1 + self._fixed_lines + len(lines)) or b" " in target:
            raise BadRequest("the request's head holds control characters")
        return head

    def check_scopes(self, caller: Caller) -> None:
        """True on return: the caller has every scope that the route asks for.

        Raises:
            Forbidden: it lacks one.
        """
        if self.scopes is not None and not self.scopes <= caller.scopes:
            asked = " ".join(sorted(self.scopes))
            raise Forbidden(
                f"this route asks for the scopes {asked}",
                challenge=f'Bearer realm="answerable", error="insufficient_scope", scope="{asked}"',
            )

    def watching(self) -> list[Coroutine[Any, Any, None]]:
        """The health checks of this route's replicas, each to be run until it is cancelled."""
        check = self.route.health
        if check is None or self.steering is None:
            return []
        return [watch(self.steering, replica, check, self.limits, self._fixed) for replica in self.steering.replicas]

    def model(self, answered: heads.RawHeaders, models: Models) -> Model | None:
        """The model that gave this answer: as it announces itself, else as the route declares."""
        if self.route.model is None:
            return None
        announced = None
        if self._version_header is not None:
            for name, value in answered:
                if heads.lowered(name) == self._version_header:
                    announced = value.decode("latin-1").strip()[:VERSION_CHARS_MAX]
                    break
        if self._known_generation != models.generation or len(self._known_models) >= VERSIONS_MAX:
            self._known_models, self._known_generation = {}, models.generation
        known = self._known_models.get(announced)
        if known is None:
            known = self._known_models[announced] = _model(self.route.model, announced, models)
        return known


def _model(declared: RouteModel, announced: str | None, models: Models) -> Model:
    version = declared.version if announced is None else announced
    return Model(
        name=declared.name,
        version=version,
        digest=models.digest(declared.name, version),
        source="declared" if announced is None else "announced",
    )


def _lease_s(route: Route) -> float:
    """Longer than any call of the route can be under way: it waits, connects, is answered, is taken by its caller."""
    times = route.timeouts
    waits_s = 0.0 if route.concurrency is None else route.concurrency.wait_s
    return waits_s + times.connect_s * (2 + len(route.replicas)) + times.total_s + LEASE_MORE_S


def _allowed(lists: HeaderLists) -> frozenset[bytes] | None:
    return None if lists.allow is None else heads.names(lists.allow)


def _credential(route: Route, configuration: Configuration) -> bytes:
    auth = route.upstream_auth
    assert auth is not None
    secret = reveal(auth.secret, base=configuration.base, environ=os.environ)
    value = f"{auth.scheme} {secret}" if auth.scheme else secret
    line = f"{auth.header}: {value}\r\n".encode()
    if not heads.is_clean(line, 1):
        raise BadRequest(f"the secret of route {route.name} is more than one line")
    return line


def lanes(configuration: Configuration, upstreams: Upstreams, budget: Budget, counts: Counts) -> Sequence[Lane]:
    """A lane for each route, in the configuration's order."""
    return [Lane(route, configuration, upstreams, budget, counts) for route in configuration.settings.routes]
