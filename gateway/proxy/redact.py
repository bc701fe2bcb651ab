"""The copy of a call that is recorded, without what its route hides (pure).

A *rule* hides the values that a path selects in JSON; *detectors* hide card numbers and IBANs in any text. What
cannot be redacted as declared is withheld: it is not recorded, and the entry says so and why. Nothing here changes
what the model or the caller gets.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from config.places import Paths, steps
from config.redaction import How, Redact, ValueRule
from gateway.proxy.detectors import Detectors
from gateway.proxy.redact_pieces import divided
from gateway.proxy.redact_text import (
    Reason,
    Tally,
    Withheld,
    document_of,
    is_divided,
    is_json_like,
    spelled,
    text_of,
    without,
)
from gateway.proxy.spelling import Meant
from storage.ids import unb64

Keyed = Callable[[str, str], str]  # kind, value → `<pepper id>.<b64 HMAC>`, the tenant's own
Told = Callable[[How, str], str]  # a value's hash or token
MASK: Final = "****"
TOKEN_BYTES: Final = 16  # of a MAC: no two of 2^60 values share a token


class Copy(NamedTuple):
    """What is recorded (None: nothing, since it is withheld), and what the entry says of it."""

    body: bytes | None
    stated: Mapping[str, object]


def withheld(reason: Reason) -> Copy:
    """Nothing is recorded, for this reason."""
    return Copy(None, {"withheld": reason})


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is hidden in the bodies of one side."""

    rules: tuple[ValueRule, ...]
    paths: Paths
    detectors: Detectors | None
    route: str
    bytes_max: int

    @classmethod
    def of(cls, rules: tuple[ValueRule, ...], redact: Redact, *, route: str, bytes_max: int) -> Side | None:
        """None where nothing is hidden. A body longer than `bytes_max` is withheld."""
        detectors = Detectors(redact.detect) if redact.detect else None
        if not rules and detectors is None:
            return None
        paths = Paths([steps(rule.path) for rule in rules])
        return cls(rules=rules, paths=paths, detectors=detectors, route=route, bytes_max=bytes_max)

    def copy(self, raw: bytes, *, media: str, coding: str, keyed: Keyed) -> Copy:
        """What is recorded of a body. `coding` is its Content-Encoding, "" where it has none. Never raises."""
        if not raw:
            return Copy(raw, {})
        tally = Tally()
        try:
            text = text_of(raw, media=media, coding=coding, bytes_max=self.bytes_max, tally=tally)
            return Copy(self.redacted(text, media.lower(), keyed, tally).encode("utf-8"), tally.stated())
        except Withheld as reason:
            return withheld(reason.reason)

    def redacted(self, text: str, media: str, keyed: Keyed, tally: Tally) -> str:
        """The text without what is hidden.

        Raises:
            Withheld: it is not JSON, and there are rules.
        """
        if is_divided(text, media):
            hide = partial(self.hide, keyed=keyed, tally=tally) if self.rules else None
            text = divided(text, media, hide, self.detectors, tally)
        elif self.rules:
            document = document_of(text)
            self.hide(document, keyed, tally)
            text = spelled(document)
        if self.detectors is None:
            return text
        if "urlencoded" in media:
            return without(text, self.detectors, "url", tally)
        return without(text, self.detectors, "json", tally, is_json=is_json_like(text, media))

    def hide(self, document: Any, keyed: Keyed, tally: Tally) -> None:
        """Apply the rules to a JSON document in its place."""
        for holder, key, number in self.paths.places(document):
            rule = self.rules[number]
            tally.hid(rule.path, rule.how)
            if rule.how != "drop":
                holder[key] = hidden(holder[key], rule.how, rule.last, partial(said, keyed, self.route))
            elif isinstance(holder, dict):
                del holder[key]
            else:
                holder[key] = None  # the places of the others stay


def said(keyed: Keyed, route: str, how: How, value: str) -> str:
    """The keyed hash or the token of a value.

    Equal values have equal hashes within a tenant; tokens are equal within a route, so that those of two routes
    cannot be joined, and carry no pepper's date. Neither leads back to the value.
    """
    if how == "hash":
        return keyed("value", value)
    mac = unb64(keyed(f"token/{route}", value).rpartition(".")[2])
    return "tok_" + base64.b32encode(mac[:TOKEN_BYTES]).decode("ascii").rstrip("=").lower()


def hidden(value: Any, how: How, last: int, told: Told) -> Any:
    """What stands in the place of a value that is not dropped; null stays null: it says nothing."""
    if value is None:
        return None
    if how == "mask":
        return masked(value, last)
    text = value if isinstance(value, str) else spelled(value, sort=True)
    return told(how, text)


def masked(value: Any, last: int) -> Any:
    """An empty value of the same type; a text shows its `last` characters if it is at least twice as long."""
    if isinstance(value, str):
        return MASK + (value[len(value) - last :] if len(value) >= 2 * last else "")
    return type(value)()


def named(values: Mapping[str, str], rules: Mapping[str, Any], told: Told, tally: Tally) -> dict[str, str]:
    """Recorded headers, by lower-case name, after the rules for them."""
    kept = {}
    for name, value in values.items():
        rule = rules.get(name)
        if rule is None:
            kept[name] = value
            continue
        tally.hid(name, rule.how)
        if rule.how != "drop":
            kept[name] = hidden(value, rule.how, rule.last, told)
    return kept


def queried(target: str, rules: Mapping[str, Any], told: Told, tally: Tally) -> str:
    """A request's target after the rules for the parameters of its query string."""
    path, mark, query = target.partition("?")
    if not mark or not rules:
        return target
    kept: list[str] = []
    for pair in re.split(r"[&;]", query):
        name, _, value = pair.partition("=")
        meant = Meant(name, "url").text
        rule = rules.get(meant)
        if rule is None:
            kept.append(pair)
            continue
        tally.hid(meant, rule.how)
        if rule.how != "drop":
            shown = hidden(Meant(value, "url").text, rule.how, rule.last, told)
            kept.append(f"{name}={quote(shown, safe='*')}")
    return path + mark + "&".join(kept)
