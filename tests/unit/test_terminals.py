import pytest

from storage.protocols.faults import Unreadable
from storage.protocols.terminals import Terminal, is_streamed

CHAT = b'data: {"choices":[]}\n\ndata: {"choices":[{"delta":{"content":"[DONE]"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def test_whole_events_may_leave_and_the_terminal_one_may_not():
    terminal = Terminal("openai")
    assert terminal.feed(CHAT) == len(CHAT)
    assert terminal.feed(DONE[:5]) == len(CHAT), "an unfinished event may become the last one"
    assert not terminal.ended
    assert terminal.feed(DONE[5:] + b": after") == len(CHAT)
    assert terminal.ended
    assert terminal.end_bytes == len(CHAT + DONE)
    assert terminal.feed(CHAT) == len(CHAT), "what follows the end is held with it"


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
@pytest.mark.parametrize(
    ("protocol", "before", "last"),
    [
        ("openai", CHAT, DONE),
        ("openai", b"event: response.created\ndata: {}\n\n", b"event: response.completed\ndata: {}\n\n"),
        ("anthropic", b"event: ping\ndata: {}\n\n", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        (
            "anthropic",
            b"event: ping\r\ndata: {}\r\n\r\n",
            b'event: message_stop\r\ndata: {"type":"message_stop"}\r\n\r\n',
        ),
    ],
)
def test_however_it_is_cut_the_same_bytes_are_held(protocol, before, last, size):
    terminal, raw = Terminal(protocol), before + last
    free = [terminal.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert terminal.ended
    assert free == sorted(free)
    line_feeds = 1 if before.endswith(b"\r\n") else 0  # of a CRLF that came in two pieces
    assert len(before) - line_feeds <= free[-1] <= len(before)


def test_a_stream_that_is_no_event_stream_says_so():
    terminal = Terminal("anthropic", event_bytes_max=20)
    with pytest.raises(Unreadable):
        terminal.feed(b"x" * 30)
    with pytest.raises(Unreadable):
        terminal.feed(b"\n\n")


def test_only_protocols_that_stream_have_a_terminal_event():
    assert [name for name in ("generic", "openai", "anthropic", "mlflow") if is_streamed(name)] == [
        "openai",
        "anthropic",
    ]
    with pytest.raises(ValueError, match="mlflow has no terminal event"):
        Terminal("mlflow")
