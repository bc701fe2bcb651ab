"""The ledger's settings: the log of logs, and who stands outside of it and says what they saw."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from config.fields import HttpUrl, Name, Seconds, Section


class Witness(Section):
    """One witness (c2sp.org/tlog-witness)."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\s+]+$")  # its key name
    url: HttpUrl  # the submission prefix: add-checkpoint is appended
    key: str = Field(max_length=400, pattern=r"^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*$")  # its verifier key, one line

    @model_validator(mode="after")
    def _the_key_has_the_name(self) -> Self:
        if self.key.partition("+")[0] != self.name:
            raise ValueError(f"key: expected a verifier key of {self.name}, begins with {self.key.partition('+')[0]}")
        return self


class Witnesses(Section):
    """Whose cosignatures are asked for, and how many of them count as enough."""

    quorum: int = Field(ge=1, le=32)
    witnesses: tuple[Witness, ...] = Field(min_length=1, max_length=32)
    every_s: Seconds = 30  # between checkpoints that are sent; public witnesses ask for patience

    @model_validator(mode="after")
    def _enough_different_ones(self) -> Self:
        for what, values in (("name", [w.name for w in self.witnesses]), ("key", [w.key for w in self.witnesses])):
            if len(set(values)) != len(values):
                raise ValueError(f"witnesses: one {what} stands there twice")
        if self.quorum > len(self.witnesses):
            raise ValueError(f"quorum: {self.quorum} of {len(self.witnesses)} witnesses cannot be reached")
        return self


class Timestamps(Section):
    """A time stamping authority (RFC 3161)."""

    name: Name = "tsa"
    url: HttpUrl
    every_s: Seconds = 3_600  # a token a round would be thousands a day; public authorities ask for patience


class Audit(Section):
    """How the keeper re-reads ClickHouse against what was signed."""

    recent_s: Seconds = 20  # between two passes over what is recent
    share: float = Field(default=0.05, gt=0, le=1)  # of the time, for what is recent and for the whole ledger each


class Ledger(Section):
    """The log of logs and what stands outside of it. Nothing outside is ever waited for by a decision."""

    log_s: Seconds = 5  # between two leaves of one busy shard; a proof up to the log of logs takes as long
    silent_s: Seconds = 180  # three missed heartbeats: a shard that says nothing for longer is a finding
    audit: Audit = Audit()
    witnesses: Witnesses | None = None
    timestamps: Timestamps | None = None
    copies: Path | None = None  # a directory, best on another machine, that keeps a copy of each checkpoint
