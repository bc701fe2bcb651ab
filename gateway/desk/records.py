"""What the desk reads from storage, before anything is left out for a viewer: one dataclass a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.queries import AccessRow, DecisionRow, ExplanationRow

Decision = DecisionRow
Look = AccessRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One explanation, ready or failed; `body` is the opened part, None where its key is gone."""

    row: ExplanationRow
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The recorded request and answer as bytes; None where there is none or its key is gone."""

    request: bytes | None
    request_media: str
    response: bytes | None
    response_media: str
    erased: bool  # the entry names parts that no key opens any more
    redacted: Mapping[str, Any] | None = None  # what the entry says was hidden before it was recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Whether the entry is what was recorded: `proven` (its path to a signed checkpoint holds), `pending`, `broken`."""

    state: str
    detail: str
    size: int | None  # of the checkpoint's tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """Everything on record of one decision."""

    decision: Decision
    entry: Mapping[str, Any]
    entry_leaf: bytes  # recomputed from the stored bytes
    content: Content
    explanations: tuple[Explanation, ...]  # newest first
    extracted_ns: int | None  # when the answer's label was committed to
    corrected_by: tuple[str, ...]
    looks: tuple[Look, ...]
    damage: str | None  # a part does not match what its entry commits to
    sealed: Seal
