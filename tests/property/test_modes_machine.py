"""Random lives of a journal whose calls are strict, spooled, shed or left open: killed, cut off, closed, opened.

What a strict append acknowledged is there after anything; what was written is there after a kill; of what no sync had
reached, a power cut leaves a beginning. Calls are closed, lost or open, and after each opening none is open.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage import watermark
from storage.journal import Appended, Journal, JournalLimits
from storage.segment import HEADER_BYTES, segment_name
from tests.support.journals import (
    BOOT,
    QUICK,
    check_whole,
    crash_copy,
    draft,
    journal_keys,
    open_journal,
    read_all,
    until,
)

LIMITS = JournalLimits(segment_bytes=32 * 1024, call_bytes_reserved=0, batch_records_max=8)
CALLS = st.integers(1, 6)


class Modes(RuleBasedStateMachine):
    """One shard; `strict` and `written` are what appends of the two kinds acknowledged."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.keys = journal_keys(self.root)
        self.directory = self.root / "0"
        self.lives = 0
        self.strict: list[Appended] = []
        self.written: list[Appended] = []
        self.accepted = self.shed_calls = 0
        self.open(BOOT)

    def open(self, boot_id: bytes) -> None:
        self.journal: Journal = self.loop.run_until_complete(
            open_journal(self.directory, self.keys, limits=LIMITS, syscalls=QUICK, boot_id=boot_id)
        )

    def admit(self) -> None:
        """As :meth:`Journal.admit`, which may refuse while the tiny next segment is being reserved."""
        self.journal._watermark.accept()
        self.accepted += 1

    def append(self, count: int, size: int, *, awaits_sync: bool) -> list[Appended]:
        async def work() -> list[Appended]:
            waiting = []
            for _ in range(count):
                self.admit()
                waiting.append(self.journal.append(draft(pad="x" * size), closes=True, awaits_sync=awaits_sync))
            return await asyncio.gather(*waiting)

        return self.loop.run_until_complete(work())

    @rule(count=CALLS, size=st.integers(0, 2000))
    def append_strict(self, count: int, size: int) -> None:
        self.strict += self.append(count, size, awaits_sync=True)
        self.strict += self.written  # synced with it
        self.written = []

    @rule(count=CALLS, size=st.integers(0, 2000))
    def append_spooled(self, count: int, size: int) -> None:
        for _ in range(count):  # one by one: a batch each
            self.written += self.append(1, size, awaits_sync=False)

    @rule(count=CALLS)
    def shed(self, count: int) -> None:
        for _ in range(count):
            self.admit()
            self.journal.shed("acme", "credit")
        self.shed_calls += count

    @rule(count=CALLS)
    def leave_open(self, count: int) -> None:
        for _ in range(count):
            self.admit()

    @rule()
    def close_and_open(self) -> None:
        self.loop.run_until_complete(self.journal.close())
        self.strict += self.written
        self.written = []
        self.open(BOOT)
        self.balanced()
        assert self.journal.counters.shed == self.shed_calls

    @rule()
    def kill(self) -> None:
        left = self._copy()
        self._go_on_in(left, BOOT)
        self.strict += self.written  # recovery has synced them
        self.written = []
        self.balanced()

    @rule(lost=st.sets(st.integers(0, 11)))
    def cut_power(self, lost: set[int]) -> None:
        """Any batches that no sync had reached are missing."""
        left = self._copy()
        mark = watermark.read(left / watermark.NAME)
        assert mark is not None
        path = left / segment_name(mark.slot.segment)
        raw = bytearray(path.read_bytes())
        begin = max(mark.slot.end, HEADER_BYTES)
        end = len(bytes(raw).rstrip(b"\0"))
        pieces = range(begin, end, 4096)
        for number, at in enumerate(pieces):
            if number in lost:
                raw[at : min(at + 4096, end)] = bytes(min(at + 4096, end) - at)
        path.write_bytes(raw)
        self._go_on_in(left, BOOT[::-1])
        stored = [record.entry for batch in read_all(self.directory) for record in batch.records]
        there = [one.seq < len(stored) and stored[one.seq] == one.entry for one in self.written]
        assert there == sorted(there, reverse=True)
        self.strict += [one for one, kept in zip(self.written, there, strict=True) if kept]
        self.written = []
        self.accepted = self.journal.counters.accepted
        self.balanced()

    def _copy(self) -> Path:
        async def quiet() -> None:
            await until(lambda: not (self.journal._writer._busy or self.journal._writer._backlog))

        self.loop.run_until_complete(quiet())
        self.lives += 1
        return crash_copy(self.directory, self.root / f"{self.lives}")

    def _go_on_in(self, left: Path, boot_id: bytes) -> None:
        self.loop.run_until_complete(self.journal.close())
        shutil.rmtree(self.directory)
        self.directory = left
        self.open(boot_id)
        assert not list((left / "quarantine").glob("*"))
        # what was shed and not yet stated is lost, though nobody knows that it was on purpose
        self.shed_calls = self.journal.counters.shed

    def balanced(self) -> None:
        counters = self.journal.counters
        assert counters.open == 0
        assert counters.accepted == self.accepted == counters.closed + counters.lost
        assert counters.shed <= counters.lost

    @invariant()
    def the_whole_log_holds(self) -> None:
        check_whole(self.directory, self.strict)
        assert self.journal.counters.open >= 0

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.loop.run_until_complete(self.journal.close())
            check_whole(self.directory, [*self.strict, *self.written])
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.root)


TestModes = Modes.TestCase
TestModes.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
