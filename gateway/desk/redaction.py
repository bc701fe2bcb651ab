"""What was hidden before a call was recorded, in sentences (pure). Paths and counts stand in entries, values never."""

from collections.abc import Mapping
from typing import Any, Final

_SIDES: Final = {
    "request": "The request",
    "response": "The answer",
    "target": "The address",
    "request_headers": "The request's headers",
    "response_headers": "The answer's headers",
    "request_media": "The request's media type",
    "response_media": "The answer's media type",
    "purpose": "The purpose",
}
_HOW: Final = {"drop": "left out", "mask": "masked", "hash": "hashed", "token": "replaced by a token"}
_KINDS: Final = {"card": ("card number", "card numbers"), "iban": ("IBAN", "IBANs")}
_WHY: Final = {
    "too_large": "it was larger than what is parsed",
    "not_json": "it was no JSON",
    "encoding": "it was no text that could be read",
    "memory_full": "there was no room to hold it until its end",
    "unfinished": "the gateway ended before it did",
}


def redaction(stated: Mapping[str, Any]) -> list[str]:
    """A sentence for each side of which something was hidden or not recorded."""
    sentences = []
    for name, told in stated.items():
        side = _SIDES.get(name, name)
        if "withheld" in told:
            why = _WHY.get(str(told["withheld"]), str(told["withheld"]))
            sentences.append(f"{side} could not be redacted as the route asks, so it was not recorded: {why}.")
            continue
        hidden = [_place(path, place) for path, place in (told.get("paths") or {}).items()]
        hidden += [_found(kind, count) for kind, count in (told.get("detected") or {}).items()]
        if hidden:
            sentences.append(f"{side} was redacted before recording: {', '.join(hidden)}.")
        if "unfinished_bytes" in told:
            sentences.append(f"{side} ends in {told['unfinished_bytes']:,} bytes without an end, which were left out.")
    return sentences


def _place(path: str, place: Mapping[str, Any]) -> str:
    count = int(place.get("values", 1))
    return f"{path} {_HOW.get(str(place.get('how')), 'hidden')}{f' ({count:,} values)' if count > 1 else ''}"


def _found(kind: str, count: int) -> str:
    one, several = _KINDS.get(kind, (kind, kind))
    return f"{count:,} {one if count == 1 else several}"
