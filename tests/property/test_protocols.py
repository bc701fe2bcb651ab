"""Whatever the bytes: the pieces they come in change nothing, and nothing is raised but the one declared error."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.extract import Extract
from storage.protocols import Extractor, ExtractSpec
from storage.protocols.documents import parsed
from storage.protocols.faults import Unreadable
from storage.protocols.reading import adapter_for
from storage.protocols.splitting import Splitter, Unsplit
from storage.protocols.sse import Event, Events, looks_like_events
from storage.protocols.terminals import Terminal
from tests.support.protocol_vectors import Vector, load, names

PROTOCOLS = ("generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow")
WORDS = [
    *("choices", "index", "delta", "content", "message", "role", "tool_calls", "function", "name", "arguments"),
    *("finish_reason", "text", "output", "type", "error", "refusal", "model", "usage"),
    *("content_block", "message_start", "message_stop", "content_block_delta", "text_delta", "partial_json"),
    *("inputs", "outputs", "shape", "data", "datatype", "parameters", "binary_data_size"),
    *("predictions", "instances", "dataframe_split", "columns", "dataframe_records"),
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=6)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=25,
)
LINES = st.sampled_from(
    [b"data: ", b"data:", b"event: ", b": c", b"id: 1", b"\n", b"\r\n", b"\r", b"\n\n", b"[DONE]", b"\xef\xbb\xbf"]
)
STREAMS = st.lists(LINES | st.binary(max_size=8) | JSON.map(lambda value: json.dumps(value).encode()), max_size=25).map(
    b"".join
)
DOCUMENTS = JSON.map(lambda value: json.dumps(value).encode())
EVENTS = st.lists(JSON, max_size=8).map(
    lambda said: b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in said)
)
BODIES = st.binary(max_size=200) | DOCUMENTS | STREAMS | EVENTS
READINGS: list[Any] = [
    "@",
    "choices[0].message.content",
    {"json": "a"},
    {"tool": "name", "argument": "@"},
    {"match": "a|(.)"},
]


def _read(pieces: list[bytes]) -> tuple[list[tuple[str, str]], str | None]:
    events, seen = Events(event_bytes_max=500), list[tuple[str, str]]()
    try:
        for piece in pieces:
            for event in events.feed(piece):
                seen.append((event.type, event.data))
    except Unreadable as unreadable:
        return seen, unreadable.what
    return seen, None


@given(STREAMS, st.lists(st.integers(0, 300), max_size=6))
def test_events_are_the_same_however_the_stream_is_cut(raw: bytes, cuts: list[int]) -> None:
    whole = _read([raw])
    places = [0, *sorted(cuts), len(raw)]
    assert _read([raw[a:b] for a, b in pairwise(places)]) == whole
    assert _read([bytes([byte]) for byte in raw]) == whole


@given(
    st.lists(st.tuples(st.sampled_from(["message", "a"]), st.text(alphabet="ab \n:é🐎", min_size=1)), max_size=5),
    st.data(),
)
def test_what_was_written_as_events_is_read_as_such(said: list[tuple[str, str]], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    raw = "".join(
        f"event: {kind}{end}" + "".join(f"data: {line}{end}" for line in text.split("\n")) + end for kind, text in said
    ).encode()
    assert _read([raw]) == (said, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch", [False, True])
@given(request_body=BODIES, answer=BODIES, reading=st.sampled_from(READINGS))
def test_no_bytes_make_an_extractor_raise(
    protocol: str, batch: bool, request_body: bytes, answer: bytes, reading: Any
) -> None:
    declared = Extract.model_validate({"label": reading, "score": reading})
    spec = ExtractSpec(
        protocol=protocol,
        batch=batch,
        label=declared.label,
        score=declared.score,
        case="@",
        features="@",
        favourable=("a",),
        parse_bytes_max=5_000,
        rows_max=5,
    )
    found = Extractor(spec).rows(request_body, answer)
    assert 1 <= len(found) <= 5
    for one in found:
        assert one.label is not None or one.favourable is None
        assert one.error is not None or one.label == "a"
        assert one.error is None or len(one.error.encode()) < 200
        json.dumps(one.features, ensure_ascii=False).encode()


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@given(kind=st.sampled_from(["message", "error", *WORDS]), data=st.text(max_size=30) | JSON.map(json.dumps))
def test_no_event_makes_the_question_for_the_end_raise(protocol: str, kind: str, data: str) -> None:
    ends = adapter_for(protocol).ends
    assert ends is not None
    assert ends(Event(kind, data, 0)) in (True, False)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@given(raw=STREAMS | EVENTS, size=st.integers(1, 40))
def test_nothing_of_a_terminal_event_is_ever_free(protocol: str, raw: bytes, size: int) -> None:
    terminal, ends = Terminal(protocol), adapter_for(protocol).ends
    assert ends is not None
    free = 0
    try:
        for at in range(0, len(raw), size):
            now = terminal.feed(raw[at : at + size])
            assert free <= now <= at + size
            free = now
    except Unreadable:
        return
    assert not any(ends(event) for event in Events().feed(raw[:free]))


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[Vector, bytes, bytes]:
    """A recorded call with some bytes of one body cut, doubled, or replaced."""
    vector = load(draw(st.sampled_from(names())))
    bodies = {"request": vector.request, "answer": vector.answer}
    side = draw(st.sampled_from(sorted(bodies)))
    for _ in range(draw(st.integers(1, 3))):
        raw = bodies[side]
        at, length = draw(st.integers(0, len(raw))), draw(st.integers(0, 30))
        new = draw(
            st.binary(max_size=3) | st.sampled_from([b"null", b"[]", b"{}", b"-1", b'"', b"\n\n", raw[at : at + 40]])
        )
        bodies[side] = raw[:at] + new + raw[at + length :]
    return vector, bodies["request"], bodies["answer"]


@given(_damaged())
def test_a_damaged_recording_is_read_or_said_to_be_unreadable(damaged: tuple[Vector, bytes, bytes]) -> None:
    vector, request_body, answer = damaged
    for row in vector.extractor().rows(request_body, answer):
        assert row.label is not None or row.error is not None
        assert row.label is None or len(row.label.encode()) <= 64


@given(st.sampled_from(names()), st.data())
def test_a_stream_that_breaks_off_before_its_end_gives_no_label(name: str, data: st.DataObject) -> None:
    vector = load(name)
    ends = adapter_for(vector.protocol).ends
    if ends is None or not looks_like_events(vector.answer):
        return
    events = list(Events().feed(vector.answer))
    goes_on = [event.end for event in events if not ends(event) and not _finishes(event)]
    cut = data.draw(st.integers(0, goes_on[-1]))
    assert [row.label for row in vector.extractor().rows(vector.request, vector.answer[:cut])] == [None]


def _finishes(event: Event) -> bool:
    """Whether a choice is finished by it, after which `[DONE]` says nothing new."""
    said = json.loads(event.data)
    usage = said.get("choices") == []
    return usage or any(choice.get("finish_reason") for choice in said.get("choices", []))


LISTS = st.lists(JSON, min_size=2, max_size=3)
COLUMNS = st.dictionaries(st.sampled_from(WORDS), LISTS, min_size=1, max_size=2)
TENSORS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(WORDS), "shape": st.sampled_from([[2], [2, 1], [3], [2, 2]]), "data": LISTS},
        optional={"parameters": st.none() | st.dictionaries(st.sampled_from(WORDS), LEAVES, max_size=1)},
    ),
    max_size=2,
)
FRAMES = st.fixed_dictionaries(
    {"columns": st.just(["a"]), "data": st.lists(st.lists(JSON, min_size=1, max_size=1), min_size=2, max_size=3)},
    optional={"index": LISTS | LEAVES},
)
CHOICES = st.lists(st.fixed_dictionaries({"index": st.integers(0, 3), "text": LEAVES}), max_size=4)
CALLED = LISTS | st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("instances", "predictions", "dataframe_records", "prompt"), LISTS | COLUMNS),
        "inputs": LISTS | COLUMNS | TENSORS,
        "outputs": LISTS | COLUMNS | TENSORS,
        "dataframe_split": FRAMES,
        "choices": CHOICES,
        "model": JSON,
    },
)


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "anthropic"])
@given(raw=BODIES | CALLED.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_split_into_what_the_adapter_reads_of_each_row_or_not_at_all(protocol: str, raw: bytes) -> None:
    adapter = adapter_for(protocol, batch=True)
    splitter = Splitter(protocol, parse_bytes_max=10_000, rows_max=100)
    for split, sides in (
        (lambda: splitter.asked(raw, bytes_max=100_000).bodies, adapter.asked),
        (lambda: splitter.answered(raw, 2, bytes_max=100_000), lambda document: adapter.answered(document, 2)),
    ):
        try:
            bodies = split()
        except Unsplit:
            continue
        whole = sides(parsed(raw, "body"))
        one = adapter.asked if sides is adapter.asked else lambda document: adapter.answered(document, 1)
        alone = [one(parsed(body, "body")) for body in bodies]
        assert repr(alone) == repr([[side] for side in whole])
