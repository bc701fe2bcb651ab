"""What a reload may change: all but what processes hold for their life (pure).

A reload swaps what a configuration decides of calls, and starts the keeper again. Sockets, journals, the place of the
data and what bounds a process' memory are made once, at the start.
"""

from __future__ import annotations

from config.errors import ConfigError
from config.load import Configuration
from config.settings import Settings

# keys of which a change needs a restart; a section's name stands for all of it
FIXED = (
    "deployment",
    "data",
    "storage",
    "telemetry",
    "log",
    "gateway.host",
    "gateway.port",
    "gateway.tls",
    "gateway.workers",
    "gateway.header_bytes_max",
    "gateway.pending_bytes_max",
    "gateway.connections_max",
)


def check(old: Configuration, new: Configuration) -> None:
    """True on return: processes that run `old` can take `new` up.

    Raises:
        ConfigError: it names the keys of `FIXED` that differ.
    """
    changed = [key for key in FIXED if _at(old.settings, key) != _at(new.settings, key)]
    if changed:
        raise ConfigError(
            f"{new.path}: {', '.join(changed)}: changed, which needs a restart",
            advice="Restart `answerable serve`, or take the change back and reload the rest.",
        )


def _at(settings: Settings, key: str) -> object:
    found: object = settings
    for step in key.split("."):
        found = getattr(found, step)
    return found
