"""Gauges that every role has: whether it is ready, which program and which configuration it runs."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Gauge

MODE: Final = "livemostrecent"  # a gauge of a process that has ended says nothing


class States:
    """The gauges of one process."""

    def __init__(self, role: str, registry: CollectorRegistry = REGISTRY) -> None:
        """`role` as in `gateway.metering`."""
        self._role = role
        self._config: tuple[str, str] | None = None
        self._ready = gauge("ready", "1 while a process does all of its work.", ["role"], registry)
        self._info = gauge(
            "config_info", "1 for the configuration in force.", ["role", "deployment", "digest"], registry
        )
        self._build = gauge("build_info", "1 for the program that runs.", ["role", "version", "python"], registry)

    def configured(self, deployment: str, digest: str) -> None:
        """This configuration is in force from now on, and no other."""
        if self._config is not None:
            self._info.labels(self._role, *self._config).set(0)
        self._config = (deployment, digest)
        self._info.labels(self._role, deployment, digest).set(1)
        self._build.labels(self._role, version("answerable"), platform.python_version()).set(1)

    def ready(self, *, ready: bool) -> None:
        """Whether there are no problems."""
        self._ready.labels(self._role).set(float(ready))


def gauge(name: str, says: str, labels: list[str], registry: CollectorRegistry = REGISTRY) -> Gauge:
    """One gauge of this process, gone from the metrics when it ends."""
    return Gauge(f"answerable_{name}", says, labels, registry=registry, multiprocess_mode=MODE)
