import pytest

from gateway.proxy.holding import AFTER_END_BYTES_MAX, SNIFFED_BYTES_MAX, Holding

CHAT = b'data: {"object":"chat.completion.chunk","x":"data: [DONE]"}\n\ndata: {"d":1}\n\ndata: [DO]\n\n'
MESSAGES = b'event: message_start\ndata: {}\n\nevent: message_delta\ndata: {"a":"event: message_stop"}\n\n'
CREATED = b"event: response.created\ndata: {}\n\n"


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 64, 1000])
@pytest.mark.parametrize(
    ("before", "terminal"),
    [
        (CHAT, b"data: [DONE]\n\n: bye\n\n"),
        (CHAT, b"data:[DONE]\n\n"),
        (MESSAGES, b"event: message_stop\ndata: {}\n\n"),
        (CREATED, b"event: response.failed\ndata: {}\n\n"),
        (CREATED, b"event:response.completed\ndata: {}\n\n"),
        (b'data: {"type":"message_start"}\n\n', b'data: {"type":"message_stop"}\n\n'),
        (b'data: {"type": "response.created"}\n\n', b'data: {"type": "response.completed"}\n\n'),
    ],
)
def test_all_before_the_terminal_event_leaves_and_nothing_of_it(before, terminal, step):
    holding = Holding(events=True)
    stream = before + terminal
    left = b"".join(holding.feed(stream[at : at + step]) for at in range(0, len(stream), step))
    assert left == before
    assert holding.rest() == terminal


def test_an_event_of_a_known_dialect_leaves_at_once():
    holding = Holding(events=True)
    first = b'data: {"object":"chat.completion.chunk"}\n\n'
    assert holding.feed(first) == first
    assert holding.feed(first) == first
    assert holding.feed(b"data: [DONE]\n\n") == b""
    assert holding.feed(b"data: more\n\n") == b""
    assert holding.rest() == b"data: [DONE]\n\ndata: more\n\n"


def test_in_an_unknown_stream_each_piece_waits_for_the_next():
    holding = Holding(events=True)
    assert holding.feed(b"data: 1\n\n") == b""
    assert holding.feed(b"data: 2\n\n") == b"data: 1\n\n"
    assert holding.rest() == b"data: 2\n\n"
    assert holding.rest() == b""


def test_a_dialect_that_shows_itself_late_is_still_found():
    holding = Holding(events=True)
    assert holding.feed(b": hello\n\n") == b""
    late = b'data: {"object": "text_completion"}\n\n'
    assert holding.feed(late) == b": hello\n\n" + late


def test_a_dialect_is_not_looked_for_in_what_is_no_event_stream_nor_for_ever():
    plain = Holding(events=False)
    assert plain.feed(CHAT) == b""
    late = Holding(events=True)
    late.feed(b"x" * (SNIFFED_BYTES_MAX + 1))
    late.feed(CHAT)
    assert late.feed(b"y") == CHAT


def test_a_stream_that_goes_on_behind_its_end_is_held_up_to_a_bound_and_no_longer():
    holding = Holding(events=True)
    holding.feed(CHAT)
    long = b'data: {"error": "%b"}\n\n' % (b"x" * AFTER_END_BYTES_MAX)
    assert holding.feed(long) == b""
    assert not holding.overrun, "the terminal event itself may be long"
    assert holding.feed(b":" * AFTER_END_BYTES_MAX) == b""
    assert not holding.overrun
    holding.feed(b":")
    assert holding.overrun
    assert holding.held_bytes == len(long) + AFTER_END_BYTES_MAX + 1


def test_an_event_that_is_too_long_to_read_leaves_piece_by_piece():
    holding = Holding(events=True)
    assert holding.feed(CHAT) == CHAT
    piece = b"x" * 300_000
    left = [holding.feed(piece) for _ in range(5)]
    assert left == [b"", b"", b"", piece * 3, piece]
    assert holding.rest() == piece
