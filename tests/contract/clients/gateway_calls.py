"""Calls with OpenAI's and Anthropic's clients to a server that speaks both; prints what they understood, by case."""

import json
import sys

import anthropic
import openai

MESSAGES = [{"role": "user", "content": "Judge this."}]


def main() -> None:
    url = sys.argv[1]
    one = openai.OpenAI(base_url=f"{url}/v1", api_key="ans_key", max_retries=0)
    other = anthropic.Anthropic(base_url=url, api_key="ans_key", max_retries=0)
    seen = {}
    whole = one.chat.completions.create(model="m", messages=MESSAGES)
    seen["chat"] = whole.choices[0].message.content
    stream = one.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    seen["chat-stream"] = "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)
    seen["responses"] = one.responses.create(model="m", input="x").output_text
    message = other.messages.create(model="m", max_tokens=9, messages=MESSAGES)
    seen["message"] = message.content[0].text
    sys.stdout.write(json.dumps(seen))


main()
