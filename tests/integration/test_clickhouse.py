"""The door to ClickHouse, embedded and over HTTP."""

import threading
from pathlib import Path

import pytest

from config.database import Accounts, Storage
from config.database import Login as ConfiguredLogin
from config.processes import start
from storage.clickhouse import Caps, Database
from storage.errors import QueryError, StorageUnavailable
from storage.migrate import Migration, migrate, migrations
from storage.profiles import Account, Login, Profile
from tests.support.clickhouse_http import Server
from tests.support.database import NOW_NS, fresh_profile, opened

COLUMNS = ("origin", "size", "root", "note", "ts")


def checkpoint(size: int, root: bytes = b"\x00" * 32, note: str = "ñ\n") -> tuple[object, ...]:
    return ("d/s/1", size, root, note, NOW_NS + size)


def sizes(database: Database) -> list[int]:
    return [size for (size,) in database.rows("SELECT size FROM checkpoints ORDER BY size")]


def test_bytes_text_and_nanoseconds_come_back_as_they_went_in(database: Database) -> None:
    root = b"\x00\xff" * 15 + b"\x00\x00"
    database.insert("checkpoints", COLUMNS, [checkpoint(7, root)], token="a")
    columns = ("origin", "first_seq", "header")
    database.insert("segment_keys", columns, [("d/s/1", 0, bytes(range(256)) * 16)], token="a")
    assert database.rows("SELECT * FROM checkpoints") == [("d/s/1", 7, root, "ñ\n", NOW_NS + 7)]
    assert database.rows("SELECT header FROM segment_keys") == [(bytes(range(256)) * 16,)]


def test_a_repeated_token_inserts_once_and_another_one_again(database: Database) -> None:
    for token in ("a", "a", "b"):
        database.insert("checkpoints", COLUMNS, [checkpoint(1)], token=token)
    assert sizes(database) == [1, 1]


def test_one_insert_makes_one_part_however_large(database: Database) -> None:
    rows = [checkpoint(size, note="x" * 4_000) for size in range(2_000)]
    database.insert("checkpoints", COLUMNS, rows, token="a")
    found = database.rows(
        "SELECT sum(rows), count() FROM system.parts"
        " WHERE database = {name:String} AND table = 'checkpoints' AND active",
        {"name": database.profile.database},
    )
    assert found == [(2_000, 1)]


def test_parameters_are_bound_by_the_server_and_never_pasted(database: Database) -> None:
    nasty = "'; DROP TABLE checkpoints --\\"
    database.insert("checkpoints", COLUMNS, [checkpoint(1, note=nasty), checkpoint(2)], token="a")
    found = database.rows("SELECT size FROM checkpoints WHERE note = {note:String}", {"note": nasty})
    assert found == [(1,)]
    long = [str(number) * 9 for number in range(3_000)]
    assert database.rows(
        "SELECT size FROM checkpoints WHERE note IN {notes:Array(String)}", {"notes": [*long, nasty]}
    ) == [(1,)]


@pytest.mark.parametrize(
    ("caps", "sql"),
    [
        (Caps(rows_max=10, memory_bytes_max=1 << 30, time_s_max=30), "SELECT number FROM numbers(11)"),
        (
            Caps(rows_max=10, memory_bytes_max=16 << 20, time_s_max=30),
            "SELECT length(groupArray(toString(number))) FROM numbers(10000000)",
        ),
        (
            Caps(rows_max=10, memory_bytes_max=1 << 30, time_s_max=0.2),
            "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)",
        ),
    ],
    ids=["rows", "memory", "time"],
)
def test_a_read_that_runs_into_a_cap_is_an_error_and_not_a_short_answer(
    database: Database, caps: Caps, sql: str
) -> None:
    with pytest.raises((QueryError, StorageUnavailable)):
        database.rows(sql, caps=caps)


def test_a_wrong_query_is_told_from_a_database_that_is_away(database: Database) -> None:
    with pytest.raises(QueryError, match="nope"):
        database.rows("SELECT nope FROM checkpoints")


def test_threads_share_one_handle(database: Database) -> None:
    failures: list[Exception] = []

    def work(worker: int) -> None:
        try:
            for turn in range(5):
                size = worker * 100 + turn
                database.insert("checkpoints", COLUMNS, [checkpoint(size)], token=f"t{size}")
                assert (size,) in database.rows("SELECT size FROM checkpoints WHERE size = {s:UInt64}", {"s": size})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert len(sizes(database)) == 30


def test_a_closed_handle_answers_no_more(request: pytest.FixtureRequest) -> None:
    with opened(fresh_profile("chdb", request), migrated=False) as database:
        pass
    with pytest.raises(StorageUnavailable, match="closed"):
        database.ping()


def test_an_insert_cut_in_the_middle_is_never_sent_twice(tmp_path: Path) -> None:
    with Server(tmp_path / "clickhouse") as server:
        profile = Profile(kind="server", database="d", url=server.url)
        with Database.open(profile) as database:
            migrate(database, now_ns=NOW_NS)
            for mode, expected in (("cut_before", []), ("cut_after", [1])):
                server.fault(mode, table="checkpoints")
                with pytest.raises(StorageUnavailable):
                    database.insert("checkpoints", COLUMNS, [checkpoint(1)], token=mode)
                assert sizes(database) == expected


def test_a_server_that_is_away_is_unavailable_and_answers_after_it_is_back(tmp_path: Path) -> None:
    with Server(tmp_path / "clickhouse") as server:
        profile = Profile(kind="server", database="d", url=server.url)
        with Database.open(profile) as database:
            migrate(database, now_ns=NOW_NS)
            database.insert("checkpoints", COLUMNS, [checkpoint(1)], token="a")
            server.kill()
            with pytest.raises(StorageUnavailable) as raised:
                database.ping()
            assert raised.value.status == 503
            server.start()
            assert sizes(database) == [1]
            server.refuse(0.5)
            with pytest.raises(StorageUnavailable):
                database.ping()
            server.wait_until_up()
            assert sizes(database) == [1]


def test_errors_hold_neither_the_address_with_its_parameters_nor_the_password(tmp_path: Path) -> None:
    profile = Profile(
        kind="server", database="d", url="http://127.0.0.1:9", writer=Login(user="writer", password="s3cret")
    )
    with Database.open(profile) as database, pytest.raises(StorageUnavailable) as raised:
        database.rows("SELECT {secret:String}", {"secret": "personal"})
    assert "personal" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_second_process_on_an_embedded_path_gets_plain_advice(tmp_path: Path) -> None:
    with Server(tmp_path / "clickhouse"):
        other = (
            "import sys; from pathlib import Path\n"
            "from storage.clickhouse import Database\n"
            "from storage.profiles import Profile\n"
            "from storage.errors import StorageUnavailable\n"
            "try: Database.open(Profile(kind='chdb', database='d', path=Path(sys.argv[1]))).ping()\n"
            "except StorageUnavailable as error: print(error.advice); sys.exit(7)\n"
        )
        process = start([__import__("sys").executable, "-c", other, str(tmp_path / "clickhouse")])
        assert process.wait(60) == 7


def test_the_profile_follows_the_configuration(tmp_path: Path) -> None:
    storage = Storage.model_validate({"profile": "server", "url": "https://ch.example:8443/x", "user": "w"})
    profile = Profile.of(storage, data=tmp_path, passwords={"writer": "p"})
    assert (profile.kind, profile.path, profile.writer) == ("server", None, Login(user="w", password="p"))
    assert profile.login(Account.READER) == profile.writer
    storage = storage.model_copy(update={"accounts": Accounts(reader=ConfiguredLogin(user="r"))})
    profile = Profile.of(storage, data=tmp_path, passwords={"writer": "p", "reader": "q"})
    assert profile.login(Account.READER) == Login(user="r", password="q")
    assert profile.login(Account.PROJECTOR) == profile.writer
    assert "q" not in repr(profile.accounts)
    assert Profile.of(Storage(), data=tmp_path).path == tmp_path / "clickhouse"


def test_migrating_twice_applies_once(database: Database) -> None:
    assert migrate(database, now_ns=NOW_NS + 1) == []
    assert database.rows("SELECT version, applied FROM migrations ORDER BY version") == [
        (migration.version, NOW_NS) for migration in migrations()
    ]


def test_a_migration_cut_off_runs_again_from_its_top(embedded: Database) -> None:
    good, bad = "CREATE TABLE IF NOT EXISTS a (x UInt8) ENGINE = MergeTree ORDER BY x;\n", "CREATE NONSENSE;\n"
    with pytest.raises(QueryError):
        migrate(embedded, now_ns=NOW_NS, known=[*migrations(), Migration(7, "0007_a.sql", good + bad)])
    added = Migration(7, "0007_a.sql", good + "-- a comment; with a semicolon\n")
    assert migrate(embedded, now_ns=NOW_NS, known=[*migrations(), added]) == [added]


def test_a_database_of_a_newer_release_is_refused(embedded: Database) -> None:
    later = Migration(9, "0009_later.sql", "SELECT 1;\n")
    migrate(embedded, now_ns=NOW_NS, known=[*migrations(), later])
    with pytest.raises(QueryError, match="0009_later"):
        migrate(embedded, now_ns=NOW_NS)


def test_an_edited_migration_is_refused(embedded: Database) -> None:
    with pytest.raises(QueryError, match="another text"):
        migrate(embedded, now_ns=NOW_NS, known=[Migration(1, "0001_schema.sql", "SELECT 1;\n")])


def test_every_table_of_evidence_syncs_what_it_acknowledges(embedded: Database) -> None:
    tables = embedded.rows(
        "SELECT name, engine_full FROM system.tables WHERE database = {name:String}",
        {"name": embedded.profile.database},
    )
    assert len(tables) == 13
    for name, engine in tables:
        assert "fsync_after_insert = 1" in engine, name
        assert "fsync_part_directory = 1" in engine, name
        assert "min_rows_to_fsync_after_merge = 1" in engine, name
        assert "Replacing" not in engine, name
