"""What is recent is verified by itself: tampering with it is named, and old data is left to a whole one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.clickhouse import Database
from storage.profiles import Profile
from storage.recent import ENTRIES_MIN, audit_recent
from storage.verify import Report
from tests.integration.test_audit import (  # noqa: F401 - fixtures
    CHANGED,
    GATEWAY,
    KEEPER,
    NEW_LEAF,
    TAMPERING,
    Deployment,
    deployment,
    named,
    template,
)
from tests.integration.test_ledger import PUBLIC
from tests.support.database import opened

# what only a whole verification can tell: rows that belong to no entry, or to no ledger
LEFT_TO_THE_WHOLE = {
    "add a part of no entry",
    "add a key of no entry",
    "forge a typed row",
    "forge a typed row of nowhere",
}
OLD, NEW = 300, 2_700  # entries of a ledger of 2,802, of which the newest 1,024 are recent


def recent(made: Deployment) -> Report:
    return audit_recent(made.database, public=PUBLIC, data=made.data, entries_max=1)


@pytest.mark.parametrize("name", sorted(TAMPERING.keys() - LEFT_TO_THE_WHOLE))
def test_tampering_with_what_is_recent_is_named(deployment: Deployment, name: str) -> None:  # noqa: F811
    sql, claims, origin, seq = TAMPERING[name]
    assert not recent(deployment).broken
    deployment.change(sql)
    found = named(recent(deployment))
    if name == "change an entry and its leaf":  # no tile is full yet: the signed root shows it
        claims, seq = {"tree"}, 0
    assert claims & {claim for claim, where, _ in found if where == origin}
    assert (origin, seq) in {(where, at) for _, where, at in found}


@pytest.fixture(scope="module")
def grown(embedded_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A ledger of which only the newest part is recent."""
    with opened(Profile(kind="chdb", database=f"grown{os.getpid()}", path=embedded_path)) as database:
        yield Deployment(database, tmp_path_factory.mktemp("grown"), decisions=200, rounds=13)


@pytest.fixture
def long(grown: Deployment, embedded: Database, tmp_path: Path) -> Deployment:
    source = grown.database.profile.database
    for (table,) in grown.database.rows("SELECT name FROM system.tables WHERE database = currentDatabase()"):
        if table != "migrations":
            embedded.command(f"INSERT INTO {table} SELECT * FROM `{source}`.{table}")
    shutil.copytree(grown.data, tmp_path, dirs_exist_ok=True)
    made = Deployment.__new__(Deployment)
    made.database, made.data = embedded, tmp_path
    return made


def test_only_the_newest_entries_are_looked_at_and_their_roots_lead_to_what_was_signed(long: Deployment) -> None:
    report = recent(long)
    assert not report.broken
    total = len(long.database.rows("SELECT seq FROM entries WHERE origin = {o:String}", {"o": GATEWAY}))
    assert total == 2_802
    assert report.checked[GATEWAY] == total - (total - ENTRIES_MIN) // 256 * 256
    assert {"tree", "entries", "parts", "keys", "projections"} <= {claim.name for claim in report.claims}
    assert not {"counters", "scopes"} & {claim.name for claim in report.claims if claim.origin == GATEWAY}


@pytest.mark.parametrize(
    ("sql", "claim"),
    [
        (
            "ALTER TABLE entries UPDATE entry = replaceOne(entry, '\"status\":200', '\"status\":201') WHERE {at}",
            "entries",
        ),
        ("ALTER TABLE entries UPDATE leaf = toFixedString('x', 32) WHERE {at}", "entries"),
        ("ALTER TABLE entries DELETE WHERE {at}", "entries"),
        ("ALTER TABLE keys DELETE WHERE origin = '" + GATEWAY + "' AND key_id IN ({id})", "keys"),
        ("ALTER TABLE parts DELETE WHERE origin = '" + GATEWAY + "' AND key_id IN ({id})", "parts"),
        ("ALTER TABLE decisions UPDATE favourable = NOT favourable WHERE {at}", "projections"),
    ],
)
def test_old_data_is_left_to_the_whole_verification_and_recent_data_is_not(
    long: Deployment, sql: str, claim: str
) -> None:
    def change(seq: int) -> None:
        at = f"origin = '{GATEWAY}' AND seq = {seq}"
        long.change(sql.format(at=at, id=f"SELECT id FROM entries WHERE {at}"))

    change(OLD)
    if claim != "projections":  # typed rows stand under the extraction entry, which is recent or is not
        assert not recent(long).broken
    change(NEW)
    assert (claim, GATEWAY, NEW) in named(recent(long))
    assert {(GATEWAY, OLD), (GATEWAY, NEW)} <= {(origin, seq) for _, origin, seq in named(long.verify())}


def test_an_old_tile_that_was_changed_breaks_the_signed_root_of_what_is_recent(long: Deployment) -> None:
    long.change(f"ALTER TABLE tiles UPDATE hashes = reverse(hashes) WHERE origin = '{GATEWAY}' AND level = 0 AND n = 0")
    assert "tree" in {claim for claim, origin, _ in named(recent(long)) if origin == GATEWAY}


def test_a_tile_that_was_changed_since_the_last_look_is_seen_and_one_that_was_mended_holds_again(
    long: Deployment,
) -> None:
    """By the same handle, as a keeper looks: what it once made of the tiles says nothing of how they are now."""
    assert not recent(long).broken
    change = f"ALTER TABLE tiles UPDATE hashes = reverse(hashes) WHERE origin = '{GATEWAY}' AND level = 0 AND n = 0"
    long.change(change)
    assert "tree" in {claim for claim, origin, _ in named(recent(long)) if origin == GATEWAY}
    long.change(change)  # reversed again: as it was
    assert not recent(long).broken


def test_a_recent_entry_its_leaf_and_its_tile_changed_together_break_the_signed_root(long: Deployment) -> None:
    where = f"origin = '{GATEWAY}' AND seq = 2500"
    long.change(f"ALTER TABLE entries UPDATE entry = {CHANGED}, leaf = {NEW_LEAF} WHERE {where}")
    ((leaf,),) = long.database.rows(f"SELECT leaf FROM entries WHERE {where}")
    n, at = divmod(2500, 256)
    tile = f"origin = '{GATEWAY}' AND level = 0 AND n = {n}"
    ((hashes,),) = long.database.rows(f"SELECT hashes FROM tiles WHERE {tile}")
    forged = (hashes[: at * 32] + leaf + hashes[at * 32 + 32 :]).hex()
    long.change(f"ALTER TABLE tiles UPDATE hashes = unhex('{forged}') WHERE {tile}")
    assert "tree" in {claim for claim, origin, _ in named(recent(long)) if origin == GATEWAY}


def test_without_its_tiles_the_tree_of_what_is_recent_cannot_be_told(long: Deployment) -> None:
    long.change(f"ALTER TABLE tiles DELETE WHERE origin = '{GATEWAY}'")
    long.change(f"ALTER TABLE entries DELETE WHERE origin = '{GATEWAY}' AND seq = 5")
    report = recent(long)
    assert not report.broken
    assert ("tree", GATEWAY) in {(claim.name, claim.origin) for claim in report.claims if claim.verdict == "UNKNOWN"}


def test_keeper_entries_are_recent_too(long: Deployment) -> None:
    ((last,),) = long.database.rows(f"SELECT max(seq) FROM explanations WHERE origin = '{KEEPER}'")
    long.change(f"ALTER TABLE explanations UPDATE codes = ['R99'] WHERE origin = '{KEEPER}' AND seq = {last}")
    assert ("projections", KEEPER, last) in named(recent(long))
