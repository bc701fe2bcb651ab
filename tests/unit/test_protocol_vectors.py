"""Bytes of real clients and servers, kept under tests/vectors/protocols: what was found in them is found again."""

import pytest

from storage.protocols.reading import adapter_for
from storage.protocols.sse import Events, looks_like_events
from tests.support.protocol_vectors import load, names


@pytest.mark.parametrize("name", names())
def test_a_recorded_call_says_what_it_said_to_its_client(name):
    vector = load(name)
    assert vector.found() == vector.expected
    assert vector.origin


@pytest.mark.parametrize("name", [name for name in names() if looks_like_events(load(name).answer)])
def test_a_recorded_stream_ends_with_its_terminal_event(name):
    vector = load(name)
    ends = adapter_for(vector.protocol).ends
    assert ends is not None
    told = [ends(event) for event in Events().feed(vector.answer)]
    assert told == [False] * (len(told) - 1) + [True]


def test_every_protocol_has_recorded_calls():
    assert {load(name).protocol for name in names()} == {"openai", "anthropic", "inference-v2", "kserve-v1", "mlflow"}
