"""``DATA/control.json``: what the keeper tells every gateway worker, signed, rewritten each 5 s.

Two lines: canonical JSON ``{v, deployment, seq, ts_ns, config, stops, approvals, roll}`` and base64 Ed25519 over the
first line's bytes by the control key. ``roll`` lists ``{origin, first_seq}``: whoever writes that segment closes it. A
worker refuses a lower ``seq``, so numbers go on from what the file said. `stops` and `approvals` are empty, and are not
read, until governance exists.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from config.errors import AnswerableError

FILE = "control.json"
VERSION = 1
PUBLISH_S = 5.0
FILE_BYTES_MAX = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


class ControlError(AnswerableError):
    """The file is not one that this deployment's keeper signed."""

    code = "control_invalid"
    advice = "What was in force stays so; the keeper writes the file anew each 5 s. Who else can write there?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the file says; `roll`: origin → first sequence number of the segment to close."""

    seq: int
    ts_ns: int
    config: str
    roll: Mapping[str, int]


def render(
    *,
    deployment: str,
    seq: int,
    ts_ns: int,
    config: str,
    sign: Callable[[bytes], bytes],
    roll: Mapping[str, int] | None = None,
) -> bytes:
    """Both lines of the file."""
    state = {
        "v": VERSION,
        "deployment": deployment,
        "seq": seq,
        "ts_ns": str(ts_ns),
        "config": config,
        "stops": [],
        "approvals": [],
        "roll": [{"origin": origin, "first_seq": first} for origin, first in sorted((roll or {}).items())],
    }
    line = orjson.dumps(state, option=orjson.OPT_SORT_KEYS)
    return line + b"\n" + base64.b64encode(sign(line)) + b"\n"


def parse(raw: bytes, *, deployment: str, public: bytes) -> Control:
    """The file's content, once it is certain who signed it.

    Raises:
        ControlError: it is not of this form, of another deployment, or not signed by `public` (32 bytes).
    """
    line, _, rest = raw.partition(b"\n")
    try:
        signature = base64.b64decode(rest.removesuffix(b"\n"), validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(signature, line)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise ControlError(f"{FILE}: not signed by this host's control key") from error
    try:
        said: dict[str, Any] = orjson.loads(line)
        made = Control(
            seq=int(said["seq"]),
            ts_ns=int(said["ts_ns"]),
            config=str(said["config"]),
            roll={str(each["origin"]): int(each["first_seq"]) for each in said["roll"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError(f"{FILE}: not of this form: {type(error).__name__} {error}") from error
    if said.get("v") != VERSION or said.get("deployment") != deployment:
        raise ControlError(f"{FILE}: of version {said.get('v')!r} and deployment {said.get('deployment')!r}")
    return made


def next_seq(path: Path, now_s: int) -> int:
    """The number for the next control file at `path`: above the last one, and above the clock's seconds.

    A damaged file tells no number; the seconds since 1970 are above anything that counting up from an earlier
    clock in steps of 5 s can have reached.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX)
        return max(int(orjson.loads(raw.partition(b"\n")[0])["seq"]) + 1, now_s)
    except FileNotFoundError:
        return now_s
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("control_unreadable", path=path.name, error=str(error))
        return now_s
