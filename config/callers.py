"""Who may call, and how they prove it: the settings of callers."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from config.fields import Seconds, Section, is_http_url, is_loopback


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
        url = urlsplit(is_http_url(self.jwks))
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
