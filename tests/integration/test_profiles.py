"""Profiles server, cluster and cloud, as far as one engine without a server can show them.

Run here, on chDB's engine: the parser reads every statement; a cluster's tables are made (ReplicatedMergeTree with an
in-memory keeper, Distributed) by the migrator's grants; the whole evidence of a deployment is shipped, read back,
projected and verified through Distributed tables. Not run here: replication between servers, ON CLUSTER's queue,
quorums, SharedMergeTree.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from storage import queries
from storage.accounts import EVIDENCE
from storage.audit import audit
from storage.clickhouse import Database
from storage.dialect import rendered, truncated
from storage.errors import QueryError, StorageUnfit
from storage.migrate import _RECORDS, migrations, printed
from storage.preflight import MINIMUM, examine, refuse_old
from storage.profiles import Account, Profile
from storage.typed import TABLES
from tests.integration.test_audit import PUBLIC, Deployment
from tests.support.restricted import EVERYTHING, Restricted, grants_of

SERVER = Profile(kind="server", database="d", url="http://127.0.0.1:1")
CLUSTER = replace(SERVER, kind="cluster", cluster="evidence")
CLOUD = replace(SERVER, kind="cloud")
RUNNING = (Account.WRITER, Account.READER, Account.PROJECTOR)
SCHEMA = [_RECORDS, *(statement for migration in migrations() for statement in migration.statements())]


def parsed(database: Database, statement: str) -> str:
    """The statement as ClickHouse's own parser writes it; raises QueryError where it is none."""
    ((text,),) = database.rows("SELECT formatQuery({sql:String})", {"sql": statement})
    return str(text)


@pytest.mark.parametrize("profile", [SERVER, CLUSTER, CLOUD], ids=lambda profile: profile.kind)
def test_clickhouse_reads_every_statement_that_an_administrator_is_given(embedded: Database, profile: Profile) -> None:
    statements = list(printed(profile))
    kinds = [parsed(embedded, statement).split()[0] for statement in statements]
    assert set(kinds) == {"CREATE", "USE", "ALTER", "INSERT", "GRANT"}
    assert kinds.count("GRANT") > 40
    parsed(embedded, truncated("decisions", profile))
    on_cluster = [one for one in statements if one.split()[0] in ("CREATE", "ALTER", "GRANT")]
    assert all((" ON CLUSTER `evidence`" in one) == (profile.kind == "cluster") for one in on_cluster)
    with pytest.raises(QueryError, match="Syntax error"):
        parsed(embedded, statements[-1].replace("CREATE QUOTA", "CREATE QUOTAS"))


@pytest.mark.parametrize("kind", ["cluster", "cloud"])
def test_no_profile_lacks_a_table_or_a_column(embedded: Database, kind: str) -> None:
    """What a profile makes has the columns of the one schema: the rendered statements say the same, engines aside."""
    profile = CLUSTER if kind == "cluster" else CLOUD
    for statement in SCHEMA:
        made = rendered(statement, profile)[0].replace(" ON CLUSTER `evidence`", "").replace("_local", "")
        ours, theirs = parsed(embedded, statement), parsed(embedded, made)
        assert _shape(ours) == _shape(theirs)


def _shape(text: str) -> str:
    """A statement without its engine and the settings of it that differ by profile."""
    return re.sub(r"\nENGINE = .*?\n|SETTINGS .*", "\n", text)


def run(database: Database, statement: str) -> None:
    """Run a cluster's statement on the one server that there is; raises as `Database.command`."""
    database.command(statement.replace(" ON CLUSTER `evidence`", ""))


def create(database: Database, *, without: str = "") -> None:
    """Make a cluster's tables; a replica without a network takes no ALTER, which `distributed` has."""
    database.command("CREATE DATABASE d", inside=False)
    for statement in (one for stated in SCHEMA if stated.startswith("CREATE") for one in rendered(stated, CLUSTER)):
        if not without or f" {without} ON CLUSTER" not in statement:
            run(database, statement)


def test_a_cluster_s_tables_are_made_by_the_migrator_and_pass_the_preflight(tmp_path: Path) -> None:
    path = tmp_path / "clickhouse"
    with Restricted(path, [*grants_of(CLUSTER, *RUNNING), *grants_of(CLUSTER, Account.MIGRATOR)], CLUSTER) as database:
        create(database)
        rows = database.rows(
            "SELECT engine, count() FROM system.tables WHERE database = 'd' GROUP BY engine ORDER BY 1"
        )
        tables = len(EVIDENCE) + len(TABLES) + 1
        assert rows == [("Distributed", tables), ("ReplicatedMergeTree", tables)]
        assert examine(database).broad == ()
        with pytest.raises(QueryError) as raised:
            run(database, "DROP TABLE entries_local")
        assert raised.value.code == "access_denied"


def test_a_cluster_s_writer_that_may_delete_where_rows_lie_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clickhouse"
    narrow = [*grants_of(CLUSTER, *RUNNING), *grants_of(CLUSTER, Account.MIGRATOR)]
    broad = [*narrow, "GRANT ALTER DELETE ON d.entries_local TO default"]
    with Restricted(path, broad, CLUSTER) as database:
        create(database)
        with pytest.raises(StorageUnfit, match=r"default may ALTER DELETE.* on d\.entries_local:"):
            examine(database)


def test_a_cluster_without_one_of_its_distributed_tables_is_refused(tmp_path: Path) -> None:
    with Restricted(tmp_path / "clickhouse", EVERYTHING, CLUSTER) as database:
        create(database, without="tiles")
        with pytest.raises(StorageUnfit, match="table tiles is not there, not Distributed"):
            examine(database)


def test_tables_of_another_engine_are_refused(embedded: Database) -> None:
    examine(embedded)
    embedded.profile = replace(embedded.profile, kind="cluster", cluster="evidence")
    with pytest.raises(StorageUnfit, match="table entries_local is not there, not ReplicatedMergeTree"):
        examine(embedded)
    embedded.profile = replace(embedded.profile, kind="chdb")
    embedded.command("DROP TABLE tiles")
    embedded.command("CREATE TABLE tiles (origin String) ENGINE = ReplacingMergeTree ORDER BY origin")
    with pytest.raises(StorageUnfit, match="table tiles is ReplacingMergeTree, not MergeTree"):
        examine(embedded)


@pytest.mark.parametrize(("version", "fits"), [("25.8.1.3", True), ("26.9.2.1", True), ("25.7.9", False), ("x", False)])
def test_an_older_clickhouse_is_refused(
    embedded: Database, monkeypatch: pytest.MonkeyPatch, version: str, *, fits: bool
) -> None:
    monkeypatch.setattr(embedded, "version", lambda: version)
    if fits:
        assert refuse_old(embedded) == version
        return
    with pytest.raises(StorageUnfit, match=f"{version} is older than {MINIMUM[0]}.{MINIMUM[1]}"):
        refuse_old(embedded)


@pytest.fixture
def distributed(tmp_path: Path) -> Iterator[Database]:
    """A cluster of one shard and one replica, whose local tables are not replicated; all else is a cluster's."""
    with Restricted(tmp_path / "clickhouse", EVERYTHING, CLUSTER) as database:
        database.command("CREATE DATABASE d", inside=False)
        for statement in (one for stated in SCHEMA for one in rendered(stated, CLUSTER)):
            plain = re.sub(r"ReplicatedMergeTree\(.*\)", "MergeTree", statement)
            run(database, plain.replace("replicated_deduplication_window", "non_replicated_deduplication_window"))
        yield database


def test_a_deployment_is_shipped_read_back_projected_and_verified_through_distributed_tables(
    distributed: Database, tmp_path: Path
) -> None:
    deployment = Deployment(distributed, tmp_path / "data")
    report = audit(distributed, public=PUBLIC, data=tmp_path / "data")
    assert report.exit_code == 0, report.broken
    counts = {table: distributed.rows(f"SELECT count() FROM {table}") for table in (*EVIDENCE, *TABLES)}
    local = {table: distributed.rows(f"SELECT count() FROM {table}_local") for table in (*EVIDENCE, *TABLES)}
    assert counts == local
    assert counts["entries"] == [(report.entries,)]
    run(distributed, "ALTER TABLE entries_local DELETE WHERE seq = 3 SETTINGS mutations_sync = 2")
    broken = deployment.verify().broken
    assert {(claim.name, claim.seq) for claim in broken} >= {("entries", 3)}


def test_every_question_of_the_desk_can_be_put_to_distributed_tables(distributed: Database, tmp_path: Path) -> None:
    Deployment(distributed, tmp_path / "data")
    tenants = distributed.rows("SELECT DISTINCT tenant FROM decisions")
    asked: Mapping[str, object] = {"tenant": tenants[0][0], "span": queries.EVER}
    found = queries.page(distributed, queries.Filter(**asked), limit=50)  # type: ignore[arg-type]
    assert found.rows
    first = queries.decision(distributed, found.rows[0].id)
    assert first is not None
    for narrowed in ({"state": "ready"}, {"state": "none"}, {"reason": "X"}, {"cases": [first.case or "x"]}):
        queries.page(distributed, queries.Filter(**asked, **narrowed), limit=50)  # type: ignore[arg-type]
    assert queries.entries_about_decision(distributed, first.id)
    assert queries.counts_by_kind(distributed)
    assert queries.counts_by_state(distributed)
