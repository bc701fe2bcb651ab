"""What a decision says whose record was redacted: nothing is read from what stands in the place of a value (pure).

A masked, hashed or dropped value is not what the model saw or said. So a redacted record is read again with a text,
and with a number, in the place of every hidden value: what then reads otherwise depends on one, and is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from config.places import Step, Wild, places, steps
from gateway.proxy.detectors import MARKED
from gateway.proxy.redact_pieces import divided
from gateway.proxy.redact_text import Tally, Withheld, document_of, is_divided, spelled
from storage.protocols import Extracted, Extractor

REDACTED: Final = "redacted before recording"
WITHHELD: Final = "withheld before recording"
_OTHERS: Final = ("\ufffdredacted\ufffd", 7.5e77)  # no values that a model gives or takes
_FIELDS: Final = ("label", "favourable", "score", "case", "subject", "features")


def read(extractor: Extractor, entry: Mapping[str, Any], parts: Mapping[str, bytes]) -> Extracted:
    """What the record of a decision says; what was hidden is missing, and the error says so."""
    stated = entry.get("redacted") or {}
    of_request, of_answer = stated.get("request") or {}, stated.get("response") or {}
    if "withheld" in of_answer:
        return Extracted(error=f"answer: {WITHHELD}: {of_answer['withheld']}")
    if "response" not in parts:
        return Extracted(error="the answer is not in the journal")
    request, answer = parts.get("request", b""), parts["response"]
    extracted = extractor.extract(request, answer)
    if "withheld" in of_request:
        return replace(extracted, error=f"request: {WITHHELD}: {of_request['withheld']}")
    media = {part["name"]: part["media"] for part in entry["parts"]}
    others = [
        extractor.extract(
            otherwise(request, of_request, media.get("request", ""), value),
            otherwise(answer, of_answer, media.get("response", ""), value),
        )
        for value in _OTHERS
    ]
    hidden = [name for name in _FIELDS if any(getattr(extracted, name) != getattr(other, name) for other in others)]
    if not hidden:
        return extracted
    missing = {name: value for name, value in asdict(extracted).items() if name not in hidden}
    return Extracted(**missing | {"error": f"{hidden[0]}: {REDACTED}"})


def otherwise(body: bytes, stated: Mapping[str, Any], media: str, value: object) -> bytes:
    """The body with this value in each place that `stated` (of its side of an entry) says was hidden."""
    try:
        text = body.decode("utf-8")
        if stated.get("detected"):
            text = MARKED.sub(str(value), text)
        if paths := stated.get("paths"):
            rules = [(steps(path), told["how"]) for path, told in paths.items()]
            change = partial(_change, rules, value)
            if is_divided(text, media.lower()):
                text = divided(text, media.lower(), change, None, Tally())
            else:
                document = document_of(text)
                change(document)
                text = spelled(document)
    except (UnicodeDecodeError, Withheld, ValueError):  # no entry of ours says so of such a body
        return b""
    return text.encode("utf-8")


def _change(rules: list[tuple[tuple[Step, ...], str]], value: object, document: Any) -> None:
    for path, how in rules:
        last = path[-1]
        if how == "drop" and isinstance(last, str):
            for holder in list(_holders(document, path[:-1])):
                holder.setdefault(last, value)
            continue
        for holder, key, _ in places(document, [path]):
            holder[key] = value


def _holders(document: Any, path: tuple[Step, ...]) -> Iterator[dict[Any, Any]]:
    """The objects in which a member was dropped, or may have been."""
    deep = bool(path) and path[-1] is Wild.DEEP
    ends = path[:-1] if deep else path
    found = [holder[key] for holder, key, _ in places([document], [(0, *ends)])]
    while found:
        node = found.pop()
        if isinstance(node, dict):
            yield node
        if deep and isinstance(node, dict | list):
            found.extend(node.values() if isinstance(node, dict) else node)
