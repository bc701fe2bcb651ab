"""Recovery: what a shard's directory says when its next writer opens it. Decides in pure functions, acts in thin ones.

The last batch of the last segment with batches is the unit of tearing. Damage in it, above the watermark, is a torn
tail: set aside, cut off, recorded. Damage anywhere else is corruption: the whole epoch goes into quarantine and a
new epoch begins; nothing is ever cut in the middle. Counters: invariant 3, accepted = closed + open + lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from storage import durable, frames, watermark
from storage.batch import Batch, BatchReader
from storage.entries import CLOSING, Part, closes_call, decode, leaf_hash
from storage.errors import FrameDamaged, JournalCorrupt
from storage.frames import find_frames, salt_crc
from storage.merkle import Frontier
from storage.segment import HEADER_BYTES, Commit, Counters, OpenPart, SegmentHeader, StoredPart, segment_name
from storage.space import NAME as AHEAD
from storage.watermark import Mark

Scope = tuple[str, str | None]
TORN = "torn"  # directory of what was cut off
_UNMARKED = "unmarked"  # in the name of what was cut off while no watermark told what had been durable
_PIECE_BYTES = 1024 * 1024
_SEGMENT = re.compile(r"[0-9]{20}\.jrn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A begin entry that no decision entry closed, with the parts beyond its own of which chunks were found."""

    entry: dict[str, Any]
    leaf: bytes
    parts: list[Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A torn tail that was set aside and is not yet recorded in the journal."""

    segment: int
    offset: int
    size_bytes: int
    path: Path
    is_marked: bool  # False: no watermark told whether these bytes had been durable


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Where the next writer of an epoch begins, and what it must write down first."""

    frontier: Frontier = field(default_factory=Frontier)
    scopes: dict[Scope, int] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)  # as of the crash; lost_calls come on top
    lost_calls: int = 0
    is_count_known: bool = True
    begun: list[Begun] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    durable_end: tuple[int, int] = (0, 0)  # segment, offset: what the new watermark begins with


class Found:
    """The chunks of one part that streamed, as far as they came."""

    def __init__(self, opened: OpenPart) -> None:
        self._opened = opened
        self._chunks = self._len = 0
        self._sha256 = sha256()
        self.is_whole = True  # False: a chunk in between found no room, so this is no prefix of what passed

    def take(self, part: StoredPart) -> None:
        """Add the next chunk."""
        self.is_whole &= part.chunk == self._chunks
        self._chunks += 1
        self._len += len(part.data)
        self._sha256.update(part.data)

    def part(self) -> Part:
        """What an entry says of it."""
        opened = self._opened
        return Part(
            name=opened.name,
            index=opened.index,
            media=opened.media,
            encoding=opened.encoding,
            len=self._len,
            sha256=self._sha256.digest(),
            key=opened.key_id,
            dek_commit=opened.dek_commit,
            opening_commit=None,
            chunks=self._chunks,
        )


class Scan:
    """What the batches of an epoch add up to, fed in order from the segment that the last heartbeat names."""

    def __init__(self) -> None:
        self.scopes: dict[Scope, int] = {}
        self.begun: dict[str, tuple[dict[str, Any], bytes]] = {}  # by decision
        self.found: dict[str, dict[int, Found]] = {}  # key → part index → what streamed
        self.last: Commit | None = None
        self.is_closed = False
        self.open_from: int | None = None

    def take(self, batch: Batch) -> None:
        """Add one batch."""
        self.last, self.is_closed = batch.commit, batch.closes
        for opened in batch.opened:
            self.found.setdefault(opened.key_id, {})[opened.index] = Found(opened)
        for part in batch.parts:
            found = self.found.get(part.key_id, {}).get(part.index)
            if found is not None:
                found.take(part)
        for record in batch.records:
            entry = decode(record.entry)
            if entry["kind"] == "heartbeat":
                self.open_from = entry["open_from"] if self.open_from is None else self.open_from
                self.scopes.update({(tenant, route): count for tenant, route, count in entry["scopes"]})
            self.scopes[entry["tenant"], entry["route"]] = entry["scope_seq"] + 1
            if entry["kind"] == "begin":
                self.begun[entry["decision"]] = (entry, leaf_hash(record.entry))
            elif entry["kind"] in CLOSING:
                if closes_call(entry):
                    self.begun.pop(entry["decision"], None)
                for part in entry["parts"]:
                    self.found.pop(part["key"], None)
            elif entry["kind"] == "gap":
                for decision in entry.get("decisions", ()):
                    self.begun.pop(decision, None)

    def is_fresh(self, mark: Mark, last: int) -> bool:
        """Whether the watermark is as far as its writer had moved it when it made the last batch of segment ``last``.

        A killed writer leaves it so. A power cut leaves older pages in the watermark than in the journal.
        """
        end = max(mark.slot.end if mark.slot.segment == last else 0, HEADER_BYTES)
        return self.last is None or end >= self.last.begin - self.last.unsynced

    def still_begun(self) -> list[Begun]:
        """The begin entries that wait for their decision."""
        made = []
        for entry, leaf in self.begun.values():
            keys = {part["key"] for part in entry["parts"]} | ({entry["key"]} if entry.get("key") else set())
            stated = {(part["key"], part["index"]) for part in entry["parts"]}
            parts = [
                found.part()
                for key in sorted(keys)
                for index, found in sorted(self.found.get(key, {}).items())
                if found.is_whole and (key, index) not in stated
            ]
            made.append(Begun(entry=entry, leaf=leaf, parts=parts))
        return made


def scan_segment(raw: bytes, scan: Scan, *, is_last: bool = True) -> BatchReader:
    """Feed every whole batch of a segment to ``scan``; the reader stands behind the last one, before any damage.

    Where ``is_last`` is False damage raises.
    """
    reader = BatchReader(SegmentHeader.from_bytes(raw), verify_signatures=False)
    try:
        for at in range(HEADER_BYTES, len(raw), _PIECE_BYTES):
            reader.feed(raw[at : at + _PIECE_BYTES])
            while (batch := reader.next_batch()) is not None:
                scan.take(batch)
    except FrameDamaged:
        if not is_last:
            raise
    return reader


def judge_tail(raw: bytes, end: int, durable_end: int) -> bool:
    """True if a torn tail stands behind the last whole batch, which ends at ``end``; False if nothing does.

    Raises JournalCorrupt if the damaged batch had been durable: it is below the watermark; or it was to be synced at
    once, and something follows it; or a later COMMIT knew it to be durable.
    """
    if end < durable_end:
        raise JournalCorrupt(f"a batch at offset {end} is damaged, durable was offset {durable_end}")
    if not raw[end:].strip(b"\0"):
        return False
    own: Commit | None = None  # of the damaged batch, where that is whole
    for frame in find_frames(salt_crc(SegmentHeader.from_bytes(raw).salt), raw, end):
        commit = Commit.from_payload(frame.payload) if frame.type == frames.COMMIT else None
        if own is None and commit is not None and commit.begin == end:
            own = commit
            continue
        was_awaited = own is not None and not own.deferred
        if was_awaited or (commit is not None and not commit.begin - commit.unsynced <= end < commit.begin):
            raise JournalCorrupt(f"the batch at offset {end} is damaged, and a later one follows at {frame.offset}")
    return True


def recover(directory: Path, boot_id: bytes, calls: durable.Syscalls) -> tuple[int, Recovered] | None:
    """The epoch and state of the journal in ``directory``; None if there is none yet.

    On return the last segment ends at its last whole batch and torn bytes are set aside, durably; it may be called
    again after a crash at any point. Raises JournalCorrupt where bytes that were durable are damaged.
    """
    mark = watermark.read(directory / watermark.NAME)
    segments = segments_of(directory)
    if mark is not None and mark.slot.end and mark.slot.segment > max(segments, default=-1):
        raise JournalCorrupt(f"the watermark names segment {mark.slot.segment}, which is missing")
    while segments:
        last = segments.pop()
        path = directory / segment_name(last)
        raw = path.read_bytes()
        durable_end = mark.slot.end if mark is not None and mark.slot.segment == last else 0
        # after a failed sync the page cache may show what is on no disk: believe nothing behind the watermark
        believed = raw[: durable_end or HEADER_BYTES] if mark is not None and mark.is_failed else raw
        scan = Scan()
        reader = scan_segment(believed, scan)
        if judge_tail(believed, reader.end, durable_end) or raw[len(believed) :].strip(b"\0"):
            torn = raw[reader.end :].rstrip(b"\0")
            _set_aside(directory, last, reader.end, torn, calls, is_marked=mark is not None)
        if scan.last is None:  # the writer ended before its first batch: nothing of this segment was ever durable
            durable.remove(path, calls)
            continue
        if len(believed) < len(raw) or reader.end > durable_end:
            # nobody knows if these pages reached the disk, and a sync of the old file, if it failed once, would not
            # say so twice: they are written anew
            durable.remove(directory / AHEAD, calls)  # its space is enough for the copy
            durable.replace_file(path, raw[: reader.end], calls)
        else:
            durable.cut(path, reader.end, calls)
        whole = _with_older(directory, last, believed, scan)
        return _summed_up(directory, mark, boot_id=boot_id, scan=whole, reader=reader)
    return None


def _summed_up(
    directory: Path, mark: Mark | None, *, boot_id: bytes, scan: Scan, reader: BatchReader
) -> tuple[int, Recovered]:
    stated = scan.last.counters if scan.last is not None else Counters()
    epoch = epoch_of(reader.header.origin)
    last = reader.header.first_seq
    seen = mark if mark is not None and mark.epoch == epoch else None
    counters, lost_calls, is_known = count_calls(
        stated,
        seen,
        begun=len(scan.begun),
        is_closed=scan.is_closed,
        is_fresh=seen is not None and seen.boot_id == boot_id and not seen.is_recovering and scan.is_fresh(seen, last),
    )
    return epoch, Recovered(
        frontier=reader.frontier,
        scopes=scan.scopes,
        counters=counters,
        lost_calls=lost_calls,
        is_count_known=is_known,
        begun=scan.still_begun(),
        cuts=cuts_of(directory),
        durable_end=(last, reader.end),
    )


def _with_older(directory: Path, last: int, believed: bytes, scan: Scan) -> Scan:
    """The scan with all segments in which a decision was begun that was open when the last segment began.

    ``believed`` are the bytes of the last segment that ``scan`` was fed.
    """
    if scan.open_from is None or scan.open_from >= last:
        return scan
    whole = Scan()
    for first_seq in segments_of(directory):
        if scan.open_from <= first_seq < last:
            scan_segment((directory / segment_name(first_seq)).read_bytes(), whole, is_last=False)
    scan_segment(believed, whole)
    return whole


def count_calls(
    stated: Counters, seen: Mark | None, *, begun: int, is_closed: bool, is_fresh: bool
) -> tuple[Counters, int, bool]:
    """The counters at the crash, how many calls left no entry, and if that number is known. Pure.

    ``stated`` is what the last COMMIT says, ``seen`` the watermark. Admissions are stored in the watermark alone;
    where it is not fresh they are a lower bound, unless the journal was closed in order.
    """
    accepted, refused = stated.accepted, stated.refused
    if seen is not None:
        accepted, refused = max(accepted, seen.accepted), max(refused, seen.refused)
    accepted = max(accepted, stated.closed + stated.lost + begun)
    counters = Counters(accepted=accepted, closed=stated.closed, lost=stated.lost, shed=stated.shed, refused=refused)
    return counters, counters.open - begun, is_fresh or is_closed


def _set_aside(
    directory: Path, segment: int, offset: int, torn: bytes, calls: durable.Syscalls, *, is_marked: bool
) -> None:
    durable.make_directory(directory / TORN, calls)
    stem = f"{segment:020d}-{offset:010d}" + ("" if is_marked else f"-{_UNMARKED}")
    durable.replace_file(directory / TORN / f"{stem}.bin", torn, calls)


def cuts_of(directory: Path) -> list[Cut]:
    """The torn tails that no recovery entry names yet."""
    cuts = []
    for path in sorted((directory / TORN).glob("*.bin")):
        segment, offset, *rest = path.stem.split("-")
        size_bytes = path.stat().st_size
        cuts.append(Cut(segment=int(segment), offset=int(offset), size_bytes=size_bytes, path=path, is_marked=not rest))
    return cuts


def mark_recorded(cuts: list[Cut], calls: durable.Syscalls) -> None:
    """The recovery entries of these cuts are durable: keep the bytes, under a name that says so."""
    for cut in cuts:
        durable.move(cut.path, cut.path.with_suffix(".recorded"), calls)


def segments_of(directory: Path) -> list[int]:
    """The first sequence numbers of the segments in a directory, in order; a file of another name is none."""
    return sorted(int(path.stem) for path in directory.glob("*.jrn") if _SEGMENT.fullmatch(path.name))


def epoch_of(origin: str) -> int:
    """The epoch that an origin ends with."""
    return int(origin.rpartition("/")[2])
