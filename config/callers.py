"""Who may call, and how they prove it: the settings of callers."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from config.fields import Name, Scope, Seconds, Section, is_http_url, is_loopback


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
    scope_claim: str = "scope"  # RFC 8693 §4.2; where it is missing, `scp` is read, which some issuers write

    @model_validator(mode="after")
    def _keys_arrive_unaltered(self) -> Self:
        if self.jwks.startswith("file:"):
            return self
        url = urlsplit(is_http_url(self.jwks))
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            raise ValueError("jwks: expected file:PATH or https://…; plain http only on loopback")
        return self


class ClientCertificate(Section):
    """A client certificate that speaks for an application: by one of its names, or by itself."""

    san: str | None = Field(
        default=None, min_length=1, max_length=253
    )  # a subject alternative name: DNS, URI or e-mail
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")  # of the certificate's DER bytes
    app: Name
    tenant: Name | None = None
    scopes: tuple[Scope, ...] = ()

    @model_validator(mode="after")
    def _one_way_to_know_it(self) -> Self:
        if (self.san is None) == (self.sha256 is None):
            raise ValueError("san: a certificate is known by san or by sha256, and by one of them alone")
        return self


class CallLimit(Section):
    """How often one application may call, on all workers of a host together; what is not said is not limited."""

    rate_per_s: float | None = Field(default=None, gt=0, le=1_000_000)
    burst: int | None = Field(default=None, ge=1, le=1_000_000)  # calls at once; by default those of one second
    quota_calls: int | None = Field(default=None, ge=0, le=10**12)  # in one `quota_per` of the calendar, UTC
    quota_per: Literal["minute", "hour", "day", "month"] = "day"

    @model_validator(mode="after")
    def _a_burst_of_something(self) -> Self:
        if self.burst is not None and self.rate_per_s is None:
            raise ValueError("burst: there is no rate_per_s that it would be a burst of")
        if self.rate_per_s is None and self.quota_calls is None:
            raise ValueError("rate_per_s: a limit says rate_per_s, quota_calls or both")
        return self


class CallLimits(Section):
    """Limits of applications by name, and of all others."""

    default: CallLimit | None = None
    apps: dict[Annotated[str, Field(min_length=1, max_length=200)], CallLimit] = Field(default_factory=dict)


class Callers(Section):
    """How applications prove who they are, and how often they may call."""

    mode: Literal["keys", "jwt", "jwt+keys", "certificates", "open"] = "keys"
    issuers: tuple[Issuer, ...] = ()
    certificates: tuple[ClientCertificate, ...] = Field(default=(), max_length=10_000)
    limits: CallLimits | None = None

    @model_validator(mode="after")
    def _certificates_where_they_count(self) -> Self:
        if self.mode == "certificates" and not self.certificates:
            raise ValueError("certificates: mode certificates needs at least one")
        if self.mode != "certificates" and self.certificates:
            raise ValueError(f"certificates: mode {self.mode} does not look at them")
        known = [each.sha256 or (each.san or "").lower() for each in self.certificates]
        twice = sorted({name for name in known if name is not None and known.count(name) > 1})
        if twice:
            raise ValueError(f"certificates: {twice[0]} speaks for more than one application")
        return self

    @model_validator(mode="after")
    def _issuers_where_tokens_count(self) -> Self:
        if "jwt" in self.mode and not self.issuers:
            raise ValueError(f"issuers: mode {self.mode} needs at least one issuer")
        return self
