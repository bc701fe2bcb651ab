"""One call's evidence in the making: begin entry, sealed parts, closing entry.

The request is sealed once, with the begin entry where there is one, else with the closing entry; both state it. A
streamed answer is sealed in chunks as it passes (each 64 KiB or 1 s), a short one whole. An admitted call is closed
once: by `close`, or by `lose` where the gateway itself gave up; what neither reaches, the journal's recovery
closes. A call of several rows (rows.py) has an entry for each: then request and answer are sealed row by row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Protocol

from config.load import Configuration
from gateway import activation
from gateway.proxy import exchange
from gateway.proxy.exchange import About, Answered, Asked
from gateway.proxy.redact import Keyed
from gateway.proxy.redacting import Redacting
from gateway.proxy.rows import REQUEST, RESPONSE, TARGET, CallRows, Sealing
from storage.entries import Draft, Line, Part, Ref
from storage.errors import JournalStopped, StorageError
from storage.journal import Appended, Journal, Row, Waiter
from storage.keys import Keyring
from storage.seal import Sealer, StreamPart
from storage.segment import StoredPart
from storage.writer import PartKey

CHUNK_BYTES = 64 * 1024  # of a stream: at most so much …
CHUNK_AGE_S = 1.0  # … or what came in so long is lost with a killed worker
WHOLE_BYTES_MAX = 1024 * 1024  # a longer body is sealed in pieces of this size, so that it fits into batches

_OWN_TENANT = "*"


class Evidence(Protocol):
    """What closes one call: a `Recording`, nothing (`Unrecorded`), or a repeat's (`repeating.Repetition`)."""

    asked: Asked
    decision: str
    holds: bool

    @property
    def waits_for_whole(self) -> bool:
        """Whether the answer is better held until it is whole than streamed."""

    def begin(self) -> None:
        """It is open for long."""

    async def begun(self) -> bytes:
        """The headers of a stream."""

    async def piece(self, data: bytes, media: str) -> None:
        """A piece of a streamed answer."""

    async def close(self, answered: Answered, body: bytes | None, /, *, media: str) -> bytes:
        """Its end, durable on return, and the headers that say so."""

    def lose(self, answered: Answered) -> None:
        """The gateway gives up."""


class Unrecorded:
    """A call that no entry states: `record: none`, or let through while the disk is full."""

    __slots__ = ("asked",)

    holds = False
    waits_for_whole = False
    decision = ""

    def __init__(self, asked: Asked) -> None:
        """`asked` is for the log."""
        self.asked = asked

    def begin(self) -> None:
        """Nothing to begin."""

    async def begun(self) -> bytes:
        """No headers."""
        return b""

    async def piece(self, data: bytes, media: str) -> None:
        """Nothing is kept."""

    async def close(self, _answered: Answered, _body: bytes | None, *, media: str) -> bytes:  # noqa: ARG002
        """No headers."""
        return b""

    def lose(self, answered: Answered) -> None:
        """Nothing to lose."""


class Recording:
    """The evidence of one admitted call."""

    __slots__ = (
        "_begin_id",
        "_begun",
        "_body",
        "_closed",
        "_journal",
        "_key",
        "_last_chunk",
        "_media",
        "_parts",
        "_pending",
        "_pending_bytes",
        "_pending_since",
        "_recorder",
        "_redacting",
        "_reserved_bytes",
        "_rows",
        "_rows_lines",
        "_stored",
        "_stream",
        "_target",
        "asked",
        "decision",
    )

    holds = True
    awaits_sync: ClassVar[bool] = True  # strict: an append is awaited until it is durable
    sheds: ClassVar[bool] = False

    def __init__(
        self,
        recorder: Recorder,
        asked: Asked,
        body: bytes | None,
        *,
        media: str,
        target: str,
        redacting: Redacting | None = None,
        rows: CallRows | None = None,
    ) -> None:
        """`body` is what is recorded of the request, None where it is withheld."""
        self._recorder = recorder
        self._journal = recorder.journal
        self.asked = asked
        self.decision = asked.decision
        self._body = body
        self._media = media
        self._target = target
        self._redacting = redacting
        self._rows = rows
        self._rows_lines = b""  # headers that name call and rows, once these are known
        self._reserved_bytes = 0 if rows is None else rows.reserved_bytes
        if rows is not None:
            asked.row_of = rows.whole(asked.decision)
            if rows.count == 1:
                self._rows_lines = _rows_lines(asked.decision, 1)
        self._key: PartKey | None = None
        self._parts: list[Part] = []  # of request and target, once sealed
        self._stored: list[StoredPart] = []  # not yet handed to the journal
        self._begin_id = ""
        self._begun: asyncio.Future[Appended] | None = None
        self._closed = False
        self._stream: StreamPart | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._pending_since = 0.0
        self._last_chunk: asyncio.Future[None] | None = None

    @property
    def waits_for_whole(self) -> bool:
        """Whether the answer is better held until it is whole than streamed."""
        return self._rows is not None and self._rows.are_several

    def begin(self) -> None:
        """Append the begin entry, once; `begun` waits for it."""
        if self._begun is not None or self._closed:
            return
        self._begin_id = self._journal.new_id()
        self._seal_request()
        draft = exchange.begin(
            self.asked,
            entry=self._begin_id,
            ts_ns=self._recorder.clock_ns(),
            parts=tuple(self._parts),
            key=None if self._parts else self._sealer().key_id,  # a withheld request has none to name it
        )
        self._begun = self._append(draft, closes=False)
        self._begun.add_done_callback(_seen)  # an answer that is complete first waits for its closing entry only

    async def begun(self) -> bytes:
        """The headers that name the decision and its begin entry's receipt, which is durable on return (in `strict`).

        Raises:
            storage.errors.JournalStopped: it never will be.
        """
        self.begin()
        assert self._begun is not None
        return self.headers(await self._begun)

    async def piece(self, data: bytes, media: str) -> None:
        """Keep a piece of a streamed answer; returns at once unless two chunks are on their way to the disk."""
        if self._redacting is not None and self._redacting.holds:
            self._redacting.hold(data, media)
            return
        if self._stream is None:
            self._stream = self._sealer().open_stream_part("response", media, RESPONSE)
            self._recorder.streaming.add(self)
        if not self._pending:
            self._pending_since = asyncio.get_running_loop().time()
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= CHUNK_BYTES:
            if self._last_chunk is not None:
                await self._last_chunk
            self.flush()

    def flush_older_than(self, moment: float) -> None:
        """`flush` if something has been waiting since before `moment` on the loop's clock."""
        if self._pending and self._pending_since < moment and not self._closed:
            self.flush()

    def flush(self) -> None:
        """Seal what is pending as a chunk and hand it to the journal."""
        assert self._stream is not None
        if not self._pending:
            return
        chunk = self._stream.chunk(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0
        self._last_chunk = self._append_chunk(chunk)

    async def close(self, answered: Answered, body: bytes | None, *, media: str) -> bytes:
        """Append the closing entry and return its headers; it is durable on return (in `strict`; see modes.py).

        `body` is the whole answer, None where it was streamed by `piece`.

        Raises:
            storage.errors.JournalStopped: it never will be.
            storage.errors.EntryTooLarge: the entry cannot be made; the call stays open until recovery.
        """
        try:
            return self.headers(await self._close(*await self._last(answered, body, media)))
        except JournalStopped:
            raise
        except StorageError:  # the entry could not be written: the call counts as lost, and a gap entry says so
            self._give_up()
            raise

    def close_for(self, waiter: Waiter, answered: Answered, body: bytes, *, media: str) -> None:
        """As `close`, for a waiter that is told when it may go on: with `headers`, or with `failed`.

        Only for calls of which nothing has to be made off the loop first: neither redacted nor of several rows.
        """
        self._end()
        entry = self._closing(answered, body, media)
        stored, self._stored = self._stored, []
        self._journal.append_for(waiter, entry, parts=stored, key=self._key, closes=True, awaits_sync=self.awaits_sync)

    def failed(self, error: Exception) -> None:
        """What `close_for` began has ended so: unless the shard has stopped, the call counts as lost."""
        if isinstance(error, StorageError) and not isinstance(error, JournalStopped):
            self._give_up()

    async def _last(
        self, answered: Answered, body: bytes | None, media: str
    ) -> tuple[Answered, bytes | None, str, list[Row] | None]:
        """What `_close` takes: the answer as it is recorded, and the entries of its rows where there are several."""
        came = body
        if self._redacting is not None:
            body, media = await self._redacting.answered(answered, body, media=media)
        rows = self._rows
        if rows is None or not rows.are_several:
            return answered, body, media, None
        bytes_max = self._journal.rows_bytes_max
        answers = await rows.answered(answered, came, body, bytes_max=bytes_max)
        if answers is None:
            return answered, body, media, None
        journal, target = self._journal, self._target
        ids = [self.decision, *(journal.new_id() for _ in answers[1:])]
        # the call's own key, where there is one, is that of its begin entry
        names = ids if self._key is None else [journal.new_id(), *ids[1:]]
        sealing = Sealing(
            ids=ids,
            keys=[journal.new_key(name) for name in names],
            media=(self._media, media),
            target=None if target == self.asked.path else target.encode("utf-8", "surrogateescape"),
            ts_ns=self._recorder.clock_ns(),
            prev=self._begun_ref(),
            bytes_max=bytes_max,
        )
        return answered, body, media, await rows.sealed(self._recorder, self.asked, answered, answers, sealing)

    def lose(self, answered: Answered) -> None:
        """Append the closing entry without waiting, where the gateway gives up; nothing if that was tried before."""
        if not self._closed:
            body, media = (None, "") if self._redacting is None else self._redacting.lost(answered)
            closing = self._close(answered, body, media, None)
            closing.add_done_callback(self._lost)

    def _lost(self, closing: asyncio.Future[Appended]) -> None:
        if not closing.cancelled() and closing.exception() is not None:
            self._give_up()

    def _unreserve(self) -> None:
        """Its rows are appended, or will not come."""
        self._journal.unreserve(self._reserved_bytes)
        self._reserved_bytes = 0

    def _give_up(self) -> None:
        """Its entry could not be written."""
        self._journal.lose(begun=None if self._begun is None else self.decision)

    def _close(
        self, answered: Answered, body: bytes | None, media: str, rows: list[Row] | None
    ) -> asyncio.Future[Appended]:
        self._end()
        if rows is None:
            return self._append(self._closing(answered, body, media), closes=True)
        self._body = None
        self._rows_lines = _rows_lines(self.decision, len(rows))
        return self._journal.append_rows(rows, awaits_sync=self.awaits_sync)

    def _end(self) -> None:
        """Nothing is kept of it from here on but its closing entry."""
        assert not self._closed, "a call is closed once"
        self._closed = True
        self._recorder.streaming.discard(self)
        if self._reserved_bytes:
            self._unreserve()

    def _closing(self, answered: Answered, body: bytes | None, media: str) -> Draft | Line:
        """The closing entry of a call that has one; its parts are sealed."""
        assert self._redacting is None or answered.redacted is not None, "what is hidden is hidden before it is sealed"
        recorder = self._recorder
        if self._rows is not None:
            self.asked.row_of = self._rows.whole(self.decision)
            self._rows.closed_whole()
        self._seal_request()
        if self._stream is not None:
            self.flush()
            self._parts.append(self._stream.finish())
        elif body:
            self._seal("response", media, body, RESPONSE)
        prev = self._begun_ref()
        ts_ns = recorder.clock_ns()
        line = None if prev else recorder.closings.line(self.asked, answered, ts_ns=ts_ns, parts=self._parts)
        if line is not None:
            return line
        return exchange.closing(self.asked, answered, ts_ns=ts_ns, parts=tuple(self._parts), prev=prev)

    def _begun_ref(self) -> tuple[Ref, ...]:
        begun = self._begun
        if begun is not None and begun.done() and not begun.cancelled() and begun.exception() is None:
            return (Ref(self._begin_id, begun.result().leaf),)
        return ()

    def _append(self, draft: Draft | Line, *, closes: bool) -> asyncio.Future[Appended]:
        stored, self._stored = self._stored, []
        return self._journal.append(draft, parts=stored, key=self._key, closes=closes, awaits_sync=self.awaits_sync)

    def _seal_request(self) -> None:
        if self._parts:
            return
        if self._body is not None:
            self._seal("request", self._media, self._body, REQUEST)
        if self._target != self.asked.path:  # what the rule does not name literally may name a person
            self._seal("target", "text/plain", self._target.encode("utf-8", "surrogateescape"), TARGET)
        self._body = None

    def _seal(self, name: str, media: str, plaintext: bytes, index: int) -> None:
        sealer = self._sealer()
        if len(plaintext) <= WHOLE_BYTES_MAX:
            part, stored = sealer.seal(name, media, plaintext, index)
            self._parts.append(part)
            self._stored.append(stored)
            return
        stream = sealer.open_stream_part(name, media, index)
        for at in range(0, len(plaintext), WHOLE_BYTES_MAX):
            self._append_chunk(stream.chunk(plaintext[at : at + WHOLE_BYTES_MAX]))
        self._parts.append(stream.finish())

    def _sealer(self) -> Sealer:
        if self._key is None:
            self._key = self._journal.new_key(self.decision)
        return self._key.sealer

    def _append_chunk(self, chunk: StoredPart) -> asyncio.Future[None]:
        assert self._key is not None
        appended = self._journal.append_parts(
            self._key, [chunk], ts_ns=self._recorder.clock_ns(), awaits_sync=self.awaits_sync
        )
        appended.add_done_callback(_seen)  # its failure is that of the shard, which the closing entry meets too
        return appended

    def headers(self, appended: Appended) -> bytes:
        """The header lines that name the decision and give its receipt."""
        return b"Decision-Id: %b\r\nDecision-Receipt: %b\r\n%b" % (
            self.decision.encode("ascii"),
            appended.receipt_bytes,
            self._rows_lines,
        )


def _rows_lines(call: str, rows: int) -> bytes:
    return b"Decision-Call: %b\r\nDecision-Rows: %d\r\n" % (call.encode("ascii"), rows)


def _seen(appended: asyncio.Future[Any]) -> None:
    """Take note of a failure that somebody else reports, so that asyncio does not."""
    if not appended.cancelled():
        appended.exception()


class Recorder:
    """What all recordings of a worker share."""

    def __init__(
        self,
        journal: Journal,
        keyring: Keyring,
        *,
        config: str,
        kinds: Mapping[str, type[Recording]] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`config` is the hex digest of the active configuration, `kinds` what records in each evidence mode."""
        self.journal = journal
        self.config = config
        self.clock_ns = clock_ns
        self.closings = exchange.Closings(journal.origin)
        self.streaming: set[Recording] = set()
        self._keyring = keyring
        self._kinds = {"strict": Recording} if kinds is None else kinds

    def hidden(self, tenant: str, about: About) -> About:
        """The same with pseudonyms in the place of case and subject."""
        hide = self._keyring.pseudonym
        return About(
            case=None if about.case is None else hide(tenant, "case", about.case),
            subject=None if about.subject is None else hide(tenant, "subject", about.subject),
            purpose=about.purpose,
            corrects=about.corrects,
        )

    def keyed(self, tenant: str) -> Keyed:
        """The tenant's keyed hashes: of a kind and a value."""
        return partial(self._keyring.pseudonym, tenant)

    def admit(
        self,
        asked: Asked,
        body: bytes | None,
        *,
        media: str,
        target: str,
        may_pass: bool,
        redacting: Redacting | None = None,
        rows: CallRows | None = None,
    ) -> Recording | None:
        """Admit a call: it is owed a closing entry from here on. None: it passes without one, for want of room or shed.

        `body` is what is recorded of the request, None where it is withheld.

        Raises:
            storage.errors.JournalFull, JournalStopped: 503, before the model is asked.
        """
        tenant, route = asked.caller.tenant, asked.terms.route
        kind = self._kinds[asked.terms.mode]
        if not self.journal.admit(
            tenant,
            route,
            bytes_expected=len(body or b""),
            bytes_reserved=0 if rows is None else rows.reserved_bytes,
            may_pass=may_pass,
            best_effort=kind.sheds,
        ):
            return None
        return kind(self, asked, body, media=media, target=target, redacting=redacting, rows=rows)

    def refused(self) -> None:
        """A request was refused before admission."""
        self.journal.refuse()

    def tick(self, now: float) -> None:
        """Hand to the journal what streams have held for `CHUNK_AGE_S`; called each second."""
        for recording in list(self.streaming):
            recording.flush_older_than(now - CHUNK_AGE_S)

    def state_refusals(self, refusals: dict[str, int]) -> None:
        """Append the aggregate entry of what was refused before admission; nothing where nothing was."""
        if refusals:
            self._state("metric", _OWN_TENANT, None, {"metric": "refused", "counts": refusals})

    async def state_configuration(self, configuration: Configuration) -> None:
        """Append the entry that holds this configuration; durable on return.

        Raises:
            storage.errors.StorageError: the disk stayed full, or the journal has stopped.
        """
        key = self.journal.new_key()
        part, stored = key.sealer.seal(activation.PART, activation.MEDIA, configuration.canonical, 0)
        draft = self._draft("lifecycle", _OWN_TENANT, None, activation.fields(configuration))
        draft = replace(draft, config=configuration.digest, parts=(part,))
        await asyncio.shield(self.journal.append(draft, parts=[stored], key=key))

    def _state(self, kind: str, tenant: str, route: str | None, fields: dict[str, object]) -> None:
        self.journal.append(self._draft(kind, tenant, route, fields)).add_done_callback(_seen)

    def _draft(self, kind: str, tenant: str, route: str | None, fields: Mapping[str, object]) -> Draft:
        return Draft(
            kind=kind,
            tenant=tenant,
            route=route,
            actor="gateway",
            id=self.journal.new_id(),
            ts_ns=self.clock_ns(),
            config=self.config,
            fields=fields,
        )
