"""Anthropic's messages, whole and streamed: one row, one reply.

A stream becomes the message that the same answer would have been without streaming; it is whole when it said
`message_stop`. The input of a tool that is cut in the middle stays text, and is found to be no JSON where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from storage.protocols.documents import parsed_text, typed
from storage.protocols.exchange import Adapter, Reply, Side, ToolCall
from storage.protocols.faults import ANSWER, REQUEST, Unreadable
from storage.protocols.sse import Event

_LAST: Final = ("message_stop", "error")  # no set: what a stranger calls a type may be unhashable
# what each kind of delta adds to which text of its block
_TEXTS: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
_INPUT: Final = "partial_json"


def asked(document: Any) -> list[Side]:
    """The whole request as one side."""
    return [Side(value=typed(document, dict, REQUEST, "the body"))]


def answered(document: Any, _rows: int | None) -> list[Side]:
    """The one side of a message."""
    answer = typed(document, dict, ANSWER, "the body")
    if answer.get("type") == "error" or answer.get("error") is not None:
        raise Unreadable(ANSWER, "an error instead of an answer")
    if not isinstance(answer.get("content"), list):
        raise Unreadable(ANSWER, "not a message")
    return [Side(value=answer, replies=(_reply(answer),))]


def ends(event: Event) -> bool:
    """`message_stop`, or an error, after which clients stop reading."""
    if event.type != "message":
        return event.type in _LAST
    if not any(name in event.data for name in _LAST):
        return False  # no parsing for what streams by
    try:
        said = parsed_text(event.data, ANSWER)
    except Unreadable:
        return False
    return isinstance(said, dict) and said.get("type") in _LAST


def assembled(events: Iterable[Event]) -> Any:
    """The message of a streamed answer.

    Raises:
        Unreadable: it is cut, or says what the protocol does not.
    """
    stream = _Stream()
    for event in events:
        said = typed(parsed_text(event.data, ANSWER), dict, ANSWER, "an event")
        kind = said.get("type", event.type)
        if kind == "error":
            raise Unreadable(ANSWER, "an error instead of an answer")
        if kind == "message_stop":
            return stream.message()
        stream.take(kind, said)
    raise Unreadable(ANSWER, "the stream is cut")


class _Block:
    """One content block; its texts come in pieces and are joined once."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self._texts: dict[str, list[str]] = {}
        self._citations: list[Any] = []

    def add(self, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if isinstance(kind, str) and kind in _TEXTS:
            name = _TEXTS[kind]
            self._texts.setdefault(name, []).append(typed(delta.get(name), str, ANSWER, "a delta"))
        elif kind == "input_json_delta":
            self._texts.setdefault(_INPUT, []).append(typed(delta.get(_INPUT), str, ANSWER, "a delta"))
        elif kind == "citations_delta":
            self._citations.append(delta.get("citation"))

    def whole(self) -> dict[str, Any]:
        block = dict(self._start)
        for name, parts in self._texts.items():
            if name != _INPUT:
                before = block.get(name)
                block[name] = (before if isinstance(before, str) else "") + "".join(parts)
        if _INPUT in self._texts:
            text = "".join(self._texts[_INPUT])
            if text:
                block["input"] = _value(text)
        if self._citations:
            block["citations"] = self._citations
        return block


class _Stream:
    """A message in the making; blocks by index, however they interleave."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, _Block] = {}

    def take(self, kind: Any, said: dict[str, Any]) -> None:
        if kind == "message_start":
            self._message = dict(typed(said.get("message"), dict, ANSWER, "the message"))
        elif kind == "content_block_start":
            start = typed(said.get("content_block"), dict, ANSWER, "a content block")
            self._blocks[self._index(said)] = _Block(start)
        elif kind == "content_block_delta":
            block = self._blocks.get(self._index(said))
            if block is None:
                raise Unreadable(ANSWER, "a block goes on that did not begin")
            block.add(typed(said.get("delta"), dict, ANSWER, "a delta"))
        elif kind == "message_delta" and self._message is not None:
            self._message.update(typed(said.get("delta"), dict, ANSWER, "a delta"))
            usage = said.get("usage")
            if isinstance(usage, dict):
                before = self._message.get("usage")
                self._message["usage"] = {**(before if isinstance(before, dict) else {}), **usage}

    def message(self) -> dict[str, Any]:
        if self._message is None:
            raise Unreadable(ANSWER, "a message ends that did not begin")
        return {**self._message, "content": [self._blocks[index].whole() for index in sorted(self._blocks)]}

    def _index(self, said: dict[str, Any]) -> int:
        return typed(said.get("index"), int, ANSWER, "the index of a block")


def _reply(answer: dict[str, Any]) -> Reply:
    texts: list[str] = []
    tools: list[ToolCall] = []
    for stated in answer["content"]:
        block = typed(stated, dict, ANSWER, "a content block")
        if block.get("type") == "text":
            texts.append(typed(block.get("text"), str, ANSWER, "a text"))
        elif block.get("type") == "tool_use":
            tools.append(ToolCall(typed(block.get("name"), str, ANSWER, "the name of a tool"), block.get("input")))
    return Reply(
        text="".join(texts) if texts else None, tools=tuple(tools), refused=answer.get("stop_reason") == "refusal"
    )


def _value(text: str) -> Any:
    try:
        return parsed_text(text, ANSWER)
    except Unreadable:
        return text


ADAPTER: Final = Adapter(
    name="anthropic",
    version=1,
    asked=asked,
    answered=answered,
    assembled=assembled,
    ends=ends,
    model=lambda answer: answer.get("model"),
)
