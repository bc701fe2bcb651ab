"""What heads of answers mean, and that remembered ones mean the same."""

from __future__ import annotations

import pytest

from gateway.proxy.answerheads import REMEMBERED_MAX, AnswerHeads


def test_a_head_says_framing_media_type_and_what_goes_on() -> None:
    heads = AnswerHeads()
    headers = [(b"Content-Type", b"text/event-stream; a=b"), (b"Transfer-Encoding", b"Chunked"), (b"X-Kept", b"1")]
    head = heads.of(200, headers)
    assert (head.chunked, head.declared_bytes, head.event_stream) == (True, None, True)
    assert head.media == "text/event-stream; a=b"
    assert head.lines == b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; a=b\r\nX-Kept: 1\r\n"
    assert heads.of(200, list(headers)) is head
    assert heads.of(404, headers) is not head


@pytest.mark.parametrize(
    "header", [(b"Content-Length", b"x"), (b"Transfer-Encoding", b"gzip"), (b"X", b"a\r\nDecision-Id: forged")]
)
def test_a_head_that_cannot_be_passed_on_is_refused_each_time(header: tuple[bytes, bytes]) -> None:
    heads = AnswerHeads()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"answer|literal"):
            heads.of(200, [header])


def test_no_more_heads_are_remembered_than_allowed() -> None:
    heads = AnswerHeads()
    first = heads.of(200, [(b"X", b"first")])
    for number in range(REMEMBERED_MAX):
        heads.of(200, [(b"X", b"%d" % number)])
    assert heads.of(200, [(b"X", b"first")]) is not first
