"""Accounts: what ClickHouse's own access control lets each of them do.

Run on chDB's engine with a users file (tests/support/restricted.py). Not run here: CREATE USER, SETTINGS PROFILE and
QUOTA on a server, which chDB cannot hold; its parser reads them (test_profiles.py).
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.keeper import health
from storage import typed
from storage.accounts import EVIDENCE, granted
from storage.clickhouse import Database
from storage.errors import QueryError, StorageUnfit
from storage.migrate import migrate, migrations
from storage.preflight import examine
from storage.profiles import Account, Profile
from tests.support.clickhouse_http import Server
from tests.support.database import NOW_NS
from tests.support.keeping import Gateway, kept, settled, written
from tests.support.loans import Loans
from tests.support.restricted import EVERYTHING, Restricted, configured, grants_of

SERVER = Profile(kind="server", database="d", url="http://127.0.0.1:1")
RUNNING = (Account.WRITER, Account.READER, Account.PROJECTOR)  # those that a keeper holds
ZEROS = "00000000-0000-0000-0000-000000000000"


def refused(database: Database, statement: str) -> bool:
    """Whether ClickHouse denies it for want of a grant; any other error is one of the test."""
    try:
        database.command(statement)
    except QueryError as error:
        if error.code == "access_denied":
            return True
        raise
    return False


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that the migrator made, under its own grants and from nothing."""
    place = tmp_path_factory.mktemp("accounts") / "clickhouse"
    with Restricted(place, grants_of(SERVER, Account.MIGRATOR), SERVER) as database:
        assert migrate(database, now_ns=NOW_NS) == migrations()
    return place


DESTROYING = [
    "ALTER TABLE {table} DELETE WHERE 1 SETTINGS mutations_sync = 1",
    "DELETE FROM {table} WHERE 1",
    "ALTER TABLE {table} UPDATE origin = 'x' WHERE 1",
    "TRUNCATE TABLE {table}",
    "DROP TABLE {table}",
    "OPTIMIZE TABLE {table} FINAL DEDUPLICATE",
    "ALTER TABLE {table} MODIFY SETTING fsync_after_insert = 0",
    "ALTER TABLE {table} MODIFY TTL toDateTime(1)",
    "ALTER TABLE {table} DROP PARTITION ALL",
    "ALTER TABLE {table} DETACH PARTITION ALL",
    "RENAME TABLE {table} TO gone",
]


@pytest.mark.parametrize("account", [*RUNNING, Account.MIGRATOR])
def test_no_account_of_a_process_can_destroy_evidence(path: Path, account: Account) -> None:
    with Restricted(path, grants_of(SERVER, account), SERVER) as database:
        for table in EVIDENCE:
            passed = [one for one in DESTROYING if not refused(database, one.format(table=table))]
            assert passed == []
        assert refused(database, "DROP DATABASE d")
        assert refused(database, "CREATE USER other")
        assert refused(database, "GRANT ALTER DELETE ON d.entries TO default")


def test_the_reader_writes_nothing_and_the_projector_only_typed_tables(path: Path) -> None:
    with Restricted(path, grants_of(SERVER, Account.READER), SERVER) as database:
        for table in (*EVIDENCE, *typed.TABLES):
            assert refused(database, f"INSERT INTO {table} SELECT * FROM {table}")
    with Restricted(path, grants_of(SERVER, Account.PROJECTOR), SERVER) as database:
        for table in typed.TABLES:
            assert not refused(database, f"INSERT INTO {table} SELECT * FROM {table}")
            assert not refused(database, f"TRUNCATE TABLE {table}")
        for table in EVIDENCE:
            assert refused(database, f"SELECT * FROM {table} INTO OUTFILE '/dev/null' TRUNCATE FORMAT Null")


def test_the_writer_cannot_search_entries_nor_read_typed_tables(path: Path) -> None:
    with Restricted(path, grants_of(SERVER, Account.WRITER), SERVER) as database:
        for column in ("id", "kind", "tenant", "route", "ts", "decision"):
            with pytest.raises(QueryError, match="Not enough privileges"):
                database.rows(f"SELECT {column} FROM entries")
        with pytest.raises(QueryError, match="Not enough privileges"):
            database.rows("SELECT decision FROM decisions")


def test_the_eraser_deletes_keys_and_typed_rows_and_no_entries(path: Path) -> None:
    waiting = "SETTINGS mutations_sync = 2"
    with Restricted(path, grants_of(SERVER, Account.ERASER), SERVER) as database:
        assert not refused(database, f"ALTER TABLE keys DELETE WHERE origin = 'a' AND key_id = '{ZEROS}' {waiting}")
        for table in typed.TABLES:
            assert not refused(database, f"ALTER TABLE {table} DELETE WHERE origin = 'a' AND seq = 1 {waiting}")
        assert database.rows("SELECT count() FROM system.mutations WHERE is_done") == [(1 + len(typed.TABLES),)]
        for table in ("entries", "parts", "tiles", "checkpoints", "log"):
            assert refused(database, f"ALTER TABLE {table} DELETE WHERE 1 {waiting}")


def test_the_pruner_deletes_entries_parts_and_keys_and_leaves_the_ledger(path: Path) -> None:
    waiting = "SETTINGS mutations_sync = 2"
    with Restricted(path, grants_of(SERVER, Account.PRUNER), SERVER) as database:
        assert not refused(database, f"ALTER TABLE entries DELETE WHERE origin = 'a' AND seq < 1 {waiting}")
        assert not refused(database, f"ALTER TABLE parts DELETE WHERE origin = 'a' AND at < 1 {waiting}")
        assert not refused(database, f"ALTER TABLE keys DELETE WHERE origin = 'a' AND at < 1 {waiting}")
        for table in ("tiles", "checkpoints", "log", "anchors", "segment_keys"):
            assert refused(database, f"ALTER TABLE {table} DELETE WHERE 1 {waiting}")


def test_a_keeper_that_may_alter_entries_does_not_start_unless_that_is_allowed(path: Path) -> None:
    narrow = grants_of(SERVER, *RUNNING)
    with Restricted(path, narrow, SERVER) as database:
        assert examine(database).broad == ()
    for one in (
        *("ALTER DELETE ON d.entries", "TRUNCATE ON *.*", "ALTER TTL ON d.log", "DROP DATABASE ON d.*"),
        *("ALTER UPDATE(leaf, entry) ON d.entries", "SELECT, ALTER CLEAR COLUMN(bytes) ON d.parts"),
    ):
        broad = Restricted(path, [*narrow, f"GRANT {one} TO default"], SERVER)
        with broad as database, pytest.raises(StorageUnfit, match="default may "):
            examine(database)
    broad = Restricted(path, [*narrow, "GRANT ROLE ADMIN ON *.* TO default"], SERVER)
    with broad as database, pytest.raises(StorageUnfit, match=r"default may ROLE ADMIN on \*\.\*"):
        examine(database)
    allowed = Profile(kind="server", database="d", url=SERVER.url, allow_broad_grants=True)
    with Restricted(path, EVERYTHING, allowed) as database:
        assert "ALTER DELETE" in examine(database).told


def test_what_is_not_kept_durably_is_refused(path: Path) -> None:
    narrow = grants_of(SERVER, *RUNNING)
    change = "ALTER TABLE anchors MODIFY SETTING fsync_after_insert = 0"
    with Restricted(path, EVERYTHING, SERVER) as database:
        database.command(change)
        database.command("ALTER TABLE tiles RESET SETTING fsync_part_directory")
    with Restricted(path, narrow, SERVER) as database, pytest.raises(StorageUnfit) as raised:
        examine(database)
    assert "table anchors has fsync_after_insert = 0, not 1" in raised.value.message
    assert "table tiles has fsync_part_directory = its default, not 1" in raised.value.message
    with Restricted(path, EVERYTHING, SERVER) as database:
        database.command("ALTER TABLE anchors MODIFY SETTING fsync_after_insert = 1")
        database.command("ALTER TABLE tiles MODIFY SETTING fsync_part_directory = 1")
    with Restricted(path, narrow, SERVER) as database:
        assert examine(database).version.startswith("2")


def test_a_server_that_forbids_synchronous_inserts_is_refused(path: Path) -> None:
    fixed = "<async_insert>1</async_insert><constraints><async_insert><const/></async_insert></constraints>"
    told = r"an insert cannot be told what it needs: .*async_insert"
    fixing = Restricted(path, grants_of(SERVER, *RUNNING), SERVER, settings=fixed)
    with fixing as database, pytest.raises(StorageUnfit, match=told):
        examine(database)


async def test_every_statement_of_a_keeper_is_allowed_to_the_account_that_makes_it(tmp_path: Path) -> None:
    """A keeper's life is recorded with four accounts; then each account's statements are run under its grants alone."""
    loans = Loans(tmp_path)
    where = tmp_path / "clickhouse"
    with Server(where) as server:
        accounts = {name: {"user": name} for name in ("reader", "projector", "migrator")}
        storage = {"profile": "server", "url": server.url, "database": "d", "user": "writer", "accounts": accounts}
        configuration = written(tmp_path, loans=loans, storage={**storage, "allow_broad_grants": True})
        gateway = await Gateway.open(configuration, loans)
        async with kept(configuration) as keeper:
            for number in range(3):
                await gateway.decide(number)
            await settled(keeper)
            await keeper.parts.shipping.alone(lambda projector: projector.rebuild(now_ns=NOW_NS))
        await gateway.close()
        recorded = server.recorded()
    assert {request["user"] for request in recorded} - {"default"} == {"writer", "reader", "projector", "migrator"}
    for account in (*RUNNING, Account.MIGRATOR):
        made = [request for request in recorded if request["user"] == account]
        config = configured(tmp_path / f"as-{account}", granted(account, "default", SERVER))
        with Server(where, config) as server:
            answers = [server.again(request) for request in made]
        denied = [answer for answer in answers if b"Not enough privileges" in answer]
        assert denied == []
        assert len(answers) >= 20


async def test_a_keeper_whose_account_is_broad_refuses_to_start_and_loses_nothing(tmp_path: Path) -> None:
    loans = Loans(tmp_path)
    with Server(tmp_path / "clickhouse") as server:
        storage = {"profile": "server", "url": server.url, "database": "d"}
        configuration = written(tmp_path, loans=loans, storage=storage)
        gateway = await Gateway.open(configuration, loans)
        async with kept(configuration) as keeper:
            with pytest.raises(StorageUnfit, match="default may"):
                await keeper.parts.shipping.connect()
            await gateway.decide(0)
            assert keeper.parts.shipping.shipped_below(gateway.journal.origin) == 0
        command = [sys.executable, "-m", "gateway.cli", "keeper", "--config", str(configuration.path)]
        ended = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 2
        assert "default may ALTER UPDATE" in ended.stderr
        assert "answerable migrate --print-sql" in ended.stderr
        storage["allow_broad_grants"] = True
        configuration = written(tmp_path, loans=loans, storage=storage)
        async with kept(configuration) as keeper:
            await settled(keeper)
            assert keeper.parts.shipping.shipped_below(gateway.journal.origin) > 0
            (check,) = (check for check in health.examine(keeper.parts) if check.name == "grants")
            assert check.state == "warn"
            assert check.detail.startswith("default may ALTER UPDATE, ALTER DELETE")
        await gateway.close()
