"""When a configuration counts as stated: an entry holds its canonical bytes before any entry names its digest.

Each gateway worker states in its own journal what it begins to serve under, unless that is in force already as far as
`ACTIVE_FILE` says; the keeper states it in its own, then writes the file. So a decision is never earlier than the
statement of its configuration, whichever process is the first, and whichever dies.
"""

from __future__ import annotations

import orjson

from config.load import Configuration

ACTIVE_FILE = "configuration.json"  # under DATA: what is in force, for commands that are given --data only
PART, MEDIA = "configuration", "application/json"  # of the entry: the canonical bytes


def is_stated(configuration: Configuration) -> bool:
    """Whether the configuration is the one that was last stated on this host. Blocking."""
    path = configuration.data / ACTIVE_FILE
    try:
        return bool(orjson.loads(path.read_bytes())["digest"] == configuration.digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def fields(configuration: Configuration) -> dict[str, str]:
    """What the lifecycle entry says; the part `PART` of it is `configuration.canonical`."""
    return {
        "event": "configuration_activated",
        "object": "configuration",
        "name": configuration.settings.deployment,
        "digest": configuration.digest,
    }
