"""The scalars that settings are made of, each with its limits, and the closed section all others derive from."""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _is_secret_reference(reference: str) -> str:
    if not reference.startswith(("env:", "file:")) or reference.endswith(":"):
        raise ValueError("a secret is given by reference: env:NAME or file:PATH")
    return reference


def is_http_url(url: str) -> str:
    """The URL without a trailing slash; ValueError unless it is plain http or https to a host."""
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
HttpUrl = Annotated[str, AfterValidator(is_http_url)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Scope = Annotated[str, Field(pattern=r"^[\x21\x23-\x5B\x5D-\x7E]{1,64}$")]  # RFC 6749 §3.3
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]

# never recorded, whatever a route lists: what carries a credential in some SDK or browser
CREDENTIAL_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key"}
)


class Section(BaseModel):
    """A closed, frozen piece of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
