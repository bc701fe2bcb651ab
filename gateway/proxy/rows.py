"""Rows: one entry for each row of a call, on routes with `batch: rows`.

A request is split before admission, so that the journal keeps room for its rows; the answer when it is whole. What is
recorded is split (where the route redacts, the redacted bytes), and rows are counted in what came: where these differ,
or anything else cannot be split exactly, one entry closes the call and says why. A call of one row is recorded as any
other call. Each row's slices are sealed under a key of its own. Large bodies are split, and their rows sealed, in a
thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.proxy import exchange
from gateway.proxy.counts import Counts
from gateway.proxy.exchange import NOTHING, About, Answered, Asked, Capturing, RowOf
from gateway.proxy.limits import Budget
from gateway.proxy.redacting import Redacting
from storage.entries import INT_MAX, Draft, Line, Part, Ref, encode
from storage.journal import PartKey, Row
from storage.protocols.splitting import Reason, Slices, Splitter, Unsplit
from storage.segment import StoredPart

if TYPE_CHECKING:
    from gateway.proxy.recording import Recorder

OFF_LOOP_BYTES: Final = 64 * 1024  # of a body: some milliseconds of parsing
OFF_LOOP_ROWS: Final = 64  # of a call: each is sealed in some 20 µs
ROW_RESERVED_BYTES: Final = 2048  # kept in the journal for each row's entry and key, beside its parts
FRAMES_BYTES: Final = 320  # around an entry, its key and its parts, at most
REQUEST, RESPONSE, TARGET = 0, 1, 2  # the parts' indices

# one thread: it needs the interpreter most of the time, and a second one would only take more of it from the loop
_THREAD: Final = ThreadPoolExecutor(1, thread_name_prefix="rows")
_T = TypeVar("_T")


class Rows:
    """How the calls of one route are split; made once at start."""

    def __init__(self, splitter: Splitter, capturing: Capturing, *, route: str, budget: Budget, counts: Counts) -> None:
        """Slices are held in `budget`; calls that are not split are counted in `counts`."""
        self.splitter = splitter
        self._capturing = capturing
        self._route = route
        self._budget = budget
        self._counts = counts

    async def asked(
        self,
        body: bytes,
        *,
        said: Mapping[str, str],
        hidden: Callable[[About], About],
        redacting: Redacting | None,
        bytes_max: int,
    ) -> CallRows:
        """The rows of a call, or why there are none; `said` is what headers say of all of them.

        `hidden` puts pseudonyms in the place of case and subject; each side's slices have at most `bytes_max` bytes.

        Raises:
            Busy: there is no room for the slices.
        """
        whole = hidden(About(**said)) if said else NOTHING
        split = partial(self._split, body, body if redacting is None else redacting.body, bytes_max)
        try:
            slices = await _off_loop(split, len(body) > OFF_LOOP_BYTES)
        except Unsplit as unsplit:
            return CallRows(self, None, (whole,), unsplit.why, budget=self._budget)
        about = partial(self._about, slices.values, said, hidden)
        abouts = await _off_loop(about, len(slices.values) > OFF_LOOP_ROWS)
        held_bytes = sum(map(len, slices.bodies)) if len(slices.bodies) > 1 else 0
        self._budget.take(held_bytes)
        return CallRows(self, slices.bodies, abouts, None, budget=self._budget, held_bytes=held_bytes, whole=whole)

    def unsplit(self, why: str) -> None:
        """A call has one entry for all of its rows."""
        self._counts.unsplit(self._route, why)

    def _split(self, body: bytes, recorded: bytes | None, bytes_max: int) -> Slices:
        came = self.splitter.asked(body, bytes_max=bytes_max)
        if len(came.bodies) == 1 or recorded is body:
            return came
        if recorded is None:
            raise Unsplit("withheld")
        shown = self.splitter.asked(recorded, bytes_max=bytes_max)
        if len(shown.bodies) != len(came.bodies):
            raise Unsplit("rows_differ")
        return Slices(shown.bodies, came.values)  # case and subject are pseudonyms of what came

    def _about(
        self, values: Sequence[Any], said: Mapping[str, str], hidden: Callable[[About], About]
    ) -> tuple[About, ...]:
        found = (self._capturing.about_row(said, value) for value in values)
        return tuple(NOTHING if about is None else hidden(about) for about in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """What rows are sealed with, beside what is asked and answered: all that only the loop may make."""

    ids: Sequence[str]
    keys: Sequence[PartKey]
    media: tuple[str, str]  # of request and answer
    target: bytes | None
    ts_ns: int
    prev: tuple[Ref, ...]
    bytes_max: int


class CallRows:
    """The rows of one call."""

    __slots__ = ("_abouts", "_bodies", "_budget", "_held_bytes", "_rows", "about", "count", "why")

    def __init__(
        self,
        rows: Rows,
        bodies: tuple[bytes, ...] | None,
        abouts: tuple[About, ...],
        why: Reason | None,
        *,
        budget: Budget,
        held_bytes: int = 0,
        whole: About = NOTHING,
    ) -> None:
        """`bodies` are what is recorded of the request; `whole` is what all rows are about."""
        self._rows = rows
        self._bodies = bodies
        self._abouts = abouts
        self._budget = budget
        self._held_bytes = held_bytes
        self.count = 0 if bodies is None else len(bodies)  # 0: they cannot be told apart
        self.about = abouts[0] if self.count < 2 else whole
        self.why: Reason | None = why

    @property
    def are_several(self) -> bool:
        """Whether more than one entry is to close the call."""
        return self.count > 1 and self.why is None

    @property
    def reserved_bytes(self) -> int:
        """The room in the journal that entries of further rows need."""
        return 0 if self.count < 2 else (self.count - 1) * ROW_RESERVED_BYTES + self._held_bytes

    def whole(self, decision: str) -> RowOf:
        """What an entry that is for the whole call says of its rows: of a begin entry, if nothing else closes it."""
        return RowOf(decision, 0, 1, None) if self.count == 1 else RowOf(decision, 0, None, self.why or "gateway_lost")

    def give_up(self, why: Reason) -> None:
        """One entry closes the call."""
        if self.count != 1 and self.why is None:
            self.why = why

    def closed_whole(self) -> None:
        """One entry closed the call."""
        if self.count != 1:
            self._rows.unsplit(self.why or "gateway_lost")

    def let_go(self) -> None:
        """Nothing is held any more."""
        self._budget.give_back(self._held_bytes)
        self._held_bytes = 0

    async def answered(
        self, answered: Answered, came: bytes | None, recorded: bytes | None, *, bytes_max: int
    ) -> tuple[bytes, ...] | None:
        """The slices of what is recorded of the answer; None, and `why` says so, where one entry closes the call."""
        if not self.are_several:
            return None
        if answered.streamed:
            self.give_up("streamed")
        elif answered.error is not None or answered.state == "gateway_lost" or not 200 <= answered.status < 300:
            self.give_up("not_answered")
        elif recorded is None or came is None:
            self.give_up("withheld")
        else:
            split = partial(self._split, came, recorded, bytes_max)
            try:
                return await _off_loop(split, len(came) > OFF_LOOP_BYTES)
            except Unsplit as unsplit:
                self.give_up(unsplit.why)
        return None

    def _split(self, came: bytes, recorded: bytes, bytes_max: int) -> tuple[bytes, ...]:
        splitter = self._rows.splitter
        if recorded is not came and splitter.count_answered(came, self.count) != self.count:
            raise Unsplit("rows_differ")
        return splitter.answered(recorded, self.count, bytes_max=bytes_max)

    async def sealed(
        self, recorder: Recorder, asked: Asked, answered: Answered, answers: tuple[bytes, ...], sealing: Sealing
    ) -> list[Row] | None:
        """The closing entries; None, and `why` says so, where they have more than `sealing.bytes_max` bytes."""
        seal = partial(self._seal, recorder, asked, answered, answers, sealing)
        try:
            return await _off_loop(seal, self.count > OFF_LOOP_ROWS or sum(map(len, answers)) > OFF_LOOP_BYTES)
        except Unsplit as unsplit:
            self.give_up(unsplit.why)
            return None

    def _seal(
        self, recorder: Recorder, asked: Asked, answered: Answered, answers: tuple[bytes, ...], sealing: Sealing
    ) -> list[Row]:
        assert self._bodies is not None
        made: list[Row] = []
        room = sealing.bytes_max
        for row, (decision, key, body, answer) in enumerate(
            zip(sealing.ids, sealing.keys, self._bodies, answers, strict=True)
        ):
            seal = key.sealer.seal
            sealed = [seal("request", sealing.media[0], body, REQUEST)]
            if sealing.target is not None and row == 0:
                sealed.append(seal("target", "text/plain", sealing.target, TARGET))
            sealed.append(seal("response", sealing.media[1], answer, RESPONSE))
            place = RowOf(asked.decision, row, self.count, None)
            one = replace(asked, decision=decision, about=self._abouts[row], row_of=place)
            parts = tuple(part for part, _ in sealed)
            draft = _entry(recorder, one, answered, parts, sealing, prev=sealing.prev if row == 0 else ())
            stored = [piece for _, piece in sealed]
            room -= _size_bytes(recorder.journal.origin, draft, stored)
            if room < 0:
                raise Unsplit("too_large")
            made.append(Row(draft, stored, key))
        return made


def _entry(
    recorder: Recorder,
    asked: Asked,
    answered: Answered,
    parts: tuple[Part, ...],
    sealing: Sealing,
    *,
    prev: tuple[Ref, ...],
) -> Draft | Line:
    line = None if prev else recorder.closings.line(asked, answered, ts_ns=sealing.ts_ns, parts=parts)
    return line or exchange.closing(asked, answered, ts_ns=sealing.ts_ns, parts=parts, prev=prev)


def _size_bytes(origin: str, draft: Draft | Line, stored: Sequence[StoredPart]) -> int:
    if isinstance(draft, Line):
        entry = draft.placed(seq=INT_MAX, scope_seq=INT_MAX)
    else:
        entry = encode(draft, origin=origin, seq=INT_MAX, scope_seq=INT_MAX)
    return len(entry) + FRAMES_BYTES + sum(len(part.data) for part in stored)


async def _off_loop(work: Callable[[], _T], is_large: bool) -> _T:  # noqa: FBT001 - of a helper
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work) if is_large else work()
