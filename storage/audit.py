"""Verification of a deployment: reads ClickHouse and, while it is there, the journal; the rules are in verify.py.

Everything streams: entries by windows (windows.py), tiles, checkpoints and journal batches beside them. How far it
goes is fixed at the beginning (known.py): as far as the database, the ship log or the signed tree says that there is
something. A running keeper may ship meanwhile; what is newer is left to the next run. Without the data directory only
ClickHouse is looked at, and what only keys or journal can tell is UNKNOWN.

Nothing that somebody wrote into the database may end a verification: it becomes a finding.

Digests of parts are computed by ClickHouse from the bytes that it stores; those of entries are recomputed here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from storage.clickhouse import SWEEP, Database
from storage.comparison import Comparison, compare_sources
from storage.coverage import Coverage
from storage.errors import JournalCorrupt, StorageError, StorageUnavailable
from storage.findings import MALFORMED, Findings, Report
from storage.known import Known, Trusted, known_origins
from storage.logaudit import SILENT_NS, check_logs, check_shards
from storage.projections import read_cursors
from storage.queries import blocks
from storage.reading import SegmentTail
from storage.trust import TrustPolicy, check_authenticity
from storage.walk import Progress, Walk
from storage.windows import PAGE_ROWS

CLOSINGS_AT_ONCE = 2_000_000  # decisions counted in one turn: some 100 MB in ClickHouse


def audit(
    database: Database,
    *,
    public: bytes,
    data: Path | None = None,
    host_keys: Collection[bytes] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    silent_ns: int = SILENT_NS,
    now_ns: int | None = None,
    trust: TrustPolicy | None = None,
) -> Report:
    """Verify everything that is there.

    Args:
        database: what was shipped to.
        public: the log key's public half, which must have signed every checkpoint.
        data: the data directory: journals, ship logs, the second place of checkpoints, keys as far as they are there.
        host_keys: the host keys trusted to vouch for journals; None: the one in `data`.
        progress: is told now and then how far it is.
        silent_ns: how long a shard that is not closed may say nothing before that is a finding.
        now_ns: the time by which the log of logs itself may be silent; None: that is not asked.
        trust: the keys that the verifier brought himself; without them authenticity is not asked.

    Raises:
        StorageUnavailable: the database does not answer (any more): nothing can be told.
    """
    trusted = Trusted.of(public, data, host_keys)
    findings: dict[str, Findings] = {}
    logs = check_logs(database, data, public=public, host_keys=trusted.host_keys, findings=findings)
    logged = {shard: one.end for log in logs.values() for shard, one in log.state.shards.items()}
    known = known_origins(database, data, public, logged=logged)
    findings |= {one.origin: Findings(one.origin) for one in known}
    run = _Audit(database, data=data, trusted=trusted, progress=progress, erased=erased_keys(database))
    for one in known:
        run.entries(one, findings[one.origin])
    run.closings(findings)
    run.typed_rows(known, findings)
    check_shards(database, logs, findings, silent_ns=silent_ns, now_ns=now_ns)
    if trust is not None:
        for log in logs.values():
            check_authenticity(database, trust, findings[log.name])
    claims = [claim for origin in sorted(findings) for claim in findings[origin].claims()]
    return Report(tuple(claims), sum(run.checked.values()), run.checked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Audit:
    """What the checks of all origins have in common."""

    database: Database = field(kw_only=False)
    data: Path | None
    trusted: Trusted
    progress: Callable[[Progress], None]
    erased: frozenset[str]
    checked: dict[str, int] = field(default_factory=dict)

    def entries(self, one: Known, findings: Findings) -> None:
        """Check the entries, parts, keys, tree and checkpoints of one origin."""
        if one.log_after is not None:
            findings.checked("ship log", f"{one.log_after.shipped} entries shipped")
        elif one.stored and not one.is_ours:
            detail = "neither ship log, journal nor second place is here: what was cut off at the end cannot be told"
            findings.unknown("ship log", None, detail)
        for claim, problem in one.problems:
            findings.broken(claim, None, problem)
        tail = None if one.journal is None else SegmentTail(one.journal, host_keys=self.trusted.host_keys)
        try:
            walk = Walk(
                self.database, one, findings, trusted=self.trusted, data=self.data, erased=self.erased, tail=tail
            )
            walk.run(self.progress)
            self.checked[one.origin] = walk.looked_at
        except StorageUnavailable:
            raise
        except (*MALFORMED, StorageError) as error:
            findings.broken("entries", None, f"cannot be read: {error!r:.300}")
        finally:
            if tail is not None:
                tail.close()
        if one.recorded is not None and one.stored > one.recorded:
            findings.broken("entries", one.recorded, f"and up to {one.stored - 1}: never recorded by the journal")

    def closings(self, findings: dict[str, Findings]) -> None:
        """Every call was closed once: ClickHouse counts the closing entries of each decision, in turns."""
        sql = blocks("audit.sql")
        ((count,),) = self.database.rows(sql["closings"], caps=SWEEP)
        turns = 1 + count // CLOSINGS_AT_ONCE
        for turn in range(turns):
            found = self.database.rows(sql["closed_twice"], {"of": turns, "turn": turn}, caps=SWEEP)
            for decision, (origin, seq), times in found:
                detail = f"decision {decision} is closed by {times} entries"
                findings.setdefault(origin, Findings(origin)).broken("counters", seq, detail)

    def typed_rows(self, known: list[Known], findings: dict[str, Findings]) -> None:
        """Compare the typed tables with the entries, and the extractions with the decisions."""
        cursors, damage = self._cursors()
        coverage = Coverage(self.database, {one.origin: one.recorded for one in known if one.recorded is not None})
        for one in sorted(known, key=_by_epoch):
            mine = findings[one.origin]
            if damage is not None:
                mine.broken("projections", None, damage)
            cursor = None if cursors is None else cursors.get(one.origin, 0)
            try:
                Comparison(self.database, one.origin, mine, cursor=cursor, coverage=coverage).run(one.stored)
            except StorageUnavailable:
                raise
            except (*MALFORMED, StorageError) as error:
                mine.broken("projections", None, f"cannot be compared: {error!r:.300}")
        for one in known:
            coverage.finish(one.origin, findings[one.origin])
        stored = {one.origin: one.stored for one in known}
        compare_sources(self.database, stored, lambda origin: findings.setdefault(origin, Findings(origin)))

    def _cursors(self) -> tuple[dict[str, int] | None, str | None]:
        """Up to where the projector says to have come, and what is wrong with what it says."""
        if self.data is None:
            return None, None
        try:
            return read_cursors(self.data / "ship")[1], None
        except JournalCorrupt as error:
            return {}, error.message


def _by_epoch(one: Known) -> tuple[str, int]:
    """Epochs of a shard in their order: what a later one extracts again counts."""
    shard, _, epoch = one.origin.rpartition("/")
    return shard, int(epoch) if epoch.isdecimal() and len(epoch) < 10 else 0


def erased_keys(database: Database) -> frozenset[str]:
    """The key ids that erasure entries name in their field `keys`."""
    erased: set[str] = set()
    origin, seq = "", -1
    while True:
        where = {"origin": origin, "seq": seq, "limit": PAGE_ROWS}
        found = database.rows(blocks("audit.sql")["erasures"], where, caps=SWEEP)
        for origin, seq, entry in found:  # noqa: B007 - the place of the last one is where the next page begins
            try:
                said = orjson.loads(entry)
                erased.update(key for key in said["keys"] if said["kind"] == "erasure" and isinstance(key, str))
            except MALFORMED:  # erases nothing; the walk names it
                continue
        if len(found) < PAGE_ROWS:
            return frozenset(erased)
