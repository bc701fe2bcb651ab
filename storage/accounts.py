"""Accounts: who may do what in ClickHouse, as the SQL that a database administrator runs (pure).

    writer     inserts evidence; reads back what it inserted. Cannot alter or delete any of it
    reader     reads, under limits on time, memory, rows and queries
    projector  inserts, reads and empties the typed tables, which are made again from evidence at any time
    migrator   creates the tables and adds columns and indexes; drops and deletes nothing
    eraser     deletes wrapped keys (which is what erases) and typed rows
    pruner     deletes entries, parts and keys whose time is over

No account of a running process may alter or delete entries: `preflight.py` asks ClickHouse whether that holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from storage import typed
from storage.clickhouse import BULK, CLIENTS_MAX
from storage.dialect import ENGINES, on_cluster, stored
from storage.profiles import Account, Profile

EVIDENCE: Final = ("entries", "parts", "keys", "segment_keys", "checkpoints", "tiles", "log", "anchors")
RECORDS: Final = "migrations"
# Of an entry the writer reads what reading back compares: its place, and the hash over its stored bytes.
_READ_BACK: Final[Mapping[str, str]] = {"entries": "SELECT(origin, seq, month, retention, entry, leaf)"}
_SYSTEM: Final = ("tables", "settings")  # what preflight.py looks at; rows show only what the account may see
QUERIES_MAX: Final = 1_000_000  # an hour and reader: 280 a second for every host's desk, audit and projections together
RUNNING_S_MAX: Final = 8 * 3_600  # of execution an hour: eight queries at a time, without a pause
NO_PASSWORD_FITS: Final = "0" * 64  # no text is known whose SHA-256 is zero: until it is set, nobody can sign in

# What changes or removes rows that are there, or how long they stay.
DESTRUCTIVE: Final = (
    *("ALTER UPDATE", "ALTER DELETE", "TRUNCATE", "DROP TABLE", "OPTIMIZE"),
    *("ALTER MODIFY COLUMN", "ALTER DROP COLUMN", "ALTER CLEAR COLUMN", "ALTER RENAME COLUMN"),
    *("ALTER TTL", "ALTER SETTINGS", "ALTER MOVE PARTITION"),
)
# What lets an account give itself, or take from another, such a right.
OVER_OTHERS: Final = ("CREATE USER", "ALTER USER", "ROLE ADMIN")


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges on a table of ours (`table`), or on what `on` says where that is something else."""

    privileges: str
    table: str = ""
    on: str = ""


def grants(account: Account, profile: Profile) -> Iterator[Grant]:
    """Exactly what `account` needs, and nothing else."""
    yield from _GRANTS[account](profile)
    if profile.kind == "cluster" and account in (Account.PROJECTOR, Account.ERASER, Account.PRUNER, Account.MIGRATOR):
        yield Grant("CLUSTER", on="*.*")  # their statements run ON CLUSTER


def _writer(_: Profile) -> Iterator[Grant]:
    for table in EVIDENCE:
        yield Grant(f"INSERT, {_READ_BACK.get(table, 'SELECT')}", table)
    yield Grant("SELECT", RECORDS)
    yield Grant("SELECT", on="system.settings")


def _reader(_: Profile) -> Iterator[Grant]:
    for table in (*EVIDENCE, *typed.TABLES, RECORDS):
        yield Grant("SELECT", table)
    for table in _SYSTEM:
        yield Grant("SELECT", on=f"system.{table}")


def _projector(_: Profile) -> Iterator[Grant]:
    for table in typed.TABLES:
        yield Grant("INSERT, SELECT, TRUNCATE", table)


def _migrator(profile: Profile) -> Iterator[Grant]:
    yield Grant("CREATE DATABASE, CREATE TABLE, ALTER ADD COLUMN, ALTER ADD INDEX", on=f"`{profile.database}`.*")
    for engine in (ENGINES[profile.kind], *(("Distributed",) if profile.kind == "cluster" else ())):
        yield Grant("TABLE ENGINE", on=engine)
    if profile.kind == "cluster":
        yield Grant("READ, WRITE", on="REMOTE")  # a Distributed table is a source elsewhere
    yield Grant("INSERT, SELECT", RECORDS)
    yield Grant("SELECT", on="system.tables")


def _eraser(_: Profile) -> Iterator[Grant]:
    yield Grant("ALTER DELETE, SELECT(origin, at, key_id)", "keys")
    for table in typed.TABLES:
        yield Grant("ALTER DELETE, SELECT", table)
    yield Grant("SELECT", on="system.mutations")


def _pruner(_: Profile) -> Iterator[Grant]:
    yield Grant("ALTER DELETE, SELECT(origin, seq, retention, month)", "entries")
    yield Grant("ALTER DELETE, SELECT(origin, at, key_id, retention, month)", "parts")
    yield Grant("ALTER DELETE, SELECT(origin, at, key_id)", "keys")
    for table in typed.TABLES:
        yield Grant("ALTER DELETE, SELECT", table)
    yield Grant("SELECT", on="system.mutations")


_GRANTS: Final = {
    Account.WRITER: _writer,
    Account.READER: _reader,
    Account.PROJECTOR: _projector,
    Account.MIGRATOR: _migrator,
    Account.ERASER: _eraser,
    Account.PRUNER: _pruner,
}


def account_of(table: str) -> Account:
    """As whom rows of `table` are inserted and read back."""
    if table in typed.TABLES:
        return Account.PROJECTOR
    return Account.MIGRATOR if table == RECORDS else Account.WRITER


def users(profile: Profile) -> dict[Account, str]:
    """The name of each account: the configured one; where none is, or it is ClickHouse's own `default`, one of ours."""
    named = {account: profile.login(account).user for account in (Account.WRITER, *profile.accounts)}
    return {
        account: f"answerable_{account}" if named.get(account, "default") == "default" else named[account]
        for account in Account
    }


def granted(account: Account, user: str, profile: Profile) -> Iterator[str]:
    """The GRANT statements of one account."""
    for grant in grants(account, profile):
        names = {grant.table, stored(grant.table, profile)} if grant.table else set()
        places = [f"`{profile.database}`.`{name}`" for name in sorted(names)] or [grant.on]
        for place in places:
            yield f"GRANT{on_cluster(profile)} {grant.privileges} ON {place} TO `{user}`"


def created(profile: Profile) -> Iterator[str]:
    """The statements that make all accounts, their grants and the reader's limits; each may be run again.

    An account has no password that fits and no host that it may come from until ALTER USER gives it both.
    """
    where = on_cluster(profile)
    names = users(profile)
    for user in dict.fromkeys(names.values()):
        yield (
            f"CREATE USER IF NOT EXISTS `{user}`{where} IDENTIFIED WITH sha256_hash BY '{NO_PASSWORD_FITS}' HOST NONE"
        )
    for account in Account:
        yield from granted(account, names[account], profile)
    yield from _limits(names[Account.READER], where)


def _limits(user: str, where: str) -> Iterator[str]:
    """What the reader can neither spend nor ask to be allowed: what the largest of our own reads asks for."""
    caps = {
        "max_execution_time": round(BULK.time_s_max),
        "max_memory_usage": BULK.memory_bytes_max,
        "max_result_rows": BULK.rows_max,
    }
    told = ", ".join(f"{name} = {value} MIN 1 MAX {value}" for name, value in caps.items())
    yield (
        f"CREATE SETTINGS PROFILE OR REPLACE `{user}_limits`{where} SETTINGS {told},"
        f" max_concurrent_queries_for_user = {CLIENTS_MAX * 8} TO `{user}`"
    )
    yield (
        f"CREATE QUOTA OR REPLACE `{user}_limits`{where} KEYED BY user_name FOR INTERVAL 1 hour"
        f" MAX queries = {QUERIES_MAX}, execution_time = {RUNNING_S_MAX} TO `{user}`"
    )
