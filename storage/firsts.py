"""The first call under an `Idempotency-Key`, as it is kept for its repeats (README.md, "Repeats"). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ANSWER_BYTES_MAX = 1024 * 1024  # of one kept answer with its head: 24 h of them lie on disk
KEPT_S = 24 * 3600
NS = 1_000_000_000

# running: claimed; kept: answered. The rest have no answer to repeat: the gateway ended meanwhile, or the answer was
# too large, broke off, could not be written down, or was erased
State = Literal["running", "kept", "lost", "too_large", "incomplete", "unkept", "erased"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A call that claims its key.

    `scope` says whose key it is and names it, `content` is what was asked of whom. No call runs longer than `lease_ns`
    on the clock of `now_ns` (Unix).
    """

    scope: Sequence[bytes]
    content: Sequence[bytes]
    decision: str
    now_ns: int
    lease_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What is known of the first call under a key; `head` and `body` of its answer where the state is `kept`.

    `head` are status line and header lines without framing. `same`: it asked the same; None where that was erased.
    """

    decision: str
    state: State
    same: bool | None
    lease_ns: int
    status: int = 0
    head: bytes = b""
    body: bytes = b""


def framed(values: Sequence[bytes]) -> bytes:
    """The values as one, so that ("ab", "c") and ("a", "bc") stay apart."""
    return b"".join(b"%d:%b" % (len(value), value) for value in values)
