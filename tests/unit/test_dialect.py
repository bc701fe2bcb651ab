"""The one schema as each profile has it."""

import importlib
import pkgutil
from dataclasses import replace

import pytest

import storage
from storage import preflight
from storage.accounts import created, grants, users
from storage.clickhouse import Caps
from storage.dialect import rendered, required_settings, settings_of, truncated
from storage.errors import QueryError
from storage.migrate import migrations
from storage.profiles import Account, Login, Profile

SERVER = Profile(kind="server", database="d", url="http://x")
CLUSTER = replace(SERVER, kind="cluster", cluster="evidence")
CLOUD = replace(SERVER, kind="cloud")
STATEMENTS = [statement for migration in migrations() for statement in migration.statements()]
TABLE = """CREATE TABLE IF NOT EXISTS log (
  origin String,
  seq UInt64
)
ENGINE = MergeTree
PARTITION BY seq % 2
ORDER BY (origin, seq)
SETTINGS
  index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
  old_parts_lifetime = 480, non_replicated_deduplication_window = 10000"""


def test_one_server_has_the_migrations_as_they_stand() -> None:
    for statement in STATEMENTS:
        assert rendered(statement, SERVER) == [statement]


def test_a_cluster_has_a_replicated_table_and_one_distributed_over_it() -> None:
    local, distributed = rendered(TABLE, CLUSTER)
    assert local.startswith("CREATE TABLE IF NOT EXISTS log_local ON CLUSTER `evidence` (\n  origin String,")
    assert "ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')\n" in local
    assert "PARTITION BY seq % 2\nORDER BY (origin, seq)\nSETTINGS" in local
    settings = settings_of(local)
    assert settings == {"index_granularity": "512", **required_settings("cluster")}
    assert "replicated_deduplication_window" in settings
    assert "non_replicated_deduplication_window" not in settings
    assert distributed == (
        "CREATE TABLE IF NOT EXISTS log ON CLUSTER `evidence` AS log_local\n"
        "ENGINE = Distributed('evidence', 'd', 'log_local', cityHash64(origin))"
    )


def test_the_cloud_syncs_by_itself_and_shares_its_storage() -> None:
    (only,) = rendered(TABLE, CLOUD)
    assert "\nENGINE = SharedMergeTree\n" in only
    assert settings_of(only) == {"index_granularity": "512", "replicated_deduplication_window": "10000"}


def test_columns_are_added_to_both_tables_of_a_cluster_and_indexes_where_rows_lie() -> None:
    change = "ALTER TABLE log\n  ADD COLUMN IF NOT EXISTS a UInt8 DEFAULT 0,\n  ADD INDEX IF NOT EXISTS b a TYPE minmax"
    local, distributed = rendered(change, CLUSTER)
    assert local.startswith("ALTER TABLE log_local ON CLUSTER `evidence`\n")
    assert ("ADD COLUMN" in local, "ADD INDEX" in local) == (True, True)
    assert distributed.startswith("ALTER TABLE log ON CLUSTER `evidence`\n")
    assert ("ADD COLUMN" in distributed, "ADD INDEX" in distributed) == (True, False)


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE log", "ALTER TABLE log DROP COLUMN a", "CREATE TABLE IF NOT EXISTS x (\n  a Int\n)\nENGINE = Log"],
)
def test_a_statement_without_a_form_for_clusters_is_refused(statement: str) -> None:
    with pytest.raises(QueryError, match="no form for profile cluster"):
        rendered(statement, CLUSTER)


def test_every_table_of_the_migrations_says_the_settings_that_are_asked_for() -> None:
    for statement in STATEMENTS:
        if statement.startswith("CREATE"):
            assert settings_of(statement).items() >= required_settings("server").items()


def test_a_cluster_empties_what_lies_in_all_replicas() -> None:
    assert truncated("decisions", SERVER) == "TRUNCATE TABLE decisions"
    assert truncated("decisions", CLUSTER) == "TRUNCATE TABLE decisions_local ON CLUSTER `evidence` SYNC"


def test_a_read_sees_every_acknowledged_insert_or_fails() -> None:
    assert SERVER.insert_settings() == {"async_insert": 0}
    assert SERVER.read_settings() == {}
    told = replace(CLUSTER, insert_quorum="3").insert_settings()
    assert (told["async_insert"], told["insert_quorum"], told["insert_quorum_parallel"]) == (0, "3", 0)
    assert told["distributed_foreground_insert"] == 1
    assert CLUSTER.read_settings()["select_sequential_consistency"] == 1
    assert CLUSTER.read_settings()["skip_unavailable_shards"] == 0
    assert CLOUD.read_settings() == {"select_sequential_consistency": 1}


def test_an_account_that_is_made_lets_nobody_in_before_its_password_is_set() -> None:
    made = [statement for statement in created(SERVER) if statement.startswith("CREATE USER")]
    assert len(made) == len(Account)
    assert all(statement.endswith(f"IDENTIFIED WITH sha256_hash BY '{'0' * 64}' HOST NONE") for statement in made)


def test_accounts_have_the_configured_names_and_clickhouse_s_own_default_is_given_nothing() -> None:
    named = replace(SERVER, accounts={Account.READER: Login(user="desk"), Account.ERASER: Login()})
    assert users(named)[Account.READER] == "desk"
    assert users(named)[Account.WRITER] == "answerable_writer"
    assert users(named)[Account.ERASER] == "answerable_eraser"
    assert not any("`default`" in statement for statement in created(named))


def test_only_accounts_that_run_statements_on_the_cluster_may() -> None:
    may = {account for account in Account if any(grant.privileges == "CLUSTER" for grant in grants(account, CLUSTER))}
    assert may == {Account.MIGRATOR, Account.PROJECTOR, Account.ERASER, Account.PRUNER}
    assert not any(grant.privileges == "CLUSTER" for account in Account for grant in grants(account, SERVER))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("ALTER COLUMN(wrapped)", ["ALTER COLUMN"]),  # as SHOW GRANTS folds the four below
        ("ALTER UPDATE(entry), ALTER DROP COLUMN(leaf)", ["ALTER UPDATE", "ALTER DROP COLUMN"]),
        ("ALTER ADD COLUMN(x), SELECT(entry), INSERT", []),
    ],
)
def test_grants_on_single_columns_are_seen_by_their_name(said: str, found: list[str]) -> None:
    assert preflight._COLUMNWISE.findall(said) == found


def test_the_readers_limits_allow_every_read_of_ours() -> None:
    """A cap above the reader's limit is refused by ClickHouse (452), and what cannot be read is a finding."""
    names = [f"storage.{each.name}" for each in pkgutil.iter_modules(storage.__path__)]
    caps = {
        f"{name}.{variable}": value
        for name in names
        for variable, value in vars(importlib.import_module(name)).items()
        if isinstance(value, Caps)
    }
    assert len(set(caps.values())) >= 4
    (stated,) = [sql for sql in created(Profile(kind="server", database="d")) if "SETTINGS PROFILE" in sql]
    for setting, asked in (
        ("max_result_rows", lambda cap: cap.rows_max),
        ("max_memory_usage", lambda cap: cap.memory_bytes_max),
        ("max_execution_time", lambda cap: cap.time_s_max),
    ):
        most = int(stated.partition(f"{setting} = ")[2].partition(" ")[0])
        assert {name for name, cap in caps.items() if asked(cap) > most} == set(), setting
