"""The one schema (migrations/*.sql), as each profile has it (pure).

Migrations are written for one server. What a cluster or the cloud has instead is made from their text, so that there
is no second schema: engines, `ON CLUSTER`, the settings that mean something there. Of a table `x` a cluster has two:
`x_local`, replicated, where rows lie, and `x`, Distributed, through which everything is written and read. Rows of one
origin lie in one shard, so that a range is one part there or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from storage.errors import QueryError
from storage.profiles import Kind, Profile

ENGINES: Final[Mapping[Kind, str]] = {
    "chdb": "MergeTree",
    "server": "MergeTree",
    "cluster": "ReplicatedMergeTree",
    "cloud": "SharedMergeTree",
}
# By path and not by uuid: a replica that is added later finds its table by running the migrations there.
_REPLICATED: Final = "ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"
_DURABLE: Final = {
    "fsync_after_insert": "1",
    "fsync_part_directory": "1",
    "min_rows_to_fsync_after_merge": "1",
    "min_compressed_bytes_to_fsync_after_merge": "1",
    "old_parts_lifetime": "480",
}
_WINDOW: Final = "10000"

_CREATE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+) \(\n(.*)\n\)\nENGINE = MergeTree\b(.*)", re.DOTALL)
_ALTER: Final = re.compile(r"ALTER TABLE (\w+)\s+(.*)", re.DOTALL)
_ACTION: Final = re.compile(r",\s*(?=ADD )")
_SETTINGS: Final = re.compile(r"(.*)\bSETTINGS\s+(.*)", re.DOTALL)


def required_settings(kind: Kind) -> dict[str, str]:
    """What every table of ours has, by its name in ClickHouse; the cloud's storage syncs by itself."""
    if kind == "cloud":
        return {"replicated_deduplication_window": _WINDOW}
    window = "replicated_deduplication_window" if kind == "cluster" else "non_replicated_deduplication_window"
    return {**_DURABLE, window: _WINDOW}


def rendered(statement: str, profile: Profile) -> list[str]:
    """A statement of a migration, as `profile` has it.

    Raises:
        QueryError: the statement has another form than those that can be turned into a cluster's.
    """
    if profile.kind in ("chdb", "server"):
        return [statement]
    if made := _CREATE.fullmatch(statement):
        return _created(made[1], made[2], made[3], profile)
    if (altered := _ALTER.fullmatch(statement)) and all(
        action.startswith(("ADD COLUMN ", "ADD INDEX ")) for action in _ACTION.split(altered[2])
    ):
        return _altered(altered[1], _ACTION.split(altered[2]), profile)
    raise QueryError(
        f"no form for profile {profile.kind}: {statement[:80]}",
        code="migration_form",
        advice="A migration creates a MergeTree table, or adds columns and indexes: see storage/dialect.py.",
    )


def on_cluster(profile: Profile) -> str:
    """The clause, with a space before it, or nothing."""
    return f" ON CLUSTER `{profile.cluster}`" if profile.kind == "cluster" else ""


def stored(table: str, profile: Profile) -> str:
    """The name of the table in which the rows of `table` lie."""
    return f"{table}_local" if profile.kind == "cluster" else table


def truncated(table: str, profile: Profile) -> str:
    """The statement that empties `table`; on return of it no replica has a row."""
    return f"TRUNCATE TABLE {stored(table, profile)}{on_cluster(profile)}{' SYNC' if on_cluster(profile) else ''}"


def database_created(profile: Profile) -> str:
    """The statement that makes the database."""
    return f"CREATE DATABASE IF NOT EXISTS `{profile.database}`{on_cluster(profile)}"


def settings_of(engine_full: str) -> dict[str, str]:
    """The settings at the end of a table's engine, as migrations and system.tables write them."""
    found = _SETTINGS.fullmatch(engine_full)
    pairs = (pair.partition("=") for pair in found[2].split(",")) if found else ()
    return {name.strip(): value.strip() for name, _, value in pairs}


def _created(table: str, columns: str, rest: str, profile: Profile) -> list[str]:
    split = _SETTINGS.fullmatch(rest)
    clauses = split[1].strip() if split else rest.strip()
    ours = {**_DURABLE, "non_replicated_deduplication_window": _WINDOW}
    kept = {name: value for name, value in settings_of(rest).items() if name not in ours}
    told = ",\n  ".join(f"{name} = {value}" for name, value in {**kept, **required_settings(profile.kind)}.items())
    engine = _REPLICATED if profile.kind == "cluster" else ENGINES[profile.kind]
    where = f"{stored(table, profile)}{on_cluster(profile)}"
    made = [f"CREATE TABLE IF NOT EXISTS {where} (\n{columns}\n)\nENGINE = {engine}\n{clauses}\nSETTINGS\n  {told}"]
    if profile.kind == "cluster":
        first = "origin" if re.search(r"^\s*origin ", columns, re.MULTILINE) else columns.split(maxsplit=1)[0]
        made.append(
            f"CREATE TABLE IF NOT EXISTS {table}{on_cluster(profile)} AS {stored(table, profile)}\n"
            f"ENGINE = Distributed('{profile.cluster}', '{profile.database}', '{stored(table, profile)}',"
            f" cityHash64({first}))"
        )
    return made


def _altered(table: str, actions: list[str], profile: Profile) -> list[str]:
    made = [f"ALTER TABLE {stored(table, profile)}{on_cluster(profile)}\n  " + ",\n  ".join(actions)]
    columns = [action for action in actions if action.startswith("ADD COLUMN ")]  # a Distributed table has no index
    if profile.kind == "cluster" and columns:
        made.append(f"ALTER TABLE {table}{on_cluster(profile)}\n  " + ",\n  ".join(columns))
    return made
