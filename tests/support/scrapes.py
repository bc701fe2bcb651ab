"""Scrapes: what Prometheus would read, by its client's own parser, and what the documentation promises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

README = Path(__file__).parents[2] / "gateway" / "README.md"
_ROW = re.compile(r"^\| `(answerable_\w+)` \| (counter|gauge|histogram) \|([\w, ]*)\|", re.MULTILINE)


@dataclass(frozen=True)
class Family:
    """One metric: its type, and the names of its labels (but `le`)."""

    kind: str
    labels: frozenset[str]


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of ours, by name and labels; fails where one stands there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("answerable_"):
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, key
                found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    """The sample with exactly these labels."""
    return samples(text).get((name, frozenset(labels.items())))


def total(text: str, name: str, **labels: str) -> float:
    """The sum of all samples that have these labels, whatever others they have."""
    wanted = set(labels.items())
    return sum(number for (known, has), number in samples(text).items() if known == name and wanted <= has)


def exposed(text: str) -> dict[str, Family]:
    """Our metrics, named as the documentation names them: counters with `_total`."""
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("answerable_") and family.samples:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = Family(family.type, frozenset(labels))
    return found


def documented() -> dict[str, Family]:
    """The table in gateway/README.md."""
    return {
        name: Family(kind, frozenset(filter(None, labels.replace(" ", "").split(","))))
        for name, kind, labels in _ROW.findall(README.read_text())
    }
