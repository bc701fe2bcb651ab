"""Preflight: whether this database can hold evidence, asked of ClickHouse itself before anything is shipped.

Its version; the engine and settings of every table as `system.tables` has them; the settings of an insert as they are
in force for the writer (a server may forbid to change one); and whether an account may alter or delete evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from storage import typed
from storage.accounts import DESTRUCTIVE, EVIDENCE, OVER_OTHERS, RECORDS
from storage.clickhouse import Database
from storage.dialect import ENGINES, required_settings, settings_of, stored
from storage.errors import QueryError, StorageUnfit
from storage.profiles import Account, Profile

MINIMUM: Final = (25, 8)  # a long-term release; CHECK GRANT, which is asked here, is older. Tests run on 26.9 (chDB)
SHOWN: Final = 6  # of what was found: a broad account may do hundreds of things

_COLUMNWISE: Final = re.compile(r"(ALTER UPDATE|ALTER (?:(?:MODIFY|DROP|CLEAR|RENAME) )?COLUMN)\(")

_TABLES: Final = """
SELECT name, engine, engine_full FROM system.tables WHERE database = {database:String} LIMIT 1000
"""
_IN_FORCE: Final = "SELECT name, value FROM system.settings WHERE has({names:Array(String)}, name) LIMIT 100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What was found: the server's version, and what accounts of ours may do to evidence, each in one sentence."""

    version: str
    broad: tuple[str, ...]

    @property
    def told(self) -> str:
        """The findings in one sentence; empty where there are none."""
        more = f" and {len(self.broad) - SHOWN} more" if len(self.broad) > SHOWN else ""
        return "; ".join(self.broad[:SHOWN]) + more


def refuse_old(database: Database) -> str:
    """The server's version.

    Raises:
        StorageUnfit: it is older than `MINIMUM`.
    """
    version = database.version()
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM:
        raise StorageUnfit(
            f"ClickHouse {version} is older than {'.'.join(map(str, MINIMUM))}",
            advice="Upgrade ClickHouse; what was recorded waits in the journal meanwhile.",
        )
    return version


def examine(database: Database) -> Preflight:
    """Look at the migrated database; on return evidence can be kept there.

    Raises:
        StorageUnfit: it cannot, or an account may alter or delete evidence and `allow_broad_grants` is not set.
    """
    version = refuse_old(database)
    faults = [*_tables(database), *_inserts(database)]
    if faults:
        raise StorageUnfit(f"ClickHouse would not keep what it acknowledges: {'; '.join(faults)}")
    profile = database.profile
    found = Preflight(version=version, broad=tuple(_broad(database)) if profile.kind != "chdb" else ())
    if found.broad and not profile.allow_broad_grants:
        raise StorageUnfit(
            f"{found.told}: evidence could be altered or deleted by whoever has this account",
            advice="Make the accounts that `answerable migrate --print-sql` prints, or set storage.allow_broad_grants:"
            " every page of the desk will say so.",
        )
    return found


def _tables(database: Database) -> Iterator[str]:
    profile = database.profile
    found = {name: (engine, full) for name, engine, full in database.rows(_TABLES, {"database": profile.database})}
    wanted = required_settings(profile.kind)
    for table in (*EVIDENCE, *typed.TABLES, RECORDS):
        name = stored(table, profile)
        engine, full = found.get(name, ("", ""))
        if engine != ENGINES[profile.kind]:
            yield f"table {name} is {engine or 'not there'}, not {ENGINES[profile.kind]}"
            continue
        has = settings_of(full)
        yield from (
            f"table {name} has {setting} = {has.get(setting, 'its default')}, not {value}"
            for setting, value in wanted.items()
            if has.get(setting) != value and not (table == RECORDS and setting.endswith("deduplication_window"))
        )
        if profile.kind == "cluster" and found.get(table, ("",))[0] != "Distributed":
            yield f"table {table} is {found.get(table, ('not there',))[0]}, not Distributed"


def _inserts(database: Database) -> Iterator[str]:
    wanted = database.profile.insert_settings()
    try:
        rows = database.rows(_IN_FORCE, {"names": list(wanted)}, account=Account.WRITER, settings=wanted)
    except QueryError as error:  # a constraint
        yield f"an insert cannot be told what it needs: {error.message}"
        return
    in_force = dict(rows)
    for name, value in wanted.items():
        if in_force.get(name) != str(value):
            yield f"an insert has {name} = {in_force.get(name, 'no such setting')}, not {value}"


def _broad(database: Database) -> Iterator[str]:
    """What accounts that processes hold may do to evidence, and to accounts; the same user is asked once."""
    profile = database.profile
    accounts = {profile.login(account): account for account in (Account.PROJECTOR, Account.READER, Account.WRITER)}
    for login, account in accounts.items():
        found: dict[str, list[str]] = {}
        for place, privileges in _places(profile):
            may = ", ".join(one for one in privileges if _is_granted(database, one, place, account))
            if may:
                found.setdefault(may, []).append(place.replace("`", ""))
        for may, place in _on_columns(database, account):
            found.setdefault(may, []).append(place)
        yield from (f"{login.user} may {may} on {', '.join(places)}" for may, places in found.items())


def _places(profile: Profile) -> Iterator[tuple[str, tuple[str, ...]]]:
    names = dict.fromkeys(name for table in EVIDENCE for name in (stored(table, profile), table))
    for name in names:
        yield f"`{profile.database}`.`{name}`", DESTRUCTIVE
    yield f"`{profile.database}`.*", ("DROP DATABASE",)
    yield "*.*", OVER_OTHERS


def _on_columns(database: Database, account: Account) -> Iterator[tuple[str, str]]:
    """What is granted on single columns only, which CHECK GRANT on the table does not tell."""
    profile = database.profile
    names = {name for table in EVIDENCE for name in (stored(table, profile), table)}
    for (line,) in database.rows("SHOW GRANTS FINAL", account=account):
        said, _, place = line.partition(" ON ")
        where, _, table = place.partition(" TO ")[0].replace("`", "").partition(".")
        if where == profile.database and table in names:
            yield from ((f"{may} of columns", f"{where}.{table}") for may in _COLUMNWISE.findall(said))


def _is_granted(database: Database, privilege: str, place: str, account: Account) -> bool:
    ((granted,),) = database.rows(f"CHECK GRANT {privilege} ON {place}", account=account)
    return int(granted) == 1
