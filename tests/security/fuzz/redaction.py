"""Coverage-guided: any bytes as a body, redacted by rules and detectors. Run by atheris as `protocols.py` is.

What is recorded holds no number that the detectors find in it, and what is not recorded says why.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[3]))

with atheris.instrument_imports(include=["gateway.proxy.redact", "gateway.proxy.spelling", "config.places"]):
    from config.redaction import Redact
    from gateway.proxy.redact import Side
    from gateway.proxy.spelling import Meant

from gateway.proxy.detectors import Detectors

MEDIA = ("application/json", "text/event-stream", "application/x-ndjson", "application/x-www-form-urlencoded", "a/b")
CODINGS = ("", "", "", "gzip", "zstd")
BYTES_MAX = 20_000
REDACT = Redact.model_validate(
    {
        "request": [
            {"path": "a", "how": "mask", "last": 2},
            {"path": "**.b", "how": "hash"},
            {"path": "c[*].*", "how": "token"},
            {"path": "**.d[0]", "how": "drop"},
        ],
        "detect": ["card", "iban"],
    }
)
SIDES = [Side.of(rules, REDACT, route="m", bytes_max=BYTES_MAX) for rules in ((), REDACT.request)]
DETECTORS = Detectors(REDACT.detect)


def once(data: bytes) -> None:
    """One input: a byte that chooses side, media type and coding, then the body."""
    if not data:
        return
    side, media = SIDES[data[0] % 2], MEDIA[data[0] // 2 % len(MEDIA)]
    assert side is not None
    coding = CODINGS[data[0] // 10 % len(CODINGS)]
    body, stated = side.copy(data[1:], media=media, coding=coding, keyed=lambda _kind, _value: "p." + "A" * 43)
    assert (body is None) == ("withheld" in stated)
    if body:
        assert len(body) <= 40 * BYTES_MAX
        assert DETECTORS.find(Meant(body.decode(), "url" if "urlencoded" in media else "json").text) == []


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
