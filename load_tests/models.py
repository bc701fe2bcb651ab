"""The soak's model endpoints: one process that answers in every protocol, and misbehaves now and then.

`python -m load_tests.models PORT SEED`. A share of the calls is slow, answered with 500, or cut in mid-answer.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import orjson
import uvloop
from aiohttp import web

SLOW, FAILS, CUTS = 0.01, 0.01, 0.015  # shares of all calls
SLOW_S = 1.5  # beyond the second after which a call is begun in the journal
EVENTS_MAX = 20


class Models:
    """Answers; `roll` decides who is treated badly."""

    def __init__(self, roll: random.Random) -> None:
        self._roll = roll

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        luck = self._roll.random()
        if luck < SLOW:
            await asyncio.sleep(SLOW_S)
        elif luck < SLOW + FAILS:
            return web.json_response({"error": "out of memory"}, status=500)
        asked = orjson.loads(body) if body else {}
        is_cut = SLOW + FAILS <= luck < SLOW + FAILS + CUTS
        if isinstance(asked, dict) and asked.get("stream"):
            return await self._streamed(request, request.path, is_cut=is_cut)
        answer = orjson.dumps(answered(request.path, asked))
        if is_cut:
            return await _cut(request, answer)
        return web.Response(body=answer, content_type="application/json")

    async def _streamed(self, request: web.BaseRequest, path: str, *, is_cut: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        count = self._roll.randint(3, EVENTS_MAX)
        for number, event in enumerate(events(path, count)):
            if is_cut and number == count // 2:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(event)
            await asyncio.sleep(0.01)
        return response


async def _cut(request: web.BaseRequest, answer: bytes) -> web.StreamResponse:
    """Half of the answer, then the end of the connection."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(answer))})
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


def answered(path: str, asked: Any) -> Any:
    """One whole answer in the path's protocol."""
    if path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": '{"decision": "approved", "confidence": 0.8}'}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    if path.endswith("/messages"):
        content = [{"type": "text", "text": "approved"}]
        return {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
    if path.endswith("/infer"):
        return {"model_name": "m", "outputs": [{"name": "p", "datatype": "FP64", "shape": [1], "data": [0.7]}]}
    if path.endswith(":predict"):
        return {"predictions": [0.7 for _ in asked.get("instances", [0])]}
    if path.endswith("/invocations"):
        return {"predictions": [0.7 for _ in asked.get("instances", [0])]}
    return {"decision": "approved", "probability": 0.7}


def events(path: str, count: int) -> list[bytes]:
    """One streamed answer, event by event, with its end."""
    if path.endswith("/messages"):
        pieces: list[tuple[str, Any]] = [
            ("message_start", {"message": {"id": "m", "role": "assistant", "content": []}}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            *[("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "word "}})] * count,
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn"}}),
            ("message_stop", {}),
        ]
        return [b"event: %b\ndata: %b\n\n" % (n.encode(), orjson.dumps({"type": n, **said})) for n, said in pieces]
    delta = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "word "}}]}
    last = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [b"data: %b\n\n" % each for each in (*[orjson.dumps(delta)] * count, orjson.dumps(last), b"[DONE]")]


async def serve(port: int, seed: int) -> None:
    runner = web.ServerRunner(web.Server(Models(random.Random(seed)), access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
