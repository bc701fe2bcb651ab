"""A whole configuration file: everything that it may say, with its limits, defaults and their reasons.

Unknown keys are errors. Units stand last in the names (``_s`` seconds, ``_bytes``, ``_days``). Callers and routes
have files of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from config.callers import Callers, Issuer
from config.database import Storage
from config.fields import GIB, KIB, MIB, Name, Port, Seconds, SecretReference, Section, is_loopback
from config.ledger import Ledger
from config.operations import Log, Metrics, Network, Telemetry
from config.route import Route


class ListenerTls(Section):
    """Who the gateway is to its callers, and whom it believes among them; PEM files, relative to the configuration."""

    certificate: Path  # with its chain; read again when the file changes
    key: Path
    password: SecretReference | None = None  # of the key
    client_ca: Path | None = None  # the authorities of callers' certificates
    client_certificates: Literal["none", "optional", "required"] = "none"

    @model_validator(mode="after")
    def _authorities_where_certificates_count(self) -> Self:
        if (self.client_certificates == "none") != (self.client_ca is None):
            raise ValueError("client_ca: given where client_certificates is optional or required, and only there")
        return self


BATCH_ROWS_MAX = 1_000  # of one call, where rows are told apart: they go into one batch of the journal (1,024 entries)


class Gateway(Section):
    """The data plane: where it listens and what it holds at most."""

    host: str = "127.0.0.1"
    port: Port = 8080
    tls: ListenerTls | None = None
    trusted_proxies: tuple[Network, ...] = ()  # whose word about the hops before them is believed …
    proxy_header: Literal["forwarded", "x-forwarded-for"] | None = None  # … in the one header that they write
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
    drain_notice_s: float = Field(default=0, ge=0, le=3_600)  # unready, and serving, before the drain begins

    @model_validator(mode="after")
    def _proxies_write_one_header(self) -> Self:
        if self.trusted_proxies and self.proxy_header is None:
            raise ValueError(
                "proxy_header: expected forwarded or x-forwarded-for, whichever the trusted_proxies write; "
                "they let the other through as a client wrote it"
            )
        if self.proxy_header is not None and not self.trusted_proxies:
            raise ValueError("proxy_header: there are no trusted_proxies that would write it")
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
    ledger: Ledger = Ledger()
    storage: Storage = Storage()
    metrics: Metrics = Metrics()
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
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
    def _callers_can_show_what_is_asked(self) -> Self:
        tls = self.gateway.tls
        if self.callers.mode == "certificates" and (tls is None or tls.client_certificates == "none"):
            raise ValueError("callers.mode: certificates needs gateway.tls.client_certificates optional or required")
        for route in self.routes:
            if route.scopes and self.callers.mode == "open":
                raise ValueError(f"routes.{route.name}.scopes: nobody has scopes while callers.mode is open")
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
            if route.batch == "rows" and self.gateway.rows_max > BATCH_ROWS_MAX:
                raise ValueError(
                    f"gateway.rows_max: at most {BATCH_ROWS_MAX} while routes.{route.name}.batch is rows,"
                    f" since the rows of a call are written together; it is {self.gateway.rows_max}"
                )
        return self
