"""The OpenAI-compatible endpoints: chat completions, completions and responses, whole and streamed.

Which endpoint it was shows in the bodies themselves. A call is one row, except completions with several prompts: one
row a prompt. With n > 1 a row has several replies. A stream becomes the document that the same answer would have been
without streaming; it is whole when it said `[DONE]`, or when each choice had its `finish_reason`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from storage.protocols.documents import parsed_text, typed
from storage.protocols.exchange import Adapter, Reply, Side, ToolCall
from storage.protocols.faults import ANSWER, REQUEST, Unreadable
from storage.protocols.pieces import Pieces
from storage.protocols.sse import Event

DONE: Final = "[DONE]"
_LAST_RESPONSES: Final = ("response.completed", "response.incomplete", "response.failed")
_LAST_TYPES: Final = (*_LAST_RESPONSES, "error")  # no set: what a stranger calls a type may be unhashable
_IN_PARTS: Final = ("text", "output_text")


def asked(document: Any) -> list[Side]:
    """One side, or one for each of several prompts."""
    request = typed(document, dict, REQUEST, "the body")
    prompts = request.get("prompt")
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):  # a list of integers is one prompt
        return [Side(value={**request, "prompt": prompt}) for prompt in prompts]
    return [Side(value=request)]


def answered(document: Any, rows: int | None) -> list[Side]:
    """The sides of a chat completion, a completion or a response."""
    answer = typed(document, dict, ANSWER, "the body")
    if answer.get("error") is not None:
        raise Unreadable(ANSWER, "an error instead of an answer")
    if isinstance(answer.get("choices"), list):
        return _choices(answer, rows or 1)
    if isinstance(answer.get("output"), list):
        return [Side(value=answer, replies=(_response(answer["output"]),))]
    raise Unreadable(ANSWER, "neither a completion nor a response")


def ends(event: Event) -> bool:
    """`[DONE]`, the last event of a response, or an error, after which clients stop reading."""
    if event.data == DONE or event.type in _LAST_TYPES:
        return True
    if '"error"' not in event.data and not any(name in event.data for name in _LAST_RESPONSES):
        return False  # no parsing for what streams by
    try:
        said = parsed_text(event.data, ANSWER)
    except Unreadable:
        return False
    return isinstance(said, dict) and (said.get("type") in _LAST_TYPES or said.get("error") is not None)


def assembled(events: Iterable[Event]) -> Any:
    """The document of a streamed answer.

    Raises:
        Unreadable: it is cut, or says what the protocol does not.
    """
    stream = _Stream()
    for event in events:
        if event.data == DONE:
            return stream.document(done=True)
        said = typed(parsed_text(event.data, ANSWER), dict, ANSWER, "an event")
        kind = said.get("type", event.type)
        if kind in _LAST_RESPONSES:
            return typed(said.get("response"), dict, ANSWER, "the response of the last event")
        if kind == "error" or said.get("error") is not None:
            raise Unreadable(ANSWER, "an error instead of an answer")
        stream.take(said)
    return stream.document(done=False)


class _Stream:
    """The choices of a streamed completion, by index, however they interleave."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = {}
        self._choices: dict[int, Pieces] = {}
        self._chat = False

    def take(self, said: dict[str, Any]) -> None:
        """One event."""
        choices = said.get("choices")
        if choices is None:  # an event of a response, or of an extension: the last event says it all
            return
        self._document.update({name: value for name, value in said.items() if name != "choices" and value is not None})
        for choice in typed(choices, list, ANSWER, "choices"):
            stated = typed(choice, dict, ANSWER, "a choice")
            index = typed(stated.get("index"), int, ANSWER, "the index of a choice")
            pieces = self._choices.setdefault(index, Pieces())
            if "delta" in stated:
                self._chat = True
                delta = stated["delta"]
                if delta is not None:  # the last one of some servers
                    pieces.message(typed(delta, dict, ANSWER, "a delta"))
            pieces.add({name: value for name, value in stated.items() if name not in ("index", "delta")})

    def document(self, *, done: bool) -> Any:
        """The whole answer; `done` if the stream said so.

        Raises:
            Unreadable: it did not, and not every choice is finished.
        """
        finished = bool(self._choices) and all(choice.has("finish_reason") for choice in self._choices.values())
        if not done and not finished:
            raise Unreadable(ANSWER, "the stream is cut")
        choices = [{"index": index, **self._choices[index].joined()} for index in sorted(self._choices)]
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._document, "object": kind, "choices": choices}


def _choices(answer: dict[str, Any], rows: int) -> list[Side]:
    choices = [typed(choice, dict, ANSWER, "a choice") for choice in answer["choices"]]
    if not choices:
        raise Unreadable(ANSWER, "no choices")
    if len(choices) % rows:
        raise Unreadable(ANSWER, "its rows are not those of the request")
    if rows > 1:
        choices.sort(key=lambda choice: typed(choice.get("index"), int, ANSWER, "the index of a choice"))
        if [choice["index"] for choice in choices] != list(range(len(choices))):
            raise Unreadable(ANSWER, "the index of a choice is not what the protocol says")
    each = len(choices) // rows
    groups = [choices[at : at + each] for at in range(0, len(choices), each)]
    return [
        Side(value={**answer, "choices": group}, replies=tuple(_reply(choice) for choice in group)) for group in groups
    ]


def _reply(choice: dict[str, Any]) -> Reply:
    if "message" not in choice:
        text = choice.get("text")
        return Reply(text=text if isinstance(text, str) else None)
    message = typed(choice["message"], dict, ANSWER, "a message")
    called = message.get("tool_calls") or []
    tools = [_tool(typed(call, dict, ANSWER, "a tool call")) for call in typed(called, list, ANSWER, "tool_calls")]
    if isinstance(message.get("function_call"), dict):
        tools.append(_tool({"function": message["function_call"]}))
    text, refused = _text(message.get("content"))
    return Reply(text=text, tools=tuple(tools), refused=refused or bool(message.get("refusal")))


def _tool(call: dict[str, Any]) -> ToolCall:
    function = call.get("function")
    if isinstance(function, dict):
        return ToolCall(_name(function), function.get("arguments"))
    custom = typed(call.get("custom"), dict, ANSWER, "a tool call")
    return ToolCall(_name(custom), custom.get("input"))


def _name(called: dict[str, Any]) -> str:
    return typed(called.get("name"), str, ANSWER, "the name of a tool")


def _text(content: Any) -> tuple[str | None, bool]:
    """The text of a message's content, which is text or a list of parts, and whether a part refuses."""
    if content is None or isinstance(content, str):
        return content, False
    parts = [typed(part, dict, ANSWER, "a part") for part in typed(content, list, ANSWER, "the content")]
    texts = [typed(part.get("text"), str, ANSWER, "a text") for part in parts if part.get("type") in _IN_PARTS]
    return ("".join(texts) if texts else None), any(part.get("type") == "refusal" for part in parts)


def _response(output: list[Any]) -> Reply:
    texts: list[str] = []
    tools: list[ToolCall] = []
    refused = False
    for stated in output:
        item = typed(stated, dict, ANSWER, "an output")
        if item.get("type") == "message":
            text, refuses = _text(item.get("content"))
            texts += [] if text is None else [text]
            refused = refused or refuses
        elif item.get("type") == "function_call":
            tools.append(ToolCall(_name(item), item.get("arguments")))
        elif item.get("type") == "custom_tool_call":
            tools.append(ToolCall(_name(item), item.get("input")))
    return Reply(text="".join(texts) if texts else None, tools=tuple(tools), refused=refused)


ADAPTER: Final = Adapter(
    name="openai",
    version=1,
    asked=asked,
    answered=answered,
    assembled=assembled,
    ends=ends,
    model=lambda answer: answer.get("model"),
)
