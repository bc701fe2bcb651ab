from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from storage import seal
from storage.errors import StorageError, Unverifiable
from storage.keys import Keyring
from storage.merkle import Frontier
from storage.segment import SegmentHeader, WrappedKey, vouch_text

KEY_ID = "017f22e2-79b0-7000-98c4-dc0c0c07398f"


def test_keys_are_made_once_readable_by_their_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    made = Keyring.open(tmp_path, create=True, today=dt.date(2026, 11, 23))
    files = {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert set(files) == {
        f"{name}.{half}" for name in ("master", "host", "log", "control") for half in ("key", "pub")
    } | {"peppers.json"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "keys").iterdir())
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    again = Keyring.open(tmp_path, create=True)
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert made.pseudonym("acme", "case", "7") == again.pseudonym("acme", "case", "7")
    assert made.pseudonym("acme", "case", "7").startswith("2026-11-23.")


def test_a_public_half_that_a_crash_left_out_is_made_again_from_the_private_one(tmp_path: Path) -> None:
    whole = Keyring.open(tmp_path, create=True)
    (tmp_path / "keys" / "master.pub").unlink()
    assert Keyring.open(tmp_path, create=True).master_public == whole.master.public_key().public_bytes_raw()


def test_a_missing_key_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as missing:
        Keyring.open(tmp_path)
    assert missing.value.code == "keys_missing"
    assert "answerable serve" in missing.value.advice


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o644])
@pytest.mark.parametrize("name", ["master.key", "host.key", "log.key", "control.key", "peppers.json"])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    Keyring.open(tmp_path, create=True)
    path = tmp_path / "keys" / name
    path.chmod(mode)
    with pytest.raises(StorageError, match=f"mode {mode:04o}") as exposed:
        _all_secrets(tmp_path)
    assert exposed.value.code == "keys_exposed"
    assert f"chmod 600 {path}" in exposed.value.advice
    path.chmod(0o400)
    _all_secrets(tmp_path)


def _all_secrets(data: Path) -> None:
    keyring = Keyring.open(data)
    _ = (keyring.master, keyring.host, keyring.log, keyring.control)


def test_public_halves_may_be_read_by_anybody(tmp_path: Path) -> None:
    Keyring.open(tmp_path, create=True)
    for path in (tmp_path / "keys").glob("*.pub"):
        path.chmod(0o644)
    assert len(Keyring.open(tmp_path).master_public) == 32


def test_a_gateway_worker_needs_no_private_key_but_the_hosts(tmp_path: Path) -> None:
    Keyring.open(tmp_path, create=True)
    for name in ("master.key", "log.key", "control.key"):
        (tmp_path / "keys" / name).unlink()
    keys = Keyring.open(tmp_path).journal_keys()
    vouch = keys.vouch("d/s/1", b"p" * 32)
    Ed25519PublicKey.from_public_bytes(keys.host_public).verify(vouch, vouch_text("d/s/1", b"p" * 32))


def test_pseudonyms_keep_tenants_kinds_and_values_apart(tmp_path: Path) -> None:
    keyring = Keyring.open(tmp_path, create=True)
    made = {
        keyring.pseudonym(tenant, kind, value)
        for tenant, kind, value in (("a", "case", "1"), ("b", "case", "1"), ("a", "subject", "1"), ("a", "case", "2"))
    }
    made |= {keyring.pseudonym("a", "b", "cd"), keyring.pseudonym("a", "bc", "d"), keyring.pseudonym("ab", "c", "d")}
    assert len(made) == 7


def test_a_search_over_all_time_looks_under_every_pepper(tmp_path: Path) -> None:
    first = Keyring.open(tmp_path, create=True).pseudonym("a", "case", "1")
    path = tmp_path / "keys" / "peppers.json"
    value = orjson.loads(path.read_bytes())
    value["peppers"].append({"id": "next", "secret": "A" * 43})
    path.write_bytes(orjson.dumps(value))
    keyring = Keyring.open(tmp_path)
    found = keyring.pseudonyms("a", "case", "1")
    assert found == [keyring.pseudonym("a", "case", "1"), first]
    assert found[0].startswith("next.")


def test_peppers_of_an_unknown_version_are_refused(tmp_path: Path) -> None:
    Keyring.open(tmp_path, create=True)
    (tmp_path / "keys" / "peppers.json").write_bytes(b'{"v":2,"peppers":[{"id":"x","secret":"AA"}]}')
    with pytest.raises(StorageError, match="unknown version"):
        Keyring.open(tmp_path)


def test_a_key_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    Keyring.open(tmp_path, create=True)
    keys = tmp_path / "keys"
    for target, source in (("master.key", "host.key"), ("master.pub", "host.pub"), ("log.key", "master.key")):
        kept = (keys / target).read_bytes()
        (keys / target).write_bytes((keys / source).read_bytes())
        keyring = Keyring.open(tmp_path)
        with pytest.raises(StorageError, match="is not an"):
            _ = (keyring.master_public, keyring.master, keyring.log, keyring.control)
        (keys / target).write_bytes(kept)


def test_the_keeper_opens_a_part_key_through_its_segment(tmp_path: Path) -> None:
    keyring = Keyring.open(tmp_path, create=True)
    segment_key, salt = os.urandom(32), os.urandom(16)
    origin = "d/s/1"
    header = SegmentHeader(
        origin=origin,
        first_seq=0,
        salt=salt,
        created_ns=0,
        process_key=bytes(32),
        host_key=bytes(32),
        vouch=bytes(64),
        sealed_key=seal.seal_segment_key(keyring.master_public, segment_key, seal.segment_key_info(origin, 0, salt)),
        frontier=Frontier(),
    )
    wrapped = WrappedKey(KEY_ID, 4, seal.wrap_dek(segment_key, 4, b"d" * 32, seal.wrap_aad(origin, KEY_ID)), 0)
    assert keyring.part_key(header, wrapped) == keyring.part_key(header.to_bytes(), wrapped) == b"d" * 32
    with pytest.raises(Unverifiable):
        keyring.part_key(header, wrapped, origin="d/s/2")
