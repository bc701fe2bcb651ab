"""A process that ships a journal into an embedded database, to be killed, stopped and cut off.

python -m tests.support.ship_writer ship DATABASE_DIR JOURNAL_DIR [unsynced]
    ships range by range; tells each range that it read back: a line with its end
python -m tests.support.ship_writer check DATABASE_DIR JOURNAL_DIR END
    tells, as JSON, what is there below END before anything is repaired, then ships the rest and tells what is there
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from storage.clickhouse import SWEEP, Database
from storage.entries import leaf_hash
from storage.migrate import migrate, migrations
from storage.profiles import Profile
from storage.reading import Batch, SegmentTail, read_header
from storage.segment import segment_name
from storage.shipper import Shipper

SYNCED = "fsync_after_insert = 1, fsync_part_directory = 1"
_HERE = "SELECT seq, leaf, SHA256(concat(char(0), entry)) FROM entries WHERE seq < {end:UInt64} ORDER BY seq"


def tell(what: object) -> None:
    """One line to whoever started this."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def opened(place: Path, *, synced: bool = True) -> Database:
    """The database under `place`, migrated; for the negative control, without the settings that sync."""
    database = Database.open(Profile(kind="chdb", database="answerable", path=place / "clickhouse"))
    known = migrations()
    if not synced:
        assert all(SYNCED in migration.sql for migration in known if "CREATE TABLE" in migration.sql)
        unsynced = "fsync_after_insert = 0, fsync_part_directory = 0"
        known = [replace(migration, sql=migration.sql.replace(SYNCED, unsynced)) for migration in known]
    migrate(database, now_ns=time.time_ns(), known=known)
    return database


def after(batches: list[Batch], shipper: Shipper) -> list[Batch]:
    """The batches that are not shipped yet."""
    place = shipper.position
    return [b for b in batches if place is None or (b.segment, b.end) > (place.segment, place.offset)]


def ship(place: Path, journal: Path, *, synced: bool) -> None:
    """Ship what is not shipped, one batch a range where none was sealed before."""
    database = opened(place, synced=synced)
    batches = list(SegmentTail(journal).batches())
    shipper = shipper_of(database, place / "ship" if synced else journal / "ship", journal, batches)
    waiting = after(batches, shipper)
    tell("ready")
    while waiting:
        shipped = shipper.ship(waiting if shipper.pending is not None else waiting[:1])
        assert shipped is not None
        del waiting[: shipped.batches]
        tell(shipped.end)
    database.close()


def shipper_of(database: Database, log: Path, journal: Path, batches: list[Batch]) -> Shipper:
    """The shipper of the only origin of a journal."""

    def header(first_seq: int) -> bytes:
        return read_header(journal / segment_name(first_seq)).to_bytes()

    return Shipper(database, log, batches[0].origin, header=header, clock_ns=time.time_ns)


def check(place: Path, journal: Path, end: int, *, synced: bool) -> dict[str, Any]:
    """What is there below `end`; then the rest is shipped, and what is there then."""
    database = opened(place, synced=synced)
    batches = list(SegmentTail(journal).batches())
    entries = [record.entry for batch in batches for record in batch.records]
    before = found(database, entries, end)
    shipper = shipper_of(database, place / "ship" if synced else journal / "ship", journal, batches)
    waiting = after(batches, shipper)
    repaired = 0
    while waiting:
        shipped = shipper.ship(waiting)
        assert shipped is not None
        repaired += shipped.repaired
        del waiting[: shipped.batches]
    counts = {table: database.rows(f"SELECT count() FROM {table}")[0][0] for table in ("parts", "keys", "segment_keys")}
    sent = {
        "parts": sum(len(batch.parts) for batch in batches),
        "keys": sum(len(batch.keys) for batch in batches),
        "segment_keys": len({batch.segment for batch in batches}),
    }
    after_all = found(database, entries, len(entries))
    database.close()
    return {"before": before, "after": after_all, "repaired": repaired, "counts": counts, "sent": sent}


def found(database: Database, entries: list[bytes], end: int) -> dict[str, int]:
    """Rows below `end`, and how many of them are the right entry, once."""
    rows = database.rows(_HERE, {"end": end}, caps=SWEEP)
    right = {seq for seq, leaf, made in rows if leaf == made == leaf_hash(entries[seq])}
    return {"wanted": end, "rows": len(rows), "right": len(right)}


if __name__ == "__main__":
    command, place, journal = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    is_synced = "unsynced" not in sys.argv
    if command == "ship":
        ship(place, journal, synced=is_synced)
    else:
        tell(orjson.dumps(check(place, journal, int(sys.argv[4]), synced=is_synced)).decode())
