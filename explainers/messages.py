"""Frames between the keeper and its explainer workers (pure).

    u32 LE total length | u32 LE header length | JSON header | raw arrays in the header's order

The total length counts the bytes after itself and is at most 64 MiB. The header is
``{v: 1, type, job, …, arrays: [{name, dtype, shape}]}``. Arrays are little-endian and row-major. Never pickle: a frame
can carry numbers and JSON, and nothing that runs. An unknown type or version is an error that ends the worker.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from config.errors import AnswerableError
from explainers.base import Answer, ExplanationRequest, ExplanationResult, Failure, ModelRef

VERSION = 1
TYPES = frozenset({"hello", "prepare", "plan", "solve", "cancel", "result", "failure", "log"})
FRAME_BYTES_MAX = 64 * 1024 * 1024  # one decision's rows, with a wide margin; bounds what a worker can be made to hold
ITEM_BYTES = {"u1": 1, "<f4": 4, "<f8": 8, "<i8": 8}
DIMENSIONS_MAX = 4
_LENGTH = struct.Struct("<I")
_RESERVED = frozenset({"v", "type", "job", "arrays"})


class FrameError(AnswerableError):
    """Bytes that are no frame of this version; the connection they came over cannot be used any further."""

    code = "frame_invalid"
    advice = "Keeper and explainer workers must be of the same release."


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """Raw values: `data` holds product(`shape`) items of `dtype` (a key of ITEM_BYTES)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def bytes_expected(self) -> int:
        """Bytes that dtype and shape ask for."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message; `fields` is whatever the type carries beside v, type, job and arrays."""

    type: str
    job: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[Array, ...] = ()

    def array(self, name: str) -> Array:
        """The array called `name`.

        Raises:
            FrameError: there is none.
        """
        for array in self.arrays:
            if array.name == name:
                return array
        raise FrameError(f"frame {self.type}: expected an array {name!r}")


def encode(frame: Frame) -> bytes:
    """The bytes of `frame`.

    Raises:
        FrameError: unknown type, an array whose bytes do not match its shape, or more than 64 MiB.
    """
    if frame.type not in TYPES:
        raise FrameError(f"frame type {frame.type!r} is unknown")
    if _RESERVED & frame.fields.keys():
        raise FrameError(f"frame {frame.type}: fields may not be called {', '.join(sorted(_RESERVED))}")
    for array in frame.arrays:
        if array.dtype not in ITEM_BYTES or len(array.data) != array.bytes_expected:
            raise FrameError(f"frame {frame.type}: array {array.name!r} does not match its dtype and shape")
    header = {
        **frame.fields,
        "v": VERSION,
        "type": frame.type,
        "job": frame.job,
        "arrays": [{"name": a.name, "dtype": a.dtype, "shape": list(a.shape)} for a in frame.arrays],
    }
    try:
        head = orjson.dumps(header)
    except TypeError as error:
        raise FrameError(f"frame {frame.type}: {error}") from error
    total = _LENGTH.size + len(head) + sum(len(array.data) for array in frame.arrays)
    if total > FRAME_BYTES_MAX:
        raise FrameError(f"frame {frame.type}: {total} bytes are more than the {FRAME_BYTES_MAX} allowed")
    return b"".join([_LENGTH.pack(total), _LENGTH.pack(len(head)), head, *(array.data for array in frame.arrays)])


class Decoder:
    """Turns a stream of bytes into frames; feeding byte by byte gives the same frames as feeding all at once."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take `data` and return the frames it completes.

        Raises:
            FrameError: the stream holds something else than frames; every later call raises too.
        """
        if self._broken:
            raise FrameError("the stream was broken before")
        self._buffer += data
        frames: list[Frame] = []
        try:
            while (total := self._next_total()) is not None and len(self._buffer) >= _LENGTH.size + total:
                frames.append(decode_payload(bytes(self._buffer[_LENGTH.size : _LENGTH.size + total])))
                del self._buffer[: _LENGTH.size + total]
        except FrameError:
            self._broken = True
            self._buffer.clear()
            raise
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet; zero at the end of a clean stream."""
        return len(self._buffer)

    def _next_total(self) -> int | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        total: int = _LENGTH.unpack_from(self._buffer)[0]
        if not _LENGTH.size <= total <= FRAME_BYTES_MAX:
            raise FrameError(f"a frame of {total} bytes: expected {_LENGTH.size} to {FRAME_BYTES_MAX}")
        return total


def decode_payload(payload: bytes) -> Frame:
    """The frame in `payload`, which is everything after the total length.

    Raises:
        FrameError: header, version, type or arrays are not as specified.
    """
    head_bytes: int = _LENGTH.unpack_from(payload)[0]
    start = _LENGTH.size + head_bytes
    if start > len(payload):
        raise FrameError("the header is longer than its frame")
    try:
        header = orjson.loads(payload[_LENGTH.size : start])
    except orjson.JSONDecodeError as error:
        raise FrameError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict) or header.get("v") != VERSION:
        raise FrameError(f"expected a header of version {VERSION}")
    kind, job = header.get("type"), header.get("job")
    if not isinstance(kind, str) or kind not in TYPES:
        raise FrameError(f"frame type {kind!r} is unknown")
    if not isinstance(job, str):
        raise FrameError(f"frame {kind}: job is not a string")
    fields = {name: value for name, value in header.items() if name not in _RESERVED}
    return Frame(type=kind, job=job, fields=fields, arrays=_arrays(kind, header.get("arrays"), payload, start))


def _arrays(kind: str, listed: object, payload: bytes, start: int) -> tuple[Array, ...]:
    if not isinstance(listed, list):
        raise FrameError(f"frame {kind}: arrays is not a list")
    arrays: list[Array] = []
    for entry in listed:
        name, dtype, shape = _described(kind, entry)
        size = ITEM_BYTES[dtype] * math.prod(shape)
        if start + size > len(payload):
            raise FrameError(f"frame {kind}: array {name!r} is longer than its frame")
        arrays.append(Array(name=name, dtype=dtype, shape=shape, data=payload[start : start + size]))
        start += size
    if start != len(payload):
        raise FrameError(f"frame {kind}: {len(payload) - start} bytes belong to no array")
    return tuple(arrays)


def _described(kind: str, entry: object) -> tuple[str, str, tuple[int, ...]]:
    match entry:
        case {"name": str(name), "dtype": str(dtype), "shape": list(shape)} if (
            dtype in ITEM_BYTES
            and len(shape) <= DIMENSIONS_MAX
            and all(type(n) is int and 0 <= n <= FRAME_BYTES_MAX for n in shape)
        ):
            return name, dtype, tuple(shape)
    raise FrameError(f"frame {kind}: an array needs a name, a known dtype and a shape")


def prepare_frame(request: ExplanationRequest, *, timeout_s: float) -> Frame:
    """Ask a worker to load what `request` needs; it answers `result` or `failure` under the same job."""
    fields = {"registration": request.registration_digest, "timeout_s": timeout_s}
    return Frame(type="prepare", job=request.job, fields=fields)


def plan_frame(request: ExplanationRequest, *, timeout_s: float) -> Frame:
    """The keeper's question; a worker that is still at it long after `timeout_s` ends itself."""
    return Frame(type="plan", job=request.job, fields={"request": asdict(request), "timeout_s": timeout_s})


def request_of(frame: Frame) -> ExplanationRequest:
    """The request that a plan frame carries.

    Raises:
        FrameError: fields are missing or unknown.
    """
    try:
        given = dict(frame.fields["request"])
        given["model"] = ModelRef(**given["model"])
        given["answer"] = Answer(**given["answer"])
        return ExplanationRequest(**given)
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(f"frame {frame.type}: {error!r}") from error


def result_frame(result: ExplanationResult) -> Frame:
    """A worker's answer: type `result` with the body as array, or type `failure`."""
    fields: dict[str, Any] = {"key": result.key, "summary": dict(result.summary)}
    if result.error is not None:
        fields["error"] = {"code": result.error.code, "message": result.error.message}
        return Frame(type="failure", job=result.job, fields=fields)
    body = Array(name="body", dtype="u1", shape=(len(result.body),), data=result.body)
    return Frame(type="result", job=result.job, fields=fields, arrays=(body,))


def result_of(frame: Frame) -> ExplanationResult:
    """The result that a `result` or `failure` frame carries.

    Raises:
        FrameError: fields are missing.
    """
    try:
        key, summary = frame.fields["key"], frame.fields["summary"]
        if frame.type == "result":
            body = frame.array("body").data
            return ExplanationResult(job=frame.job, key=key, state="ready", body=body, summary=summary)
        return ExplanationResult(job=frame.job, key=key, state="failed", error=failure_of(frame), summary=summary)
    except (KeyError, TypeError) as error:
        raise FrameError(f"frame {frame.type}: {error!r}") from error


def failure_of(frame: Frame) -> Failure:
    """Why, as a `failure` frame says it.

    Raises:
        FrameError: it does not.
    """
    try:
        return Failure(**frame.fields["error"])
    except (KeyError, TypeError) as error:
        raise FrameError(f"frame {frame.type}: {error!r}") from error
