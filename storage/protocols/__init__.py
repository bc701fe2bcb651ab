"""Protocols: pure adapters from the bytes of a call to what was asked, what was answered, and the answer's label.

An adapter never guesses: what it cannot find is absent, and what is wrong is recorded as an error. Each has a digest,
so that a changed extractor makes new extraction entries instead of rewriting what was extracted before.
``generic`` reads any JSON by JMESPath.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What one call says; case and subject are raw and become pseudonyms before they are stored."""

    label: str | None = None
    favourable: int | None = None  # 1, 0, or None where the label is neither
    score: float | None = None
    case: str | None = None
    subject: str | None = None
    features: dict[str, Any] | None = None
    error: str | None = None  # the first of what went wrong, as ``<field>: <what>``
