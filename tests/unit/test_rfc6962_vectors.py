"""Inclusion and consistency proofs against published vectors (tests/vectors/rfc6962/README.md states their origin)."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from storage import merkle
from storage.errors import Unverifiable
from tests.support import witness

VECTORS = Path(__file__).parents[1] / "vectors" / "rfc6962"


def vectors(kind: str) -> list[Any]:
    return [pytest.param(one, id=one["name"]) for one in json.loads((VECTORS / f"{kind}.json").read_text())]


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def path(one: dict[str, Any]) -> list[bytes]:
    return [raw(node) for node in one["proof"] or []]


@pytest.mark.parametrize("one", vectors("inclusion"))
def test_a_published_inclusion_proof_is_judged_as_published(one: dict[str, Any]) -> None:
    def check() -> None:
        merkle.verify_inclusion(
            raw(one["leafHash"]), index=one["leafIdx"], size=one["treeSize"], path=path(one), root=raw(one["root"])
        )

    if one["wantErr"]:
        with pytest.raises(Unverifiable):
            check()
    else:
        check()


@pytest.mark.parametrize("one", vectors("consistency"))
def test_a_published_consistency_proof_is_judged_as_published(one: dict[str, Any]) -> None:
    old, size, nodes = one["size1"], one["size2"], path(one)
    roots = raw(one["root1"]), raw(one["root2"])

    def check() -> None:
        merkle.verify_consistency(old_size=old, old_root=roots[0], size=size, root=roots[1], path=nodes)

    if one["wantErr"]:
        with pytest.raises(Unverifiable):
            check()
    else:
        check()
    if 0 < old < size:  # the witness of our tests judges alike; the other sizes it handles by themselves
        assert witness.grows(*roots, old, size, nodes) is not one["wantErr"]


def test_both_verdicts_are_among_the_vectors() -> None:
    for kind in ("inclusion", "consistency"):
        wanted = [one.values[0]["wantErr"] for one in vectors(kind)]
        assert len(wanted) == 98
        assert {True, False} == set(wanted)
