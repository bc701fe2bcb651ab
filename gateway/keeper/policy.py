"""Which decisions are explained: the route's explanation policy, decided from the entry and what was extracted.

What the policy leaves out needs no entry, since anyone can derive it from the decision, its extraction and the
configuration that both name.

Pure: no clock, no file, no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from config.route import Route

Verdict = Literal["explain", "skip"]


def judge(entry: Mapping[str, Any], favourable: int | None, route: Route | None) -> Verdict:
    """Whether a decision is explained.

    A call that failed or was cut has no answer to explain. Under ``adverse`` a decision whose label could not be
    read is explained too: it may be adverse, and that is never guessed.
    """
    if route is None or route.model is None or route.explain.when == "never":
        return "skip"
    if not is_answered(entry):
        return "skip"
    if route.explain.when == "adverse" and favourable == 1:
        return "skip"
    return "explain"


def is_answered(entry: Mapping[str, Any]) -> bool:
    """Whether the call ended with a whole answer of the model."""
    stream = entry.get("stream") or {}
    status = entry.get("status")
    return (
        entry.get("error") is None
        and isinstance(status, int)
        and 200 <= status < 300
        and stream.get("state", "complete") == "complete"
    )


def urgency(favourable: int | None) -> int:
    """The order of waiting decisions: adverse before unknown before favourable."""
    return {0: 0, None: 1}.get(favourable, 2)
