"""Frames between keeper and explainer workers: what is written is read, and nothing else is."""

import struct

import orjson
import pytest

from explainers.base import Answer, ExplanationRequest, ExplanationResult, Failure, ModelRef
from explainers.messages import (
    FRAME_BYTES_MAX,
    TYPES,
    Array,
    Decoder,
    Frame,
    FrameError,
    encode,
    plan_frame,
    prepare_frame,
    request_of,
    result_frame,
    result_of,
)

REQUEST = ExplanationRequest(
    job="j1",
    decision="d1",
    leaf="bGVhZg",
    route="credit",
    tenant="default",
    model=ModelRef(name="credit", version="1", digest="a" * 64, level="declared"),
    baseline_digest="b" * 64,
    registration_digest="c" * 64,
    explainer_config="d" * 64,
    features={"income": 12.5, "debts": None, "name": "text", "own": True},
    answer=Answer(score=0.25, label="denied", favourable=0),
)


def raw(header: object, tail: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else orjson.dumps(header)
    return struct.pack("<II", 4 + len(head) + len(tail), len(head)) + head + tail


def test_every_type_comes_back_as_it_went_with_fields_and_arrays() -> None:
    arrays = (
        Array(name="rows", dtype="<f8", shape=(2, 3), data=bytes(range(48))),
        Array(name="none", dtype="<f4", shape=(0, 3), data=b""),
        Array(name="body", dtype="u1", shape=(5,), data=b"12345"),
    )
    for kind in sorted(TYPES):
        frame = Frame(type=kind, job="j", fields={"a": [1, None, "x"]}, arrays=arrays)
        assert Decoder().feed(encode(frame)) == [frame]


def test_the_layout_is_total_header_length_header_and_arrays() -> None:
    data = encode(
        Frame(type="log", job="j", fields={"a": 1}, arrays=(Array(name="b", dtype="u1", shape=(2,), data=b"xy"),))
    )
    total, head = struct.unpack_from("<II", data)
    assert total == len(data) - 4
    header = {"a": 1, "v": 1, "type": "log", "job": "j", "arrays": [{"name": "b", "dtype": "u1", "shape": [2]}]}
    assert orjson.loads(data[8 : 8 + head]) == header
    assert data[8 + head :] == b"xy"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (raw({"v": 2, "type": "plan", "job": "", "arrays": []}), "version 1"),
        (raw({"type": "plan", "job": "", "arrays": []}), "version 1"),
        (raw({"v": 1, "type": "reboot", "job": "", "arrays": []}), "reboot"),
        (raw({"v": 1, "type": ["plan"], "job": "", "arrays": []}), "unknown"),
        (raw({"v": 1, "type": "plan", "job": 7, "arrays": []}), "job"),
        (raw({"v": 1, "type": "plan", "job": "", "arrays": {}}), "list"),
        (raw({"v": 1, "type": "plan", "job": "", "arrays": [{"name": "a", "dtype": "object", "shape": [1]}]}), "dtype"),
        (raw({"v": 1, "type": "plan", "job": "", "arrays": [{"name": "a", "dtype": "u1", "shape": [-1]}]}), "shape"),
        (raw({"v": 1, "type": "plan", "job": "", "arrays": [{"name": "a", "dtype": "u1", "shape": [True]}]}), "shape"),
        (
            raw({"v": 1, "type": "plan", "job": "", "arrays": [{"name": "a", "dtype": "u1", "shape": [3]}]}, b"xy"),
            "longer",
        ),
        (raw({"v": 1, "type": "plan", "job": "", "arrays": []}, b"xy"), "belong to no array"),
        (raw([1]), "version 1"),
        (raw(b"{"), "JSON"),
        (struct.pack("<II", 4, 1), "longer"),
        (struct.pack("<I", 3), "expected"),
        (struct.pack("<I", FRAME_BYTES_MAX + 1), "expected"),
    ],
)
def test_what_is_no_frame_of_this_version_is_refused_and_the_stream_is_over(data: bytes, why: str) -> None:
    decoder = Decoder()
    with pytest.raises(FrameError, match=why):
        decoder.feed(data)
    with pytest.raises(FrameError):
        decoder.feed(encode(Frame(type="log")))


def test_more_than_64_mib_is_refused_before_it_is_built_and_before_it_is_read() -> None:
    big = Array(name="rows", dtype="u1", shape=(FRAME_BYTES_MAX,), data=bytes(FRAME_BYTES_MAX))
    with pytest.raises(FrameError, match="more than"):
        encode(Frame(type="solve", arrays=(big,)))
    decoder = Decoder()
    with pytest.raises(FrameError):
        decoder.feed(struct.pack("<I", 2**32 - 1))
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize(
    "frame",
    [
        Frame(type="reboot"),
        Frame(type="plan", fields={"type": "x"}),
        Frame(type="plan", fields={"x": 2**70}),
        Frame(type="plan", arrays=(Array(name="a", dtype="<f8", shape=(2,), data=b"12345678"),)),
        Frame(type="plan", arrays=(Array(name="a", dtype="object", shape=(1,), data=b""),)),
    ],
)
def test_a_frame_that_could_not_be_read_back_is_not_written(frame: Frame) -> None:
    with pytest.raises(FrameError):
        encode(frame)


def test_a_request_travels_unchanged() -> None:
    (frame,) = Decoder().feed(encode(plan_frame(REQUEST, timeout_s=3.0)))
    assert request_of(frame) == REQUEST
    assert frame.fields["timeout_s"] == 3.0
    assert prepare_frame(REQUEST, timeout_s=3.0).fields["registration"] == REQUEST.registration_digest


def test_a_request_with_missing_or_unknown_fields_is_refused() -> None:
    for fields in ({}, {"request": {}}, {"request": {"model": {"x": 1}}}, {"request": None}):
        with pytest.raises(FrameError):
            request_of(Frame(type="plan", fields=fields))


def test_results_travel_unchanged_ready_or_failed() -> None:
    ready = ExplanationResult(job="j1", key="k", state="ready", body=b"{}", summary={"method": "m"})
    failed = ExplanationResult(
        job="j1", key="k", state="failed", error=Failure(code="c", message="m"), summary={"x": 1}
    )
    for result in (ready, failed):
        (frame,) = Decoder().feed(encode(result_frame(result)))
        assert result_of(frame) == result
    for broken in (Frame(type="result"), Frame(type="failure", fields={"key": "k", "summary": {}})):
        with pytest.raises(FrameError):
            result_of(broken)
    with pytest.raises(FrameError, match="body"):
        result_of(Frame(type="result", fields={"key": "k", "summary": {}}))


def test_the_key_is_the_same_for_the_same_decision_and_configuration_only() -> None:
    keys = {
        REQUEST.key,
        ExplanationRequest(**{**{f: getattr(REQUEST, f) for f in REQUEST.__slots__}, "decision": "d2"}).key,
        ExplanationRequest(**{**{f: getattr(REQUEST, f) for f in REQUEST.__slots__}, "explainer_config": "e" * 64}).key,
    }
    assert len(keys) == 3
    again = ExplanationRequest(**{**{f: getattr(REQUEST, f) for f in REQUEST.__slots__}, "job": "j2"})
    assert again.key == REQUEST.key
