"""Random lives of a journal against a model: append, stream, lose, crash at any byte, recover, tail, close."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage import watermark
from storage.entries import decode
from storage.journal import Journal, JournalLimits
from storage.reading import Position, SegmentTail
from storage.segment import segment_name
from tests.support.journals import QUICK, check_whole, crash_copy, draft, journal_keys, open_journal, read_all, rows_of

LIMITS = JournalLimits(segment_bytes=32 * 1024, call_bytes_reserved=0, space_wait_s=5, batch_records_max=8)


class Life(RuleBasedStateMachine):
    """One shard; ``entries`` are the acknowledged ones by sequence number."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.keys = journal_keys(self.root)
        self.directory = self.root / "0"
        self.acknowledged: list[Any] = []
        self.lives = 0
        self.accepted = 0  # at least
        self.begun: list[str] = []
        self.seen: list[bytes] = []  # entries, as a tail gave them
        self.place: Position | None = None
        self.open()

    def open(self) -> None:
        self.journal: Journal = self.loop.run_until_complete(
            open_journal(self.directory, self.keys, limits=LIMITS, syscalls=QUICK)
        )

    def admit(self) -> None:
        """As :meth:`Journal.admit`, which may refuse while the tiny next segment is being reserved."""
        self.journal._watermark.accept()
        self.accepted += 1

    @rule(sizes=st.lists(st.integers(0, 6000), min_size=1, max_size=12))
    def append(self, sizes: list[int]) -> None:
        async def work() -> list[Any]:
            waiting = []
            for size in sizes:
                self.admit()
                waiting.append(self.journal.append(draft(pad="x" * size), closes=True))
            return await asyncio.gather(*waiting)

        self.acknowledged += self.loop.run_until_complete(work())

    @rule(counts=st.lists(st.integers(1, 8), min_size=1, max_size=4), size=st.integers(0, 500))
    def append_rows(self, counts: list[int], size: int) -> None:
        async def work() -> list[Any]:
            waiting = []
            for count in counts:
                self.admit()
                waiting.append(self.journal.append_rows(rows_of(self.journal, count, size)))
            return await asyncio.gather(*waiting)

        self.acknowledged += self.loop.run_until_complete(work())

    @rule(chunks=st.integers(0, 4))
    def begin_stream(self, chunks: int) -> None:
        async def work() -> Any:
            self.admit()
            key = self.journal.new_key()
            stream = key.sealer.open_stream_part("response", "text/plain", 0)
            begin = await self.journal.append(draft("begin", key=key.key_id), key=key)
            for number in range(chunks):
                await self.journal.append_parts(key, [stream.chunk(b"%d" % number)], ts_ns=0)
            return begin

        appended = self.loop.run_until_complete(work())
        self.acknowledged.append(appended)
        self.begun.append(decode(appended.entry)["decision"])

    @precondition(lambda self: self.begun)
    @rule()
    def end_stream(self) -> None:
        async def work() -> Any:
            return await self.journal.append(draft(decision=self.begun.pop(0)), closes=True)

        self.acknowledged.append(self.loop.run_until_complete(work()))

    @rule(lost=st.integers(1, 3))
    def leave_calls_open(self, lost: int) -> None:
        for _ in range(lost):
            self.admit()

    @rule()
    def lose(self) -> None:
        self.admit()
        self.journal.lose()

    @rule()
    def heartbeat(self) -> None:
        self.journal.heartbeat()

    @rule()
    def follow(self) -> None:
        """A tail that is opened anew each time goes on where the last one stopped."""
        tail = SegmentTail(self.directory, self.place, host_keys={self.keys.host_public})
        for batch in tail.batches():
            self.seen += [record.entry for record in batch.records]
        self.place = tail.position
        tail.close()

    @rule()
    def close_and_open(self) -> None:
        self.loop.run_until_complete(self.journal.close())
        self.begun.clear()  # the next writer closes them
        self.open()

    @rule(
        size=st.integers(0, 500),
        rows=st.integers(1, 8),
        share=st.integers(0, 1000),
        is_behind=st.booleans(),
        is_admitted=st.booleans(),
    )
    def crash(self, size: int, rows: int, share: int, is_behind: bool, is_admitted: bool) -> None:
        """Killed while a batch is being written: any prefix of it may be there, its watermark may be or not."""

        async def last_words() -> tuple[watermark.Mark, watermark.Mark, list[Any]]:
            # the mark of the copy itself: a batch that was on its way may have become durable meanwhile
            before = self._mark(crash_copy(self.directory, self.root / "before"))
            self.admit()
            appended = await self.journal.append_rows(rows_of(self.journal, rows, size))
            return before, self._mark(), [appended]

        before, after, appended = self.loop.run_until_complete(last_words())
        left = crash_copy(self.directory, self.root / f"{self.lives + 1}")
        self.loop.run_until_complete(self.journal.close())
        path = left / segment_name(after.slot.segment)
        begin = before.slot.end if before.slot.segment == after.slot.segment else 4096
        cut = begin + (after.slot.end - begin) * share // 1000
        raw = path.read_bytes()
        path.write_bytes(raw[:cut] + bytes(len(raw) - cut))
        is_whole = path.read_bytes() == raw
        if not is_whole or is_behind:
            shutil.copy(self.root / "before" / watermark.NAME, left / watermark.NAME)
            if is_admitted:
                self._store_admissions(left)
        shutil.rmtree(self.root / "before")
        if is_whole:
            self.acknowledged += appended
        shutil.rmtree(self.directory)
        self.directory, self.lives = left, self.lives + 1
        self.begun.clear()
        self.open()
        counters = self.journal.counters
        assert counters.open == 0
        assert counters.accepted == counters.closed + counters.lost

    def _mark(self, directory: Path | None = None) -> watermark.Mark:
        mark = watermark.read((directory or self.directory) / watermark.NAME)
        assert mark is not None
        return mark

    def _store_admissions(self, directory: Path) -> None:
        raw = bytearray((directory / watermark.NAME).read_bytes())
        raw[72:80] = self.accepted.to_bytes(8, "little")
        (directory / watermark.NAME).write_bytes(raw)

    @invariant()
    def the_whole_log_holds(self) -> None:
        entries = check_whole(self.directory, self.acknowledged)
        self.follow_nothing_foreign(len(entries))

    def follow_nothing_foreign(self, count: int) -> None:
        """What a tail gave before a crash is still what the journal says: nothing durable was taken back."""
        assert len(self.seen) <= count
        stored = [record.entry for batch in read_all(self.directory) for record in batch.records]
        assert stored[: len(self.seen)] == self.seen

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.loop.run_until_complete(self.journal.close())
            check_whole(self.directory, self.acknowledged)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.root)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
