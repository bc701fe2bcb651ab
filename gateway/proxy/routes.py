"""Which route a path belongs to, what becomes of it there, and where it goes (pure).

A prefix matches on a segment boundary (`/mortgage` matches `/mortgage` and `/mortgage/x`, not `/mortgages`); the
longest wins. What the record rules match is the path after the prefix, percent-decoded; what is forwarded is the
path as it came. Paths that upstreams may read differently from us (dot segments, empty segments, encoded slashes,
fragments, parameters, backslashes, controls) are refused, so that no spelling reaches a recorded endpoint through a
rule that says `none`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit

from config.route import RecordRule, Route
from gateway.proxy.errors import BadRequest, RouteUnknown

RecordAs = Literal["decision", "call", "none"]
REMEMBERED_MAX = 4096  # paths; beyond it all are forgotten, since who makes up so many will make up more

# what ends or splits a path for some servers: a fragment, a query, parameters of a segment, encoded or not
_AMBIGUOUS = re.compile(rb"%2f|%5c|%[01][0-9a-f]|%7f|%23|%3b|%3f|[\\#;?]|[\x00-\x20\x7f]", re.IGNORECASE)
_DOTS = re.compile(r"(^|/)\.{1,2}(/|$)")
# what a protocol calls its own paths: they name nobody, so that entries may state them whatever the rule says
_OF_THE_PROTOCOL = {
    "openai": frozenset(
        base + path
        for base in ("", "/v1")
        for path in ("/chat/completions", "/completions", "/responses", "/embeddings", "/models")
    ),
    "anthropic": frozenset(("/messages", "/v1/messages", "/v1/messages/count_tokens")),
    "mlflow": frozenset(("/invocations",)),
}
_EMPTY_SEGMENT = "//"  # which some servers merge into one slash
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Match:
    """Where one path goes: the route, what is recorded, and the upstream's path (base included, no query).

    `stated` is all that entries say of the path in clear: the prefix, and the pattern of the rule, since the rest may
    name a person (`/customers/*/score`), or a path that the route's protocol itself names.
    """

    route: Route
    index: int  # of the route in the configuration
    record: RecordAs
    target: bytes
    stated: str


class Routes:
    """All routes of a configuration."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Compile the rules once."""
        ordered = sorted(enumerate(routes), key=lambda pair: len(pair[1].prefix), reverse=True)
        self._routes = [(route.prefix.rstrip("/"), index, route, _rules(route.record)) for index, route in ordered]
        self._bases = [urlsplit(route.upstream).path.rstrip("/") for route in routes]
        self._remembered: dict[str, Match] = {}

    def match(self, path: str) -> Match:
        """The route for the raw `path` of a request, without its query.

        Raises:
            RouteUnknown: no prefix fits.
            BadRequest: the path is not in origin form, or has two readings.
        """
        known = self._remembered.get(path)
        if known is not None:
            return known
        found = self._find(path)
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[path] = found
        return found

    def _find(self, path: str) -> Match:
        readable = plain(path)
        for prefix, index, route, rules in self._routes:
            if path == prefix or path.startswith(prefix + "/"):
                rest = path[len(prefix) :]
                target = self._bases[index] + (rest if route.strip_prefix else path) or "/"
                inside = readable[len(prefix) :] or "/"
                record, rule = next(
                    ((as_, glob) for pattern, as_, glob in rules if pattern.fullmatch(inside)), ("decision", "/**")
                )
                stated = inside if inside in _OF_THE_PROTOCOL.get(route.protocol, ()) else rule
                return Match(route, index, record, target.encode("ascii"), prefix + stated)
        raise RouteUnknown("no route has a prefix that this path begins with")


def plain(path: str) -> str:
    """The one reading of a raw path, percent-decoded.

    Raises:
        BadRequest: it has none: not ASCII, not beginning with a slash, dot segments, encoded slashes, broken escapes.
    """
    try:
        raw = path.encode("ascii")
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeError as error:
        raise BadRequest("the path is not percent-encoded UTF-8", code="path_malformed") from error
    if (
        not path.startswith("/")
        or _AMBIGUOUS.search(raw)
        or _BROKEN_ESCAPE.search(raw)
        or _EMPTY_SEGMENT in text
        or _DOTS.search(text)
    ):
        raise BadRequest("the path can be read in more than one way", code="path_malformed")
    return text


def unrecorded_beside_recorded(route: Route) -> list[str]:
    """What a person should know of the record rules of `route`: one sentence for each rule that is risky."""
    recorded = ""
    warnings = []
    for rule in route.record:
        if rule.as_ != "none":
            recorded = recorded or rule.path
        elif recorded and "*" in rule.path:
            warnings.append(
                f"route {route.name}: {rule.path} says none and follows {recorded}, which is recorded. A spelling of "
                f"that path which only the model endpoint understands would leave no entry; say call instead."
            )
    return warnings


def _rules(rules: Sequence[RecordRule]) -> list[tuple[re.Pattern[str], RecordAs, str]]:
    return [(_glob(rule.path), rule.as_, rule.path) for rule in rules]


def _glob(glob: str) -> re.Pattern[str]:
    """`**` crosses segments, `*` stays within one; `/x/**` matches `/x` too."""
    parts = []
    for piece in re.split(r"(/\*\*$|\*\*|\*)", glob):
        match piece:
            case "/**":
                parts.append("(?:/.*)?")
            case "**":
                parts.append(".*")
            case "*":
                parts.append("[^/]*")
            case _:
                parts.append(re.escape(piece))
    return re.compile("".join(parts), re.DOTALL)
