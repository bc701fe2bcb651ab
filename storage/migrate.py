"""Brings a database to the schema of this release: numbered SQL files, applied in order, each recorded once.

A file is applied statement by statement and recorded after its last one, so a file cut off by a crash runs again
from its top: every statement says IF NOT EXISTS or the like. What was applied is never edited afterwards; a file
whose text differs from the recorded one is refused, and so is a database newer than this release. Where nothing is
missing nothing is changed, so that a keeper needs no right to create where an administrator migrates (`printed`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from storage import accounts
from storage.clickhouse import Database
from storage.dialect import database_created, rendered
from storage.errors import NothingRecorded, QueryError
from storage.profiles import Account, Profile

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")

_RECORDS = """CREATE TABLE IF NOT EXISTS migrations (
  version UInt32, name String, sha256 String, applied DateTime64(9, 'UTC')
)
ENGINE = MergeTree
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
  min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 480"""
_HAS_RECORDS = "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'migrations'"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, and its statements."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Of the file's bytes, lowercase hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """The statements in order, comments taken out; a semicolon ends one only at the end of a line."""
        text = "\n".join(line for line in self.sql.splitlines() if not line.lstrip().startswith("--"))
        for statement in re.split(r";\s*(?:\n|$)", text):
            if statement.strip():
                yield statement.strip()


def migrations() -> list[Migration]:
    """Those of this release, by number."""
    found = []
    for file in (resources.files("storage") / "migrations").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def migrate(database: Database, *, now_ns: int, known: list[Migration] | None = None) -> list[Migration]:
    """Apply what is missing and return it; on return the schema is that of this release.

    Raises:
        QueryError: the database was changed by a newer release, or by an edited file.
        StorageUnavailable: the database does not answer; running it again goes on where it stopped.
    """
    wanted = migrations() if known is None else known
    recorded = _recorded(database)
    _refuse_what_differs(recorded, wanted)
    if not recorded:
        database.command(database_created(database.profile), inside=False)
        for statement in rendered(_RECORDS, database.profile):
            database.command(statement)
    applied = []
    for migration in wanted:
        if migration.version in recorded:
            continue
        for statement in migration.statements():
            for one in rendered(statement, database.profile):
                database.command(one)
        row = (migration.version, migration.name, migration.sha256, now_ns)
        columns = ("version", "name", "sha256", "applied")
        token = f"migration:{migration.version}:{now_ns}"
        database.insert("migrations", columns, [row], token=token, account=Account.MIGRATOR)
        applied.append(migration)
    return applied


def printed(profile: Profile) -> Iterator[str]:
    """All that an administrator runs on a server, in order; each statement may be run again.

    Accounts without a password, their grants and limits, the schema, and the record of what was applied.
    """
    yield database_created(profile)
    yield f"USE `{profile.database}`"
    yield from rendered(_RECORDS, profile)
    for migration in migrations():
        for statement in migration.statements():
            yield from rendered(statement, profile)
        yield (  # our own names and digests only
            f"INSERT INTO migrations SELECT {migration.version}, '{migration.name}', '{migration.sha256}', now64(9)"  # noqa: S608
            f" WHERE {migration.version} NOT IN (SELECT version FROM migrations)"
        )
    yield from accounts.created(profile)


def _recorded(database: Database) -> dict[int, tuple[str, str]]:
    """What was applied, by number; nothing where there is no database yet."""
    try:
        parameters = {"database": database.profile.database}
        ((exists,),) = database.rows(_HAS_RECORDS, parameters, account=Account.MIGRATOR)
        found = database.rows(_APPLIED, account=Account.MIGRATOR) if exists else []
    except NothingRecorded:
        return {}
    return {version: (name, sha256) for version, name, sha256 in found}


_APPLIED = "SELECT version, name, sha256 FROM migrations ORDER BY version LIMIT 1 BY version"


def _refuse_what_differs(recorded: dict[int, tuple[str, str]], wanted: list[Migration]) -> None:
    ours = {migration.version: migration for migration in wanted}
    for version, (name, sha256) in sorted(recorded.items()):
        if version not in ours:
            raise QueryError(
                f"the database has migration {name}, which this release does not know",
                code="schema_newer",
                advice="Run the release that migrated it, or a later one.",
            )
        if ours[version].sha256 != sha256:
            raise QueryError(
                f"migration {name} was applied with another text than this release carries",
                code="schema_edited",
                advice="Install an unmodified release; applied migrations are never edited.",
            )
