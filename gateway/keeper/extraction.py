"""Labels: what each decision's answer means, committed by extraction entries in the keeper's own journal.

Every decision gets exactly one row, also where nothing is declared or found (nulls and an error). Works from the
journal, never from ClickHouse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from gateway.keeper import metrics
from gateway.keeper.feed import Feed, Feeds
from gateway.keeper.progress import Progress
from gateway.keeper.sheets import ERROR_BYTES_MAX, Row, Scope, Sheet, Sheets, clipped
from gateway.keeper.study import Studied, Study
from gateway.keeper.tail import Library
from gateway.keeper.writing import Writer
from storage.entries import Draft
from storage.errors import JournalError
from storage.ids import b64

SHEET_AGE_S = 0.5  # half of what a label may take to be durable; the rest is reading and waiting for the disk
WAKE_S = 0.1  # while a sheet is open
IDLE_S = 1.0
_NS = 1_000_000_000


class Extraction:
    """Reads the feeds of all shards and writes extraction entries; one per keeper."""

    def __init__(self, *, library: Library, own: str, study: Study, writer: Writer, progress: Progress) -> None:
        self._study = study
        self._writer = writer
        self._progress = progress
        self._sheets = Sheets()
        self.feeds = Feeds(library, own=own, begin=progress.begin, wanted=self._wanted)

    async def run(self, library: Library) -> None:
        """Extract for ever."""
        while True:
            version = library.version
            busy = await self.round()
            if not busy:
                await library.news(version, within_s=WAKE_S if len(self._sheets) else IDLE_S)

    async def round(self) -> bool:
        """One step of every feed, and the sheets that are due; true if there was anything to read."""
        await self.feeds.refresh()
        busy = False
        for feed in self.feeds:
            try:
                busy = await self._step(feed) or busy
            except JournalError as error:
                self.feeds.damaged(feed, error)
        await self.write_due()
        for feed in self.feeds:
            self._progress.extracted_to(feed.origin, self._written_below(feed.origin))
        return busy

    async def _step(self, feed: Feed) -> bool:
        """Put the next decisions of one feed on sheets and write those that are full."""
        recorded = await feed.next_decisions()
        now_ns = time.monotonic_ns()
        full: list[Sheet] = []
        for studied in await self._study.of(recorded):
            scope = Scope(studied.origin, studied.tenant, studied.route, studied.extractor)
            full += self._sheets.add(scope, studied.seq, _row(studied), now_ns)
        await self._write(full)
        return feed.advanced

    async def write_due(self, *, everything: bool = False) -> None:
        """Write the sheets that are old enough, or all of them; true on return: they are durable."""
        due = self._sheets.take_all() if everything else self._sheets.take_due(_before_ns())
        await self._write(due)

    def covered_below(self, origin: str) -> int:
        """The sequence number below which every decision of `origin` has a durable row."""
        return self._progress.extracted_below.get(origin, 0)

    def _written_below(self, origin: str) -> int:
        """The same as seen between two steps, when no row is on its way."""
        waiting = [first for of, first in self._sheets.first_open() if of == origin]
        return min(waiting, default=self.feeds.read_below(origin))

    def _wanted(self, origin: str, seq: int, entry: Mapping[str, Any]) -> bool:
        return not self._progress.is_extracted(origin, (entry["tenant"], entry["route"]), seq)

    async def _write(self, sheets: list[Sheet]) -> None:
        if not sheets:
            return
        await asyncio.gather(*[self._writer.append(self._draft(sheet)) for sheet in sheets])
        for sheet in sheets:
            failed = sum(1 for row in sheet.rows if row[-1] is not None)
            metrics.EXTRACTED.labels(result="error").inc(failed)
            metrics.EXTRACTED.labels(result="ok").inc(len(sheet.rows) - failed)

    def _draft(self, sheet: Sheet) -> Draft:
        return self._writer.draft(
            "extraction", tenant=sheet.scope.tenant, route=sheet.scope.route, fields=sheet.fields()
        )


def _before_ns() -> int:
    return time.monotonic_ns() - int(SHEET_AGE_S * _NS)


def _row(studied: Studied) -> Row:
    extracted = studied.extracted
    return (
        studied.decision,
        b64(studied.leaf),
        extracted.label,  # never longer than LABEL_BYTES_MAX of storage/protocols: beyond, it is an error and no label
        extracted.favourable,
        extracted.score,
        studied.case,
        studied.subject,
        None if extracted.error is None else clipped(extracted.error, ERROR_BYTES_MAX),
    )
