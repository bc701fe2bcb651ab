"""OpenAI's and Anthropic's own clients on a small server: what they understood is what the adapters find."""

import json
from collections.abc import Callable

import pytest

from tests.contract.support import agree, understood
from tests.support.protocol_vectors import Vector
from tests.support.upstreams import Exchange, Upstream

pytestmark = [pytest.mark.contract, pytest.mark.needs("contract-clients"), pytest.mark.timeout(240)]

TOLD = {"favourable": ["approve"], "adverse": ["deny"]}
BY_MATCH = {"label": {"match": r"VERDICT: (\w+)"}, **TOLD}
BY_JSON = {"label": {"json": "verdict"}, "features": {"json": "@", "at": "messages[-1].content"}, **TOLD}
BY_TOOL = {"label": {"tool": "decide", "argument": "verdict"}, **TOLD}
CLIENT = {"openai": "openai 3.54.0", "anthropic": "anthropic 2.12.0"}
DENIED = {"label": "deny", "favourable": 0, "model": "m-2026-01"}


class Answers:
    """A server that gives one prepared answer after the other and keeps both bodies."""

    def __init__(self, *bodies: bytes) -> None:
        self._bodies = iter(bodies)
        self.kept: list[tuple[bytes, bytes]] = []

    async def __call__(self, exchange: Exchange) -> None:
        body = next(self._bodies)
        self.kept.append((exchange.asked.body, body))
        if body.startswith(b"{"):
            await exchange.answer(body, "200 OK", "Content-Type: application/json")
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 37):  # no event comes in one piece
            await exchange.chunk(body[at : at + 37])
        await exchange.send(b"0\r\n\r\n")


def stream(*said: dict, named: bool = False, done: bool = False) -> bytes:
    lines = [(f"event: {one['type']}\n" if named else "") + f"data: {json.dumps(one)}\n\n" for one in said]
    return (": comment\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()


def chat(*texts: str) -> bytes:
    choices = [
        {
            "index": i,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": text, "refusal": None},
        }
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-2026-01",
        "choices": choices,
        "usage": usage,
    }
    return json.dumps(whole).encode()


def chunk(finish: str | None = None, **delta: object) -> dict:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-2026-01", "choices": [choice]}


def call_piece(index: int, **function: str) -> dict:
    started = {"id": f"t-{index}", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": index, **started, "function": function}]}


def response(text: str | None) -> dict:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "o-1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "r-1",
        "object": "response",
        "created_at": 1,
        "status": "completed" if text else "in_progress",
        "model": "m-2026-01",
        "output": [message] if text else [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def response_stream(text: str) -> bytes:
    item = response(text)["output"][0]
    place = {"item_id": "o-1", "output_index": 0, "content_index": 0}
    said = [
        {"type": "response.created", "response": response(None)},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {
            "type": "response.content_part.added",
            **place,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        {"type": "response.output_text.delta", **place, "delta": text[:4], "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": text[4:], "logprobs": []},
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response(text)},
    ]
    return stream(*[{**one, "sequence_number": number} for number, one in enumerate(said)], named=True)


def completions() -> bytes:
    choices = [
        {"index": i, "text": text, "finish_reason": "stop", "logprobs": None}
        for i, text in enumerate(["VERDICT: deny", "VERDICT: approve"])
    ]
    return json.dumps(
        {"id": "t", "object": "text_completion", "created": 1, "model": "m-2026-01", "choices": choices}
    ).encode()


OPENAI = {
    "chat": (chat("VERDICT: deny"), BY_MATCH, [DENIED], "VERDICT: deny"),
    "chat-structured": (
        chat('{"verdict": "deny"}'),
        BY_JSON,
        [{**DENIED, "features": {"income": 3, "age": None}}],
        "deny",
    ),
    "chat-stream": (
        stream(
            chunk(role="assistant", content=""),
            chunk(content="VERD"),
            chunk(content="ICT: deny"),
            chunk("stop"),
            {**chunk(), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
            done=True,
        ),
        BY_MATCH,
        [DENIED],
        "VERDICT: deny",
    ),
    "chat-stream-tools": (
        stream(
            chunk(role="assistant", content=None, **call_piece(0, name="decide", arguments="")),
            chunk(**call_piece(0, arguments='{"verd')),
            chunk(**call_piece(0, arguments='ict": "deny"}')),
            chunk(**call_piece(1, name="decide", arguments='{"verdict": "deny"}')),
            chunk("tool_calls"),
            done=True,
        ),
        BY_TOOL,
        [DENIED],
        [["decide", "deny"], ["decide", "deny"]],
    ),
    "chat-several": (
        chat("VERDICT: deny", "VERDICT: approve"),
        BY_MATCH,
        [{"model": "m-2026-01", "error": "label: ambiguous"}],
        ["VERDICT: deny", "VERDICT: approve"],
    ),
    "responses": (json.dumps(response("VERDICT: deny")).encode(), BY_MATCH, [DENIED], "VERDICT: deny"),
    "responses-stream": (response_stream("VERDICT: deny"), BY_MATCH, [DENIED], "VERDICT: deny"),
    "completions-rows": (
        completions(),
        {**BY_MATCH, "case": "prompt"},
        [{**DENIED, "case": "a"}, {**DENIED, "label": "approve", "favourable": 1, "case": "b"}],
        ["VERDICT: deny", "VERDICT: approve"],
    ),
    "chat-stream-error": (
        stream(chunk(content="VERDICT: deny"), {"error": {"message": "overloaded", "type": "server_error"}}),
        BY_MATCH,
        [{"error": "answer: an error instead of an answer"}],
        "APIError",
    ),
}


async def check(prefix: str, client: str, protocol: str, cases: dict, url_of: Callable[[str], str]) -> None:
    answers = Answers(*[case[0] for case in cases.values()])
    async with Upstream(answers) as upstream:
        seen = await understood(client, url_of(upstream.url))
    assert list(seen) == list(cases), "the client makes its calls in this order"
    for (name, (_, declared, expected, client_saw)), (request, answer) in zip(cases.items(), answers.kept, strict=True):
        assert seen[name] == client_saw, name
        agree(
            Vector(
                name=f"{prefix}-{name}",
                origin=f"request: {CLIENT[prefix]}; answer: written by hand, understood by that client",
                protocol=protocol,
                batch="rows" if name.endswith("-rows") else "none",
                extract=declared,
                request=request,
                answer=answer,
                expected=expected,
            )
        )


async def test_the_openai_client_and_the_adapter_understand_the_same():
    await check("openai", "openai_calls", "openai", OPENAI, lambda url: f"{url}/v1")


def delta(index: int, **said: str) -> dict:
    return {"type": "content_block_delta", "index": index, "delta": said}


def block(index: int, **content: object) -> dict:
    return {"type": "content_block_start", "index": index, "content_block": content}


MESSAGE = {
    "id": "m-1",
    "type": "message",
    "role": "assistant",
    "model": "m-2026-01",
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
ANTHROPIC = {
    "message": (
        json.dumps(
            {
                **MESSAGE,
                "content": [{"type": "tool_use", "id": "t-1", "name": "decide", "input": {"verdict": "deny"}}],
                "stop_reason": "tool_use",
            }
        ).encode(),
        {**BY_TOOL, "case": "metadata.user_id"},
        [{**DENIED, "case": "case-7"}],
        "deny",
    ),
    "message-stream": (
        stream(
            {"type": "message_start", "message": {**MESSAGE, "content": []}},
            block(0, type="text", text=""),
            {"type": "ping"},
            delta(0, type="text_delta", text="VERDICT: "),
            delta(0, type="text_delta", text="deny"),
            {"type": "content_block_stop", "index": 0},
            block(1, type="tool_use", id="t-1", name="decide", input={}),
            delta(1, type="input_json_delta", partial_json=""),
            delta(1, type="input_json_delta", partial_json='{"verdict": "d'),
            delta(1, type="input_json_delta", partial_json='eny"}'),
            {"type": "content_block_stop", "index": 1},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use", "stop_sequence": None},
                "usage": {"output_tokens": 9},
            },
            {"type": "message_stop"},
            named=True,
        ),
        BY_TOOL,
        [DENIED],
        {"text": "VERDICT: deny", "tool": ["deny"], "stop": "tool_use"},
    ),
    "message-stream-error": (
        stream(
            {"type": "message_start", "message": {**MESSAGE, "content": []}},
            {"type": "error", "error": {"type": "overloaded_error", "message": "later"}},
            named=True,
        ),
        BY_TOOL,
        [{"error": "answer: an error instead of an answer"}],
        "APIStatusError",
    ),
}


async def test_the_anthropic_client_and_the_adapter_understand_the_same():
    await check("anthropic", "anthropic_calls", "anthropic", ANTHROPIC, lambda url: url)
