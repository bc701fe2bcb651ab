"""Calls with Anthropic's own client; prints what it understood of each answer, as JSON by case."""

import json
import sys

import anthropic


def main() -> None:
    client = anthropic.Anthropic(base_url=sys.argv[1], api_key="ans_key", max_retries=0)
    call = {
        "model": "m",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Judge this."}],
        "metadata": {"user_id": "case-7"},
        "tools": [
            {"name": "decide", "input_schema": {"type": "object", "properties": {"verdict": {"type": "string"}}}}
        ],
    }
    seen = {}
    message = client.messages.create(**call)
    seen["message"] = next(block.input["verdict"] for block in message.content if block.type == "tool_use")
    with client.messages.stream(**call) as stream:
        final = stream.get_final_message()
        seen["message-stream"] = {
            "text": "".join(block.text for block in final.content if block.type == "text"),
            "tool": [block.input["verdict"] for block in final.content if block.type == "tool_use"],
            "stop": final.stop_reason,
        }
    try:
        with client.messages.stream(**call) as stream:
            stream.get_final_message()
    except anthropic.APIError as error:
        seen["message-stream-error"] = type(error).__name__
    sys.stdout.write(json.dumps(seen))


main()
