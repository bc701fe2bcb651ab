"""Decisions of one shard, in order, each whole: its entry, and the parts and keys that it names.

A buffered call's parts stand in the batch of its entry. A streamed call's first chunks were journaled batches, perhaps
minutes, earlier: a feed remembers where the parts of calls without an entry stand (places, not bytes) and reads those
places again when the entry comes. What a restart must read again begins at the oldest of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.keeper.opening import Stored, by_part
from gateway.keeper.tail import Library, Reader, Shelf, header_of
from storage import frames
from storage.entries import CLOSING, closes_call, decode, leaf_hash
from storage.errors import JournalError
from storage.frames import FrameReader
from storage.reading import Batch, Position
from storage.recovery import segments_of
from storage.segment import HEADER_BYTES, SegmentHeader, StoredPart, WrappedKey, segment_name

OPEN_MAX = 8_192  # calls with parts and without an entry; a gateway worker holds 2,000 connections
OPEN_AGE_NS = 2 * 86_400 * 1_000_000_000  # the longest a call may take is a day; what is older was lost


Wanted = Callable[[str, int, Mapping[str, Any]], bool]  # origin, sequence number, entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One decision as the journal has it."""

    origin: str
    seq: int
    leaf: bytes
    raw: bytes
    entry: dict[str, Any]
    parts: Stored
    keys: Mapping[str, WrappedKey]
    headers: Mapping[int, SegmentHeader]


@dataclass(frozen=True, slots=True)
class _Place:
    """A batch that holds parts of a call without an entry."""

    segment: int
    begin: int
    end: int


@dataclass(slots=True)
class _Open:
    since_ns: int
    places: list[_Place] = field(default_factory=list)


class Feed:
    """Reads one shelf for one consumer; use from one task."""

    def __init__(self, shelf: Shelf, first_seq: int, wanted: Wanted, *, given_below: int = 0) -> None:
        """Reads from the segment of `first_seq` on; gives what `wanted` wants and `given_below` does not exclude."""
        self._reader = Reader(shelf, start_of(shelf.directory, first_seq))
        self._wanted = wanted
        self._given_below = given_below
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self.read_below = first_seq  # every decision with a lower sequence number was given
        self.resume = first_seq  # a feed must read from here that shall give what this one has yet to give
        self.advanced = False  # whether the last call found anything at all
        self.damaged = False

    @property
    def shelf(self) -> Shelf:
        """What it reads."""
        return self._reader.shelf

    @property
    def origin(self) -> str:
        """Whose decisions they are."""
        return self._reader.shelf.origin

    @property
    def position(self) -> Position | None:
        """Behind the last batch that was read."""
        return self._reader.position

    async def next_decisions(self) -> list[Recorded]:
        """The decisions of the next batches; none at the watermark, or where those batches held none.

        Raises:
            JournalError: the journal is damaged, or the segment is gone.
        """
        return await asyncio.to_thread(self._next)

    def close(self) -> None:
        """Let files go."""
        self._reader.close()

    def _next(self) -> list[Recorded]:
        try:
            batches = self._reader.read()
            found = [one for batch in batches for one in self._take(batch)]
        except FileNotFoundError as error:
            raise JournalError(f"{error.filename} is gone", code="segment_gone") from error
        self.advanced = bool(batches)
        if batches:
            self.read_below = max(self.read_below, batches[-1].first + batches[-1].count)
            oldest = next(iter(self._open.values()), None)
            self.resume = self.read_below if oldest is None else min(oldest.places[0].segment, self.read_below)
        return found

    def _take(self, batch: Batch) -> list[Recorded]:
        found = []
        parts: dict[str, list[StoredPart]] = defaultdict(list)
        for part in batch.parts:
            parts[part.key_id].append(part)
        carried = parts.keys() | {key.key_id for key in batch.keys}
        for record in batch.records:
            entry = decode(record.entry)
            named = {part["key"] for part in entry["parts"]}
            if entry["kind"] in CLOSING:
                earlier = [place for key in named for place in self._forget(key)]
                if closes_call(entry):  # rows have keys of their own: what the begin entry sealed belongs to none
                    self._forget(entry["decision"])
                    carried.discard(entry["decision"])
                carried -= named
                if entry["kind"] == "decision" and self._is_wanted(batch.origin, record.seq, entry):
                    at_hand = [part for key in named for part in parts.get(key, ())]
                    found.append(self._recorded(batch, record.seq, record.entry, entry, parts=at_hand, earlier=earlier))
            elif entry["kind"] != "begin":
                carried -= named  # parts of other entries are complete with them
        place = _Place(batch.segment, batch.begin, batch.end)
        now_ns = batch.records[-1].ts_ns if batch.records else None
        for key in carried:
            self._remember(key, place, now_ns)
        return found

    def _is_wanted(self, origin: str, seq: int, entry: Mapping[str, Any]) -> bool:
        return seq >= self._given_below and self._wanted(origin, seq, entry)

    def _recorded(
        self,
        batch: Batch,
        seq: int,
        raw: bytes,
        entry: dict[str, Any],
        *,
        parts: list[StoredPart],
        earlier: list[_Place],
    ) -> Recorded:
        named = {part["key"] for part in entry["parts"]}
        keys = {key.key_id: key for key in batch.keys if key.key_id in named}
        for place in dict.fromkeys(earlier):
            more_parts, more_keys = self._again(place, named)
            parts += more_parts
            keys |= more_keys
        headers = {key.segment: header_of(self.shelf, key.segment) for key in keys.values()}
        return Recorded(
            origin=batch.origin,
            seq=seq,
            leaf=leaf_hash(raw),
            raw=raw,
            entry=entry,
            parts=by_part(parts),
            keys=keys,
            headers=headers,
        )

    def _forget(self, key: str) -> list[_Place]:
        known = self._open.pop(key, None)
        return [] if known is None else known.places

    def _remember(self, key: str, place: _Place, now_ns: int | None) -> None:
        known = self._open.setdefault(key, _Open(now_ns or 0))
        if place not in known.places[-1:]:
            known.places.append(place)
        oldest = next(iter(self._open))
        too_old = now_ns is not None and now_ns - self._open[oldest].since_ns > OPEN_AGE_NS
        if len(self._open) > OPEN_MAX or (too_old and oldest != key):
            del self._open[oldest]

    def _again(self, place: _Place, named: Iterable[str]) -> tuple[list[StoredPart], dict[str, WrappedKey]]:
        """The parts and keys of one batch that was read and checked before; its frames' checksums are checked again."""
        header = header_of(self.shelf, place.segment)
        reader = FrameReader(header.salt, place.begin)
        fd = os.open(self.shelf.directory / segment_name(place.segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            reader.feed(os.pread(fd, place.end - place.begin, place.begin))
        finally:
            os.close(fd)
        parts: list[StoredPart] = []
        keys: dict[str, WrappedKey] = {}
        while (frame := reader.next_frame()) is not None:
            if frame.type == frames.PART:
                part = StoredPart.from_payload(frame.payload, frame.seq)
                if part.key_id in named:
                    parts.append(part)
            elif frame.type == frames.KEY:
                key = WrappedKey.from_payload(frame.payload, place.segment, frame.seq)
                if key.key_id in named:
                    keys[key.key_id] = key
        return parts, keys


class Feeds:
    """The feeds of one consumer over all shards that carry decisions, opened as they appear."""

    def __init__(self, library: Library, *, own: str, begin: Callable[[str], int], wanted: Wanted) -> None:
        """`own` is the shard that the keeper writes, which holds no decisions; `begin` says where an origin starts."""
        self._library = library
        self._own = own
        self._begin = begin
        self._wanted = wanted
        self._feeds: dict[str, Feed] = {}

    def __iter__(self) -> Iterator[Feed]:
        return iter([feed for feed in self._feeds.values() if not feed.damaged])

    def resume(self, origin: str) -> int | None:
        """From where this consumer must be able to read again; None where it never read."""
        feed = self._feeds.get(origin)
        return None if feed is None else feed.resume

    def read_below(self, origin: str) -> int:
        """Every decision of `origin` below this was given."""
        feed = self._feeds.get(origin)
        return 0 if feed is None else feed.read_below

    async def refresh(self) -> None:
        """Open feeds for what has appeared; an epoch that was moved to quarantine goes on from there."""
        for shelf in self._library.shelves:
            known = self._feeds.get(shelf.origin)
            if shelf.origin.split("/")[-2] == self._own or (known is not None and known.shelf is shelf):
                continue
            first_seq, given_below = self._begin(shelf.origin), 0
            if known is not None:
                first_seq, given_below = known.resume, known.read_below
                known.close()
            self._feeds[shelf.origin] = await asyncio.to_thread(
                Feed, shelf, first_seq, self._wanted, given_below=given_below
            )

    def damaged(self, feed: Feed, error: JournalError) -> None:
        """Read this feed no further."""
        feed.damaged = True
        self._library.report(feed.shelf, error, feed.position)

    def close(self) -> None:
        """Let files go."""
        for feed in self._feeds.values():
            feed.close()


def start_of(directory: Path, seq: int) -> Position | None:
    """The beginning of the segment that holds entry `seq`; of the first one there is where it is gone."""
    found = sorted(segments_of(directory))
    if not found:
        return None
    return Position(max([first for first in found if first <= seq], default=found[0]), HEADER_BYTES)
