"""What operators see of a host: its metrics, its log."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator

from config.fields import Section


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
