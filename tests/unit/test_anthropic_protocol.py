import json

import pytest

from config.extract import Extract
from storage.protocols import Extracted, ExtractSpec, extract
from storage.protocols.anthropic import ADAPTER
from storage.protocols.reading import answer_document
from storage.protocols.sse import Event

REQUEST = b'{"model": "m", "max_tokens": 9, "messages": [], "metadata": {"user_id": "u-1"}}'


def spec(reading: object) -> ExtractSpec:
    declared = Extract.model_validate({"label": reading})
    return ExtractSpec(protocol="anthropic", label=declared.label, favourable=("approve",), adverse=("deny",))


BY_MATCH = spec({"match": r"VERDICT: (\w+)"})
BY_TOOL = spec({"tool": "decide", "argument": "verdict"})


def message(*content: dict, **more: object) -> bytes:
    return json.dumps({"type": "message", "model": "m-1", "content": list(content), **more}).encode()


def stream(*said: dict) -> bytes:
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in said).encode()


START = {
    "type": "message_start",
    "message": {"type": "message", "model": "m-1", "content": [], "usage": {"input_tokens": 3}},
}
STOP = {"type": "message_stop"}


def block(index: int, **content: object) -> dict:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **delta_: str) -> dict:
    return {"type": "content_block_delta", "index": index, "delta": delta_}


@pytest.mark.parametrize(
    ("declared", "answer"),
    [
        (
            BY_MATCH,
            message({"type": "thinking", "thinking": "VERDICT: approve"}, {"type": "text", "text": "VERDICT: deny"}),
        ),
        (BY_MATCH, message({"type": "text", "text": "VERDICT:"}, {"type": "text", "text": " deny"})),
        (BY_TOOL, message({"type": "tool_use", "name": "decide", "input": {"verdict": "deny"}})),
        (spec("content[?type=='text'].text | [0]"), message({"type": "text", "text": "deny"})),
    ],
)
def test_a_message_gives_its_label(declared, answer):
    assert extract(REQUEST, answer, declared) == Extracted(label="deny", favourable=0, model="m-1")


def test_a_stream_is_the_message_that_it_would_have_been():
    raw = stream(
        START,
        block(0, type="thinking", thinking="", signature=""),
        {"type": "ping"},
        delta(0, type="thinking_delta", thinking="Hm"),
        block(1, type="text", text="so "),
        delta(0, type="signature_delta", signature="sig"),
        delta(1, type="text_delta", text="VERD"),
        block(2, type="tool_use", id="t", name="decide", input={}),
        delta(2, type="input_json_delta", partial_json=""),
        delta(2, type="input_json_delta", partial_json='{"verdict": "de'),
        delta(1, type="text_delta", text="ICT: deny"),
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"cited": 1}}},
        delta(2, type="input_json_delta", partial_json='ny"}'),
        delta(2, type="a_delta_of_tomorrow"),
        {"type": "content_block_stop", "index": 0},
        {"type": "an_event_of_tomorrow"},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
        STOP,
    )
    assert answer_document(ADAPTER, raw, parse_bytes_max=10_000) == {
        "type": "message",
        "model": "m-1",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "sig"},
            {"type": "text", "text": "so VERDICT: deny", "citations": [{"cited": 1}]},
            {"type": "tool_use", "id": "t", "name": "decide", "input": {"verdict": "deny"}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    for declared in (BY_MATCH, BY_TOOL):
        assert extract(REQUEST, raw, declared).label == "deny"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (stream(START, block(0, type="text", text="VERDICT: deny")), "answer: the stream is cut"),
        (
            stream(START, {"type": "error", "error": {"type": "overloaded_error"}}),
            "answer: an error instead of an answer",
        ),
        (stream(STOP), "answer: a message ends that did not begin"),
        (stream(START, delta(0, type="text_delta", text="x")), "answer: a block goes on that did not begin"),
        (
            stream(START, block(0, type="text"), delta(0, type="text_delta")),
            "answer: a delta is not what the protocol says",
        ),
        (b'{"type": "error", "error": {"type": "x"}}', "answer: an error instead of an answer"),
        (b'{"completion": "VERDICT: deny"}', "answer: not a message"),
        (message({"type": "text", "text": "I will not"}, stop_reason="refusal"), "label: the model refused"),
        (message(), "label: the answer has no text"),
        (message("text"), "answer: a content block is not what the protocol says"),
    ],
)
def test_what_cannot_be_extracted_is_recorded_and_never_guessed(answer, error):
    found = extract(REQUEST, answer, BY_MATCH)
    assert (found.label, found.error) == (None, error)


def test_a_tool_s_input_that_is_cut_spoils_only_itself():
    raw = stream(
        START,
        block(0, type="text", text="VERDICT: deny"),
        block(1, type="tool_use", name="decide", input={}),
        delta(1, type="input_json_delta", partial_json='{"verdict": "app'),
        STOP,
    )
    assert extract(REQUEST, raw, BY_MATCH).label == "deny"
    assert extract(REQUEST, raw, BY_TOOL).error == "label: not JSON"


@pytest.mark.parametrize(
    ("event", "last"),
    [
        (Event("message_stop", "{}", 0), True),
        (Event("error", "{}", 0), True),
        (Event("message", '{"type": "message_stop"}', 0), True),
        (Event("content_block_delta", '{"type":"content_block_delta","delta":{"text":"message_stop"}}', 0), False),
        (Event("message", '{"type":"content_block_delta","delta":{"text":"message_stop"}}', 0), False),
        (Event("message", "message_stop", 0), False),
        (Event("message", '{"type": ["message_stop"]}', 0), False),
        (Event("ping", "{}", 0), False),
    ],
)
def test_the_terminal_event_is_told_from_all_others(event, last):
    assert ADAPTER.ends is not None
    assert ADAPTER.ends(event) is last
