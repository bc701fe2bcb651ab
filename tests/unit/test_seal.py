from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from storage import seal
from storage.entries import Part
from storage.errors import Unverifiable
from storage.ids import b64
from storage.segment import OpenPart, StoredPart

DEK = bytes(range(32))
KEY_ID = "017f22e2-79b0-7000-98c4-dc0c0c07398f"
ORIGIN = "dep/gateway-0/1"
JSON = b'{"applicant":{"income":4000,"loan":120000}}' * 40


def _sealer() -> seal.Sealer:
    return seal.Sealer(DEK, KEY_ID, ORIGIN)


@pytest.mark.parametrize(
    ("plaintext", "media", "encoding"),
    [
        (b"", "application/json", "identity"),
        (b"short", "text/plain", "identity"),
        (JSON, "application/json", "zstd"),
        (hashlib.shake_128(b"noise").digest(2000), "application/octet-stream", "identity"),
        (JSON * 50, "application/octet-stream", "identity"),
    ],
)
def test_a_part_opens_to_what_was_sealed_and_is_compressed_where_it_pays(
    plaintext: bytes, media: str, encoding: str
) -> None:
    part, stored = _sealer().seal("request", media, plaintext, 3)
    assert (part.encoding, part.len, part.chunks, part.index) == (encoding, len(stored.data), 1, 3)
    assert (stored.key_id, stored.index, stored.chunk) == (KEY_ID, 3, 0)
    assert seal.open_part(part, [stored.data], DEK, ORIGIN) == plaintext


def test_a_disclosed_plaintext_is_checked_with_hmac_alone() -> None:
    part, _ = _sealer().seal("response", "text/plain", b"approved", 0)
    message = b"answerable/plain/v1" + (8).to_bytes(4, "little") + b"response" + b"approved"
    opening = b"answerable/opening/v1" + bytes(4) + (8).to_bytes(4, "little") + b"response"
    secret = hmac.digest(DEK, opening, "sha256")
    assert secret == seal.opening(DEK, "response", 0)
    assert part.opening_commit == hmac.digest(secret, message, "sha256")
    assert part.opening_commit == seal.plain_commit(secret, "response", b"approved")
    assert part.dek_commit == hmac.digest(DEK, b"answerable/dek/v1", "sha256")


def test_each_part_has_an_opening_of_its_own() -> None:
    places = [(name, index) for name in ("request", "response", "") for index in (0, 1, 255, 256)]
    assert len({seal.opening(DEK, *place) for place in places} | {seal.dek_commit(DEK), DEK}) == len(places) + 2


def test_parts_of_before_committed_under_the_key_itself_and_open_as_they_did() -> None:
    part, stored = _sealer().seal("response", "text/plain", b"approved", 0)
    said = part.as_json()
    del said["opening_commit"]
    message = b"answerable/plain/v1" + (8).to_bytes(4, "little") + b"response" + b"approved"
    said["plain_commit"] = b64(hmac.digest(DEK, message, "sha256"))
    old = Part.from_json(said)
    assert old.as_json() == said, "a begin entry's parts are stated again as they are"
    assert seal.open_part(old, [stored.data], DEK, ORIGIN) == b"approved"
    assert Part.from_json(said | {"plain_commit": None}).as_json() == said | {"plain_commit": None}
    for forged in (said | {"plain_commit": b64(bytes(32))}, said | {"opening_commit": said["plain_commit"]}):
        with pytest.raises(Unverifiable):
            seal.open_part(Part.from_json(forged), [stored.data], DEK, ORIGIN)
    with pytest.raises(KeyError):
        Part.from_json({name: value for name, value in said.items() if name != "plain_commit"})


@pytest.mark.parametrize("media", ["text/event-stream", "application/octet-stream"])
def test_a_streamed_part_opens_to_all_its_chunks(media: str) -> None:
    stream = _sealer().open_stream_part("response", media, 1)
    chunks = [stream.chunk(b"data: %d\n\n" % number * 30) for number in range(5)]
    part = stream.finish()
    assert part.chunks == 5
    assert [stored.chunk for stored in chunks] == [0, 1, 2, 3, 4]
    plaintext = b"".join(b"data: %d\n\n" % number * 30 for number in range(5))
    assert seal.open_part(part, [stored.data for stored in chunks], DEK, ORIGIN) == plaintext
    empty = _sealer().open_stream_part("response", media, 1).finish()
    assert seal.open_part(empty, [], DEK, ORIGIN) == b""


def _stream() -> tuple[Part, list[StoredPart]]:
    stream = _sealer().open_stream_part("response", "text/plain", 0)
    chunks = [stream.chunk(b"one"), stream.chunk(b"two")]
    return stream.finish(), chunks


def test_no_change_of_stored_bytes_key_origin_or_entry_goes_unnoticed() -> None:
    part, chunks = _stream()
    one, two = (stored.data for stored in chunks)
    joined = hashlib.sha256(two + one).digest()
    forgeries = [
        (part, [one], DEK, ORIGIN),
        (part, [two, one], DEK, ORIGIN),
        (part, [one, two, b""], DEK, ORIGIN),
        (part, [one[:-1], two], DEK, ORIGIN),
        (part, [one, bytes([two[0] ^ 1]) + two[1:]], DEK, ORIGIN),
        (replace(part, sha256=joined), [two, one], DEK, ORIGIN),
        (part, [one, two], bytes(32), ORIGIN),
        (part, [one, two], DEK, "dep/gateway-0/2"),
        (replace(part, name="request"), [one, two], DEK, ORIGIN),
        (replace(part, media="text/html"), [one, two], DEK, ORIGIN),
        (replace(part, index=1), [one, two], DEK, ORIGIN),
        (replace(part, encoding="identity"), [one, two], DEK, ORIGIN),
        (replace(part, opening_commit=bytes(32)), [one, two], DEK, ORIGIN),
    ]
    assert seal.open_part(part, [one, two], DEK, ORIGIN) == b"onetwo"
    for forged, stored, dek, origin in forgeries:
        with pytest.raises(Unverifiable):
            seal.open_part(forged, stored, dek, origin)


def test_a_second_key_for_a_part_is_noticed_even_where_its_tag_would_verify() -> None:
    part, stored = _sealer().seal("request", "text/plain", b"x", 0)
    other = seal.Sealer(bytes(32), KEY_ID, ORIGIN)
    forged, swapped = other.seal("request", "text/plain", b"y", 0)
    with pytest.raises(Unverifiable, match="commits to"):
        seal.open_part(replace(part, sha256=forged.sha256, len=forged.len), [swapped.data], bytes(32), ORIGIN)
    assert stored.data != swapped.data


def test_no_nonce_is_used_twice_under_one_key() -> None:
    sealer = _sealer()
    sealer.seal("request", "text/plain", b"x", 0)
    with pytest.raises(ValueError, match="sealed twice"):
        sealer.seal("target", "text/plain", b"y", 0)
    one, other = (sealer.open_stream_part("response", "text/plain", 1) for _ in range(2))
    one.chunk(b"x")
    with pytest.raises(ValueError, match="sealed twice"):
        other.chunk(b"y")
    one.chunk(b"z")
    with pytest.raises(ValueError, match="sealed twice"):
        sealer.encrypt_chunk("response", "text/plain", b"y", 1, 1)
    with pytest.raises(ValueError, match="out of its order"):
        sealer.encrypt_chunk("response", "text/plain", b"y", 1, 3)


def test_the_first_chunk_of_a_stream_says_what_it_opens() -> None:
    sealer = _sealer()
    stream = sealer.open_stream_part("response", "text/event-stream; charset=utf-8", 1)
    first, second = stream.chunk(b"x"), stream.chunk(b"y")
    part = stream.finish()
    assert first.opens == OpenPart(
        key_id=part.key,
        index=part.index,
        name=part.name,
        media=part.media,
        encoding=part.encoding,
        dek_commit=part.dek_commit,
    )
    assert second.opens is None
    assert seal.open_part(replace(part, opening_commit=None), [first.data, second.data], DEK, ORIGIN) == b"xy"


def test_damaged_or_boundless_compression_is_refused() -> None:
    for packed in (b"no zstd frame", b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff" + bytes(20)):
        stored = _sealer().encrypt_chunk("r", "text/plain", packed, 0, 0)
        part, _ = _sealer().seal("r", "text/plain", b"", 0)
        forged = replace(part, encoding="zstd", len=len(stored), sha256=hashlib.sha256(stored).digest())
        with pytest.raises(Unverifiable):
            seal.open_part(forged, [stored], DEK, ORIGIN)


def test_a_segment_key_opens_for_the_master_and_its_own_segment_alone() -> None:
    master = X25519PrivateKey.generate()
    info = seal.segment_key_info(ORIGIN, 5, bytes(16))
    sealed = seal.seal_segment_key(master.public_key().public_bytes_raw(), DEK, info)
    assert len(sealed) == 80
    assert seal.open_segment_key(master, sealed, info) == DEK
    wrong = [
        (X25519PrivateKey.generate(), sealed, info),
        (master, sealed, seal.segment_key_info(ORIGIN, 6, bytes(16))),
        (master, sealed[:-1], info),
        (master, bytes(32) + sealed[32:], info),
    ]
    for key, raw, context in wrong:
        with pytest.raises(Unverifiable):
            seal.open_segment_key(key, raw, context)


def test_a_wrapped_key_opens_with_its_counter_and_origin_alone() -> None:
    aad = seal.wrap_aad(ORIGIN, KEY_ID)
    wrapped = seal.wrap_dek(DEK, 7, bytes(32), aad)
    assert len(wrapped) == 48
    assert seal.unwrap_dek(DEK, 7, wrapped, aad) == bytes(32)
    for counter, context in ((8, aad), (7, seal.wrap_aad("other", KEY_ID))):
        with pytest.raises(Unverifiable):
            seal.unwrap_dek(DEK, counter, wrapped, context)
