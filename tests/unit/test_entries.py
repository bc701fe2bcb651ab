from __future__ import annotations

import hashlib
import math

import orjson
import pytest

from storage import entries
from storage.entries import Draft, Part, Ref
from storage.errors import EntryTooLarge


def _draft(**changed: object) -> Draft:
    known: dict = {
        "kind": "decision",
        "tenant": "acme",
        "actor": "app:chat",
        "id": "i",
        "ts_ns": 1_700_000_000_000_000_001,
        "config": "c0",
    }
    return Draft(**{**known, **changed})


def test_an_entry_is_one_line_of_sorted_json_with_every_common_field() -> None:
    part = Part(
        name="request",
        index=0,
        media="application/json",
        encoding="zstd",
        len=3,
        sha256=b"s" * 32,
        key="k",
        dek_commit=b"d" * 32,
        opening_commit=b"p" * 32,
    )
    entry = entries.encode(
        _draft(parts=(part,), prev=(Ref("b", b"l" * 32),), fields={"status": 200, "note": "a\nb"}),
        origin="dep/gateway-0/1",
        seq=7,
        scope_seq=3,
    )
    assert b"\n" not in entry
    read = entries.decode(entry)
    assert entry == orjson.dumps(read, option=orjson.OPT_SORT_KEYS)
    assert read.keys() >= entries.COMMON
    assert (read["origin"], read["seq"], read["scope_seq"], read["status"]) == ("dep/gateway-0/1", 7, 3, 200)
    assert read["ts"] == "1700000000000000001"
    assert read["parts"][0]["sha256"] == "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"
    assert read["prev"] == [{"id": "b", "leaf": "bGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGw"}]
    assert entries.leaf_hash(entry) == hashlib.sha256(b"\0" + entry).digest()


def test_numbers_that_readers_disagree_on_become_strings() -> None:
    fields = {
        "a": math.nan,
        "b": [math.inf, -math.inf, 1.5],
        "c": {"big": 2**53 + 1, "small": -(2**53) - 1, "edge": 2**53},
        "d": (True, None, 2**80),
    }
    read = entries.decode(entries.encode(_draft(fields=fields), origin="o", seq=0, scope_seq=0))
    assert read["a"] == "NaN"
    assert read["b"] == ["Infinity", "-Infinity", 1.5]
    assert read["c"] == {"big": "9007199254740993", "small": "-9007199254740993", "edge": 2**53}
    assert read["d"] == [True, None, str(2**80)]


def test_an_entry_over_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    spare = entries.ENTRY_BYTES_MAX - len(entries.encode(_draft(fields={"x": ""}), origin="o", seq=0, scope_seq=0))
    assert len(entries.encode(_draft(fields={"x": "y" * spare}), origin="o", seq=0, scope_seq=0)) == 65_535
    with pytest.raises(EntryTooLarge):
        entries.encode(_draft(fields={"x": "y" * (spare + 1)}), origin="o", seq=0, scope_seq=0)


def test_an_unknown_kind_a_shadowing_field_and_foreign_values_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        entries.encode(_draft(kind="opinion"), origin="o", seq=0, scope_seq=0)
    with pytest.raises(ValueError, match="shadow"):
        entries.encode(_draft(fields={"seq": 1}), origin="o", seq=0, scope_seq=0)
    with pytest.raises(TypeError, match="bytes"):
        entries.encode(_draft(fields={"x": b"raw"}), origin="o", seq=0, scope_seq=0)


def test_what_is_no_entry_does_not_decode() -> None:
    for wrong in (b"[]", b"{", b'{"a":\n1}', b"\xff"):
        with pytest.raises(ValueError):
            entries.decode(wrong)
