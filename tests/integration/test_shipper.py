"""Shipping: exactly once, whatever fails between the journal and ClickHouse."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from storage import durable
from storage.batch import Batch
from storage.clickhouse import Database
from storage.durable import Syscalls
from storage.entries import leaf_hash
from storage.errors import JournalCorrupt, JournalStopped, StorageUnavailable, Unverifiable
from storage.freight import Packer
from storage.migrate import migrate
from storage.profiles import Profile
from storage.readback import missing
from storage.reading import Position
from storage.segment import StoredPart, WrappedKey
from storage.shiplog import LOG_BYTES_MAX, Seal, ShipLog
from storage.shipper import BYTES_MAX, ROWS_MAX, Shipped, Shipper, choose
from tests.support.batches import START_NS, Shard, described
from tests.support.clickhouse_http import Server
from tests.support.database import NOW_NS


class CrashError(Exception):
    """The process ends here, as far as the shipper is concerned."""


class Crashing(Syscalls):
    """Ends at the n-th call that changes a disk: before it took effect, or just after."""

    def __init__(self, at: int, *, persisted: bool) -> None:
        self.at, self.persisted, self.count = at, persisted, 0

    def step(self, act: Any, *args: Any) -> Any:
        """One call."""
        self.count += 1
        if self.count == self.at and not self.persisted:
            raise CrashError
        result = act(*args)
        if self.count == self.at:
            raise CrashError
        return result

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return int(self.step(super().write, fd, data))

    def datasync(self, fd: int) -> None:
        self.step(super().datasync, fd)

    def fsync(self, fd: int) -> None:
        self.step(super().fsync, fd)

    def rename(self, source: Path, target: Path) -> None:
        self.step(super().rename, source, target)

    def truncate(self, fd: int, size: int) -> None:
        self.step(super().truncate, fd, size)


class Full(Syscalls):
    """Once told to, takes 20 bytes of the next line and then has no room; or fails to sync what it took."""

    failing: str | None = None

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.failing == "write":
            self.failing = "rest of it"
            return super().write(fd, data[:20])
        if self.failing == "rest of it":
            self.failing = None
            raise OSError(errno.ENOSPC, "no room")
        return super().write(fd, data)

    def datasync(self, fd: int) -> None:
        if self.failing == "sync":
            self.failing = None
            raise OSError(errno.EIO, "not synced")
        super().datasync(fd)


class Fast(Syscalls):
    """Syncs nothing: for tests of formats."""

    def datasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...


def shipper(database: Database, tmp_path: Path, shard: Shard, calls: Syscalls = durable.KERNEL, **over: Any) -> Shipper:
    given = {"header": shard.headers.__getitem__, "clock_ns": lambda: START_NS, "calls": calls, **over}
    return Shipper(database, tmp_path / "ship", shard.origin, **given)


def ship_all(ship: Shipper, shard: Shard) -> list[Shipped]:
    """Ship everything from where it stands."""
    done = []
    batches = after(shard, ship.position)
    while batches:
        result = ship.ship(batches)
        if result is None:
            break
        done.append(result)
        del batches[: result.batches]
    return done


def after(shard: Shard, position: Position | None) -> list[Batch]:
    if position is None:
        return list(shard.batches)
    places = [Position(batch.segment, batch.end) for batch in shard.batches]
    return shard.batches[places.index(position) + 1 :]


def assert_exactly_once(database: Database, shard: Shard) -> None:
    """Everything of the shard is in the database, once, byte for byte."""
    where = {"origin": shard.origin}
    found = database.rows("SELECT seq, entry, leaf FROM entries WHERE origin = {origin:String} ORDER BY seq", where)
    assert found == [(seq, entry, leaf_hash(entry)) for seq, entry in enumerate(shard.entries)]
    parts = database.rows(
        "SELECT at, toString(key_id), part, chunk, bytes FROM parts WHERE origin = {origin:String}", where
    )
    sent = [(p.at, p.key_id, p.index, p.chunk, p.data) for batch in shard.batches for p in batch.parts]
    assert sorted(parts) == sorted(sent)
    keys = database.rows(
        "SELECT at, toString(key_id), counter, wrapped, segment FROM keys WHERE origin = {origin:String}", where
    )
    assert sorted(keys) == sorted(
        (k.at, k.key_id, k.counter, k.wrapped, k.segment) for batch in shard.batches for k in batch.keys
    )
    headers = database.rows("SELECT first_seq, header FROM segment_keys WHERE origin = {origin:String}", where)
    assert sorted(headers) == sorted(shard.headers.items())


def small(batches: int = 3, *, segments: int = 1) -> Shard:
    shard = Shard()
    for segment in range(segments):
        if segment:
            shard.roll()
        for _ in range(batches):
            shard.decisions(3, size=50)
    return shard


def test_what_is_durable_reaches_clickhouse_once(database: Database, tmp_path: Path) -> None:
    shard = small(segments=2)
    ship = shipper(database, tmp_path, shard)
    (done,) = ship_all(ship, shard)
    assert (done.first, done.end, done.batches, done.repaired) == (0, 18, 6, 0)
    assert (ship.next_seq, ship.pending) == (18, None)
    assert_exactly_once(database, shard)
    shard.decisions(2)
    again = shipper(database, tmp_path, shard)
    assert [(one.first, one.end) for one in ship_all(again, shard)] == [(18, 20)]
    assert_exactly_once(database, shard)


@pytest.mark.parametrize("persisted", [False, True], ids=["not persisted", "persisted"])
def test_a_crash_at_any_durable_step_loses_and_doubles_nothing(
    embedded: Database, tmp_path: Path, persisted: bool
) -> None:
    crashes = 0
    for at in range(1, 100):
        shard = Shard(origin=f"acme/gateway-0/{at}")
        shard.decisions(3, size=50)
        shard.decisions(3, size=50)
        crashing = Crashing(at, persisted=persisted)
        try:
            ship = shipper(embedded, tmp_path, shard, crashing)
            first = ship.ship(shard.batches[:1])
            assert first is not None
            ship.ship(shard.batches[1:])
        except CrashError:
            crashes += 1
            ship_all(shipper(embedded, tmp_path, shard), shard)
        assert_exactly_once(embedded, shard)
        if crashing.count < at:
            break
    assert crashes >= 6  # a directory, and two lines for each of two ranges, each written and synced


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with Server(tmp_path / "clickhouse") as running:
        yield running


@pytest.fixture
def served(server: Server) -> Any:
    with Database.open(Profile(kind="server", database="d", url=server.url)) as database:
        migrate(database, now_ns=NOW_NS)
        yield database


AFTER = ("cut_after", "die_after")


@pytest.mark.parametrize(
    ("table", "mode"),
    [
        *(
            (table, mode)
            for table in ("keys", "parts", "entries", "segment_keys")
            for mode in ("cut_before", "cut_after")
        ),
        *((table, mode) for table in ("parts", "entries") for mode in ("die_before", "die_after")),
    ],
)
def test_an_insert_of_unknown_outcome_is_read_back_before_it_is_repeated(
    server: Server, served: Database, tmp_path: Path, table: str, mode: str
) -> None:
    shard = small()
    ship = shipper(served, tmp_path, shard)
    server.fault(mode, table=table)
    with pytest.raises(StorageUnavailable):
        ship_all(ship, shard)
    if mode.startswith("die"):
        server.kill()
        server.start()
    restarted = mode in AFTER
    again = shipper(served, tmp_path, shard) if restarted else ship
    (done,) = ship_all(again, shard)
    nothing_was_missing = (table, mode) in {("segment_keys", "cut_before"), *(("entries", m) for m in AFTER)}
    assert (done.repaired == 0) == nothing_was_missing
    assert_exactly_once(served, shard)


def test_a_database_that_is_away_leaves_the_range_pending_and_nothing_is_lost(
    server: Server, served: Database, tmp_path: Path
) -> None:
    shard = small()
    ship = shipper(served, tmp_path, shard)
    ship_all(ship, shard)
    server.kill()
    shard.decisions(3)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            ship_all(ship, shard)
    assert ship.next_seq == 9
    server.start()
    shard.decisions(3)  # came while it was away; the pending range keeps its borders
    assert [(one.first, one.end) for one in ship_all(ship, shard)] == [(9, 12), (12, 15)]
    assert_exactly_once(served, shard)


def pending(database: Database, tmp_path: Path, shard: Shard) -> None:
    """Leave the shard's range sealed and inserted, but not known to be shipped: the log lacks its last line."""
    ship_all(shipper(database, tmp_path, shard), shard)
    path = ShipLog(tmp_path / "ship", shard.origin).path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert ShipLog(tmp_path / "ship", shard.origin).pending is not None


MONTH_NS = 31 * 86_400 * 10**9


def shipped_over_two_months(database: Database, tmp_path: Path) -> tuple[Shard, Path]:
    """A shard shipped in two months, the log as it was after the first range."""
    shard = small(2)
    ship_all(shipper(database, tmp_path, shard), shard)
    path = ShipLog(tmp_path / "ship", shard.origin).path
    old = path.read_bytes()
    shard.decisions(3, size=50)
    identifier = begun(shard, named_by="key")[0].key_id
    for chunk in range(2):  # the first fills a range by itself, whose entry is yet to come
        shard.commit(parts=[StoredPart(identifier, 1, chunk, b"x" * (BYTES_MAX // 2 + 1))])
    ship_all(shipper(database, tmp_path, shard, clock_ns=lambda: START_NS + MONTH_NS), shard)
    (tmp_path / "old.log").write_bytes(old)
    return shard, path


@pytest.mark.parametrize("left", ["nothing", "an older log", "a log of which a seal is the last line"])
def test_a_lost_or_older_ship_log_doubles_nothing(database: Database, tmp_path: Path, left: str) -> None:
    shard, path = shipped_over_two_months(database, tmp_path)
    old = (tmp_path / "old.log").read_bytes()
    if left == "nothing":
        path.unlink()
        path.parent.rmdir()
    else:
        path.write_bytes(old if left == "an older log" else b"".join(old.splitlines(keepends=True)[:-1]))
    shard.decisions(3, size=50)
    now_ns = START_NS + 2 * MONTH_NS
    done = ship_all(shipper(database, tmp_path, shard, clock_ns=lambda: now_ns), shard)
    assert_exactly_once(database, shard)
    assert [one.end for one in done][-2:] == [10, 13]
    months = database.rows("SELECT month, min(seq), max(seq) FROM entries GROUP BY month ORDER BY month")
    assert months == [(202603, 0, 5), (202604, 6, 9), (202605, 10, 12)]


def test_rows_that_are_gone_are_sent_again_after_the_ship_log_was_lost(embedded: Database, tmp_path: Path) -> None:
    shard, path = shipped_over_two_months(embedded, tmp_path)
    path.unlink()
    embedded.command("ALTER TABLE entries DELETE WHERE seq = 4", settings={"mutations_sync": 2})
    shard.decisions(3, size=50)
    repaired = [one.repaired for one in ship_all(shipper(embedded, tmp_path, shard), shard)]
    assert repaired == [1, 0, 0, 0]
    assert_exactly_once(embedded, shard)


def test_another_journal_than_the_database_has_rows_of_is_refused_where_the_log_was_lost(
    embedded: Database, tmp_path: Path
) -> None:
    _, path = shipped_over_two_months(embedded, tmp_path)
    path.unlink()
    other = small(2)
    embedded.command("ALTER TABLE segment_keys DELETE WHERE 1", settings={"mutations_sync": 2})  # told apart by rows
    with pytest.raises(Unverifiable, match="held rows up to 10 before it was sent, and they are not those"):
        ship_all(shipper(embedded, tmp_path, other), other)
    assert embedded.rows("SELECT count(), uniqExact(seq) FROM entries") == [(10, 10)]


def test_a_journal_whose_beginning_is_gone_is_taken_up_only_where_the_database_has_it(
    embedded: Database, tmp_path: Path
) -> None:
    shard = small(segments=2)
    ship_all(shipper(embedded, tmp_path, shard), shard)
    shard.decisions(3)
    for lost in (False, True):
        ShipLog(tmp_path / "ship", shard.origin).path.unlink()
        ship = shipper(embedded, tmp_path, shard)
        rest = [batch for batch in shard.batches if batch.segment]
        if not lost:
            done = ship.ship(rest)
            assert done is not None
            assert (done.first, done.end, ship.next_seq) == (9, 21, 21)
            assert_exactly_once(embedded, shard)
            embedded.command("ALTER TABLE entries DELETE WHERE seq = 4", settings={"mutations_sync": 2})
        else:
            with pytest.raises(Unverifiable, match="does not hold every entry between once"):
                ship.ship(rest)


@pytest.mark.parametrize("column", ["month", "retention"])
@pytest.mark.parametrize("table", ["entries", "parts"])
def test_rows_filed_under_another_month_or_class_stop_the_shard(
    embedded: Database, tmp_path: Path, table: str, column: str
) -> None:
    shard = small()
    pending(embedded, tmp_path, shard)
    place, value = ("seq" if table == "entries" else "at"), "203001" if column == "month" else "'short'"
    where = f"{place} = 3"
    embedded.command(f"INSERT INTO {table} SELECT * REPLACE ({value} AS {column}) FROM {table} WHERE {where}")
    embedded.command(
        f"ALTER TABLE {table} DELETE WHERE {where} AND {column} != {value}", settings={"mutations_sync": 2}
    )
    with pytest.raises(Unverifiable):
        ship_all(shipper(embedded, tmp_path, shard), shard)


def begun(shard: Shard, *, named_by: str) -> tuple[StoredPart, ...]:
    """A begin entry of class `credit` with its key, named by its parts or by `key`; chunks that are yet to come."""
    identifier = shard.ids.new()
    request = StoredPart(identifier, 0, 0, b"request")
    key = WrappedKey(identifier, 0, os.urandom(48), shard.header.first_seq)
    fields: dict[str, object] = {"retention": "credit", "record": "decision"}
    if named_by == "key":
        fields["key"] = identifier
        shard.commit([shard.draft("begin", decision=shard.ids.new(), route="r", fields=fields)], keys=[key])
    else:
        parts = (described("request", request),)
        draft = shard.draft("begin", decision=shard.ids.new(), route="r", parts=parts, fields=fields)
        shard.commit([draft], [request], [key])
    return tuple(StoredPart(identifier, 1, chunk, b"chunk") for chunk in range(3))


@pytest.mark.parametrize("named_by", ["key", "parts"])
def test_chunks_of_an_open_stream_keep_the_class_of_their_begin_entry_over_a_restart(
    database: Database, tmp_path: Path, named_by: str
) -> None:
    shard = small(1)
    chunks = begun(shard, named_by=named_by)
    ship_all(shipper(database, tmp_path, shard), shard)
    shard.roll()
    for chunk in chunks:
        shard.commit(parts=[chunk])
    shard.decisions(1, retention="credit")
    pending(database, tmp_path, shard)  # sealed by one shipper, taken up by another
    ship_all(shipper(database, tmp_path, shard), shard)
    assert_exactly_once(database, shard)
    key = {"key": chunks[0].key_id}
    found = database.rows("SELECT DISTINCT retention FROM parts WHERE key_id = {key:UUID}", key)
    assert found == [("credit",)]


def test_chunks_that_come_before_the_entry_that_names_their_key_get_its_class(
    embedded: Database, tmp_path: Path
) -> None:
    shard = small(1)
    draft, stored, key = shard.decision(retention="credit", size=50)
    other, others, its = shard.decision(size=50)
    shard.commit([other], [*others, stored[0]], [its, key])
    ship = shipper(embedded, tmp_path, shard)
    assert ship.ship(shard.batches) is None  # the entry may be about to come
    bulk = StoredPart(key.key_id, 0, 1, b"x" * (BYTES_MAX + 1))
    shard.commit([shard.draft("heartbeat")], [bulk])
    shard.commit([draft], [stored[1]])
    assert [(one.first, one.end) for one in ship_all(ship, shard)] == [(0, 4), (4, 5), (5, 6)]
    assert_exactly_once(embedded, shard)
    found = embedded.rows("SELECT part, chunk, retention FROM parts WHERE key_id = {key:UUID}", {"key": key.key_id})
    assert sorted(found) == [(0, 0, "credit"), (0, 1, "credit"), (1, 0, "credit")]


def test_chunks_that_no_entry_ever_names_do_not_hold_up_a_shard(embedded: Database, tmp_path: Path) -> None:
    shard = small(1)
    draft, stored, key = shard.decision(size=50)
    shard.commit([draft], [*stored, StoredPart(shard.ids.new(), 0, 0, b"orphan")], [key])
    ship = shipper(embedded, tmp_path, shard)
    assert ship.ship(shard.batches) is None
    done = ship.ship(shard.batches)
    assert done is not None
    assert done.end == 4


@pytest.mark.parametrize("table", ["entries", "parts", "keys"])
def test_some_rows_missing_are_sent_again_and_the_repair_is_on_record(
    database: Database, tmp_path: Path, table: str
) -> None:
    shard = small()
    pending(database, tmp_path, shard)
    column = "seq" if table == "entries" else "at"
    database.command(f"ALTER TABLE {table} DELETE WHERE {column} = 3", settings={"mutations_sync": 2})
    (done,) = ship_all(shipper(database, tmp_path, shard), shard)
    assert done.repaired > 0
    assert b'"op":"repair"' in ShipLog(tmp_path / "ship", shard.origin).path.read_bytes()
    assert_exactly_once(database, shard)


def test_rows_that_the_server_lost_while_it_remembers_their_token_are_sent_under_another(
    database: Database, tmp_path: Path
) -> None:
    shard = small()
    pending(database, tmp_path, shard)
    for table in ("entries", "parts", "keys"):
        database.command(f"ALTER TABLE {table} DELETE WHERE 1", settings={"mutations_sync": 2})
    (done,) = ship_all(shipper(database, tmp_path, shard), shard)
    assert done.repaired >= 9 * 4
    assert_exactly_once(database, shard)


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE entries UPDATE entry = concat(entry, ' ') WHERE seq = 4",
        "ALTER TABLE entries UPDATE leaf = toFixedString('x', 32) WHERE seq = 4",
        "ALTER TABLE parts UPDATE bytes = 'x' WHERE at = 3",
        "ALTER TABLE keys UPDATE wrapped = 'x' WHERE at = 3",
        "INSERT INTO entries SELECT * FROM entries WHERE seq = 4",
        "INSERT INTO parts SELECT * FROM parts WHERE at = 3",
    ],
)
def test_other_content_than_was_sent_stops_the_shard(embedded: Database, tmp_path: Path, damage: str) -> None:
    shard = small()
    pending(embedded, tmp_path, shard)
    settings = {"mutations_sync": 2} if damage.startswith("ALTER") else {"insert_deduplicate": 0}
    embedded.command(damage, settings=settings)
    ship = shipper(embedded, tmp_path, shard)
    with pytest.raises(Unverifiable):
        ship_all(ship, shard)
    assert ship.next_seq == 0


def test_a_row_that_was_never_sent_stops_the_shard(embedded: Database, tmp_path: Path) -> None:
    shard = small()
    strange = Packer(shard.origin).pack(shard.batches[:1], month=202603).entries
    pending(embedded, tmp_path, shard)
    row = list(strange.rows[0])
    row[-2:] = [b"forged", leaf_hash(b"forged")]
    embedded.insert("entries", strange.columns, [row], token="forged")
    with pytest.raises(Unverifiable):
        ship_all(shipper(embedded, tmp_path, shard), shard)


def test_a_journal_that_changed_under_a_sealed_range_is_refused(embedded: Database, tmp_path: Path) -> None:
    shard = small()
    pending(embedded, tmp_path, shard)
    other = small()
    assert [batch.end for batch in other.batches] == [batch.end for batch in shard.batches]
    with pytest.raises(JournalCorrupt, match="sealed"):
        ship_all(shipper(embedded, tmp_path, other), other)


def test_entries_of_two_retention_classes_lie_in_partitions_of_their_own(embedded: Database, tmp_path: Path) -> None:
    shard = Shard()
    drafts, parts, keys = [], [], []
    for number in range(6):
        draft, stored, key = shard.decision(retention=("default", "credit")[number % 2])
        drafts.append(draft)
        parts += stored
        keys.append(key)
    shard.commit(drafts, parts, keys)
    ship_all(shipper(embedded, tmp_path, shard), shard)
    assert_exactly_once(embedded, shard)
    for table in ("entries", "parts"):
        counts = embedded.rows(f"SELECT retention, month, count() FROM {table} GROUP BY 1, 2 ORDER BY 1")
        share = 3 if table == "entries" else 6
        assert counts == [("credit", 202603, share), ("default", 202603, share)]


def test_the_month_never_goes_back_with_the_clock(embedded: Database, tmp_path: Path) -> None:
    shard = small(1)
    days = iter([START_NS, START_NS - 40 * 86_400 * 10**9, START_NS + 40 * 86_400 * 10**9])
    for expected in (202603, 202603, 202604):
        now = next(days)
        ship_all(shipper(embedded, tmp_path, shard, clock_ns=lambda now=now: now), shard)
        assert ShipLog(tmp_path / "ship", shard.origin).month == expected
        shard.decisions(1)


def test_a_range_keeps_within_its_limits_and_ends_with_an_entry(tmp_path: Path) -> None:
    shard = Shard()
    for _ in range(7):
        shard.decisions(500, size=10)
    assert len(choose(shard.batches)) == ROWS_MAX // 2_000
    stream = Shard()
    identifier = stream.ids.new()
    for chunk in range(4):
        stream.commit(parts=[StoredPart(identifier, 0, chunk, b"x" * 1000)])
    assert choose(stream.batches) == []
    stream.decisions(1)
    stream.commit(parts=[StoredPart(identifier, 0, 4, b"x")])
    assert choose(stream.batches) == stream.batches[:5]


def test_a_stream_longer_than_a_range_is_shipped_before_its_entry_comes(embedded: Database, tmp_path: Path) -> None:
    shard = small(1)
    identifier = shard.ids.new()
    chunk = os.urandom(1 << 20)
    for number in range(BYTES_MAX // len(chunk) + 4):
        shard.commit(parts=[StoredPart(identifier, 0, number, chunk)])
    ship = shipper(embedded, tmp_path, shard)
    ranges = [(one.first, one.end, one.batches) for one in ship_all(ship, shard)]
    assert ranges == [(0, 3, 1), (3, 3, 8)]
    part = described("response", StoredPart(identifier, 0, 0, chunk), chunks=12)
    draft, stored, key = shard.decision()
    draft = shard.draft(
        "decision", id=draft.id, decision=draft.id, route="r", parts=(*draft.parts, part), fields=draft.fields
    )
    shard.commit([draft], stored, [key])
    assert [(one.first, one.end) for one in ship_all(ship, shard)] == [(3, 4)]
    assert_exactly_once(embedded, shard)


def seal(number: int) -> Seal:
    stop = Position(0, 4096 + number)
    return Seal(number=number, first=number - 1, end=number, stop=stop, month=202603, digests={"entries": "D" * 64})


def test_a_torn_last_line_of_the_log_is_cut_at_every_byte(tmp_path: Path) -> None:
    log = ShipLog(tmp_path, "a/b/1", Fast())
    log.seal(seal(1))
    log.shipped()
    log.seal(seal(2))
    whole = log.path.read_bytes()
    before = whole.rindex(b"\n", 0, -1) + 1
    for end in range(before, len(whole)):
        log.path.write_bytes(whole[:end])
        torn = ShipLog(tmp_path, "a/b/1", Fast())
        assert (torn.number, torn.pending) == (1, None)
        assert log.path.read_bytes() == whole[:before]
    log.path.write_bytes(whole)
    assert ShipLog(tmp_path, "a/b/1", Fast()).pending == seal(2)


@pytest.mark.parametrize("failing", ["write", "sync"])
def test_after_a_failed_write_or_sync_the_log_takes_nothing_until_it_is_opened_again(
    tmp_path: Path, failing: str
) -> None:
    calls = Full()
    log = ShipLog(tmp_path, "a/b/1", calls)
    log.seal(seal(1))
    log.shipped()
    whole = log.path.read_bytes()
    calls.failing = failing
    with pytest.raises(OSError):
        log.seal(seal(2))
    left = log.path.read_bytes()
    assert left[: len(whole)] == whole
    assert len(left) > len(whole)
    for _ in range(2):
        with pytest.raises(JournalStopped):
            log.seal(seal(2))
    assert (log.path.read_bytes(), log.pending) == (left, None)
    number = log.path.stat().st_ino
    again = ShipLog(tmp_path, "a/b/1", calls)
    assert again.path.stat().st_ino != number  # the page cache may show in the old one what is on no disk
    assert (again.number, again.pending) == (1, None if failing == "write" else seal(2))
    if again.pending is None:
        again.seal(seal(2))
    again.shipped()
    assert ShipLog(tmp_path, "a/b/1").number == 2


@pytest.mark.parametrize("at", [3, 60, 200])
def test_damage_elsewhere_in_the_log_is_corruption(tmp_path: Path, at: int) -> None:
    log = ShipLog(tmp_path, "a/b/1", Fast())
    log.seal(seal(1))
    log.shipped()
    log.seal(seal(2))
    raw = bytearray(log.path.read_bytes())
    raw[at] ^= 1
    log.path.write_bytes(raw)
    with pytest.raises(JournalCorrupt):
        ShipLog(tmp_path, "a/b/1", Fast())


def test_a_log_of_another_origin_or_out_of_order_is_refused(tmp_path: Path) -> None:
    log = ShipLog(tmp_path, "a/b/1", Fast())
    log.seal(seal(1))
    line = log.path.read_bytes()
    log.path.write_bytes(line + line + b"x")
    with pytest.raises(JournalCorrupt):
        ShipLog(tmp_path, "a/b/1", Fast())
    (tmp_path / "a_c_1.log").write_bytes(line + b"x")
    with pytest.raises(JournalCorrupt):
        ShipLog(tmp_path, "a/c/1", Fast())


def test_the_log_begins_anew_before_it_grows_large(tmp_path: Path) -> None:
    log = ShipLog(tmp_path, "a/b/1", Fast())
    largest, number = 0, 0
    while number < 10 or log.path.stat().st_size >= largest:
        number += 1
        log.seal(seal(number))
        log.shipped()
        largest = max(largest, log.path.stat().st_size)
    assert largest <= LOG_BYTES_MAX + 1_000
    again = ShipLog(tmp_path, "a/b/1", Fast())
    assert (again.number, again.next_seq, again.month) == (number, number, 202603)
    assert again.position == seal(number).stop


def test_an_empty_set_of_rows_is_found_complete(embedded: Database) -> None:
    shard = Shard()
    batch = shard.commit([shard.draft("heartbeat")])
    freight = Packer(shard.origin).pack([batch], month=202603)
    assert missing(embedded, freight.parts) == []
    assert missing(embedded, freight.entries) == [0]
