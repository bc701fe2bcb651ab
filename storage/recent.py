"""Verification of what is recent, again and again: the newest entries of each origin, and what was recorded with them.

The same checks as a whole verification makes, from a tile's border on: entries against tiles and signed checkpoints,
parts, keys, headers, and the typed rows against the entries. What only a walk from the first entry can tell is left to
the whole one: counters, scopes, coverage by extractions, rows that belong to no entry, the log of logs.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from storage.audit import erased_keys
from storage.clickhouse import Database
from storage.comparison import Comparison
from storage.errors import JournalCorrupt, StorageError, StorageUnavailable
from storage.findings import MALFORMED, Findings, Report
from storage.known import Known, Trusted, known_origins
from storage.projections import read_cursors
from storage.proofs import forget_roots
from storage.tiles import WIDTH
from storage.walk import Walk
from storage.windows import Reader

ENTRIES_MIN = 4 * WIDTH  # of each origin, however many there are


def audit_recent(
    database: Database,
    *,
    public: bytes,
    data: Path,
    entries_max: int,
    host_keys: Collection[bytes] | None = None,
) -> Report:
    """Verify about the newest `entries_max` entries, shared out among the origins (each gets at least 1,024).

    Args:
        database: what was shipped to.
        public: the log key's public half, which must have signed every checkpoint.
        data: the data directory, with ship logs and the second place of checkpoints.
        entries_max: how many entries are recent, in all.
        host_keys: the host keys trusted to vouch for journals; None: the one in `data`.

    Raises:
        StorageUnavailable: the database does not answer: nothing can be told.
    """
    forget_roots(database)  # of the last look: tiles are changed, and mended, in between
    trusted = Trusted.of(public, data, host_keys)
    known = known_origins(database, data, public)
    findings = {one.origin: Findings(one.origin) for one in known}
    erased, checked = erased_keys(database), dict.fromkeys(findings, 0)
    cursors, damage = _cursors(data)
    share = max(ENTRIES_MIN, entries_max // max(len(known), 1))
    for one in known:
        mine = findings[one.origin]
        for claim, problem in one.problems:
            mine.broken(claim, None, problem)
        if damage is not None:
            mine.broken("projections", None, damage)
        low = _begin(database, one, share)
        try:
            walk = Walk(database, one, mine, trusted=trusted, data=data, erased=erased, since=low)
            walk.run(lambda _: None)
            checked[one.origin] = walk.looked_at
            compared = Comparison(database, one.origin, mine, cursor=cursors.get(one.origin, 0), coverage=None)
            compared.run(one.stored, low)
        except StorageUnavailable:
            raise
        except (*MALFORMED, StorageError) as error:
            mine.broken("entries", None, f"cannot be read: {error!r:.300}")
    claims = [claim for origin in sorted(findings) for claim in findings[origin].claims()]
    return Report(tuple(claims), sum(checked.values()), checked)


def _begin(database: Database, one: Known, share: int) -> int:
    """The number of the first entry to look at: at a tile's border, under a published checkpoint."""
    end = max(one.stored, one.owed)
    low = max(0, end - share) // WIDTH * WIDTH
    return min(low, Reader(database, one.origin).published() // WIDTH * WIDTH) if low else 0


def _cursors(data: Path) -> tuple[dict[str, int], str | None]:
    """Up to where the projector says to have come, and what is wrong with what it says."""
    try:
        return read_cursors(data / "ship")[1], None
    except JournalCorrupt as error:
        return {}, error.message
