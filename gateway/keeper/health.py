"""What `answerable doctor` looks at: everything on this host that can be wrong, each said in one line. Blocking."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.keeper.anchoring import Anchoring
from gateway.keeper.auditing import Auditing
from gateway.keeper.parts import Parts
from gateway.keeper.tail import Shelf
from storage.errors import NothingRecorded, StorageError
from storage.items import JournalLimits
from storage.migrate import migrations
from storage.pressure import Level, Load, level, sentence, used_share

State = Literal["ok", "warn", "fail"]
DISK_STATES: dict[Level, State] = {Level.CALM: "ok", Level.WARN: "warn", Level.SHED: "warn", Level.REFUSE: "fail"}
UNSHIPPED_WARN_S = 60.0  # a shipment takes a second; a minute means that something is away
_APPLIED = "SELECT count() FROM migrations"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    state: State
    detail: str

    def as_json(self) -> dict[str, str]:
        """For the command's answer."""
        return {"name": self.name, "state": self.state, "detail": self.detail}


def examine(parts: Parts, anchoring: Anchoring | None = None, auditing: Auditing | None = None) -> list[Check]:
    """Every check, in the order in which a person would look; `anchoring` and `auditing` where a keeper runs them."""
    return [
        *_data(parts),
        _database(parts),
        *(check for shelf in parts.library.shelves for check in _shard(parts, shelf)),
        _log_of_logs(parts),
        *(() if anchoring is None else _anchors(anchoring)),
        *(() if auditing is None else _audits(auditing)),
        *_models(parts),
        _surface(parts),
    ]


def disk(data: Path, *, free_bytes: int, total_bytes: int) -> Check:
    """The room under `data`, by the levels at which workers warn, shed and refuse (storage/pressure.py)."""
    share = used_share(free_bytes=free_bytes, total_bytes=total_bytes, segment_bytes=JournalLimits().segment_bytes)
    load = Load(space_share=0, disk_share=share, memory_share=0, wait_s=0)
    found = level(load, Level.CALM)
    said = f"{free_bytes / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB free under {data}"
    return Check("disk", DISK_STATES[found], f"{said}; {sentence(load, found)}" if found else said)


def _data(parts: Parts) -> Iterator[Check]:
    data = parts.configuration.data
    usage = shutil.disk_usage(data)
    yield disk(data, free_bytes=usage.free, total_bytes=usage.total)
    keys = data / "keys"
    loose = [path.name for path in sorted(keys.iterdir()) if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if not os.access(data, os.W_OK):
        yield Check("data", "fail", f"{data} cannot be written by this user")
    if loose:
        yield Check("keys", "warn", f"others may read {', '.join(loose)}: chmod 600")
    else:
        yield Check("keys", "ok", "readable by their owner only")


def _database(parts: Parts) -> Check:
    wanted = len(migrations())
    try:
        began_s = time.monotonic()
        ((applied,),) = parts.database.rows(_APPLIED)
    except NothingRecorded as error:
        return Check("clickhouse", "warn", f"{error.message} ({error.advice})")
    except StorageError as error:
        return Check("clickhouse", "fail", f"{error.message} ({error.advice})")
    took_ms = (time.monotonic() - began_s) * 1000
    if applied < wanted:
        return Check("clickhouse", "fail", f"schema {applied} of {wanted}: run `answerable migrate`")
    return Check(
        "clickhouse", "ok", f"{parts.configuration.settings.storage.profile}, schema {applied}, {took_ms:.0f} ms"
    )


def _shard(parts: Parts, shelf: Shelf) -> Iterator[Check]:
    name = f"shard {shelf.origin}"
    if shelf.damage is not None:
        yield Check(name, "fail", f"damaged: {shelf.damage.message}")
        return
    if shelf.mark.is_failed:
        yield Check(name, "fail", "its disk refused a write; the worker must be restarted")
    counters = shelf.mark.counters
    line = parts.shipping.lines.get(shelf.origin)
    behind = shelf.next_seq - parts.shipping.shipped_below(shelf.origin) if line is not None else None
    waits_s = 0.0 if line is None or not behind else time.monotonic() - max(line.shipped_s, 0.0)
    detail = f"accepted {counters.accepted} = closed {counters.closed} + open {counters.open} + lost {counters.lost}"
    if behind is not None:
        detail += f"; {behind} entries not shipped"
    state: State = "warn" if counters.lost or waits_s > UNSHIPPED_WARN_S else "ok"
    yield Check(name, state, detail)


def _log_of_logs(parts: Parts) -> Check:
    rounds = parts.shipping.rounds
    if rounds.problem is not None:
        return Check("log of logs", "fail", f"refused, and written no further: {rounds.problem}")
    if rounds.signed is None:
        return Check("log of logs", "ok", "nothing was signed by this process yet")
    age_s = (time.time_ns() - rounds.signed.ts_ns) / 1e9
    silent_s = parts.configuration.settings.ledger.silent_s
    detail = f"{rounds.signed.checkpoint.size} leaves, signed {age_s:.0f} s ago"
    if silent := rounds.silent(silent_s):
        return Check(
            "log of logs", "warn", f"{detail}; not closed, and silent for {silent_s:.0f} s: {', '.join(silent)}"
        )
    return Check("log of logs", "ok", detail)


def _anchors(anchoring: Anchoring) -> Iterator[Check]:
    for name, problem, size in anchoring.states():
        told = f"up to {size} leaves" if size else "nothing by this process yet"
        yield Check(name, "ok" if problem is None else "warn", told if problem is None else f"{problem}; {told}")


def _audits(auditing: Auditing) -> Iterator[Check]:
    states: dict[bool | None, State] = {True: "ok", None: "warn", False: "fail"}
    for name, holds, told in auditing.states():
        yield Check(name, states[holds], told)


def _models(parts: Parts) -> Iterator[Check]:
    for route in parts.configuration.settings.routes:
        if route.model is None:
            continue
        found = parts.models.find(route.model.name, route.model.version, None)
        announced = route.model.version is None
        if found is None and not (announced and parts.models.has(route.model.name)):
            version = f" {route.model.version}" if route.model.version else ""
            detail = f"{route.model.name}{version} is not registered: no decision of this route can be explained"
            yield Check(f"model of {route.name}", "warn", detail)
        else:
            yield Check(f"model of {route.name}", "ok", f"{route.model.name} is registered")


def _surface(parts: Parts) -> Check:
    storage, found = parts.configuration.settings.storage, parts.shipping.preflight
    if storage.profile == "chdb":
        detail = "embedded: whoever owns the files can change them; tampering is evident, not prevented"
        return Check("grants", "ok", detail)
    if found is not None and found.broad:
        return Check("grants", "warn", f"{found.told} (storage.allow_broad_grants)")
    if storage.allow_broad_grants:
        told = "no account needs it" if found is not None else "what accounts may do was not asked yet"
        return Check("grants", "warn", f"storage.allow_broad_grants is set; {told}")
    return Check("grants", "ok", "no account of ours may alter or delete evidence" if found else "not asked yet")
