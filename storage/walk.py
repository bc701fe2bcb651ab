"""The check of one origin's entries, with everything that was recorded with them: from the first, or from a tile on.

Whole, it is what a verification does with an origin. From a tile's border on, it is what a keeper does again and again
with what is recent: the tree before that border is taken from the tiles, and must lead to the roots that were signed.
What only the beginning can tell (counters, scopes, keys that no entry names) is then left to the next whole one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage import tiles, watermark
from storage.clickhouse import Database
from storage.contents import ContentCheck, Recorded
from storage.errors import Unverifiable
from storage.findings import Findings
from storage.known import Known, Trusted, journal_headers, read_ship_logs
from storage.logaudit import logged_notes
from storage.logleaves import log_name
from storage.merkle import Frontier
from storage.proofs import Tiles
from storage.reading import SegmentTail
from storage.seals import HeaderCheck, Opener
from storage.tallies import Tallies
from storage.tilecheck import check_tiles
from storage.verify import EntryCheck, Signature
from storage.windows import Reader, Window, ahead


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the verification of one origin is: entries looked at, of how many."""

    origin: str
    done: int
    total: int


class Walk:
    """One origin, once.

    Args:
        one: what is known of it.
        erased: the key ids that erasure entries name.
        tail: its journal, as far as it is there.
        since: the first entry of what is recent, a multiple of 256 below the newest published checkpoint; None: a whole
            verification. What is recent is looked at without the journal.
    """

    def __init__(
        self,
        database: Database,
        one: Known,
        findings: Findings,
        *,
        trusted: Trusted,
        data: Path | None,
        erased: frozenset[str],
        tail: SegmentTail | None = None,
        since: int | None = None,
    ) -> None:
        self._database = database
        self._one, self._findings, self._data = one, findings, data
        self._is_whole = since is None
        self._low = low = since or 0
        # behind what was shipped, only the journal can say what is owed
        self._end = one.end if self._is_whole else max(one.stored, one.owed)
        self._reader = reader = Reader(database, one.origin)
        self._tallies = Tallies(findings, since=low)
        recorded, opener = Recorded(), Opener(one.origin, trusted.master)
        self._headers = HeaderCheck(
            findings,
            journal={} if one.journal is None else journal_headers(one.journal),
            host_keys=trusted.host_keys,
            opener=opener,
        )
        for first_seq, header in reader.headers(low + 1) if low else ():
            self._headers.take(first_seq, header)
        self._entries = EntryCheck(
            findings,
            public=trusted.public,
            checkpoints=self._checkpoints(),
            leaves=reader.leaves(self._end, low),
            batches=iter(()) if tail is None else recorded.tapped(tail.batches()),
            headers=self._headers.known,
            tallies=self._tallies,
            start=low,
            tree=self._start(),
        )
        self._contents = ContentCheck(
            findings,
            older=reader.older(),
            erased=erased,
            segments=self._headers.known,
            recorded=recorded,
            opener=opener,
        )

    @property
    def looked_at(self) -> int:
        """Entries so far."""
        return self._entries.looked_at

    def run(self, progress: Callable[[Progress], None]) -> None:
        """Look at everything, window by window."""
        one, end = self._one, self._end
        for window in ahead(self._reader.windows(end, self._low)):
            self._look_at(window)
            progress(Progress(one.origin, window.high, end))
        if not end:  # an origin of which there is something, but no entry
            self._look_at(self._reader.window(0, 0))
        recorded = one.recorded or 0
        self._entries.finish(
            end, owed=one.owed, recorded=recorded if self._is_whole else max(recorded, one.size_signed)
        )
        log = one.log_after
        if log is not None and self._tallies.month > log.month:
            detail = f"entries are filed under {self._tallies.month}, the ship log has come to {log.month}"
            self._findings.broken("entries", None, detail)
        self._headers.finish(one.stored)
        self._finish_published()
        if self._is_whole:
            self._contents.finish(unrecorded=self._tallies.unrecorded, journal_from=self._entries.journal_from)
            check_tiles(
                self._findings,
                self._reader,
                wanted=self._reader.published(),
                walked=one.stored,
                stored=self._reader.stored,
            )
        self._finish_beyond()

    def _start(self) -> Frontier | None:
        """The tree before `low`, by the tiles of the database: whoever changed these meets the signed roots."""
        low, peaks, begin = self._low, [], 0
        read = Tiles(self._database, self._one.origin).read
        try:
            for height in reversed(range(low.bit_length())):
                if low >> height & 1:
                    peaks.append(tiles.subtree_root(begin, begin + (1 << height), low, read))
                    begin += 1 << height
        except Unverifiable as error:
            self._findings.unknown("tree", low, f"cannot be made from the tiles before: {error.message}")
            return None
        return Frontier(low, peaks)

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
        signed, origin = self._one.signed, self._one.origin
        own = () if signed is None else (Signature(signed.checkpoint.size, signed.note.decode()),)
        logged: Iterator[Signature] = iter(())
        if self._one.logged and self._is_whole:
            logged = logged_notes(self._database, log_name(origin.partition("/")[0]), origin)
        merged = heapq.merge(self._published(), own, logged, key=lambda signature: signature.size)
        last: tuple[int, str] | None = None
        for signature in merged:
            if signature.root is not None or signature[:2] != last:  # most of what is logged is published too
                yield signature
            last = signature[:2]

    def _published(self) -> Iterator[Signature]:
        findings, signed = self._findings, self._one.signed
        for filed in self._reader.checkpoints(self._low):
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
        beyond = self._reader.beyond(self._end)
        if not beyond:
            return
        limit = self._reader.stored() if self._end or self._one.is_ours else -1
        if self._data is not None:
            log = read_ship_logs(self._data / "ship").get(self._one.origin)
            limit = max(limit, -1 if log is None else log.sealed)
        mark = None if self._one.journal is None else watermark.read(self._one.journal / watermark.NAME)
        for table, last in beyond:
            if last <= limit or (mark is not None and last <= mark.slot.next_seq):
                continue
            claim = {"keys": "keys", "parts": "parts"}.get(table, "segments")
            self._findings.broken(claim, last, f"a row of {table} behind the last entry")
