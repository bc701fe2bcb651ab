"""What operators see of a host: its metrics, its log, its traces."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from config.fields import HeaderName, HttpUrl, Seconds, SecretReference, Section


def _is_network(text: str) -> str:
    """The network as it was given; ValueError unless it is an address or a CIDR without host bits."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"expected an address or a network such as 10.2.0.0/16: {error}") from error
    return text


Network = Annotated[str, AfterValidator(_is_network)]


class Metrics(Section):
    """Who may read `/-/metrics` and the desk's `/metrics`.

    Applications call the same port, and what is counted tells of all of them.
    """

    allow: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")


class Log(Section):
    """What processes write to standard error: JSON, a line an event."""

    level: Literal["debug", "info", "warning", "error"] = "info"  # exchanges are info, those that went wrong warning
    exchanges: bool = True  # a line for each call, and for refusals
    addresses: bool = False  # callers' addresses in it: personal data in most places


class Otlp(Section):
    """A collector that takes spans by OTLP over HTTP (protobuf)."""

    endpoint: HttpUrl  # `/v1/traces` is added where it does not end so
    headers: dict[HeaderName, SecretReference] = Field(default_factory=dict)
    sample_ratio: float = Field(default=1.0, ge=0, le=1)  # of the calls whose caller sends no traceparent
    service_name: str = Field(default="answerable", min_length=1, max_length=255)
    timeout_s: Seconds = 10  # for one export, its retries included
    ca: Path | None = None  # PEM, relative to the configuration; believed in place of the system's authorities


class Telemetry(Section):
    """Traces; needs the extra `otel`."""

    otlp: Otlp | None = None
