"""One route: the endpoint behind a prefix, and what is recorded of its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from config.extract import Extract, PathExpression
from config.fields import CREDENTIAL_HEADERS, HeaderName, HttpUrl, Name, Scope, Seconds, SecretReference, Section
from config.places import Wild, steps
from config.redaction import Redact


def off_in_yaml(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


class UpstreamAuth(Section):
    """The model endpoint's own credential, put in by the gateway and never recorded."""

    header: HeaderName = "Authorization"
    scheme: str | None = "Bearer"
    secret: SecretReference


class UpstreamTls(Section):
    """Whom an https upstream must be, and who the gateway is to it; PEM files, relative to the configuration."""

    ca: Path | None = None  # believed in place of the system's authorities
    certificate: Path | None = None  # the gateway's own, with its chain
    key: Path | None = None
    password: SecretReference | None = None  # of the key
    server_name: str | None = Field(default=None, min_length=1, max_length=253)  # where the certificate names another

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate: a certificate and its key are given together")
        if self.password is not None and self.key is None:
            raise ValueError("password: there is no key that it would open")
        return self


class HealthCheck(Section):
    """A GET of each replica every `interval_s`, which a status of 200 to 299 passes."""

    path: str = Field(pattern=r"^/[!-~]*$")  # of the endpoint, not below the upstream's base
    interval_s: Seconds = 5
    timeout_s: Seconds = 2
    unhealthy_after: int = Field(default=3, ge=1, le=100)  # failed checks in a row; one lost packet is no illness
    healthy_after: int = Field(default=2, ge=1, le=100)


class BreakerRules(Section):
    """When a replica is asked no more, and for how long; each worker judges by its own calls."""

    failures: int = Field(default=5, ge=1, le=10_000)  # in a row
    rate: float | None = Field(default=None, gt=0, le=1)  # or this share of the last `window` calls
    window: int = Field(default=20, ge=2, le=10_000)
    open_s: Seconds = 10  # then one call is let through as a probe
    statuses: tuple[Annotated[int, Field(ge=400, le=599)], ...] = (502, 503, 504)  # answers that count as failures


class Concurrency(Section):
    """How many calls of a route each worker has under way, and who may wait for a place."""

    calls_max: int = Field(ge=1, le=100_000)
    waiting_max: int = Field(default=100, ge=0, le=100_000)
    wait_s: Seconds = 5


class HeaderLists(Section):
    """Which headers pass: those of `allow` alone where it is given, and none of `deny`."""

    allow: tuple[HeaderName, ...] | None = None
    deny: tuple[HeaderName, ...] = ()


class Forward(Section):
    """Headers towards the model and back. What describes the body (Content-Type, -Encoding) needs no allowing."""

    request: HeaderLists = HeaderLists()
    response: HeaderLists = HeaderLists()


class RecordRule(Section):
    """What a path on this route becomes: a decision, a call (no label, reasons, explanation), or a count."""

    path: str = Field(pattern=r"^/")
    as_: Literal["decision", "call", "none"] = Field(alias="as")


class Capture(Section):
    """Where in the request's body the case, subject, purpose and corrected decision stand (JMESPath)."""

    case: PathExpression | None = None
    subject: PathExpression | None = None
    purpose: PathExpression | None = None
    corrects: PathExpression | None = None


class RouteModel(Section):
    """Which registered model answers, and how it announces its version (else the version is declared)."""

    name: Name
    version: str | None = None
    version_header: HeaderName | None = None


class Explain(Section):
    """The explanation policy: which decisions are explained."""

    when: Literal["always", "adverse", "never"] = "always"


class Timeouts(Section):
    """How long the model endpoint may take, step by step."""

    connect_s: Seconds = 5
    first_byte_s: Seconds = 60
    idle_s: Seconds = 60
    total_s: Seconds = 600


class Route(Section):
    """One prefix of the data plane, the endpoint behind it, and what is recorded of its calls."""

    name: Name
    prefix: str = Field(pattern=r"^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$")
    strip_prefix: bool = True
    upstream: HttpUrl
    replicas: tuple[HttpUrl, ...] = Field(default=(), max_length=64)  # further endpoints that serve the same models
    upstream_auth: UpstreamAuth | None = None
    upstream_tls: UpstreamTls | None = None
    health: HealthCheck | None = None
    breaker: BreakerRules | None = None  # with replicas there is always one, by its defaults
    concurrency: Concurrency | None = None
    forward: Forward = Forward()
    evidence: Literal["strict", "spool", "best_effort"] = "strict"  # what is awaited before an answer ends
    record: tuple[RecordRule, ...] = (RecordRule.model_validate({"path": "/**", "as": "decision"}),)
    capture: Capture = Capture()
    scopes: tuple[Scope, ...] = ()  # a caller must have all of them
    protocol: Literal["generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow"] = "generic"
    batch: Literal["none", "rows"] = "none"  # rows: one entry for each row of a call
    extract: Extract | None = None
    model: RouteModel | None = None
    explain: Explain = Explain()
    retention: Name = "default"
    request_headers: tuple[HeaderName, ...] = ()  # recorded; all others are forwarded and forgotten
    response_headers: tuple[HeaderName, ...] = ()
    redact: Redact | None = None  # what of a call is hidden before it is recorded
    timeouts: Timeouts = Timeouts()
    disk_full: Literal["refuse", "pass"] = "refuse"
    idempotency: Annotated[Literal["off", "optional", "required"], BeforeValidator(off_in_yaml)] = "optional"

    @model_validator(mode="after")
    def _rows_where_a_protocol_has_them(self) -> Self:
        if self.batch == "rows" and self.protocol == "anthropic":
            raise ValueError("batch: a message is one decision; protocol anthropic has no rows")
        return self

    @model_validator(mode="after")
    def _all_rows_are_redacted_alike(self) -> Self:
        if self.batch == "rows" and self.redact is not None:
            for rule in (*self.redact.request, *self.redact.response):
                if _names_one_row(rule.path, self.protocol):
                    raise ValueError(f"redact: {rule.path} names one of many rows by its number; expected [*]")
        return self

    @model_validator(mode="after")
    def _replicas_are_alike(self) -> Self:
        urls = (self.upstream, *self.replicas)
        if len(set(urls)) < len(urls):
            raise ValueError("replicas: an endpoint stands there twice")
        first = urlsplit(self.upstream)
        for url in self.replicas:
            other = urlsplit(url)
            if (other.scheme, other.path) != (first.scheme, first.path):
                raise ValueError(f"replicas: {url} differs from upstream in more than host and port")
        if self.upstream_tls is not None and first.scheme != "https":
            raise ValueError("upstream_tls: the upstream is not https")
        return self

    @model_validator(mode="after")
    def _nothing_reserved(self) -> Self:
        if (self.prefix + "/").startswith("/-/"):
            raise ValueError("prefix: paths under /-/ belong to the gateway itself")
        secret = set(CREDENTIAL_HEADERS)
        if self.upstream_auth is not None:
            secret.add(self.upstream_auth.header.lower())
        listed = sorted({h.lower() for h in self.request_headers + self.response_headers} & secret)
        if listed:
            raise ValueError(f"request_headers: {', '.join(listed)} carries a credential and is never recorded")
        return self

    @model_validator(mode="after")
    def _what_is_redacted_is_recorded(self) -> Self:
        if self.redact is not None:
            recorded = {name.lower() for name in self.request_headers + self.response_headers}
            others = sorted(rule.name for rule in self.redact.headers if rule.name.lower() not in recorded)
            if others:
                raise ValueError(f"redact.headers: {', '.join(others)} is not among the headers that are recorded")
        return self


def _names_one_row(path: str, protocol: str) -> bool:
    """Whether the first list that a path goes through, which holds the rows, is entered at one place."""
    found = steps(path)
    if protocol == "inference-v2":  # where the list before is that of the tensors
        found = found[found.index("data") :] if "data" in found else ()
    first = next((step for step in found if isinstance(step, int) or step is Wild.EACH), None)
    return isinstance(first, int)
