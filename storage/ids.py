"""Names of things: UUIDv7 (RFC 9562 section 5.7) and base64url without padding (RFC 4648 section 5). Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from struct import Struct

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_RANDOM_BYTES = 8
_NS_PER_MS = 1_000_000
_PAGE_BYTES = 4096
_VARIANT_AND_REST = Struct(">H6s")
_URLSAFE = bytes.maketrans(b"+/", b"-_")


def uuid7(now_ns: int, random: bytes) -> str:
    """The UUIDv7 of a moment, dashed and lowercase; ``random`` is 8 bytes.

    The 12 bits after the version carry the fraction of the millisecond (RFC 9562 section 6.2, method 3).
    """
    return _dashed(_ticks(now_ns), random)


class Ids:
    """UUIDv7s that never go back, even where the clock does; for one thread."""

    __slots__ = ("_clock_ns", "_last", "_random")

    def __init__(self, clock_ns: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._clock_ns = clock_ns
        self._random = random
        self._last = 0

    def new(self) -> str:
        """A fresh id, greater than each one before it."""
        ticks = _ticks(self._clock_ns())
        if ticks <= self._last:
            ticks = self._last + 1
        self._last = ticks
        return _dashed(ticks, self._random(_RANDOM_BYTES))


class RandomPool:
    """Random bytes by the page: one call to the kernel for a hundred, since each lets go of the interpreter's lock.

    For one thread; a forked child must make its own.
    """

    __slots__ = ("_at", "_page", "_source")

    def __init__(self, source: Callable[[int], bytes]) -> None:
        self._source = source
        self._page = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """``count`` bytes that were never given before; at most a page."""
        at, end = self._at, self._at + count
        if end > len(self._page):
            self._page, at, end = self._source(_PAGE_BYTES), 0, count
        self._at = end
        return self._page[at:end]


def uuid7_ms(identifier: str) -> int:
    """The milliseconds since 1970 that a UUIDv7 carries; ValueError if it is none."""
    if not is_uuid7(identifier):
        raise ValueError(f"not a UUIDv7: {identifier!r}")
    return int(identifier[:8] + identifier[9:13], 16)


def is_uuid7(identifier: str) -> bool:
    """True for a dashed, lowercase UUIDv7 and nothing else."""
    return _UUID7.fullmatch(identifier) is not None


def id_bytes(identifier: str) -> bytes:
    """The 16 bytes of a dashed id; ValueError if it is none."""
    raw = bytes.fromhex(identifier.replace("-", ""))
    if len(raw) != 16 or len(identifier) != 36:
        raise ValueError(f"not a dashed id: {identifier!r}")
    return raw


def id_text(raw: bytes) -> str:
    """The dashed form of 16 bytes."""
    if len(raw) != 16:
        raise ValueError(f"an id has 16 bytes, not {len(raw)}")
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def b64(raw: bytes) -> str:
    """base64url without padding."""
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=").translate(_URLSAFE).decode()


def b64_hashes(hashes: Sequence[bytes]) -> list[bytes]:
    """:func:`b64` of many values of 32 bytes at once, in ASCII."""
    # a zero byte behind each fills its last group of four characters, of which the first three are those of 32 bytes
    spelled = binascii.b2a_base64(b"\0".join(hashes) + b"\0", newline=False).translate(_URLSAFE)
    return [spelled[at : at + 43] for at in range(0, 44 * len(hashes), 44)]


def unb64(text: str) -> bytes:
    """The bytes of :func:`b64`; ValueError for padding, foreign characters or any second spelling of the same bytes."""
    try:
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64url: {text[:80]!r}") from error
    if b64(raw) != text:
        raise ValueError(f"not canonical base64url: {text[:80]!r}")
    return raw


def _ticks(now_ns: int) -> int:
    milliseconds, rest_ns = divmod(now_ns, _NS_PER_MS)
    return ((milliseconds & 0xFFFF_FFFF_FFFF) << 12) | ((rest_ns << 12) // _NS_PER_MS)


def _dashed(ticks: int, random: bytes) -> str:
    variant, rest = _VARIANT_AND_REST.unpack_from(random)
    milliseconds = "%012x" % (ticks >> 12)  # twice as fast as an f-string here, as the next one
    pieces = (milliseconds[:8], milliseconds[8:], ticks & 0xFFF, variant & 0x3FFF | 0x8000, rest.hex())
    return "%s-%s-7%03x-%04x-%s" % pieces  # noqa: UP031
