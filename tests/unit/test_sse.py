import pytest

from storage.protocols.faults import Unreadable
from storage.protocols.sse import Event, Events, looks_like_events


def read(*pieces: bytes, **limits: int) -> list[tuple[str, str]]:
    events = Events(**limits)
    return [(event.type, event.data) for piece in pieces for event in events.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_each_of_the_three_ways(end):
    raw = end.join([b"event: a", b"data: 1", b"", b"data: 2", b"", b""])
    assert read(raw) == [("a", "1"), ("message", "2")]
    assert read(*[bytes([byte]) for byte in raw]) == [("a", "1"), ("message", "2")]


def test_data_over_several_lines_is_joined_by_line_feeds():
    assert read(b"data: one\ndata:two\ndata:  three\ndata\n\n") == [("message", "one\ntwo\n three\n")]


def test_comments_ids_retries_and_unknown_fields_say_nothing():
    assert read(b": ping\n\nid: 7\nretry: 10\nmood: fine\ndata: x\n:\n\n") == [("message", "x")]


def test_an_event_without_data_or_without_its_blank_line_is_none():
    assert read(b"event: message_stop\n\n") == []
    assert read(b"data: whole\n\ndata: cut\n") == [("message", "whole")]
    assert read(b"event: a\n\ndata: x\n\n") == [("message", "x")], "its name went with it"


def test_a_character_cut_between_pieces_is_whole_again():
    raw = "data: žluťoučký 🐎\n\n".encode()
    for cut in range(len(raw)):
        assert read(raw[:cut], raw[cut:]) == [("message", "žluťoučký 🐎")]


def test_a_byte_order_mark_counts_only_at_the_start():
    assert read(b"\xef\xbb\xbfdata: x\n\n") == [("message", "x")]
    assert read(b"data: y\n\n\xef\xbb\xbfdata: x\n\n") == [("message", "y")]


def test_an_event_knows_where_it_ended_in_the_stream():
    raw = b"\xef\xbb\xbf: hi\r\n\r\ndata: a\r\n\r\ndata: b\n\ndata: c\r\rdata: d"
    ends = [event.end for event in Events().feed(raw)]
    assert [raw[:end].count(b"data") for end in ends] == [1, 2, 3]
    assert raw[: ends[0]].endswith(b"data: a\r\n\r\n")
    assert raw[ends[2] :] == b"data: d"
    byte_by_byte = Events()
    seen = [event.end for byte in raw for event in byte_by_byte.feed(bytes([byte]))]
    # fed byte by byte, CRLF is complete at its CR: the line feed is counted with what follows
    assert seen == [ends[0] - 1, ends[1], ends[2]]


def test_what_is_not_utf_8_or_too_large_ends_the_reading():
    with pytest.raises(Unreadable, match="not UTF-8"):
        read(b"data: \xff\n\n")
    assert read(b"id: \xff\n\ndata: x\n\n") == [("message", "x")], "what says nothing is not decoded"
    with pytest.raises(Unreadable, match="too large"):
        read(b"data: 12345", b"6789", event_bytes_max=12)
    with pytest.raises(Unreadable, match="too large"):
        read(b"data: 1\n" * 5, event_bytes_max=30)
    assert len(read(b"data: 123\n\n" * 50, event_bytes_max=12)) == 50, "the limit is of one event"


@pytest.mark.parametrize(
    "raw", [b"data: x", b"event:a\n", b":\n", b": c", b"id: 1", b"\n\ndata:", b"retry\n", b"data\r"]
)
def test_streams_are_told_from_documents_by_their_first_bytes(raw):
    assert looks_like_events(raw)
    assert looks_like_events(b"\xef\xbb\xbf" + raw)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[", b'"data:"', b" 1", b"null", b"database: x", b"error"])
def test_documents_are_no_streams(raw):
    assert not looks_like_events(raw)


def test_events_are_plain_values():
    assert Event("a", "b", 3) == Event("a", "b", 3)
