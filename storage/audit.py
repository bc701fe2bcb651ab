"""Verification of a deployment: reads ClickHouse and, while it is there, the journal; the rules are in verify.py.

Everything streams: entries by windows (windows.py), tiles, checkpoints and journal batches beside them. How far it
goes is fixed at the beginning (known.py): as far as the database, the ship log or the signed tree says that there is
something. A running keeper may ship meanwhile; what is newer is left to the next run. Without the data directory only
ClickHouse is looked at, and what only keys or journal can tell is UNKNOWN.

Nothing that somebody wrote into the database may end a verification: it becomes a finding.

Digests of parts are computed by ClickHouse from the bytes that it stores; those of entries are recomputed here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from storage import watermark
from storage.clickhouse import SWEEP, Database
from storage.comparison import Comparison, compare_sources
from storage.contents import ContentCheck, Recorded
from storage.coverage import Coverage
from storage.errors import JournalCorrupt, StorageError, StorageUnavailable
from storage.findings import MALFORMED, Findings, Report
from storage.known import Known, Trusted, journal_headers, known_origins, read_ship_logs
from storage.logaudit import SILENT_NS, check_logs, check_shards, logged_notes
from storage.logleaves import log_name
from storage.projections import read_cursors
from storage.queries import blocks
from storage.reading import SegmentTail
from storage.seals import HeaderCheck, Opener
from storage.tallies import Tallies
from storage.tilecheck import check_tiles
from storage.trust import TrustPolicy, check_authenticity
from storage.verify import EntryCheck, Signature
from storage.windows import PAGE_ROWS, Reader, Window, ahead

CLOSINGS_AT_ONCE = 2_000_000  # decisions counted in one turn: some 100 MB in ClickHouse


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the verification of one origin is: entries looked at, of how many."""

    origin: str
    done: int
    total: int


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
    run = _Audit(database, data=data, trusted=trusted, progress=progress, erased=_erased(database))
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
            _Walk(self, one, findings, tail).run()
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


class _Walk:
    """The check of one origin, from its first entry to its last."""

    def __init__(self, run: _Audit, one: Known, findings: Findings, tail: SegmentTail | None) -> None:
        trusted = run.trusted
        self._run, self._one, self._findings = run, one, findings
        self._reader = reader = Reader(run.database, one.origin)
        self._tallies = Tallies(findings)
        recorded, opener = Recorded(), Opener(one.origin, trusted.master)
        self._headers = HeaderCheck(
            findings,
            journal={} if one.journal is None else journal_headers(one.journal),
            host_keys=trusted.host_keys,
            opener=opener,
        )
        self._entries = EntryCheck(
            findings,
            public=trusted.public,
            checkpoints=self._checkpoints(),
            leaves=reader.leaves(one.end),
            batches=iter(()) if tail is None else recorded.tapped(tail.batches()),
            headers=self._headers.known,
            tallies=self._tallies,
        )
        self._contents = ContentCheck(
            findings,
            older=reader.older(),
            erased=run.erased,
            segments=self._headers.known,
            recorded=recorded,
            opener=opener,
        )

    def run(self) -> None:
        """Look at everything, window by window."""
        one = self._one
        for window in ahead(self._reader.windows(one.end)):
            self._look_at(window)
            self._run.progress(Progress(one.origin, window.high, one.end))
        if not one.end:  # an origin of which there is something, but no entry
            self._look_at(self._reader.window(0, 0))
        self._entries.finish(one.end, owed=one.owed, recorded=one.recorded or 0)
        self._run.checked[one.origin] = self._entries.looked_at
        log = one.log_after
        if log is not None and self._tallies.month > log.month:
            detail = f"entries are filed under {self._tallies.month}, the ship log has come to {log.month}"
            self._findings.broken("entries", None, detail)
        self._contents.finish(unrecorded=self._tallies.unrecorded, journal_from=self._entries.journal_from)
        self._headers.finish(one.stored)
        self._finish_published()
        check_tiles(
            self._findings, self._reader, wanted=self._reader.published(), walked=one.stored, stored=self._reader.stored
        )
        self._finish_beyond()

    def _look_at(self, window: Window) -> None:
        for first_seq, header in window.headers:
            self._headers.take(first_seq, header)
        for seq, times in window.many:
            self._findings.broken("entries", seq, f"there {times} times")
        for table in window.overrun:
            detail = f"{table} are there many times around here, too many to look at"
            self._findings.broken("keys" if table == "keys" else "parts", window.low, detail)
        self._contents.take(window.chunks, window.keys)
        for line in window.lines:
            said = self._entries.feed(line)
            if said is not None:
                self._contents.claim(line.seq, said)
        self._contents.settle()

    def _checkpoints(self) -> Iterator[Signature]:
        """The published checkpoints, the one in the second place, and those in the log of logs, by size."""
        signed = self._one.signed
        own = () if signed is None else (Signature(signed.checkpoint.size, signed.note.decode()),)
        log = log_name(self._one.origin.partition("/")[0])
        logged = logged_notes(self._run.database, log, self._one.origin) if self._one.logged else iter(())
        merged = heapq.merge(self._published(), own, logged, key=lambda signature: signature.size)
        last: tuple[int, str] | None = None
        for signature in merged:
            if signature.root is not None or signature[:2] != last:  # most of what is logged is published too
                yield signature
            last = signature[:2]

    def _published(self) -> Iterator[Signature]:
        findings, signed = self._findings, self._one.signed
        for filed in self._reader.checkpoints():
            if filed.count > 1:
                findings.broken("checkpoints", filed.size - 1, f"{filed.count} checkpoints of size {filed.size}")
            if signed is not None and signed.checkpoint.size == filed.size and set(filed.times) != {signed.ts_ns}:
                findings.broken("checkpoints", filed.size - 1, "the time beside it is not that of the second place")
            for note, root in sorted(set(zip(filed.notes, filed.roots, strict=True))):
                yield Signature(filed.size, note, root)

    def _finish_published(self) -> None:
        """What was published, against the second place."""
        size, published = self._one.size_signed, self._reader.published()
        if published < size:
            detail = f"a tree of {size} was signed, the newest published checkpoint is of {published}"
            self._findings.unknown("checkpoints", published, detail)

    def _finish_beyond(self) -> None:
        """Rows that are filed behind the last entry belong to what is just being shipped, or were forged."""
        beyond = self._reader.beyond(self._one.end)
        if not beyond:
            return
        limit = self._reader.stored() if self._one.end or self._one.is_ours else -1
        if self._run.data is not None:
            log = read_ship_logs(self._run.data / "ship").get(self._one.origin)
            limit = max(limit, -1 if log is None else log.sealed)
        mark = None if self._one.journal is None else watermark.read(self._one.journal / watermark.NAME)
        for table, last in beyond:
            if last <= limit or (mark is not None and last <= mark.slot.next_seq):
                continue
            claim = {"keys": "keys", "parts": "parts"}.get(table, "segments")
            self._findings.broken(claim, last, f"a row of {table} behind the last entry")


def _by_epoch(one: Known) -> tuple[str, int]:
    """Epochs of a shard in their order: what a later one extracts again counts."""
    shard, _, epoch = one.origin.rpartition("/")
    return shard, int(epoch) if epoch.isdecimal() and len(epoch) < 10 else 0


def _erased(database: Database) -> frozenset[str]:
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
