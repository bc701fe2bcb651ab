"""What the desk reads from storage, before anything is left out for a viewer: one dataclass a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision: its entry and what an extraction entry says of its answer. Times are Unix nanoseconds."""

    id: str
    ts_ns: int
    tenant: str
    route: str
    app: str
    case: str | None
    subject: str | None
    purpose: str | None
    corrects: str | None
    label: str | None
    favourable: bool | None  # None: the label is neither, or was not found
    score: float | None
    extraction_error: str | None
    model_name: str | None
    model_version: str | None
    model_digest: str | None
    model_source: str | None
    status: int
    error: str | None
    mode: str
    stream: str  # complete, client_aborted, upstream_aborted, gateway_lost
    upstream_us: int
    total_us: int
    retention: str
    origin: str
    seq: int
    leaf: bytes
    explanation: str | None = None  # state of the newest explanation, where a list asked for it
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One explanation, ready or failed; `body` is the opened part, None where its key is gone."""

    id: str
    ts_ns: int
    state: str
    error: str | None
    method: str | None
    verdict: str | None
    binding: str | None
    model_digest: str | None
    origin: str
    seq: int
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The recorded request and answer as bytes; None where there is none or its key is gone."""

    request: bytes | None
    request_media: str
    response: bytes | None
    response_media: str
    erased: bool  # the entry names parts that no key opens any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One access entry that concerns a decision or case."""

    ts_ns: int
    actor: str
    role: str
    action: str
    purpose: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """Everything on record of one decision."""

    decision: Decision
    entry: Mapping[str, Any]
    content: Content
    explanations: tuple[Explanation, ...]  # newest first
    job: str | None  # state of a job that the keeper holds
    job_reason: str
    extracted_ns: int | None  # when the answer's label was committed to
    corrected_by: tuple[str, ...]
    looks: tuple[Look, ...]
    sealed: "Seal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Whether the entry is what was recorded: `proven` (its path to a signed checkpoint holds), `pending`, `broken`."""

    state: str
    detail: str
    size: int | None  # of the checkpoint's tree
