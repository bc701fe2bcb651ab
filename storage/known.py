"""What is known of each origin before its entries are looked at: by ClickHouse, journal, ship log and second place.

None of these is believed against the others: a verification goes as far as any of them says that there is something,
and where they contradict each other that is a finding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from storage import watermark
from storage.clickhouse import SWEEP, Database
from storage.errors import JournalError, Unverifiable
from storage.findings import MALFORMED
from storage.ledger import Signed, read_checkpoint
from storage.logleaves import is_log
from storage.queries import blocks
from storage.reading import SegmentTail, shards
from storage.recovery import segments_of
from storage.segment import HEADER_BYTES, segment_name
from storage.shiplog import file_name
from storage.windows import NUMBERS_END


@dataclass(frozen=True, slots=True)
class Shipping:
    """What a ship log says: entries below `shipped` were read back, below `sealed` may be on their way."""

    shipped: int = 0
    sealed: int = 0
    month: int = 0
    damage: str | None = None


@dataclass(slots=True)
class Known:
    """What is known of one origin before its entries are looked at."""

    origin: str
    stored: int = 0  # one past the highest number in the database
    log: Shipping | None = None
    log_after: Shipping | None = None  # read again after the database, so that what was there by then was sealed
    journal: Path | None = None
    recorded: int | None = None  # one past the last durable entry, by the watermark
    signed: Signed | None = None  # the checkpoint in its second place
    logged: int = 0  # entries that there must be by the log of logs
    problems: list[tuple[str, str]] = field(default_factory=list)  # claim, detail

    @property
    def size_signed(self) -> int:
        """Entries in the tree that the second place knows to have been signed."""
        return 0 if self.signed is None else self.signed.checkpoint.size

    @property
    def end(self) -> int:
        """How far there must be something: as far as anybody says."""
        return max(self.stored, self.owed, self.size_signed, self.logged)

    @property
    def owed(self) -> int:
        """Entries that must be in the database: behind them, the journal may be all that has them yet."""
        return 0 if self.log is None else self.log.shipped

    @property
    def is_ours(self) -> bool:
        """Whether this data directory holds anything else of the origin, so that it must hold its ship log."""
        return self.journal is not None or self.signed is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """The keys that verification goes by; None where they are not at hand."""

    public: bytes
    host_keys: Collection[bytes] | None
    master: X25519PrivateKey | None

    @classmethod
    def of(cls, public: bytes, data: Path | None, host_keys: Collection[bytes] | None) -> Trusted:
        """The log key `public`, and what `data/keys` holds; what cannot be read there is not at hand."""
        keys = None if data is None else data / "keys"
        master = None if keys is None else _pem(keys / "master.key", private=True)
        host = None if keys is None or host_keys is not None else _pem(keys / "host.pub", private=False)
        if isinstance(host, Ed25519PublicKey):
            host_keys = {host.public_bytes_raw()}
        return cls(public=public, host_keys=host_keys, master=master if isinstance(master, X25519PrivateKey) else None)


def known_origins(
    database: Database, data: Path | None, public: bytes, *, logged: Mapping[str, int] | None = None
) -> list[Known]:
    """Every origin that anything is known of, in order of name; `logged`: how many entries the log of logs states."""
    found: dict[str, Known] = {}

    def of(origin: str) -> Known:
        return found.setdefault(origin, Known(origin))

    logs = {} if data is None else read_ship_logs(data / "ship")  # before the database: what was shipped must be there
    for origin, shipping in logs.items():
        of(origin).log = shipping
    for origin, last in database.rows(blocks("audit.sql")["known_origins"], caps=SWEEP):
        of(origin).stored = min(last + 1, NUMBERS_END)
        if last >= NUMBERS_END:
            of(origin).problems.append(("entries", f"an entry numbered {last} was forged"))
    for (origin,) in database.rows(blocks("audit.sql")["other_origins"], caps=SWEEP):
        if not is_log(origin):  # which has a check of its own
            of(origin)
    for origin, size in (logged or {}).items():
        of(origin).logged = min(size, NUMBERS_END)
    if data is None:
        return [found[origin] for origin in sorted(found)]
    for origin, shipping in read_ship_logs(data / "ship").items():
        of(origin).log_after = shipping
    for directory in shards(data):  # after the database: what is there by then must have been recorded
        _know_journal(directory, of)
    for origin, one in found.items():
        _know_checkpoint(data / "ship" / f"{file_name(origin)}.checkpoint", one, public)
        one.problems += [("ship log", detail) for detail in _contradictions(one)]
    return [found[origin] for origin in sorted(found)]


def journal_headers(directory: Path) -> Mapping[int, bytes]:
    """The header bytes of the segments in a journal, by first sequence number; gone ones are left out."""
    headers = {}
    for first_seq in segments_of(directory):
        try:
            with (directory / segment_name(first_seq)).open("rb") as file:
                headers[first_seq] = file.read(HEADER_BYTES)
        except FileNotFoundError:  # the keeper deletes what is shipped and signed
            continue
    return headers


def read_ship_logs(directory: Path) -> dict[str, Shipping]:
    """Origin → what its ship log says; read strictly, nothing is written or repaired.

    A log whose very origin cannot be read stands under its file's name.
    """
    logs = {}
    for path in sorted(directory.glob("*.log")):
        origin, shipping = _read_ship_log(path)
        logs[origin or f"ship/{path.name}"] = shipping
    return logs


def _read_ship_log(path: Path) -> tuple[str | None, Shipping]:
    *lines, rest = path.read_bytes().split(b"\n")  # behind the last newline: a line that is just being written
    origin: str | None = None
    number = shipped = sealed = month = 0
    is_pending, damage = False, None
    for at, line in enumerate(lines, 1):
        try:
            crc, _, text = line.partition(b" ")
            value: dict[str, Any] = orjson.loads(text)
            if file_name(value["origin"]) != path.stem or value["origin"] != (origin or value["origin"]):
                raise ValueError("belongs to another origin")
            origin = value["origin"]
            if crc != b"%08x" % google_crc32c.value(text):
                raise ValueError("checksum")
            op = value["op"]
            if op == "base":
                number, shipped, sealed, is_pending = value["number"], value["end"], value["end"], False
            elif op == "seal" and not is_pending and value["number"] == number + 1 and value["end"] >= sealed:
                sealed, is_pending = value["end"], True
            elif op == "shipped" and is_pending and value["number"] == number + 1:
                number, shipped, is_pending = number + 1, sealed, False
            elif op != "repair" or not is_pending:
                raise ValueError(f"{op} has no place there")
            month = value.get("month", month)
            shipped, sealed = int(shipped), int(sealed)
        except MALFORMED as error:
            damage = f"line {at} of {path.name} is damaged: {error}"
            break
    if damage is None and not lines and rest:
        damage = f"{path.name} has no whole line"
    return origin, Shipping(shipped, sealed, month, damage)


def _contradictions(one: Known) -> list[str]:
    """What the ship log says, against what the others say."""
    before, after = one.log, one.log_after
    if after is None:
        if one.stored and one.is_ours:
            return [f"gone; {one.stored} entries are in the database"]
        return []
    if after.damage is not None:
        return [after.damage]
    found = []
    if one.stored > after.sealed:
        found.append(f"says that {after.sealed} entries were set out, {one.stored} are there")
    if one.recorded is not None and after.shipped > one.recorded:
        found.append(f"says that {after.shipped} entries were shipped, the journal has {one.recorded}")
    if before is not None and before.shipped > after.shipped:
        found.append(f"said that {before.shipped} entries were shipped, and then {after.shipped}")
    return found


def _know_journal(directory: Path, of: Any) -> None:
    tail = SegmentTail(directory)
    try:
        next(tail.batches(), None)
        if tail.origin is not None:
            mark = watermark.read(directory / watermark.NAME)
            one = of(tail.origin)
            one.journal, one.recorded = directory, None if mark is None else mark.slot.next_seq
    except JournalError as error:
        of(f"journal/{directory.name}").problems.append(("journal", error.message))
    finally:
        tail.close()


def _know_checkpoint(path: Path, one: Known, public: bytes) -> None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a row may claim an origin that no file can be named after
        one.problems.append(("checkpoints", f"the second place cannot be read: {error}"[:300]))
        return
    try:
        one.signed, _, _ = read_checkpoint(path, raw, origin=one.origin, public=public)
    except Unverifiable as error:
        one.problems.append(("checkpoints", error.message))


def _pem(path: Path, *, private: bool) -> object:
    try:
        raw = path.read_bytes()
        return load_pem_private_key(raw, password=None) if private else load_pem_public_key(raw)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):  # not at hand: the claims that need it say so
        return None
