"""Calls with OpenAI's own client; prints what it understood of each answer, as JSON by case."""

import json
import sys

import openai
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": '{"income": 3, "age": null}'}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "decide",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"verdict": {"type": "string"}},
                "required": ["verdict"],
                "additionalProperties": False,
            },
        },
    }
]


class Verdict(BaseModel):
    verdict: str


def main() -> None:
    client = openai.OpenAI(base_url=sys.argv[1], api_key="ans_key", max_retries=0)
    chat = {"model": "m", "messages": MESSAGES, "user": "case-7"}
    seen = {}
    whole = client.chat.completions.create(**chat)
    seen["chat"] = whole.choices[0].message.content
    parsed = client.chat.completions.parse(**chat, response_format=Verdict)
    seen["chat-structured"] = parsed.choices[0].message.parsed.verdict
    stream = client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True})
    seen["chat-stream"] = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    with client.chat.completions.stream(**chat, tools=TOOLS) as events:
        calls = events.get_final_completion().choices[0].message.tool_calls
        seen["chat-stream-tools"] = [[c.function.name, json.loads(c.function.arguments)["verdict"]] for c in calls]
    several = client.chat.completions.create(**chat, n=2)
    seen["chat-several"] = [c.message.content for c in several.choices]
    response = client.responses.create(model="m", input="x", user="case-7")
    seen["responses"] = response.output_text
    with client.responses.stream(model="m", input="x", user="case-7") as events:
        seen["responses-stream"] = events.get_final_response().output_text
    texts = client.completions.create(model="m", prompt=["a", "b"], user="case-7")
    seen["completions-rows"] = [choice.text for choice in texts.choices]
    try:
        for _ in client.chat.completions.create(**chat, stream=True):
            pass
    except openai.APIError as error:
        seen["chat-stream-error"] = type(error).__name__
    sys.stdout.write(json.dumps(seen))


main()
