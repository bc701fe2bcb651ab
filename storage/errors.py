"""What can go wrong with evidence. A subclass exists where a caller acts differently, nowhere else."""

# ruff: noqa: N818 - an error is named after the state that the caller meets, not after being an error
from __future__ import annotations

from config.errors import AnswerableError


class StorageError(AnswerableError):
    """The root of this package's errors."""

    code = "storage_error"


class JournalError(StorageError):
    """The journal cannot do what was asked."""

    code = "journal_error"
    advice = "Look at the shard's directory and the gateway's log."


class JournalFull(JournalError):
    """No room for another call on disk or in memory: refuse it before the model is asked, ask again later."""

    code = "journal_full"
    status = 503
    advice = "Free disk space or bring the database back, so that shipped segments can be deleted; then try again."
    retry_after_s = 5


class JournalStopped(JournalError):
    """The shard writes no more in this process (a write or fsync failed, or it was closed): restart the process."""

    code = "journal_stopped"
    status = 503
    advice = "Check the disk; the supervisor restarts the worker, which recovers its journal."


class JournalHeld(JournalError):
    """Another process holds the shard's lock: one shard has one writer."""

    code = "journal_held"
    status = 503
    advice = "Stop the other process, or give this one a shard of its own."


class JournalCorrupt(JournalError):
    """Bytes that were durable are damaged; never repaired by truncating in the middle."""

    code = "journal_corrupt"
    advice = "Keep the quarantined directory as evidence and run `answerable verify`."


class FrameDamaged(JournalCorrupt):
    """A frame at ``offset`` bytes into its segment does not decode; recovery decides if it is a torn tail."""

    code = "frame_damaged"

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(f"{message} at offset {offset}")
        self.offset = offset


class EntryTooLarge(StorageError):
    """An entry would exceed 65,535 bytes, or its parts a segment."""

    code = "entry_too_large"
    status = 413
    advice = "Send less in headers and captured fields; bulky content belongs in the body."


class StorageUnavailable(StorageError):
    """The database does not answer: keep the work and try again later."""

    code = "storage_unavailable"
    status = 503
    advice = "Check the database; what was recorded waits in the journal and is shipped afterwards."


class NothingRecorded(StorageUnavailable):
    """There is no database yet: no keeper has run on this data."""

    code = "nothing_recorded"
    status = 503
    advice = "Start `answerable serve` and send a call through the gateway; then ask again."


class QueryError(StorageError):
    """The database answered that it will not run this (a cap, a wrong query, missing rights)."""

    code = "query_failed"
    status = 500
    advice = "Narrow the time range or the filter; see the gateway's log for the database's message."


class StorageUnfit(QueryError):
    """The database cannot hold evidence as it is: too old, without the settings, or open to whoever would alter it."""

    code = "storage_unfit"
    status = 503
    advice = "Apply what `answerable migrate --print-sql` prints; what was recorded waits in the journal meanwhile."


class Unverifiable(StorageError):
    """Evidence contradicts itself: a hash, signature, path or tag does not match."""

    code = "unverifiable"
    status = 409
    advice = "Keep both sides as they are and run `answerable verify`."
