"""The ship log: what the keeper has set out to ship of one origin, and what it has read back (README, "Exactly once").

One line per step, ``<crc32c, 8 hex digits> <JSON>``, durable before the step it announces:

    base     everything before `stop` is shipped; the log begins anew here
    seal     the next range is fixed: entries [first, end), journal bytes [start, stop), month, row counts, digests
    repair   rows of the sealed range were missing on reading back and are about to be inserted again
    shipped  the sealed range was read back and is complete

At most the last line can be torn: it is cut off, since nothing followed from it. Any other damage stops the shard.

After a failed write or sync nothing is appended: the line may stand half in the file, or whole in the page cache and on
no disk. Opening the log again copies what is whole into a new file, so that what is believed is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c
import orjson

from storage import durable
from storage.durable import KERNEL, Syscalls
from storage.errors import JournalCorrupt, JournalStopped
from storage.reading import Position

LOG_BYTES_MAX = 512 * 1024  # then it begins anew: some thousand ranges, so that a start reads little


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A range that is fixed: whatever happens, these rows are shipped together, once."""

    number: int  # of the range, from 1
    first: int
    end: int
    stop: Position
    month: int
    digests: dict[str, str]  # table → digest of the rows that belong there
    early: dict[str, str] = field(default_factory=dict)  # key id → class, of chunks that only a later entry names
    repairs: tuple[str, ...] = ()  # the tables whose rows were sent again

    def as_json(self) -> dict[str, Any]:
        """The form of a seal line."""
        return {
            "op": "seal",
            "number": self.number,
            "first": self.first,
            "end": self.end,
            "stop": self.stop.as_json(),
            "month": self.month,
            "digests": self.digests,
            **({"early": self.early} if self.early else {}),
        }


class ShipLog:
    """The log of one origin, and the state that it amounts to.

    Each step may raise OSError, and JournalStopped ever after: the log must be opened again.
    """

    def __init__(self, directory: Path, origin: str, calls: Syscalls = KERNEL) -> None:
        """Read the log; a torn last line is cut off, and what remains is durable on return.

        Raises:
            JournalCorrupt: it is damaged anywhere else, or belongs to another origin.
        """
        self.path = directory / f"{file_name(origin)}.log"
        self.origin = origin
        self.number = 0  # of the last range that was shipped
        self.next_seq = 0  # the first entry that was not shipped
        self.position: Position | None = None  # where it stands in the journal; None: at its beginning
        self.month = 0
        self.pending: Seal | None = None
        self._calls = calls
        self._size = 0
        self._failed: OSError | None = None
        durable.make_directory(directory, calls)
        self._read()

    def seal(self, seal: Seal) -> None:
        """Fix a range; durable on return."""
        self._append(seal.as_json())
        self.pending = seal

    def repair(self, table: str, count: int) -> Seal:
        """Announce that `count` rows are inserted again; durable on return."""
        assert self.pending is not None
        self._append({"op": "repair", "number": self.pending.number, "table": table, "rows": count})
        self.pending = replace(self.pending, repairs=(*self.pending.repairs, table))
        return self.pending

    def shipped(self) -> None:
        """The sealed range was read back; durable on return."""
        assert self.pending is not None
        self._append({"op": "shipped", "number": self.pending.number})
        self._settle()
        if self._size > LOG_BYTES_MAX:
            self._begin_anew()

    def _settle(self) -> None:
        seal, self.pending = self.pending, None
        assert seal is not None
        self.number, self.next_seq, self.position, self.month = seal.number, seal.end, seal.stop, seal.month

    def _begin_anew(self) -> None:
        assert self.position is not None
        base = {
            "op": "base",
            "origin": self.origin,
            "number": self.number,
            "end": self.next_seq,
            "stop": self.position.as_json(),
            "month": self.month,
        }
        line = _line(base)
        self._write(durable.replace_file, line)
        self._size = len(line)

    def _append(self, value: dict[str, Any]) -> None:
        line = _line({**value, "origin": self.origin})
        self._write(durable.append_line, line)
        self._size += len(line)

    def _write(self, how: Callable[[Path, bytes, Syscalls], None], data: bytes) -> None:
        if self._failed is not None:
            raise JournalStopped(f"{self.path} could not be written before: {self._failed}")
        try:
            how(self.path, data, self._calls)
        except OSError as error:
            self._failed = error
            raise

    def _read(self) -> None:
        raw = self.path.read_bytes() if self.path.exists() else b""
        whole = 0
        lines = raw.split(b"\n")
        for number, line in enumerate(lines):
            value = _parsed(line)
            if number == len(lines) - 1 or (value is None and number == len(lines) - 2 and not lines[-1]):
                break  # behind the last newline, or a last line that was torn
            if value is None or value.get("origin") != self.origin:
                raise JournalCorrupt(f"{self.path}: line {number + 1} is damaged or belongs to another origin")
            self._apply(value, number)
            whole += len(line) + 1
        if raw:
            self._write(durable.replace_file, raw[:whole])
        self._size = whole

    def _apply(self, value: dict[str, Any], number: int) -> None:
        op = value["op"]
        if op == "base":
            self.number, self.next_seq, self.month = value["number"], value["end"], value["month"]
            self.position = Position.from_json(value["stop"])
        elif op == "seal" and self.pending is None and value["number"] == self.number + 1:
            self.pending = Seal(
                number=value["number"],
                first=value["first"],
                end=value["end"],
                stop=Position.from_json(value["stop"]),
                month=value["month"],
                digests=value["digests"],
                early=value.get("early", {}),
            )
        elif op == "repair" and self.pending is not None and value["number"] == self.pending.number:
            self.pending = replace(self.pending, repairs=(*self.pending.repairs, value["table"]))
        elif op == "shipped" and self.pending is not None and value["number"] == self.pending.number:
            self._settle()
        else:
            raise JournalCorrupt(f"{self.path}: line {number + 1}: {op} has no place there")


def file_name(origin: str) -> str:
    """An origin as part of a file name: ``/`` becomes ``_``."""
    return origin.replace("/", "_")


def _line(value: dict[str, Any]) -> bytes:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return b"%08x %s\n" % (google_crc32c.value(text), text)


def _parsed(line: bytes) -> dict[str, Any] | None:
    crc, _, text = line.partition(b" ")
    if len(crc) != 8 or crc != b"%08x" % google_crc32c.value(text):
        return None
    value: dict[str, Any] = orjson.loads(text)
    return value
