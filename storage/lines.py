"""Rows and their lines: how a set of rows is described so that its presence can be read back (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one table that belong together, and how to find and recognise them there.

    Attributes:
        where: the SQL condition that selects them, and no others but those of an earlier set with the same place.
        line: the SQL expression of a row's line: its key, a space, a digest of what it says.
        lines: the same lines, made here, one per row of `rows` and in their order.
        alone: no other rows may be found under `where`.
    """

    table: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    lines: Sequence[str]
    where: str
    parameters: Mapping[str, object]
    line: str
    alone: bool = True
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.lines))


def digest_of(lines: Sequence[str]) -> str:
    """SHA-256 over the sorted lines, each ended by a newline; uppercase hex, as ClickHouse writes it."""
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest().upper()
