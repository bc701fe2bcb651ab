"""Items: appends on their way from the one who awaits them to the batch that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage import seal
from storage.entries import Line
from storage.errors import StorageError
from storage.ids import id_bytes
from storage.segment import StoredPart


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLimits:
    """The sizes and times of a journal."""

    segment_bytes: int = 64 * 1024 * 1024
    batch_bytes_max: int = 4 * 1024 * 1024  # one write and sync of this size takes tens of milliseconds
    batch_records_max: int = 1024
    pending_bytes_max: int = 64 * 1024 * 1024  # beyond it memory, not the disk, would hold the evidence
    call_bytes_reserved: int = 16 * 1024  # room kept for the entry of each open call
    space_wait_s: float = 5.0  # how long an answer waits for the disk after the model was called
    heartbeat_s: float = 60.0


class PartKey:
    """A fresh key for the parts of one entry; its KEY frame goes out with the first append that names it."""

    __slots__ = ("key_id", "raw_id", "sealer", "written")

    def __init__(self, key_id: str, sealer: seal.Sealer) -> None:
        self.key_id = key_id
        self.raw_id = id_bytes(key_id)
        self.sealer = sealer
        self.written = False


class Item:
    """One append: all of it stands in one batch. ``made`` is the entry but for its place; None: parts alone.

    ``more`` are further entries of its tenant and route, which stand right behind it or, like it, not at all.
    """

    __slots__ = (
        "awaits_sync", "closes", "entry", "error", "key", "leaf", "lost", "made", "more", "notes", "parts", "scope",
        "seq", "shed", "size_bytes", "ts_ns", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        made: dict[str, Any] | Line | None,
        ts_ns: int,
        *,
        parts: Sequence[StoredPart] = (),
        key: PartKey | None = None,
        more: Sequence[Item] = (),
        closes: bool = False,
        awaits_sync: bool = True,
        waiter: Any = None,
    ) -> None:
        """``waiter`` is the future, for the one who delivers: done once this is durable, or only written."""
        self.made = made
        self.ts_ns = ts_ns
        self.parts = parts
        self.key = key
        self.more = more
        self.closes = closes
        self.awaits_sync = awaits_sync
        self.waiter = waiter
        self.size_bytes = 0
        self.lost = self.shed = 0
        self.notes: Sequence[tuple[int, bytes]] = ()  # RECOVERY and CLOSE frames
        # set when it is placed
        self.seq = -1
        self.scope: tuple[str, str | None] = ("", None)
        self.leaf = self.entry = b""
        self.error: StorageError | None = None


class Heartbeat:
    """Asks the writer for heartbeat entries; with ``closes`` it ends the journal after them."""

    __slots__ = ("closes",)

    def __init__(self, *, closes: bool = False) -> None:
        self.closes = closes


class Roll:
    """Asks the writer to close the segment that begins at ``first_seq``; nothing where it writes another by then."""

    __slots__ = ("first_seq",)

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
