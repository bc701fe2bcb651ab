"""What a scrape is told: the counts of all processes of the host, added up, and what the host's files say themselves.

Whichever process is asked gives the same answer (counts are at most a second old). Blocking: call it in a thread.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config.errors import AnswerableError
from gateway import metering
from storage import watermark
from storage.errors import JournalError
from storage.reading import read_header
from storage.recovery import segments_of
from storage.segment import segment_name

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")

_CALLS = {
    "accepted": "Calls admitted; counted before the model is asked.",
    "closed": "Calls whose closing entry is durable.",
    "lost": "Calls admitted that no entry states; a gap entry says how many.",
    "shed": "The part of the lost that was let go on purpose.",
    "refused": "Requests refused before admission.",
}


class ScrapeRefused(AnswerableError):  # noqa: N818 - named after the state that the caller meets
    """Metrics were asked for from an address that may not have them."""

    code = "metrics_refused"
    status = 403
    advice = "Scrape from an address under `metrics.allow`, directly and not through a proxy."


class Scrapers:
    """Who may have metrics."""

    def __init__(self, allow: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in allow]

    def check(self, peer: str | None, headers: Iterable[str]) -> None:
        """Return if the one at `peer` may have metrics; `headers` are the names in its request.

        A request that a proxy passed on is nobody's scrape, and bears the proxy's address, which is often this host's.

        Raises:
            ScrapeRefused: it may not.
        """
        if any(name.title() in _FORWARDED for name in headers):
            raise ScrapeRefused("metrics are not given to who asks through a proxy")
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError as error:
            raise ScrapeRefused("metrics are given to known addresses only") from error
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not any(address in network for network in self._networks):
            raise ScrapeRefused("metrics are not given to this address")


def exposition(data: Path, own: CollectorRegistry = REGISTRY) -> bytes:
    """Everything as Prometheus' text; `own` is read where this process counts for itself alone (`metering.share`)."""
    registry = CollectorRegistry()
    shared = os.environ.get(metering.VARIABLE)
    registry.register(_HostFiles(data, None if shared is None else Path(shared)))
    text = generate_latest(registry)
    return text if shared else generate_latest(own) + text


class _HostFiles(Collector):
    """Watermarks, segments, the file system, `control.json`, and the files of `metering`."""

    def __init__(self, data: Path, shared: Path | None) -> None:
        self._data = data
        self._shared = shared

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing before it is asked: else the registry would collect to find out."""
        return []

    def collect(self) -> Iterator[object]:  # type: ignore[override]  # the library's own collectors yield the same
        """Every family once."""
        if self._shared is not None:
            files, roles = metering.look(self._shared)
            yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # the library has no types here
            up = GaugeMetricFamily("answerable_process_up", "1 while a process of this role lives.", labels=["role"])
            for role, lives in roles.items():
                up.add_metric([role], float(lives))
            yield up
        directories = shard_directories(self._data)
        yield from _calls(directories)
        yield from _segments(directories)
        usage = shutil.disk_usage(self._data)
        disk = GaugeMetricFamily("answerable_disk_used_ratio", "How much of the data's file system is used.")
        disk.add_metric([], usage.used / usage.total)
        yield disk
        control = GaugeMetricFamily(
            "answerable_control_age_seconds", "Since the keeper last published control.json, which it does each 5 s."
        )
        if (published_s := _changed_s(self._data / "control.json")) is not None:
            control.add_metric([], max(0.0, time.time() - published_s))
        yield control


def _calls(directories: Sequence[Path]) -> Iterator[object]:
    families = {
        name: CounterMetricFamily(f"answerable_journal_{name}", says, labels=["shard"]) for name, says in _CALLS.items()
    }
    under_way = GaugeMetricFamily("answerable_journal_open", "Calls admitted and not closed yet.", labels=["shard"])
    for directory in directories:
        mark = watermark.read(directory / watermark.NAME)
        if mark is None:
            continue
        counters = mark.counters
        for name, family in families.items():
            family.add_metric([directory.name], getattr(counters, name))
        under_way.add_metric([directory.name], counters.accepted - counters.closed - counters.lost)
    yield from families.values()
    yield under_way


def _segments(directories: Sequence[Path]) -> Iterator[object]:
    kept = GaugeMetricFamily("answerable_journal_bytes", "Disk that a shard's segments take.", labels=["shard"])
    age = GaugeMetricFamily(
        "answerable_journal_age_seconds", "Since a shard's oldest segment that is kept was begun.", labels=["shard"]
    )
    for directory in directories:
        firsts = segments_of(directory)
        try:
            size_bytes = sum((directory / segment_name(first)).stat().st_blocks * 512 for first in firsts)
            kept.add_metric([directory.name], size_bytes)
            if firsts:
                created_ns = read_header(directory / segment_name(min(firsts))).created_ns
                age.add_metric([directory.name], max(0.0, time.time() - created_ns / 1e9))
        except (FileNotFoundError, JournalError):
            continue  # set aside or deleted meanwhile, or damaged, which the keeper counts
    yield kept
    yield age


def shard_directories(data: Path) -> list[Path]:
    """The journals of this host."""
    journal = data / "journal"
    return sorted(path for path in journal.iterdir() if path.is_dir()) if journal.is_dir() else []


def _changed_s(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
