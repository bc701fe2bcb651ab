"""A reader written from storage/README.md alone: nothing of ours is imported to read, only to write."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.journals import call, crash_copy, draft, journal_keys, open_journal, sealed_decision

_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def tree(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as its recursion is written."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


def durable_end(raw: bytes) -> tuple[int, int]:
    assert raw[:8] == b"ANSWMARK"
    slots = []
    for at in (256, 384):
        body, (crc,) = raw[at : at + 56], struct.unpack_from("<I", raw, at + 56)
        if crc == crc32c(raw[16:32] + body):
            slots.append(struct.unpack("<7Q", body))
    _, segment, end, *_ = max(slots)
    return segment, end


def read(directory: Path) -> dict[str, Any]:
    """Everything up to the watermark, checked."""
    segment, end = durable_end((directory / "watermark").read_bytes())
    found: dict[str, Any] = {"entries": [], "leaves": [], "parts": {}, "keys": {}, "headers": {}, "commits": {}}
    for path in sorted(directory.glob("*.jrn")):
        first = int(path.stem)
        if first <= segment:
            raw = path.read_bytes()
            read_segment(raw[:end] if first == segment else raw, found)
    return found


def read_segment(raw: bytes, found: dict[str, Any]) -> None:
    magic, version, header_bytes, origin_bytes, _ = struct.unpack_from("<8s4H", raw)
    assert (magic, version, header_bytes) == (b"ANSWJRNL", 1, 4096)
    assert struct.unpack_from("<I", raw, 4092)[0] == crc32c(raw[:4092])
    (first_seq,), salt = struct.unpack_from("<Q", raw, 16), raw[24:40]
    process, host, vouch, sealed = raw[48:80], raw[80:112], raw[112:176], raw[176:256]
    origin = raw[512 : 512 + origin_bytes].decode()
    Ed25519PublicKey.from_public_bytes(host).verify(vouch, f"answerable/vouch/v1\n{origin}\n{b64(process)}\n".encode())
    assert raw[256:288] == tree(found["leaves"])
    assert len(found["leaves"]) == first_seq
    found["headers"][first_seq] = (origin, salt, sealed)
    at, begin, batch = 4096, 4096, []
    while at < len(raw):
        length, crc, kind, seq, _ = struct.unpack_from("<IIBQQ", raw, at)
        if kind == 0:
            assert not any(raw[at:])
            break
        payload = raw[at + 25 : at + 25 + length]
        assert crc == crc32c(salt + raw[at : at + 4] + raw[at + 8 : at + 25 + length])
        at += (25 + length + 7) // 8 * 8
        if kind == 1:
            assert seq == len(found["leaves"])
            found["entries"].append(payload)
            found["leaves"].append(sha(b"\0" + payload))
            batch.append(found["leaves"][-1])
        elif kind == 2:
            key, index, chunk = struct.unpack_from("<16sBI", payload)
            found["parts"].setdefault((key, index), {})[chunk] = payload[21:]
        elif kind == 3:
            key, counter = struct.unpack_from("<16sQ", payload)
            found["keys"][key] = (first_seq, counter, payload[24:])
        elif kind == 4:
            commit = struct.unpack("<QQIIQQQQQQ32s32s8s64s", payload)
            check_commit(commit, origin, process, begin=begin, batch=batch, leaves=found["leaves"])
            found["commits"][commit[1]] = commit
            begin, batch = at, []
    assert batch == []


def check_commit(
    commit: tuple[Any, ...], origin: str, process: bytes, *, begin: int, batch: list[bytes], leaves: list[bytes]
) -> None:
    assert commit[0] == begin
    first, count, size, batch_root, root, key_id, signature = (commit[at] for at in (1, 2, 4, 10, 11, 12, 13))
    assert (first, count, size) == (len(leaves) - len(batch), len(batch), len(leaves))
    assert (batch_root, root) == (tree(batch), tree(leaves))
    assert key_id == sha(b"answerable/process-key/v1" + process)[:8]
    text = f"answerable/batch/v1\n{origin}\n{first}\n{count}\n{b64(batch_root)}\n{size}\n{b64(root)}\n"
    Ed25519PublicKey.from_public_bytes(process).verify(signature, text.encode())


def open_parts(entry: dict[str, Any], found: dict[str, Any], master: X25519PrivateKey) -> dict[str, bytes]:
    opened = {}
    for part in entry["parts"]:
        key = bytes.fromhex(part["key"].replace("-", ""))
        segment, counter, wrapped = found["keys"][key]
        origin, salt, sealed = found["headers"][segment]
        info = f"answerable/segment-key/v1|{origin}|{segment}|{salt.hex()}".encode()
        shared = master.exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
        salted = sealed[:32] + master.public_key().public_bytes_raw()
        sealing = HKDF(algorithm=SHA256(), length=32, salt=salted, info=info).derive(shared)
        segment_key = AESGCM(sealing).decrypt(bytes(12), sealed[32:], info)
        dek = AESGCM(segment_key).decrypt(counter.to_bytes(12, "big"), wrapped, f"{origin}|{part['key']}".encode())
        chunks = [found["parts"][key, part["index"]][number] for number in range(part["chunks"])]
        assert (len(b"".join(chunks)), b64(sha(b"".join(chunks)))) == (part["len"], part["sha256"])
        context = f"{entry['origin']}|{part['key']}|{part['name']}|{part['media']}".encode()
        plain = []
        for number, chunk in enumerate(chunks):
            nonce = part["index"].to_bytes(4, "big") + number.to_bytes(8, "big")
            packed = AESGCM(dek).decrypt(nonce, chunk, context)
            plain.append(zstandard.decompress(packed) if part["encoding"] == "zstd" else packed)
        name = part["name"].encode()
        message = b"answerable/plain/v1" + struct.pack("<I", len(name)) + name + b"".join(plain)
        opening = b"answerable/opening/v1" + struct.pack("<II", part["index"], len(name)) + name
        secret = hmac.digest(dek, opening, "sha256")
        assert part["opening_commit"] in (None, b64(hmac.digest(secret, message, "sha256")))
        assert b64(hmac.digest(dek, b"answerable/dek/v1", "sha256")) == part["dek_commit"]
        opened[part["name"]] = b"".join(plain)
    return opened


async def test_a_stranger_reads_a_journal_with_what_the_readme_says(tmp_path: Path) -> None:
    directory = tmp_path / "journal" / "gateway-0"
    keys = journal_keys(tmp_path)
    journal = await open_journal(directory, keys)
    for _ in range(5):
        await call(journal)
    made, stored, key = sealed_decision(journal, b'{"income":4000}' * 60, b"denied")
    appended = await journal.append(made, parts=stored, key=key)
    await journal.close()
    journal = await open_journal(directory, keys)
    stream_key = journal.new_key()
    stream = stream_key.sealer.open_stream_part("response", "text/event-stream", 0)
    for number in range(3):
        await journal.append_parts(stream_key, [stream.chunk(b"data: %d\n\n" % number)], ts_ns=0)
    streamed = await journal.append(draft(parts=(stream.finish(),)), key=stream_key)

    found = read(directory)
    master = load_pem_private_key((tmp_path / "keys" / "master.key").read_bytes(), password=None)
    assert isinstance(master, X25519PrivateKey)
    assert found["entries"][appended.seq] == appended.entry
    entries = [json.loads(entry) for entry in found["entries"]]
    assert [entry["seq"] for entry in entries] == list(range(streamed.seq + 1))
    assert open_parts(entries[appended.seq], found, master) == {
        "request": b'{"income":4000}' * 60,
        "response": b"denied",
    }
    assert entries[streamed.seq]["parts"][0]["opening_commit"] is not None
    assert open_parts(entries[streamed.seq], found, master) == {"response": b"data: 0\n\ndata: 1\n\ndata: 2\n\n"}
    await journal.close()


async def test_a_stranger_reads_what_had_passed_when_the_writer_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "journal" / "gateway-0"
    keys = journal_keys(tmp_path)
    journal = await open_journal(directory, keys)
    journal.admit("acme", "credit")
    key = journal.new_key()
    await journal.append(draft("begin", key=key.key_id), key=key)
    stream = key.sealer.open_stream_part("response", "text/event-stream; charset=utf-8", 0)
    await journal.append_parts(key, [stream.chunk(b"data: den")], ts_ns=0)
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    await (await open_journal(left, keys)).close()

    found = read(left)
    master = load_pem_private_key((tmp_path / "keys" / "master.key").read_bytes(), password=None)
    assert isinstance(master, X25519PrivateKey)
    [lost] = [entry for entry in map(json.loads, found["entries"]) if entry["kind"] == "decision"]
    assert open_parts(lost, found, master) == {"response": b"data: den"}
