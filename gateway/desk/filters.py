"""What a list of decisions is asked for, and the cursor from one page to the next (pure).

A cursor is where the last page ended, with an HMAC over it, the viewer, and the filter as it was narrowed to their
scope: it cannot be made up, changed, or carried to another query. It is opaque and ends with the desk's process.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from gateway.desk.errors import NotFoundError, RequestError
from gateway.desk.roles import Right, Role, Viewer, time_ns
from storage import queries
from storage.ids import b64, is_uuid7, unb64, uuid7_ms

ROWS_MAX: Final = 500
ROWS_DEFAULT: Final = 50
CALL_DAYS: Final = 7  # after its id was chosen, at most: then its entries are written
_DAY_NS: Final = 86_400_000_000_000
TEXT_CHARS_MAX: Final = 200
DIRECTIONS: Final = ("favourable", "adverse")
STATUSES: Final = ("ready", "failed", "none")
PARAMETERS: Final = frozenset(
    [
        "route",
        "label",
        "direction",
        "case",
        "subject",
        "from",
        "to",
        "model_version",
        "reason",
        "reference",
        "call",
        "status",
        "cursor",
        "limit",
    ]
)
PSEUDONYM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.[A-Za-z0-9_-]{43}")
REFERENCE: Final = re.compile(r"[0-9a-f]{12}")
_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Decisions of one tenant with [from_ns, to_ns), narrowed by whatever else is not None."""

    from_ns: int
    to_ns: int
    routes: tuple[str, ...] | None = None
    label: str | None = None
    direction: str | None = None  # favourable | adverse
    case: str | None = None
    subject: str | None = None
    model_version: str | None = None
    reason: str | None = None  # a reason's code
    status: str | None = None  # of the explanation: ready | failed | none
    reference: str | None = None  # the end of an id, as the call card gives it
    call: str | None = None  # the id of a call: its rows

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the filter: names the query in access entries without its values."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()


def is_pseudonym(text: str) -> bool:
    """Whether `text` has the form of a pseudonym, so that a customer's own number is never taken for one."""
    return PSEUDONYM.fullmatch(text) is not None


def reference(text: str) -> str | None:
    """The twelve characters that a call card gives as its reference, however they were spaced; None: it is none."""
    joined = "".join(text.split()).replace("-", "").lower()
    return joined if REFERENCE.fullmatch(joined) else None


def parse(query: Mapping[str, str], viewer: Viewer) -> Filter:
    """The filter that a query string asks for, narrowed to the viewer's scope.

    Raises:
        RequestError: a parameter is unknown, missing or not of its kind.
        NotFoundError: it names a route outside the viewer's matter.
    """
    unknown = sorted(set(query) - PARAMETERS)
    if unknown:
        raise RequestError(f"no parameter is called {unknown[0][:40]}")
    call = _call(query)
    made = Filter(
        from_ns=_time(query, "from", None if call is None else max(0, _begun_ns(call) - _DAY_NS)),
        to_ns=_time(query, "to", None if call is None else _begun_ns(call) + CALL_DAYS * _DAY_NS),
        routes=(query["route"],) if query.get("route") else None,
        label=_text(query, "label"),
        direction=_one_of(query, "direction", DIRECTIONS),
        case=_pseudonym(query, "case"),
        subject=_pseudonym(query, "subject"),
        model_version=_text(query, "model_version"),
        reason=_text(query, "reason"),
        status=_one_of(query, "status", STATUSES),
        reference=_reference(query),
        call=call,
    )
    if made.from_ns >= made.to_ns:
        raise RequestError("`from` is not before `to`")
    return narrowed(made, viewer)


def narrowed(asked: Filter, viewer: Viewer) -> Filter:
    """The part of `asked` that lies in the viewer's scope: the caller's own, or a regulator's matter."""
    if Role.REGULATOR not in viewer.roles or viewer.matter is None:
        return asked
    matter = viewer.matter
    routes = matter.routes if asked.routes is None else matter.routes & set(asked.routes)
    if not routes:
        raise NotFoundError("no such route in your scope")
    from_ns, to_ns = max(asked.from_ns, matter.from_ns), min(asked.to_ns, matter.to_ns)
    changed = {**asdict(asked), "routes": tuple(sorted(routes)), "from_ns": from_ns, "to_ns": max(from_ns, to_ns)}
    return Filter(**changed)


def needed(asked: Filter) -> tuple[Right, str]:
    """The right that a list needs, and what its purpose is stated for."""
    if asked.case is not None:
        return Right.LOOKUP, f"case:{asked.case}"
    if asked.subject is not None:
        return Right.LOOKUP, f"subject:{asked.subject}"
    if asked.reference is not None:
        return Right.REASONS, f"reference:{asked.reference}"
    return Right.LIST, "list"


def limit(query: Mapping[str, str]) -> int:
    """How many rows a page holds."""
    return _whole(query, "limit", 1, ROWS_MAX) or ROWS_DEFAULT


def wanted(asked: Filter, tenant: str) -> queries.Filter:
    """The filter as storage takes it."""
    return queries.Filter(
        tenant=tenant,
        span=queries.Span(asked.from_ns, asked.to_ns),
        routes=asked.routes or (),
        labels=(asked.label,) if asked.label is not None else (),
        cases=(asked.case,) if asked.case is not None else (),
        subjects=(asked.subject,) if asked.subject is not None else (),
        model_version=asked.model_version,
        reason=asked.reason,
        favourable=None if asked.direction is None else asked.direction == "favourable",
        state=asked.status,
        tail=asked.reference,
        call=asked.call,
    )


def seal_cursor(place: str, asked: Filter, viewer: Viewer, key: bytes) -> str:
    """The cursor behind a page; `place` is storage's own."""
    return b64(_mac(place.encode(), asked, viewer, key) + place.encode())


def open_cursor(cursor: str, asked: Filter, viewer: Viewer, key: bytes) -> str:
    """Where the last page ended, as storage takes it.

    Raises:
        RequestError: the cursor was changed, or belongs to another query, another viewer, or another process.
    """
    try:
        raw = unb64(cursor)
    except ValueError:
        raw = b""
    mac, place = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(place, asked, viewer, key)):
        raise RequestError(
            "the cursor does not belong to this query", code="cursor_invalid", advice="Begin again without a cursor."
        )
    return place.decode()


def _mac(place: bytes, asked: Filter, viewer: Viewer, key: bytes) -> bytes:
    bound = f"{asked.digest}\n{viewer.tenant}\n{viewer.actor}\n".encode() + place
    return hmac.digest(key, bound, "sha256")[:_MAC_BYTES]


def decision_id(text: str) -> str:
    """A Decision-Id as it came.

    Raises:
        NotFoundError: it is none: the same answer as for one that is not there.
    """
    if not is_uuid7(text):
        raise NotFoundError("no such decision in your scope")
    return text


def _time(query: Mapping[str, str], name: str, known: int | None) -> int:
    found = time_ns(query.get(name, "")) if query.get(name) or known is None else known
    if found is None:
        raise RequestError(f"`{name}` is required: an ISO 8601 date or time (a list needs a bounded period)")
    return found


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name) or None
    if text is not None and (len(text) > TEXT_CHARS_MAX or not text.isprintable()):
        raise RequestError(f"`{name}` is a text of at most {TEXT_CHARS_MAX} characters")
    return text


def _one_of(query: Mapping[str, str], name: str, known: Sequence[str]) -> str | None:
    word = query.get(name) or None
    if word is not None and word not in known:
        raise RequestError(f"`{name}` is one of {', '.join(known)}")
    return word


def _pseudonym(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name) or None
    if text is not None and not is_pseudonym(text):
        raise RequestError(f"`{name}` is a pseudonym; get it with POST /v1/lookup")  # and is not repeated here
    return text


def _call(query: Mapping[str, str]) -> str | None:
    text = query.get("call") or None
    if text is not None and not is_uuid7(text):
        raise RequestError("`call` is the id of a call: what its answer gave as Decision-Call")
    return text


def _begun_ns(call: str) -> int:
    return uuid7_ms(call) * 1_000_000


def _reference(query: Mapping[str, str]) -> str | None:
    text = query.get("reference") or None
    found = None if text is None else reference(text)
    if text is not None and found is None:
        raise RequestError("`reference` is the twelve characters that a call card gives")
    return found


def _whole(query: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = query.get(name) or None
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
        raise RequestError(f"`{name}` is a whole number from {low} to {high}")
    return int(text)
