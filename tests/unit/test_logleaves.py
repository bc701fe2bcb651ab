"""Leaves of the log of logs: one form, and an order in which they may follow each other."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import logleaves, notes
from storage.errors import Unverifiable
from storage.logleaves import Draft, LogLeaf, Standing, State, encode, is_log, parse
from storage.notes import Checkpoint

KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
LOG, SHARD = "acme/log", "acme/gateway-0/1"


def opening(size: int = 0) -> Draft:
    return logleaves.opening(SHARD, size, process_key=bytes(32), host_key=bytes(32), vouch=bytes(64))


def checkpoint(size: int, *, origin: str = SHARD, stated: int | None = None) -> Draft:
    text = Checkpoint(origin=origin, size=size, root=bytes([size]) * 32).text()
    return logleaves.checkpoint(SHARD, size if stated is None else stated, notes.sign(text, name=origin, key=KEY))


def following(*drafts: Draft) -> State:
    state = State()
    for n, draft in enumerate(drafts):
        state.take(leaf(draft, n))
    return state


def leaf(draft: Draft, n: int = 0, ts_ns: int = 1_000) -> LogLeaf:
    return encode(draft, log=LOG, n=n, ts_ns=ts_ns + n)


def test_a_leaf_is_one_line_of_sorted_json_and_is_read_as_it_was_made() -> None:
    made = leaf(checkpoint(7), 3)
    assert made.raw == orjson.dumps(orjson.loads(made.raw), option=orjson.OPT_SORT_KEYS)
    assert b"\n" not in made.raw
    assert parse(made.raw, log=LOG) == made
    assert set(orjson.loads(made.raw)) == {"v", "log", "n", "ts", "kind", "origin", "size", "note"}


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"log": "other/log"},
        {"kind": "party"},
        {"n": -1},
        {"n": True},
        {"n": 1.0},
        {"n": 1 << 63},
        {"size": "7"},
        {"origin": ""},
        {"origin": 7},
        {"ts": "soon"},
        {"ts": None},
    ],
    ids=str,
)
def test_what_no_keeper_writes_is_no_leaf(change: dict[str, Any]) -> None:
    said = orjson.loads(leaf(checkpoint(7)).raw)
    with pytest.raises(Unverifiable, match="not a leaf"):
        parse(orjson.dumps({**said, **change}), log=LOG)
    for name in change:
        with pytest.raises(Unverifiable, match="not a leaf"):
            parse(orjson.dumps({key: value for key, value in said.items() if key != name}), log=LOG)


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"\xff", b"{}"])
def test_no_json_is_no_leaf(raw: bytes) -> None:
    with pytest.raises(Unverifiable, match="not a leaf"):
        parse(raw, log=LOG)


def test_a_shard_is_opened_grows_is_closed_and_opened_again() -> None:
    state = following(opening(), checkpoint(5), logleaves.closing(SHARD, 9), checkpoint(9), opening(9), checkpoint(12))
    standing = state.of(SHARD)
    assert (standing.size, standing.opened, standing.end, standing.is_open) == (12, 9, 12, True)
    assert Standing.from_json(standing.as_json()) == standing
    assert state.ts_ns == standing.ts_ns == 1_005
    closed = following(opening(), checkpoint(5), logleaves.closing(SHARD, 9)).of(SHARD)
    assert (closed.size, closed.end, closed.is_open) == (5, 9, False)


REFUSED: dict[str, Callable[[], State]] = {
    "a checkpoint before any opening": lambda: following(checkpoint(5)),
    "the same size again": lambda: following(opening(), checkpoint(5), checkpoint(5)),
    "a smaller size": lambda: following(opening(), checkpoint(5), checkpoint(4)),
    "a checkpoint beyond the closing": lambda: following(opening(), logleaves.closing(SHARD, 9), checkpoint(10)),
    "a closing before the last checkpoint": lambda: following(opening(), checkpoint(5), logleaves.closing(SHARD, 4)),
    "a second closing": lambda: following(opening(), logleaves.closing(SHARD, 4), logleaves.closing(SHARD, 4)),
    "an opening where the writer already began": lambda: following(opening(), opening()),
    "an opening before the last closing": lambda: following(opening(), logleaves.closing(SHARD, 4), opening(3)),
    "a checkpoint of another shard": lambda: following(opening(), checkpoint(5, origin="acme/other/1")),
    "a checkpoint of another size": lambda: following(opening(), checkpoint(5, stated=6)),
    "a note that is none": lambda: following(
        opening(), Draft(kind="checkpoint", shard=SHARD, size=5, fields={"note": "no note"})
    ),
    "a checkpoint without its note": lambda: following(opening(), Draft(kind="checkpoint", shard=SHARD, size=5)),
    "growth after quarantine": lambda: following(opening(), logleaves.quarantine(SHARD, 0), checkpoint(5)),
    "an opening after quarantine": lambda: following(opening(), logleaves.quarantine(SHARD, 0), opening(5)),
    "a second quarantine": lambda: following(opening(), logleaves.quarantine(SHARD, 0), logleaves.quarantine(SHARD, 0)),
    "an erasure at another place": lambda: following(
        opening(), Draft(kind="erasure", shard=SHARD, size=5, fields={"seq": 5, "leaf": "A" * 43})
    ),
    "an opening of no shard": lambda: following(Draft(kind="open", shard="", size=0)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_follow_is_refused(case: str) -> None:
    with pytest.raises(Unverifiable):
        REFUSED[case]()


def test_a_refused_leaf_changes_nothing() -> None:
    state = following(opening(), checkpoint(5))
    before = dict(state.shards)
    with pytest.raises(Unverifiable):
        state.take(leaf(checkpoint(4), 2))
    assert state.shards == before


def test_whoever_says_nothing_while_others_speak_is_silent_unless_closed() -> None:
    state = following(opening(), checkpoint(5))
    other = logleaves.opening("acme/gateway-1/1", 0, process_key=bytes(32), host_key=bytes(32), vouch=bytes(64))
    state.take(leaf(other, 2, ts_ns=2_000))
    assert set(state.silent(within_ns=900)) == {SHARD}
    assert not state.silent(within_ns=1_001)
    state.take(leaf(logleaves.closing(SHARD, 5), 3))
    assert not state.silent(within_ns=900)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("acme/log", True), ("acme/log/1", False), ("/log", False), ("acme/logs", False), ("acme/gateway-0/1", False)],
)
def test_a_log_of_logs_is_known_by_its_name(origin: str, expected: bool) -> None:
    assert is_log(origin) is expected
