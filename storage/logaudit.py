"""Verification of the log of logs, and of every shard against it: a dropped or silent shard becomes visible.

The second place is read first, then the database up to what that one or a published checkpoint states; what a running
keeper adds meanwhile is left to the next run.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage import logleaves
from storage.clickhouse import SWEEP, Database
from storage.errors import StorageError, StorageUnavailable, Unverifiable
from storage.findings import MALFORMED, Findings
from storage.logcheck import LeafLine, LogCheck
from storage.logleaves import State, is_log, log_name
from storage.logoflogs import Kept, read_kept
from storage.merkle import leaf_hash
from storage.queries import blocks
from storage.shiplog import file_name
from storage.tilecheck import check_tiles
from storage.verify import Signature
from storage.windows import PAGE_ROWS, Reader

GRACE_NS: Final = 60 * 1_000_000_000  # within which a new shard must be in the log
SILENT_NS: Final = 180 * 1_000_000_000  # three missed heartbeats
_ENDING: Final = "_log.checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One log of logs after its own check."""

    name: str
    state: State
    notable: frozenset[tuple[str, int, bytes]] = field(default_factory=frozenset)


def check_logs(
    database: Database,
    data: Path | None,
    *,
    public: bytes,
    host_keys: Collection[bytes] | None,
    findings: dict[str, Findings],
) -> dict[str, Logged]:
    """Check every log of logs of which anything is known; deployment → what it states."""
    found = {}
    for name in _names(database, data):
        mine = findings.setdefault(name, Findings(name))
        try:
            found[name.removesuffix(logleaves.SUFFIX)] = _check(
                database, data, mine, public=public, host_keys=host_keys
            )
        except StorageUnavailable:
            raise
        except (*MALFORMED, StorageError) as error:
            mine.broken("log", None, f"cannot be read: {error!r:.300}")
    return found


def _names(database: Database, data: Path | None) -> list[str]:
    names = {origin for (origin,) in database.rows(blocks("audit.sql")["logs"], caps=SWEEP) if is_log(origin)}
    if data is not None:
        names |= {log_name(path.name.removesuffix(_ENDING)) for path in (data / "ship").glob(f"*{_ENDING}")}
    return sorted(names)


def _check(
    database: Database,
    data: Path | None,
    findings: Findings,
    *,
    public: bytes,
    host_keys: Collection[bytes] | None,
) -> Logged:
    name = findings.origin
    kept = _kept(data, name, findings, public)
    reader = Reader(database, name)
    published = reader.published()
    end = max(published, 0 if kept is None else kept.signed.checkpoint.size)
    check = LogCheck(
        findings,
        public=public,
        host_keys=host_keys,
        checkpoints=_checkpoints(reader, kept, findings, end),
        leaves=reader.leaves(end),
    )
    for line in _lines(database, name, kept, end):
        check.feed(line)
        if kept is not None and line.seq + 1 == kept.signed.checkpoint.size:
            _compare_state(check, kept)
    check.finish(end)
    ((count, last),) = database.rows(blocks("audit.sql")["log_stored"], {"origin": name}, caps=SWEEP)
    stored = last + 1 if count else 0
    _check_second_place(data, name, findings, public, stored=stored, published=published, end=end)
    check_tiles(findings, reader, wanted=published, walked=end, stored=lambda: stored)
    return Logged(name=name, state=check.state, notable=frozenset(check.notable))


def _kept(data: Path | None, name: str, findings: Findings, public: bytes) -> Kept | None:
    path = None if data is None else data / "ship" / f"{file_name(name)}.checkpoint"
    if path is None or not path.exists():
        findings.unknown("log", None, "its second place is not here: leaves cut off at the end cannot be told")
        return None
    try:
        return read_kept(path, path.read_bytes(), name=name, public=public)
    except Unverifiable as error:
        findings.broken("checkpoints", None, error.message)
        return None


def _checkpoints(reader: Reader, kept: Kept | None, findings: Findings, end: int) -> Iterator[Signature]:
    def published() -> Iterator[Signature]:
        for filed in reader.checkpoints():
            if filed.size > end:
                return
            if filed.count > 1:
                findings.broken("checkpoints", filed.size - 1, f"{filed.count} checkpoints of size {filed.size}")
            for note, root in sorted(set(zip(filed.notes, filed.roots, strict=True))):
                yield Signature(filed.size, note, root)

    own = () if kept is None else (Signature(kept.signed.checkpoint.size, kept.signed.note.decode()),)
    return heapq.merge(published(), own, key=lambda signature: signature.size)


def _lines(database: Database, name: str, kept: Kept | None, end: int) -> Iterator[LeafLine]:
    """The leaves below `end` by number: those of the database, and of the last round what is not there yet."""
    seq = -1
    while True:
        where = {"origin": name, "seq": seq, "end": end, "limit": PAGE_ROWS}
        found = database.rows(blocks("audit.sql")["log_leaves"], where, caps=SWEEP)
        for row in found:
            line = LeafLine._make(row)
            yield line
            seq = line.seq
        if len(found) < PAGE_ROWS:
            break
    for leaf in () if kept is None else kept.leaves:
        if leaf.n > seq:
            yield LeafLine(leaf.n, leaf.ts_ns, leaf.kind, leaf.shard, leaf.size, leaf.raw, leaf_hash(leaf.raw))


def _compare_state(check: LogCheck, kept: Kept) -> None:
    if (check.state.shards, check.state.ts_ns) != (kept.state.shards, kept.state.ts_ns):
        check.findings.broken("log", kept.signed.checkpoint.size - 1, "the second place says otherwise of some shard")


def _check_second_place(
    data: Path | None, name: str, findings: Findings, public: bytes, *, stored: int, published: int, end: int
) -> None:
    """Whatever the database has was in the second place before; read again, since a keeper may run."""
    now = None if data is None else _kept(data, name, Findings(name), public)
    if now is None:
        if stored > end:
            findings.unknown("log", end, f"{stored - end} leaves stand behind the last signed tree")
        return
    size = now.signed.checkpoint.size
    if stored > size:
        findings.broken("log", size, "a leaf behind the last signed tree")
    if published > size:
        findings.broken("checkpoints", size, f"a tree of {published} was published, the second place knows of {size}")


def logged_notes(database: Database, log: str, shard: str) -> Iterator[Signature]:
    """The checkpoints of `shard` that the log holds, in the order of its leaves; what is no leaf is left out."""
    seq = -1
    while True:
        where = {"origin": log, "shard": shard, "seq": seq, "limit": PAGE_ROWS}
        found = database.rows(blocks("audit.sql")["logged_notes"], where, caps=SWEEP)
        for seq, entry in found:  # noqa: B007 - the place of the last one is where the next page begins
            try:
                leaf = logleaves.parse(entry, log=log)
                yield Signature(leaf.size, str(leaf.said["note"]))
            except (Unverifiable, KeyError):  # the log's own check names it
                continue
        if len(found) < PAGE_ROWS:
            return


def check_shards(
    database: Database,
    logs: Mapping[str, Logged],
    findings: Mapping[str, Findings],
    *,
    silent_ns: int,
    now_ns: int | None,
) -> None:
    """Hold every shard against its deployment's log: is it there, and does it still speak?"""
    first = {
        origin: (int(low), int(high)) for origin, low, high in database.rows(blocks("audit.sql")["signed"], caps=SWEEP)
    }
    newest_ns = max((high for _, high in first.values()), default=0)
    for origin, mine in findings.items():
        if is_log(origin) or origin.count("/") != 2:
            continue
        log = logs.get(origin.partition("/")[0])
        began_ns = first.get(origin, (newest_ns, 0))[0]
        mine.checked("log")
        if (log is None or origin not in log.state.shards) and began_ns < newest_ns - GRACE_NS:
            if log is None:
                mine.unknown("log", None, "there is no log of logs that would hold its checkpoints")
            else:
                mine.broken("log", None, f"{log.name} does not know it")
    for log in logs.values():
        _check_silence(log, findings, silent_ns=silent_ns, now_ns=now_ns)
        _check_notable(database, log, findings)


def _check_silence(log: Logged, findings: Mapping[str, Findings], *, silent_ns: int, now_ns: int | None) -> None:
    for shard, standing in log.state.silent(within_ns=silent_ns).items():
        if shard in findings:
            since_s = (log.state.ts_ns - standing.ts_ns) // 1_000_000_000
            detail = f"silent for {since_s} s before the log's end, and not closed: no checkpoint, no heartbeat"
            findings[shard].unknown("log", standing.size, detail)
    if now_ns is not None and now_ns - log.state.ts_ns > silent_ns:
        open_shards = sum(one.is_open for one in log.state.shards.values())
        if open_shards:
            age_s = (now_ns - log.state.ts_ns) // 1_000_000_000
            detail = f"has said nothing for {age_s} s, while {open_shards} shards are not closed"
            findings[log.name].unknown("log", None, detail)


def _check_notable(database: Database, log: Logged, findings: Mapping[str, Findings]) -> None:
    """Erasures and prunes are leaves of the log, and its leaves about them are entries."""
    deployment, seen = log.name.removesuffix(logleaves.SUFFIX), set()
    place = ("", -1)
    while True:
        where = {"origin": place[0], "seq": place[1], "limit": PAGE_ROWS}
        found = database.rows(blocks("audit.sql")["notable"], where, caps=SWEEP)
        for origin, seq, leaf in found:
            place = (origin, seq)
            if origin.partition("/")[0] != deployment:
                continue
            seen.add((origin, seq, leaf))
            if seq < log.state.of(origin).size and (origin, seq, leaf) not in log.notable and origin in findings:
                findings[origin].broken("log", seq, f"{log.name} does not know this erasure or prune")
        if len(found) < PAGE_ROWS:
            break
    for shard, seq, _ in sorted(log.notable - seen):
        if shard in findings:
            findings[shard].broken("log", seq, f"{log.name} knows of another erasure or prune here")
