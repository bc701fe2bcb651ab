"""Everything that a configuration file may say, with its limits, defaults and their reasons.

Unknown keys are errors. Units stand last in the names (``_s`` seconds, ``_bytes``, ``_days``).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from config.extract import Extract, PathExpression

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _is_secret_reference(reference: str) -> str:
    if not reference.startswith(("env:", "file:")) or reference.endswith(":"):
        raise ValueError("a secret is given by reference: env:NAME or file:PATH")
    return reference


def _is_http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected http://host[:port][/base] or https://…")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("a URL here carries no query, fragment or credentials")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"expected a port between 0 and 65535 in {url}") from error
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine alone (127.0.0.0/8, ::1, localhost)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


SecretReference = Annotated[str, AfterValidator(_is_secret_reference)]
HttpUrl = Annotated[str, AfterValidator(_is_http_url)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]

# never recorded, whatever a route lists: what carries a credential in some SDK or browser
CREDENTIAL_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key"}
)


class Section(BaseModel):
    """A closed, frozen piece of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Gateway(Section):
    """The data plane: where it listens and what it holds at most."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: int = Field(default=1, ge=1, le=64)
    body_bytes_max: int = Field(default=10 * MIB, ge=KIB, le=GIB)
    parse_bytes_max: int = Field(default=MIB, ge=KIB, le=64 * MIB)  # a larger body is recorded, never parsed
    rows_max: int = Field(default=1_000, ge=1, le=100_000)  # of one call: each row is an entry of its own
    buffer_bytes_max: int = Field(default=256 * KIB, ge=KIB, le=16 * MIB)  # a longer answer is streamed
    header_bytes_max: int = Field(default=16 * KIB, ge=KIB, le=256 * KIB)
    header_timeout_s: Seconds = 10  # a slower client is cut: it holds a connection and nothing else
    body_timeout_s: Seconds = 60
    pending_bytes_max: int = Field(default=64 * MIB, ge=MIB, le=64 * GIB)  # memory for what is not yet durable
    connections_max: int = Field(default=2_000, ge=1, le=1_000_000)
    drain_s: Seconds = 30


class Issuer(Section):
    """Somebody whose tokens are believed, and for whom."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: str = Field(min_length=1)
    algorithms: tuple[Literal["EdDSA", "ES256", "RS256"], ...] = Field(
        default=("EdDSA", "ES256", "RS256"), min_length=1
    )
    leeway_s: float = Field(default=30, ge=0, le=300)
    jwks_refresh_s: Seconds = 300
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
    app_claim: str = "app"

    @model_validator(mode="after")
    def _keys_arrive_unaltered(self) -> Self:
        if self.jwks.startswith("file:"):
            return self
        url = urlsplit(_is_http_url(self.jwks))
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            raise ValueError("jwks: expected file:PATH or https://…; plain http only on loopback")
        return self


class Callers(Section):
    """How applications prove who they are."""

    mode: Literal["keys", "jwt", "jwt+keys", "open"] = "keys"
    issuers: tuple[Issuer, ...] = ()

    @model_validator(mode="after")
    def _issuers_where_tokens_count(self) -> Self:
        if "jwt" in self.mode and not self.issuers:
            raise ValueError(f"issuers: mode {self.mode} needs at least one issuer")
        return self


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
    evidence: Literal["strict"] = "strict"
    record: tuple[RecordRule, ...] = (RecordRule.model_validate({"path": "/**", "as": "decision"}),)
    capture: Capture = Capture()
    protocol: Literal["generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow"] = "generic"
    batch: Literal["none", "rows"] = "none"  # rows: one entry for each row of a call
    extract: Extract | None = None
    model: RouteModel | None = None
    explain: Explain = Explain()
    retention: Name = "default"
    request_headers: tuple[HeaderName, ...] = ()  # recorded; all others are forwarded and forgotten
    response_headers: tuple[HeaderName, ...] = ()
    timeouts: Timeouts = Timeouts()
    disk_full: Literal["refuse", "pass"] = "refuse"

    @model_validator(mode="after")
    def _rows_where_a_protocol_has_them(self) -> Self:
        if self.batch == "rows" and self.protocol == "anthropic":
            raise ValueError("batch: a message is one decision; protocol anthropic has no rows")
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


class Desk(Section):
    """The justification API and console."""

    host: str = "127.0.0.1"
    port: Port = 8081
    issuers: tuple[Issuer, ...] = ()
    session_hours: float = Field(default=8, gt=0, le=24)
    development: bool = False  # lets `answerable token` sign with a key of this machine; loopback only
    developer: bool = False  # `answerable try`: the role developer and its page exist; loopback and open callers only

    @model_validator(mode="after")
    def _development_stays_at_home(self) -> Self:
        if self.development and not is_loopback(self.host):
            raise ValueError(f"development: expected false while host is {self.host}; it is for loopback only")
        if self.developer and not is_loopback(self.host):
            raise ValueError(f"developer: expected false while host is {self.host}; it is for loopback only")
        return self


class Keeper(Section):
    """The process that ships, signs and schedules."""

    explainers: int = Field(default=1, ge=0, le=64)
    checkpoint_s: Seconds = 1
    lag_hours: float = Field(default=24, ge=0, le=24 * 36_500)  # a shipped segment stays this long …
    lag_bytes: int = Field(default=8 * GIB, ge=0, le=2**50)  # … or until so much is kept, whichever comes first


class Storage(Section):
    """Which ClickHouse, and as whom."""

    profile: Literal["chdb", "server"] = "chdb"
    url: HttpUrl | None = None
    user: str = "default"
    password: SecretReference | None = None
    database: str = Field(default="answerable", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    allow_broad_grants: bool = False
    connect_timeout_s: Seconds = 5

    @model_validator(mode="after")
    def _a_server_has_an_address(self) -> Self:
        if self.profile == "server" and self.url is None:
            raise ValueError("url: profile server needs the address of its HTTP interface")
        if self.profile == "chdb" and self.url is not None:
            raise ValueError("url: profile chdb is embedded and has no address")
        return self


class Retention(Section):
    """One retention class: not deleted before the floor, gone at the ceiling unless held."""

    floor_days: int = Field(ge=0, le=36_500)
    ceiling_days: int = Field(ge=0, le=36_500)

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> Self:
        if self.floor_days > self.ceiling_days:
            raise ValueError(f"floor_days: {self.floor_days} is above ceiling_days {self.ceiling_days}")
        return self


# AI Act Art. 19 and 26(6) ask for at least six months of logs, Reg B §1002.12(b) for 25 months of applications.
DEFAULT_RETENTION = Retention(floor_days=183, ceiling_days=762)


class Settings(Section):
    """A whole configuration file."""

    deployment: Name
    data: Path = Path("data")
    tenant: Name = "default"  # of callers whose credential names none
    gateway: Gateway = Gateway()
    callers: Callers = Callers()
    routes: tuple[Route, ...] = Field(min_length=1)
    desk: Desk = Desk()
    keeper: Keeper = Keeper()
    storage: Storage = Storage()
    models: tuple[Path, ...] = ()
    retention: dict[Name, Retention] = Field(default_factory=lambda: {"default": DEFAULT_RETENTION})

    @model_validator(mode="after")
    def _open_stays_on_loopback(self) -> Self:
        if self.callers.mode == "open" and not is_loopback(self.gateway.host):
            raise ValueError(f"callers.mode: open is for loopback only, and gateway.host is {self.gateway.host}")
        if self.desk.developer and self.callers.mode != "open":
            raise ValueError(f"desk.developer: expected false while callers.mode is {self.callers.mode}")
        return self

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.gateway.port == self.desk.port != 0:
            raise ValueError(f"desk.port: {self.desk.port} is the gateway's")
        return self

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Self:
        for what, values in (("name", [r.name for r in self.routes]), ("prefix", [r.prefix for r in self.routes])):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"routes: {what} {', '.join(twice)} stands on more than one route")
        for route in self.routes:
            if route.retention not in self.retention:
                known = ", ".join(sorted(self.retention))
                raise ValueError(f"routes.{route.name}.retention: no class {route.retention}; known: {known}")
            if route.batch == "rows":  # the protocols read rows; the data plane does not write an entry for each yet
                raise ValueError(f"routes.{route.name}.batch: rows is not served by the data plane yet; expected none")
        return self
