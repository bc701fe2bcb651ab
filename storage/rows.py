"""Rows as the questions of queries.py give them; what an entry does not say is None. Times are Unix nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """One decision as the typed table has it; `explanation` and `verdict` are of its newest explanation, in pages."""

    id: str
    ts_ns: int
    tenant: str
    route: str | None
    app: str | None
    case: str | None
    subject: str | None
    purpose: str | None
    corrects: str | None
    label: str | None
    favourable: bool | None
    score: float | None
    extraction_error: str | None
    extractor: str | None
    model_name: str | None
    model_version: str | None
    model_digest: str | None
    model_source: str | None
    status: int
    error: str | None
    mode: str | None
    stream: str | None
    upstream_us: int
    total_us: int
    config: str | None
    retention: str | None
    origin: str
    seq: int
    leaf: bytes
    extraction_origin: str
    extraction_seq: int
    call: str | None = None  # the Decision-Id of the call's first row
    row: int = 0
    rows: int | None = 1  # of the call; None: they could not be told apart
    explanation: str | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRow:
    """One explanation, ready or failed."""

    id: str
    decision: str
    ts_ns: int
    tenant: str
    route: str | None
    key: str | None
    state: str
    error: str | None
    method: str | None
    verdict: str | None
    binding: str | None
    notice: str | None
    codes: tuple[str, ...]
    model_digest: str | None
    origin: str
    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRow:
    """One look at records, or an attempt that was refused."""

    id: str
    decision: str | None
    ts_ns: int
    tenant: str
    route: str | None
    actor: str
    role: str | None
    action: str | None
    purpose: str | None
    ticket: str | None
    case: str | None
    subject: str | None
    outcome: str | None
    reason: str | None
    rows: int
    matter: str | None
    origin: str
    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleRow:
    """One change: a configuration activated, a model registered."""

    id: str
    ts_ns: int
    tenant: str
    route: str | None
    actor: str
    event: str | None
    object: str | None
    name: str | None
    version: str | None
    digest: str | None
    origin: str
    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRow:
    """One entry, verbatim."""

    origin: str
    seq: int
    id: str
    kind: str
    ts_ns: int
    entry: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class PartRow:
    """One stored chunk: the key that sealed it, the part's index in its entry, the chunk's number, the sealed bytes."""

    key_id: str
    index: int
    chunk: int
    data: bytes


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One wrapped key, and the segment whose header opens it."""

    key_id: str
    counter: int
    wrapped: bytes
    segment: int


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One signed checkpoint; `note` is verbatim."""

    size: int
    root: bytes
    note: str
    ts_ns: int
