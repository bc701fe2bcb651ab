"""Reading journals for several consumers: shelves, readers and feeds on real segments."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from config.load import Configuration
from gateway.keeper.feed import Feed, Feeds
from gateway.keeper.opening import opened
from gateway.keeper.segments import Released, delete, listed, may_go
from gateway.keeper.tail import Library, Reader
from storage.errors import JournalError
from storage.keys import Keyring
from storage.reading import Batch, Position, SegmentTail
from storage.segment import segment_name
from tests.support.journals import rows_of
from tests.support.keeping import Gateway, flip, written
from tests.support.loans import Loans


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return written(tmp_path)


def everything(origin: str, seq: int, entry: object) -> bool:
    return True


def drained(reader: Reader, bytes_max: int = 1 << 22) -> list[Batch]:
    found: list[Batch] = []
    while batches := reader.read(bytes_max):
        found += batches
    return found


async def looked(configuration: Configuration) -> Library:
    library = Library(configuration.data)
    await library.look(discover=True)
    return library


async def test_readers_in_step_and_readers_behind_see_the_same_batches(
    configuration: Configuration, loans: Loans
) -> None:
    gateway = await Gateway.open(configuration, loans, segment_bytes=64 * 1024)
    for number in range(40):
        await gateway.decide(number)
    library = await looked(configuration)
    (shelf,) = library.shelves
    first, second = Reader(shelf, None), Reader(shelf, None)
    one = drained(first)
    assert [batch.first for batch in drained(second, bytes_max=1)] == [batch.first for batch in one]
    middle = Position(one[17].segment, one[17].end)
    behind = Reader(shelf, middle)
    assert [batch.first for batch in drained(behind)] == [batch.first for batch in one[18:]]
    for number in range(5):
        await gateway.decide(number)
    assert len(drained(first)) == len(drained(second)) == len(drained(behind)) == 5
    tail = SegmentTail(shelf.directory)
    assert [batch.end for batch in tail.batches()][:-5] == [batch.end for batch in one]
    tail.close()
    await gateway.close()


async def test_a_streamed_call_is_whole_though_its_parts_stand_batches_and_segments_apart(
    configuration: Configuration, loans: Loans
) -> None:
    gateway = await Gateway.open(configuration, loans, segment_bytes=64 * 1024)
    streaming = await gateway.stream(3)
    for number in range(60):
        await gateway.decide(number)
    library = await looked(configuration)
    (shelf,) = library.shelves
    assert len(listed(shelf.directory, now_s=0)) > 1
    feed = Feed(shelf, 0, everything)
    for _ in range(100):
        await feed.next_decisions()
    assert feed.resume == 0  # a restart must read from where the open call began
    await streaming.end()
    await library.look()
    (recorded,) = await feed.next_decisions()
    keyring = Keyring.open(configuration.data)
    parts = opened(recorded.entry, stored=recorded.parts, keys=recorded.keys, headers=recorded.headers, keyring=keyring)
    assert (parts["request"], parts["response"]) == gateway.bodies(3)
    assert feed.resume == feed.read_below == shelf.next_seq

    again = Feed(shelf, 0, lambda _origin, _seq, entry: entry["id"] == streaming.decision)
    found = []
    while not found:
        found = await again.next_decisions()
    assert found[0].parts == recorded.parts
    await gateway.close()


async def test_rows_are_whole_each_and_what_their_begin_entry_sealed_holds_nothing_up(
    configuration: Configuration, loans: Loans
) -> None:
    gateway = await Gateway.open(configuration, loans)
    journal = gateway.journal
    rows = [row._replace(draft=replace(row.draft, route="loans")) for row in rows_of(journal, 3)]
    first = rows[0].draft.decision
    assert first is not None
    journal.admit("acme", "loans")
    key = journal.new_key(first)
    part, stored = key.sealer.seal("request", "application/json", b"[1, 2, 3]", 0)
    await journal.append(gateway.draft("begin", first, parts=(part,)), parts=[stored], key=key)
    library = await looked(configuration)
    (shelf,) = library.shelves
    feed = Feed(shelf, 0, everything)
    await feed.next_decisions()
    assert feed.resume == 0
    await journal.append_rows(rows)
    await library.look()
    found = await feed.next_decisions()
    assert [one.entry["call"]["row"] for one in found] == [0, 1, 2]
    keyring = Keyring.open(configuration.data)
    for one, row in zip(found, rows, strict=True):
        assert list(one.keys) == [row.key.key_id if row.key else ""]
        parts = opened(one.entry, stored=one.parts, keys=one.keys, headers=one.headers, keyring=keyring)
        assert list(parts) == ["request"]
    assert feed.resume == feed.read_below == shelf.next_seq
    await gateway.close()


async def test_a_feed_gives_what_is_wanted_only(configuration: Configuration, loans: Loans) -> None:
    gateway = await Gateway.open(configuration, loans)
    seqs = [(await gateway.decide(number)).seq for number in range(6)]
    library = await looked(configuration)
    feed = Feed(library.shelves[0], 0, lambda _origin, seq, _entry: seq % 2 == 0, given_below=seqs[2])
    assert [one.seq for one in await feed.next_decisions()] == [seq for seq in seqs[2:] if seq % 2 == 0]
    await gateway.close()


async def test_the_own_shard_has_no_feed(configuration: Configuration, loans: Loans) -> None:
    gateway = await Gateway.open(configuration, loans)
    own = await Gateway.open(configuration, loans, shard="keeper")
    library = await looked(configuration)
    feeds = Feeds(library, own="keeper", begin=lambda _: 0, wanted=everything)
    await feeds.refresh()
    assert [feed.origin for feed in feeds] == [gateway.journal.origin]
    await gateway.close()
    await own.close()


async def test_damage_below_the_watermark_stops_the_shard_after_what_is_sound(
    configuration: Configuration, loans: Loans
) -> None:
    gateway = await Gateway.open(configuration, loans)
    for number in range(10):
        await gateway.decide(number)
    await gateway.close()
    library = await looked(configuration)
    (shelf,) = library.shelves
    batches = drained(Reader(shelf, None))
    flip(shelf.directory / segment_name(0), batches[6].begin + 40)
    reader = Reader((await looked(configuration)).shelves[0], None)
    with pytest.raises(JournalError):
        drained(reader)
    assert reader.position == Position(batches[5].segment, batches[5].end)


async def test_whoever_waits_is_woken_by_news_and_only_by_news(configuration: Configuration, loans: Loans) -> None:
    gateway = await Gateway.open(configuration, loans)
    library = await looked(configuration)
    version = library.version
    await library.news(version, within_s=0.05)
    assert library.version == version
    waiting = asyncio.create_task(library.news(version, within_s=30))
    await gateway.decide(1)
    await library.look()
    await asyncio.wait_for(waiting, 5)
    assert library.version > version
    await gateway.close()


async def test_only_segments_that_nobody_needs_and_that_are_old_or_too_many_may_go(
    configuration: Configuration, loans: Loans
) -> None:
    gateway = await Gateway.open(configuration, loans, segment_bytes=64 * 1024)
    for number in range(100):
        await gateway.decide(number)
    directory = configuration.data / "journal" / "gateway-0"
    segments = listed(directory, now_s=10_000_000_000)
    assert len(segments) > 3
    end = segments[-1].first
    all_done = Released(shipped=end, checkpoint=end, read=end)
    assert may_go(segments, all_done, lag_s=3600, lag_bytes=0) == segments[:-1]
    for needed in ("shipped", "checkpoint", "read"):
        held = Released(**{"shipped": end, "checkpoint": end, "read": end} | {needed: segments[1].end - 1})
        assert may_go(segments, held, lag_s=0, lag_bytes=0) == segments[:1]
    young = listed(directory, now_s=0)
    assert may_go(young, all_done, lag_s=3600, lag_bytes=1 << 40) == []
    kept = sum(segment.bytes for segment in young[2:])
    assert may_go(young, all_done, lag_s=3600, lag_bytes=kept) == young[:2]
    delete(directory, segments[:2], origin="test/gateway-0/7")  # another epoch's files of the same names stay
    assert len(listed(directory, now_s=0)) == len(segments)
    delete(directory, segments[:2], origin=gateway.journal.origin)
    assert [segment.first for segment in listed(directory, now_s=0)] == [s.first for s in segments[2:]]
    await gateway.close()
