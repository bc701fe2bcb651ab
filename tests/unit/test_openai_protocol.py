"""OpenAI-compatible bodies: whole and streamed, and what servers do to them."""

import json

import pytest

from config.extract import Extract
from config.route import Route
from storage.protocols import Extracted, Extractor, extract, spec_of
from storage.protocols.openai import ADAPTER
from storage.protocols.reading import answer_document
from storage.protocols.sse import Event

REQUEST = json.dumps(
    {
        "model": "m",
        "messages": [{"role": "user", "content": 'Judge this: {"income": 3, "age": null}'}],
        "user": "case-7",
        "metadata": {"person": 12345678901234567890123},
    }
).encode()


def extractor(**extract_: object) -> Extractor:
    declared = {"favourable": ["approve"], "adverse": ["deny", "refer"], **extract_}
    route = Route(
        name="r", prefix="/r", upstream="http://h", protocol="openai", extract=Extract.model_validate(declared)
    )
    spec = spec_of(route, parse_bytes_max=1_000_000)
    assert spec is not None
    return Extractor(spec)


def chat(*messages: dict, **more: object) -> bytes:
    choices = [
        {"index": i, "message": {"role": "assistant", **m}, "finish_reason": "stop"} for i, m in enumerate(messages)
    ]
    return json.dumps({"object": "chat.completion", "model": "m-2026-01", "choices": choices, **more}).encode()


def sse(*said: object, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(one, ensure_ascii=False)}\n\n" for one in said]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def chunk(index: int = 0, finish: str | None = None, **delta: object) -> dict:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": "m-2026-01",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
    }


def tool(name: str, arguments: str) -> dict:
    return {
        "content": None,
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": name, "arguments": arguments}}],
    }


BY_TOOL = {"tool": "decide", "argument": "verdict"}
BY_JSON = {"json": "verdict"}
BY_MATCH = {"match": r"VERDICT: (\w+)"}


@pytest.mark.parametrize(
    ("reading", "answer"),
    [
        ("choices[0].message.content", chat({"content": "deny"})),
        (BY_JSON, chat({"content": '{"verdict": "deny"}'})),
        (BY_JSON, chat({"content": [{"type": "text", "text": '{"verdict":'}, {"type": "text", "text": '"deny"}'}]})),
        (BY_TOOL, chat(tool("decide", '{"verdict": "deny"}'))),
        (BY_TOOL, chat({"content": "", "function_call": {"name": "decide", "arguments": '{"verdict": "deny"}'}})),
        (BY_MATCH, chat({"content": "Weighing it.\nVERDICT: deny\nAs said, VERDICT: deny."})),
        (BY_MATCH, chat({"content": "VERDICT: deny"}, {"content": "So: VERDICT: deny"})),
        ({"match": "deny|approve"}, chat({"content": "I would deny it"})),
        ({"match": "^(deny)$", "at": "choices[0].message.content"}, chat({"content": "deny"})),
        (BY_MATCH, json.dumps({"choices": [{"index": 0, "text": "VERDICT: deny"}]}).encode()),
    ],
)
def test_each_way_of_reading_finds_the_label(reading, answer):
    found = extractor(label=reading).extract(REQUEST, answer)
    assert (found.label, found.favourable, found.error) == ("deny", 0, None)


@pytest.mark.parametrize(
    ("reading", "answer", "error"),
    [
        (BY_MATCH, chat({"content": "VERDICT: deny or VERDICT: approve"}), "label: ambiguous"),
        (BY_MATCH, chat({"content": "VERDICT: deny"}, {"content": "VERDICT: approve"}), "label: ambiguous"),
        (BY_MATCH, chat({"content": "VERDICT: deny"}, {"content": "no idea"}), "label: ambiguous"),
        (BY_MATCH, chat({"content": "I cannot say"}), "label: not found"),
        (BY_MATCH, chat({"content": "VERDICT: deny " * 17}), "label: more than 16 matches"),
        (BY_MATCH, chat({"content": "VERDICT: perhaps"}), "label: neither favourable nor adverse"),
        (BY_MATCH, chat({"content": None, "refusal": "I cannot help"}), "label: the model refused"),
        (BY_MATCH, chat({"content": [{"type": "refusal", "refusal": "no"}]}), "label: the model refused"),
        (BY_MATCH, chat(tool("decide", "{}")), "label: the answer has no text"),
        (BY_JSON, chat({"content": '{"verdict": "deny"'}), "label: not JSON"),
        (BY_JSON, chat({"content": '{"verdict": "deny", "verdict": "approve"}'}), "label: a key stands twice"),
        (BY_JSON, chat({"content": '{"verdict": ["deny"]}'}), "label: not a single value"),
        (BY_JSON, chat({"content": '{"verdict": ""}'}), "label: empty"),
        (BY_TOOL, chat({"content": "deny"}), "label: the tool is not called"),
        (BY_TOOL, chat(tool("other", '{"verdict": "deny"}')), "label: the tool is not called"),
        (BY_TOOL, chat(tool("decide", '{"verdict": "de')), "label: not JSON"),
        (BY_TOOL, chat(tool("decide", "{}")), "label: not found"),
        ("choices[0].message.content", chat(), "answer: no choices"),
        (
            "choices[0].message.content",
            b'{"error": {"message": "secret of mine"}}',
            "answer: an error instead of an answer",
        ),
        ("choices[0].message.content", b'{"data": []}', "answer: neither a completion nor a response"),
        ("choices[0].message.content", b"[]", "answer: the body is not what the protocol says"),
        ("choices[0].message.content", b"upstream down", "answer: not JSON"),
        (
            "abs(choices[0].message.content)",
            chat({"content": "x"}),
            "label: the expression does not take what it found",
        ),
    ],
)
def test_what_cannot_be_extracted_is_recorded_and_never_guessed(reading, answer, error):
    found = extractor(label=reading, case="user").extract(REQUEST, answer)
    assert found.error == error
    assert found.favourable is None
    assert found.label in (None, "perhaps")
    assert found.case == "case-7", "what the request says is not lost with the answer"


def test_a_tool_called_twice_must_say_the_same():
    same, other = tool("decide", '{"verdict": "deny"}'), tool("decide", '{"verdict": "approve"}')
    twice = {"content": None, "tool_calls": same["tool_calls"] * 2}
    differing = {"content": None, "tool_calls": same["tool_calls"] + other["tool_calls"]}
    assert extractor(label=BY_TOOL).extract(REQUEST, chat(twice)).label == "deny"
    assert extractor(label=BY_TOOL).extract(REQUEST, chat(differing)).error == "label: ambiguous"


def test_request_and_score_are_read_with_the_label():
    found = extractor(
        label=BY_JSON,
        score={"match": r'"p": ([0-9.]+)'},
        case="user",
        subject="metadata.person",
    ).extract(REQUEST, chat({"content": '{"verdict": "refer", "p": 0.25}'}))
    assert found == Extracted(
        label="refer", favourable=0, score=0.25, case="case-7", subject="12345678901234567890123", model="m-2026-01"
    )


def test_features_can_stand_as_json_in_a_message():
    request = json.dumps({"messages": [{"role": "user", "content": '{"income": 3, "age": null}'}]}).encode()
    declared = extractor(label=BY_JSON, features={"json": "@", "at": "messages[-1].content"})
    answer = chat({"content": '{"verdict": "approve"}'})
    assert declared.extract(request, answer).features == {"income": 3, "age": None}
    assert declared.extract(REQUEST, answer).error == "features: not JSON"


def test_a_stream_is_the_document_that_it_would_have_been():
    stream = sse(
        {"id": "c", "object": "chat.completion.chunk", "model": "m-2026-01", "choices": []},
        chunk(role="assistant", content=""),
        chunk(content="VERDICT: "),
        chunk(content="de"),
        chunk(content="ny"),
        chunk(finish="stop"),
        {"object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 3}},
    )
    assert answer_document(ADAPTER, stream, parse_bytes_max=10_000) == {
        "id": "c",
        "object": "chat.completion",
        "model": "m-2026-01",
        "usage": {"total_tokens": 3},
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "VERDICT: deny"}, "finish_reason": "stop"}
        ],
    }
    assert extractor(label=BY_MATCH).extract(REQUEST, stream).label == "deny"


def test_choices_and_tool_calls_that_interleave_are_told_apart():
    def call(index: int, **function: str) -> dict:
        return {"tool_calls": [{"index": index, "type": "function", "function": function}]}

    stream = sse(
        chunk(1, role="assistant", **call(0, name="note", arguments="")),
        chunk(0, role="assistant", **call(1, name="decide", arguments='{"verdict"')),
        chunk(1, **call(1, name="decide", arguments='{"verdict": "deny"}')),
        chunk(0, **call(0, name="note", arguments="{}")),
        chunk(0, role="assistant", **call(1, arguments=': "deny"}')),
        chunk(1, **call(0, arguments="{}")),
        chunk(1, finish="tool_calls"),
        chunk(0, finish="tool_calls"),
    )
    document = answer_document(ADAPTER, stream, parse_bytes_max=10_000)
    functions = [[t["function"] for t in c["message"]["tool_calls"]] for c in document["choices"]]
    assert (
        functions[0]
        == functions[1]
        == [
            {"name": "note", "arguments": "{}"},
            {"name": "decide", "arguments": '{"verdict": "deny"}'},
        ]
    )
    assert extractor(label=BY_TOOL).extract(REQUEST, stream).label == "deny"


def test_refusals_and_logprobs_come_in_pieces_too():
    stream = sse(
        chunk(role="assistant", refusal="I can"),
        {"choices": [{"index": 0, "delta": {"refusal": "not"}, "logprobs": {"content": [1]}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": None, "logprobs": {"content": [2]}, "finish_reason": "stop"}]},
    )
    choice = answer_document(ADAPTER, stream, parse_bytes_max=10_000)["choices"][0]
    assert (choice["message"]["refusal"], choice["logprobs"]) == ("I cannot", {"content": [1, 2]})
    assert extractor(label=BY_MATCH).extract(REQUEST, stream).error == "label: the model refused"


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (sse(chunk(content="VERDICT: deny"), done=False), "answer: the stream is cut"),
        (sse(chunk(content="VERDICT: deny")).removesuffix(b"\n"), "answer: the stream is cut"),
        (
            sse(chunk(0, "stop", content="VERDICT: deny"), chunk(1, content="V"), done=False),
            "answer: the stream is cut",
        ),
        (sse(chunk(content="V"), {"error": {"message": "x"}}), "answer: an error instead of an answer"),
        (b'event: error\ndata: {"type": "error", "message": "x"}\n\n', "answer: an error instead of an answer"),
        (b"data: [DONE]\n\n", "answer: no choices"),
        (b": nothing\n\n", "answer: the stream is cut"),
        (b"data: {\n\n", "answer: not JSON"),
        (b'data: {"choices": [{"index": 0, "delta": {"content": "\xff"}}]}\n\n', "answer: not UTF-8"),
        (b"data: 7\n\n", "answer: an event is not what the protocol says"),
        (sse({"choices": [{"delta": {}}]}), "answer: the index of a choice is not what the protocol says"),
        (
            sse({"choices": [{"index": True, "delta": {}}]}),
            "answer: the index of a choice is not what the protocol says",
        ),
        (sse({"choices": {"index": 0}}), "answer: choices is not what the protocol says"),
        (
            sse(chunk(tool_calls=[{"function": {"name": "decide"}}])),
            "answer: the index of a tool call is not what the protocol says",
        ),
        (
            sse(*[chunk(tool_calls=[{"index": 0, "function": {"name": n}}]) for n in ("de", "cide")]),
            "answer: a name comes in pieces",
        ),
    ],
)
def test_a_stream_that_is_cut_or_wrong_gives_no_label(stream, error):
    found = extractor(label=BY_MATCH).extract(REQUEST, stream)
    assert (found.label, found.error) == (None, error)


def test_a_stream_is_whole_by_its_last_event_or_by_its_finished_choices():
    finished = sse(chunk(content="VERDICT: deny"), chunk(finish="stop"), done=False)
    unfinished = sse(chunk(content="VERDICT: deny"))
    after = sse(chunk(0, "stop", content="VERDICT: deny")) + sse(chunk(content=" VERDICT: approve"))
    for stream in (finished, unfinished, after):
        assert extractor(label=BY_MATCH).extract(REQUEST, stream).label == "deny"


def test_streamed_completions_are_read_as_well():
    said = [{"object": "text_completion", "choices": [{"index": 0, "text": text}]} for text in ("VERDICT", ": deny")]
    assert extractor(label=BY_MATCH).extract(b'{"prompt": "x"}', sse(*said)).label == "deny"


def response(*output: dict, **more: object) -> dict:
    return {
        "object": "response",
        "model": "m-2026-01",
        "status": "completed",
        "error": None,
        "output": list(output),
        **more,
    }


def said(text: str) -> dict:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


@pytest.mark.parametrize(
    ("reading", "output"),
    [
        (BY_MATCH, [{"type": "reasoning", "summary": []}, said("VERDICT: deny")]),
        (BY_JSON, [said('{"verdict": "deny"}')]),
        (BY_TOOL, [{"type": "function_call", "name": "decide", "arguments": '{"verdict": "deny"}', "call_id": "c"}]),
        (BY_TOOL, [{"type": "custom_tool_call", "name": "decide", "input": '{"verdict": "deny"}'}]),
        ("output[0].content[0].text", [said("deny")]),
    ],
)
def test_responses_are_read_whole_and_from_their_last_event(reading, output):
    whole = response(*output)
    created = {"type": "response.created", "response": response(status="in_progress")}
    delta = {"type": "response.output_text.delta", "delta": "VERDICT: approve"}
    stream = b"".join(
        f"event: {one['type']}\r\ndata: {json.dumps(one)}\r\n\r\n".encode()
        for one in (created, delta, {"type": "response.completed", "response": whole})
    )
    request = b'{"model": "m", "input": "x"}'
    for answer in (json.dumps(whole).encode(), stream):
        found = extractor(label=reading).extract(request, answer)
        assert (found.label, found.model, found.error) == ("deny", "m-2026-01", None)
    cut = stream[: stream.index(b"event: response.completed")]
    assert extractor(label=reading).extract(request, cut).error == "answer: the stream is cut"


def test_a_failed_response_and_a_refusal_give_no_label():
    failed = {"type": "response.failed", "response": response(error={"code": "server_error"})}
    assert (
        extractor(label=BY_MATCH).extract(b"{}", sse(failed, done=False)).error
        == "answer: an error instead of an answer"
    )
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    assert (
        extractor(label=BY_MATCH).extract(b"{}", json.dumps(response(refusal)).encode()).error
        == "label: the model refused"
    )


def test_several_prompts_are_rows_each_with_its_choices():
    request = json.dumps({"prompt": ["a", "b"], "n": 2}).encode()
    choices = [{"index": i, "text": text} for i, text in enumerate(["deny", "deny", "approve", "approve"])]
    answer = json.dumps({"choices": choices[::-1]}).encode()
    declared = {"label": {"match": "deny|approve"}, "case": "prompt", "favourable": ["approve"]}
    route = Route(
        name="r",
        prefix="/r",
        upstream="http://h",
        protocol="openai",
        batch="rows",
        extract=Extract.model_validate(declared),
    )
    spec = spec_of(route, parse_bytes_max=10_000)
    assert spec is not None
    rows = Extractor(spec).rows(request, answer)
    assert [(row.label, row.case) for row in rows] == [("deny", "a"), ("approve", "b")]
    uneven = json.dumps({"choices": choices[:3]}).encode()
    assert [row.error for row in Extractor(spec).rows(request, uneven)] == [
        "answer: its rows are not those of the request"
    ] * 2
    assert len(Extractor(spec).rows(b'{"prompt": [1, 2, 3]}', answer)) == 1, "a list of tokens is one prompt"
    assert extract(request, answer, spec).error == "request: 2 rows, and none is named"
    alone = extractor(label={"match": "deny|approve"}, case="prompt").extract(request, answer)
    assert alone.error == "request: 2 rows, at most 1 are told apart"
    assert alone.label is None


@pytest.mark.parametrize(
    ("event", "last"),
    [
        (Event("message", "[DONE]", 0), True),
        (Event("response.completed", "{}", 0), True),
        (Event("response.incomplete", "{}", 0), True),
        (Event("message", '{"type":"response.failed","response":{}}', 0), True),
        (Event("message", '{"error":{"message":"x"}}', 0), True),
        (Event("error", "x", 0), True),
        (Event("message", '{"choices":[{"delta":{"content":"[DONE] response.completed \\"error\\""}}]}', 0), False),
        (Event("message", '{"type":"response.created","response":{"error":null}}', 0), False),
        (Event("response.created", '{"type":"response.created","response":{"error":null}}', 0), False),
        (Event("message", '{"error"', 0), False),
        (Event("message", '["error"]', 0), False),
        (Event("message", '{"type": [], "error": null}', 0), False),
    ],
)
def test_the_terminal_event_is_told_from_all_others(event, last):
    assert ADAPTER.ends is not None
    assert ADAPTER.ends(event) is last
