"""``DATA/control.json``: what the keeper tells every gateway worker, signed, rewritten each 5 s.

Two lines: canonical JSON ``{v, deployment, seq, ts_ns, config, stops, approvals, roll}`` and base64 Ed25519 over the
first line's bytes by the control key. A worker refuses a lower ``seq``, so numbers go on from what the file said.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import orjson
import structlog

VERSION = 1
PUBLISH_S = 5.0
FILE_BYTES_MAX = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


def render(*, deployment: str, seq: int, ts_ns: int, config: str, sign: Callable[[bytes], bytes]) -> bytes:
    """Both lines of the file; nothing is stopped, approved or rolled before governance exists."""
    state = {
        "v": VERSION,
        "deployment": deployment,
        "seq": seq,
        "ts_ns": str(ts_ns),
        "config": config,
        "stops": [],
        "approvals": [],
        "roll": [],
    }
    line = orjson.dumps(state, option=orjson.OPT_SORT_KEYS)
    return line + b"\n" + base64.b64encode(sign(line)) + b"\n"


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
