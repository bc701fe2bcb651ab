"""Single changes at random places of a small ledger: the verifier names each, and never falls over one.

One database, one change at a time, taken back afterwards. A row is read, changed in one column, and put in its place;
of an entry also its JSON is changed value by value, with the leaf beside it made anew, as somebody would who knows how.
"""

import random
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from storage.clickhouse import SWEEP, Database
from storage.merkle import leaf_hash
from storage.typed import TABLES
from tests.integration.test_audit import GATEWAY, Deployment

SEED = 20260303
CHANGES = 240
FILED = ("entries", "parts", "keys", "segment_keys", "checkpoints")
_PLACES = (
    "SELECT name, type FROM system.columns WHERE database = {db:String} AND table = {table:String} ORDER BY position"
)
ODD: tuple[Any, ...] = (None, True, -1, 0, 2**53, 1.5, "", "x", [], [[]], {}, {"a": 1}, "🙂", 10**18)


@pytest.fixture
def small(embedded: Database, tmp_path: Path) -> Deployment:
    return Deployment(embedded, tmp_path, decisions=4)


class Table:
    """A table whose rows can be read and put back whole."""

    def __init__(self, database: Database, name: str) -> None:
        self._database, self.name = database, name
        found = database.rows(_PLACES, {"db": database.profile.database, "table": name})
        self.columns, self.types = [row[0] for row in found], [row[1] for row in found]
        self._turn = 0

    def rows(self) -> list[tuple[Any, ...]]:
        columns = ", ".join(f"`{column}`" for column in self.columns)
        return self._database.rows(f"SELECT {columns} FROM {self.name} ORDER BY ALL", caps=SWEEP)

    def put(self, rows: list[tuple[Any, ...]]) -> None:
        """These rows and no others."""
        self._turn += 1
        self._database.command(f"TRUNCATE TABLE {self.name}")
        self._database.insert(self.name, self.columns, rows, token=f"{self.name} {self._turn}")


def other(value: Any, kind: str, chance: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bytes):
        at = chance.randrange(len(value)) if value else 0
        return value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :] if value else b"x"
    if isinstance(value, UUID):
        return UUID(int=value.int ^ 1 << chance.randrange(128))
    if isinstance(value, int):
        bits = 8 if "UInt8" in kind else 16 if "UInt16" in kind else 30
        return value ^ 1 << chance.randrange(bits)
    if isinstance(value, float):
        return value + chance.choice([1.0, 1e-9])
    if isinstance(value, list):
        return [*value, "x"]
    return "x" if value is None or value == "" else value[:-1] if chance.random() < 0.5 else f"{value}x"


def edited(value: Any, chance: random.Random) -> Any:
    """JSON with one value, somewhere inside, replaced, added or left out."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {key: inner for key, inner in value.items() if key != name}
        return {**value, name: edited(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], edited(value[at], chance), *value[at + 1 :]]
    return chance.choice([odd for odd in ODD if odd != value or type(odd) is not type(value)])


def change_of(table: Table, row: tuple[Any, ...], chance: random.Random) -> tuple[str, tuple[Any, ...]]:
    """The row with one change, and what was changed."""
    made = list(row)
    if table.name == "entries" and chance.random() < 0.5:
        at, leaf = table.columns.index("entry"), table.columns.index("leaf")
        made[at] = orjson.dumps(edited(orjson.loads(row[at]), chance), option=orjson.OPT_SORT_KEYS)
        if chance.random() < 0.5:
            made[leaf] = leaf_hash(made[at])
        return made[at].decode(), tuple(made)
    at = chance.randrange(len(row))
    made[at] = other(row[at], table.types[at], chance)
    return f"{table.columns[at]}: {row[at]!r:.80} → {made[at]!r:.80}", tuple(made)


def is_equivalent(
    table: Table, before: tuple[Any, ...], after: tuple[Any, ...], rows: list[tuple[Any, ...]], *, journal: bool
) -> bool:
    """Whether nothing that is stored says otherwise: an unauthenticated hint that contradicts nothing."""
    if before == after:
        return True
    changed = {name for name, one, another in zip(table.columns, before, after, strict=True) if one != another}
    if changed == {"at"} and not journal:
        return True  # where to look for a part or key, up to its entry: README, "What this does not show"
    if changed != {"month"}:
        return False
    if table.name == "parts":
        return True  # a partition's name: README, "What this does not show"
    order, month = table.columns.index("seq"), table.columns.index("month")
    mine = sorted((row[order], row[month]) for row in [*rows, after] if row[0] == after[0] and row is not before)
    return [filed for _, filed in mine] == sorted(filed for _, filed in mine)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("journal", [True, False])
def test_a_single_change_anywhere_is_a_finding_and_never_an_error(
    small: Deployment,
    journal: bool,
) -> None:
    chance = random.Random(SEED + journal)
    assert small.verify(journal=journal).exit_code == 0
    tables = [Table(small.database, name) for name in (*FILED, *TABLES)]
    originals = {table.name: table.rows() for table in tables}
    tables = [table for table in tables if originals[table.name]]
    weights = [6 if table.name == "entries" else 2 if table.name in FILED else 1 for table in tables]
    unseen = []
    for number in range(CHANGES):
        (table,) = chance.choices(tables, weights)
        rows = originals[table.name]
        row = chance.choice(rows)
        what, changed = change_of(table, row, chance)
        table.put([changed if one is row else one for one in rows])
        report = small.verify(journal=journal)
        if report.exit_code != 1 and not is_equivalent(table, row, changed, rows, journal=journal):
            unseen.append((number, table.name, row[0], what, report.exit_code))
        table.put(rows)
    assert not unseen, "\n".join(map(str, unseen))
    assert small.verify(journal=journal).exit_code == 0


def test_a_row_more_and_a_row_less_are_findings(small: Deployment) -> None:
    chance = random.Random(SEED)
    for name in (*FILED, *TABLES):
        table = Table(small.database, name)
        rows = table.rows()
        for row in chance.sample(rows, min(3, len(rows))):
            table.put([*rows, row])
            assert small.verify().exit_code == 1, (name, row)
            table.put([one for one in rows if one is not row])
            gone = small.verify()
            assert gone.exit_code == (2 if name == "checkpoints" else 1), (name, row)
        table.put(rows)
    assert small.verify().exit_code == 0
    assert GATEWAY in small.verify().checked
