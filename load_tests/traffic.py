"""What goes over the wire: a chat request of about 0.9 KB, its answer of about 0.3 KB, and both at other sizes."""

from __future__ import annotations

import json

CHAT_PATH = "/v1/chat/completions"
STREAM_PATH = "/v1/stream"
SIZES_KB = (1, 8, 64)


def chat_request() -> bytes:
    """0.9 KB, as a small credit question is."""
    context = "Income and employment were confirmed by documents. " * 12
    messages = [
        {"role": "system", "content": "You are a credit officer. Answer APPROVE or DENY with a reason."},
        {"role": "user", "content": f"Net income 3200 a month, debts 1900, employed two years. {context}"},
    ]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, "temperature": 0}).encode()


def chat_answer() -> bytes:
    """0.3 KB, in the shape that clients of chat completions expect."""
    message = {"role": "assistant", "content": "APPROVE: debts are below the limit."}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 190, "completion_tokens": 9, "total_tokens": 199},
    }
    return json.dumps(answer).encode()


def sized_path(size_kb: int) -> str:
    """Where the upstream takes any body and answers with `size_kb` KB."""
    return f"/v1/size/{size_kb}"


def sized_request(size_kb: int) -> bytes:
    """JSON of exactly `size_kb` KB."""
    frame = len(json.dumps({"text": ""}))
    return json.dumps({"text": "x" * (size_kb * 1024 - frame)}).encode()
