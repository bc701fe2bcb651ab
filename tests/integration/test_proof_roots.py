"""Roots of full tiles are kept between proofs: they spare reading, never hide what is stored, and are bounded."""

import pytest

from storage import proofs
from storage.clickhouse import Database
from storage.errors import Unverifiable
from storage.proofs import ROOTS_MAX, Roots, Tiles, prove
from tests.integration.test_audit import GATEWAY, Deployment
from tests.integration.test_ledger import PUBLIC


def test_roots_are_kept_by_ledger_level_and_number_and_the_oldest_give_way() -> None:
    roots = Roots()
    roots.keep("a", 0, {n: n.to_bytes(32, "big") for n in range(ROOTS_MAX)})
    roots.keep("b", 0, {0: b"b" * 32})
    assert roots.get("b", 0, [0, 1]) == [b"b" * 32, None]
    assert roots.get("a", 0, [0]) == [None]
    assert roots.get("a", 0, [1]) == [(1).to_bytes(32, "big")]
    assert roots.get("a", 1, [1]) == [None]
    roots.forget()
    assert roots.get("b", 0, [0]) == [None]


def test_a_second_proof_reads_no_tile_again_that_only_made_the_right_edge(
    embedded: Database, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(embedded, tmp_path, decisions=300, rounds=3)
    assert prove(deployment.database, GATEWAY, 700, public=PUBLIC) is not None
    asked: list[str] = []
    real = Database.rows

    def watched(self: Database, sql: str, *args: object, **named: object) -> object:
        asked.append(sql)
        return real(self, sql, *args, **named)

    monkeypatch.setattr(Database, "rows", watched)
    assert prove(deployment.database, GATEWAY, 710, public=PUBLIC) is not None
    assert proofs._TILES not in asked
    assert Tiles(deployment.database, "acme/other/1")._roots is proofs._roots[deployment.database]


def test_a_tile_that_was_changed_and_mended_leaves_no_wrong_root_behind(embedded: Database, tmp_path) -> None:
    deployment = Deployment(embedded, tmp_path, decisions=300, rounds=3)
    where = f"origin = '{GATEWAY}' AND level = 0 AND n = 1"
    ((hashes,),) = embedded.rows(f"SELECT hashes FROM tiles WHERE {where}")
    deployment.change(f"ALTER TABLE tiles UPDATE hashes = reverse(hashes) WHERE {where}")
    with pytest.raises(Unverifiable):
        prove(embedded, GATEWAY, 10, public=PUBLIC)
    deployment.change(f"ALTER TABLE tiles UPDATE hashes = unhex('{hashes.hex()}') WHERE {where}")
    assert prove(embedded, GATEWAY, 10, public=PUBLIC) is not None
