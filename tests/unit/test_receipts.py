from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import receipts
from storage.batch import BatchWriter, Committed, key_id
from storage.errors import Unverifiable
from storage.merkle import Frontier, leaf_hash
from storage.segment import Counters, SegmentHeader

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = PRIVATE.public_key().public_bytes_raw()


def _committed(count: int) -> tuple[Committed, list[bytes]]:
    frontier = Frontier()
    for number in range(11):
        frontier.append(leaf_hash(bytes([number])))
    header = SegmentHeader(
        origin="d/s/1",
        first_seq=11,
        salt=bytes(16),
        created_ns=0,
        process_key=PUBLIC,
        host_key=bytes(32),
        vouch=bytes(64),
        sealed_key=bytes(80),
        frontier=frontier.copy(),
    )
    batch = BatchWriter(header, 0, frontier, 4096)
    leaves = [batch.record(0, b"entry %d" % number) for number in range(count)]
    _, committed = batch.finish(now_ns=0, counters=Counters(), key=key_id(PUBLIC), sign=PRIVATE.sign)
    return committed, leaves


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_every_receipt_of_a_batch_verifies_against_the_key_that_signed_it(count: int) -> None:
    committed, leaves = _committed(count)
    for number, leaf in enumerate(leaves):
        text = receipts.write(committed, 11 + number)
        read = receipts.parse(text)
        assert (read.origin, read.seq, read.leaf, read.size) == ("d/s/1", 11 + number, leaf, 11 + count)
        read.verify(PUBLIC)


def test_no_changed_receipt_verifies() -> None:
    committed, leaves = _committed(5)
    good = receipts.parse(receipts.write(committed, 13))
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(Unverifiable, match="another process key"):
        good.verify(other)
    with pytest.raises(Unverifiable, match="signature"):
        replace(good, key_id=key_id(other)).verify(other)
    for changed in (
        {"seq": 12},
        {"seq": 16},
        {"seq": 10},
        {"leaf": leaves[1]},
        {"origin": "d/s/2"},
        {"first": 10},
        {"count": 6},
        {"count": 0},
        {"path": ()},
        {"path": good.path[:-1]},
        {"path": (*good.path, leaves[0])},
        {"size": 17},
        {"root": bytes(32)},
    ):
        with pytest.raises(Unverifiable):
            replace(good, **changed).verify(PUBLIC)


def test_a_receipt_has_one_spelling() -> None:
    committed, _ = _committed(2)
    good = receipts.write(committed, 11)
    fields = good.split(" ")
    broken = ["", good + " ", "v2" + good[2:], good.replace(" 11 ", " 011 ", 1), good.replace(" 11 ", " +11 ", 1)]
    broken.append(" ".join([*fields[:3], fields[3] + "=", *fields[4:]]))
    broken.append(" ".join([*fields[:6], "", *fields[7:]]))
    broken.append(" ".join([*fields[:9], fields[9][:-2], fields[10]]))
    broken.append(good.replace(" 11 ", " " + "9" * 30 + " ", 1))
    broken += [good.replace(" 11 ", f" {odd} ", 1) for odd in ("11\n", "9" * 5000, "²", "\u0661")]
    broken += [good + "\n", good.replace(" ", "\n", 1)]
    for text in broken:
        with pytest.raises(Unverifiable):
            receipts.parse(text)
