import threading

import pytest

from storage import applications
from storage.applications import ApplicationsError


def test_a_key_is_recognised_by_its_hash_and_the_file_does_not_give_it_away(tmp_path):
    key = applications.create(tmp_path, app="chat", tenant="acme", now_ns=1_700_000_000_000_000_000)
    (known,) = applications.read(tmp_path)
    assert key.startswith("ans_")
    assert len(key) == 47
    assert known.sha256 == applications.digest(key)
    assert (known.app, known.tenant, known.created) == ("chat", "acme", "2023-11-14T22:13:20Z")
    assert key[4:].encode() not in (tmp_path / applications.FILE).read_bytes()
    assert (tmp_path / applications.FILE).stat().st_mode & 0o077 == 0


def test_a_revoked_key_is_good_for_nothing_and_stays_in_the_file(tmp_path):
    applications.create(tmp_path, app="one", tenant="t", now_ns=1)
    applications.create(tmp_path, app="two", tenant="t", now_ns=2)
    first, second = applications.read(tmp_path)
    applications.revoke(tmp_path, first.id)
    assert applications.read(tmp_path) == [second]
    assert first.id.encode() in (tmp_path / applications.FILE).read_bytes()
    with pytest.raises(ApplicationsError, match="no key"):
        applications.revoke(tmp_path, first.id)
    with pytest.raises(ApplicationsError, match="no key"):
        applications.revoke(tmp_path, "key-unknown")


def test_there_are_no_keys_where_there_is_no_file(tmp_path):
    assert applications.read(tmp_path) == []


@pytest.mark.parametrize("app", ["", "with space", "x" * 65, "-begins", "new\nline"])
def test_a_name_that_is_none_is_refused(tmp_path, app):
    with pytest.raises(ApplicationsError, match="application"):
        applications.create(tmp_path, app=app, tenant="t", now_ns=1)


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b"[]",
        b'{"v": 2, "keys": []}',
        b'{"v": 1, "keys": [{"id": "a"}]}',
        b'{"v": 1, "keys": [{"id": "a", "app": "b", "tenant": "c", "sha256": "", "created_ns": 1, "revoked_ns": 0}]}',
    ],
)
def test_a_damaged_file_is_said_to_be_damaged(tmp_path, content):
    (tmp_path / applications.FILE).write_bytes(content)
    with pytest.raises(ApplicationsError, match="damaged"):
        applications.read(tmp_path)


def test_keys_made_at_the_same_time_are_all_kept(tmp_path):
    def make(number: int) -> None:
        applications.create(tmp_path, app=f"app-{number}", tenant="t", now_ns=number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {known.app for known in applications.read(tmp_path)} == {f"app-{number}" for number in range(8)}


def test_there_is_a_bound_to_the_number_of_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(applications, "KEYS_MAX", 1)
    applications.create(tmp_path, app="one", tenant="t", now_ns=1)
    with pytest.raises(ApplicationsError, match="already"):
        applications.create(tmp_path, app="two", tenant="t", now_ns=1)
