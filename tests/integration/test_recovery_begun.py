"""Calls that had begun when their writer ended: what the next start makes of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from storage import losses, recovery
from storage.keys import JournalKeys
from tests.support.evidence import Evidence
from tests.support.journals import (
    QUICK,
    STREAM_MEDIA,
    begin_call,
    call,
    check_whole,
    crash_copy,
    draft,
    journal_keys,
    open_journal,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "gateway-0"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> JournalKeys:
    return journal_keys(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_begun_call_that_was_given_up_is_lost_once_and_no_restart_closes_it(
    directory: Path, keys: JournalKeys, tmp_path: Path, is_killed: bool
) -> None:
    journal = await open_journal(directory, keys)
    begun = [await begin_call(journal) for _ in range(losses.DECISIONS_MAX + 2)]
    for each in begun:
        journal.lose(begun=each["decision"])
    async with asyncio.timeout(10):
        while journal.counters.lost < len(begun):
            await asyncio.sleep(0.05)
    if is_killed:
        left = crash_copy(directory, tmp_path / "left")
        await journal.close()
    else:
        await journal.close()
        left = directory
    counted = {"accepted": len(begun), "closed": 0, "open": 0, "lost": len(begun), "shed": 0, "refused": 0}
    for _ in range(2):
        journal = await open_journal(left, keys)
        assert journal.counters.as_json() == counted
        await journal.close()
    entries = check_whole(left, [])
    gaps = [entry for entry in entries if entry["kind"] == "gap"]
    assert [(gap["lost"], gap["why"], len(gap["decisions"])) for gap in gaps] == [
        (losses.DECISIONS_MAX, "running", losses.DECISIONS_MAX),
        (2, "running", 2),
    ]
    assert {name for gap in gaps for name in gap["decisions"]} == {each["decision"] for each in begun}


async def test_a_begun_decision_without_its_decision_gets_one_that_says_what_was_found(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    from storage.ids import b64

    journal = await open_journal(directory, keys)
    begun = await begin_call(journal)
    journal.admit("acme", "credit")
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    journal = await open_journal(left, keys)
    assert journal.counters.as_json() == {"accepted": 2, "closed": 1, "open": 0, "lost": 1, "shed": 0, "refused": 0}
    await journal.close()
    entries = check_whole(left, [])
    begin = next(entry for entry in entries if entry["kind"] == "begin")
    [decision] = [entry for entry in entries if entry["kind"] == "decision"]
    assert decision["id"] == decision["decision"] == begun["decision"]
    assert decision["prev"][0]["id"] == begun["begin"]
    assert (decision["tenant"], decision["route"], decision["app"]) == ("acme", "credit", "chat")
    assert decision["stream"]["state"] == decision["error"] == "gateway_lost"
    asked, answered = decision["parts"]
    assert [asked] == begin["parts"]
    assert answered["sha256"] == b64(begun["sha256"])
    assert (answered["name"], answered["media"], answered["encoding"]) == ("response", STREAM_MEDIA, "zstd")
    assert (answered["index"], answered["chunks"], answered["key"]) == (1, 3, begun["key"])
    assert decision["stream"]["bytes"] == answered["len"]
    await (await open_journal(left, keys)).close()
    assert len([entry for entry in check_whole(left, []) if entry["kind"] == "decision"]) == 1


async def test_what_had_passed_of_a_stream_opens_though_its_writer_was_killed(tmp_path: Path) -> None:
    directory, killed = tmp_path / "journal" / "gateway-0", tmp_path / "killed"
    keys = journal_keys(tmp_path)
    journal = await open_journal(directory, keys)
    await begin_call(journal)
    crash_copy(directory, killed)
    await journal.close()
    await (await open_journal(killed, keys)).close()
    [decision] = [entry for entry in check_whole(killed, []) if entry["kind"] == "decision"]
    evidence = Evidence(killed, tmp_path)
    assert evidence.part(decision, "request") == b"{}"
    assert evidence.part(decision, "response") == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def test_a_stream_with_a_hole_is_not_stated_as_what_had_passed(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys)
    journal.admit("acme", "credit")
    key = journal.new_key()
    await journal.append(draft("begin", key=key.key_id), key=key)
    stream = key.sealer.open_stream_part("response", STREAM_MEDIA, 1)
    first, _refused, third = (stream.chunk(b"data: %d\n\n" % number) for number in range(3))
    await journal.append_parts(key, [first, third], ts_ns=1)
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    await (await open_journal(left, keys)).close()
    [decision] = [entry for entry in check_whole(left, []) if entry["kind"] == "decision"]
    assert decision["parts"] == []


async def test_a_decision_that_was_begun_segments_ago_is_closed_all_the_same(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys, syscalls=QUICK)
    begun = await begin_call(journal)
    acknowledged = [await call(journal, 20_000) for _ in range(80)]
    assert len(recovery.segments_of(directory)) > 2
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    await (await open_journal(left, keys)).close()
    entries = check_whole(left, acknowledged)
    [lost] = [entry for entry in entries if entry.get("error") == "gateway_lost"]
    assert lost["decision"] == begun["decision"]


async def test_a_begin_entry_that_fills_its_line_is_closed_with_less(
    directory: Path, keys: JournalKeys, tmp_path: Path
) -> None:
    journal = await open_journal(directory, keys)
    journal.admit("acme", "credit")
    await journal.append(draft("begin", pad="x" * 65_000))
    left = crash_copy(directory, tmp_path / "left")
    await journal.close()
    await (await open_journal(left, keys)).close()
    [decision] = [entry for entry in check_whole(left, []) if entry["kind"] == "decision"]
    assert decision["stream"]["state"] == "gateway_lost"
