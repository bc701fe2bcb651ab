"""From what was asked and answered to the entries that state it (pure).

One call through the gateway is *asked* (known at admission) and *answered* (known at its end). A call that is open for
long, or streamed, gets a begin entry; each admitted call gets exactly one closing entry, `decision` or `call`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jmespath
import orjson
from jmespath.exceptions import JMESPathError

from config.route import Capture
from gateway.proxy.errors import BadRequest
from gateway.proxy.headers import RawHeaders, lowered
from storage.entries import JSON, NUMBER, TEXT, Draft, Form, Line, Part, Ref, spelled
from storage.ids import is_uuid7

State = Literal["complete", "client_aborted", "upstream_aborted", "gateway_lost"]
PATH_CHARS_MAX = 1024  # of the path as an entry states it: prefix and pattern of the rule; another target is sealed
HEADER_CHARS_MAX = 512  # of one recorded header …
HEADERS_CHARS_MAX = 8192  # … and of all of one side: with both, an entry stays far under its 65,535 bytes
CAPTURED_CHARS_MAX = 256  # of a case's or subject's name before it is hidden
FORMS_MAX = 1024  # of callers, routes, methods and models; beyond it all are forgotten
_REDACTED_AT = 9  # among the blanks of a form: behind the purpose
_CALL_AT = 1  # the call's id, behind its path
_PURPOSE = re.compile(r"[\w .:/-]{1,64}", re.ASCII)
_OURS = b"answerable-"


class Caller(NamedTuple):
    """One authenticated caller; `actor` is how entries name it, `scopes` open routes to it."""

    tenant: str
    app: str
    actor: str
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Whom and what a call is about: as the caller said, and then with `case` and `subject` hidden."""

    case: str | None = None
    subject: str | None = None
    purpose: str | None = None
    corrects: str | None = None


NOTHING = About()


class RowOf(NamedTuple):
    """Which row of a call an entry is, on routes with `batch: rows` (README.md of storage, "Calls and rows")."""

    call: str
    row: int
    rows: int | None  # None: they are not told apart …
    unsplit: str | None  # … and why


class Terms(NamedTuple):
    """What holds for every call of a route: its name, evidence mode, retention class, the configuration's digest."""

    route: str
    mode: str
    retention: str
    config: str


@dataclass(slots=True, kw_only=True)  # not frozen, as `Answered`: one each a call, and freezing triples their cost
class Asked:
    """One admitted call. `decision` is its Decision-Id; `case` and `subject` in `about` are pseudonyms; Unix ns.

    `path` is what the configuration names of it (`Match.stated`): it stands in clear for ever.
    """

    decision: str
    record: Literal["decision", "call"]
    caller: Caller
    terms: Terms
    method: str
    path: str
    received_ns: int
    trace: str | None
    about: About
    headers: Mapping[str, str]
    redacted: Mapping[str, object] | None = None  # None: the route hides nothing
    row_of: RowOf | None = None  # None: the route does not tell rows apart


class Model(NamedTuple):
    """Which model answered; `source` says how that is known: `announced` by the answer, or `declared` by the route."""

    name: str
    version: str | None
    digest: str | None
    source: Literal["announced", "declared"]


@dataclass(slots=True, kw_only=True)
class Answered:
    """How a call ended. `status` is what the caller got or would have got; `bytes` are those the model sent."""

    status: int
    error: str | None
    state: State
    streamed: bool
    bytes: int
    first_us: int | None
    upstream_us: int | None
    total_us: int
    model: Model | None
    headers: Mapping[str, str]
    coding: str = ""  # the answer's Content-Encoding; no entry states it
    redacted: Mapping[str, object] | None = None  # both sides, where the route hides anything


def begin(asked: Asked, *, entry: str, ts_ns: int, parts: tuple[Part, ...], key: str | None = None) -> Draft:
    """The begin entry of a call that is still open; `key` is that of parts to come, where `parts` do not name it."""
    fields = {**_of_the_call(asked), "record": asked.record, "timing": {"received_ns": str(asked.received_ns)}}
    if key is not None:
        fields["key"] = key
    if asked.redacted is not None:
        fields["redacted"] = asked.redacted
    return Draft(
        kind="begin",
        tenant=asked.caller.tenant,
        route=asked.terms.route,
        actor=asked.caller.actor,
        id=entry,
        ts_ns=ts_ns,
        decision=asked.decision,
        config=asked.terms.config,
        trace=asked.trace,
        parts=parts,
        fields=fields,
    )


def closing(asked: Asked, answered: Answered, *, ts_ns: int, parts: tuple[Part, ...], prev: tuple[Ref, ...]) -> Draft:
    """The entry that closes a call: its `id` is the Decision-Id, whether or not there was a begin entry."""
    fields = _of_the_call(asked)
    model = answered.model
    fields["model"] = None if model is None else _model(model)
    fields["status"] = answered.status
    fields["error"] = answered.error
    fields["timing"] = {
        "received_ns": str(asked.received_ns),
        "upstream_first_us": answered.first_us,
        "upstream_us": answered.upstream_us,
        "total_us": answered.total_us,
    }
    fields["stream"] = {"state": answered.state, "streamed": answered.streamed, "bytes": answered.bytes}
    if asked.headers or answered.headers:
        fields["headers"] = {"request": short(asked.headers), "response": short(answered.headers)}
    if answered.redacted is not None:
        fields["redacted"] = answered.redacted
    return Draft(
        kind=asked.record,
        tenant=asked.caller.tenant,
        route=asked.terms.route,
        actor=asked.caller.actor,
        id=asked.decision,
        ts_ns=ts_ns,
        decision=asked.decision,
        config=asked.terms.config,
        trace=asked.trace,
        prev=prev,
        parts=parts,
        fields=fields,
    )


def repeat(asked: Asked, answered: Answered, *, ts_ns: int, first: str) -> Draft:
    """The entry that closes a repeat: a call of its own, which names the `first` decision and has no parts."""
    draft = closing(asked, answered, ts_ns=ts_ns, parts=(), prev=())
    return replace(draft, fields={**draft.fields, "repeats": first})


class Closings:
    """Closing entries of short calls, filled into forms: what they share is encoded once per caller and route.

    What does not fit a form (recorded headers, a reference to a begin entry) is for `closing`, whose bytes these are.
    """

    def __init__(self, origin: str) -> None:
        """`origin` is that of the journal that will hold them."""
        self._origin = origin
        self._forms: dict[tuple[object, ...], Form | None] = {}

    def line(self, asked: Asked, answered: Answered, *, ts_ns: int, parts: Sequence[Part]) -> Line | None:
        """The closing entry but for its place; None where `closing` must make it."""
        row_of = asked.row_of
        if asked.headers or answered.headers or (row_of is not None and row_of.rows is None):
            return None
        redacted = answered.redacted
        kind = (
            asked.caller, asked.terms, asked.method, asked.record, answered.model, answered.streamed, redacted is None,
            row_of is None,
        )  # fmt: skip
        try:
            form = self._forms[kind]
        except KeyError:
            form = self._form(kind, asked, answered)
        if form is None:
            return None
        decision, about, state = asked.decision.encode(), asked.about, answered.state
        values: list[bytes | int] = [
            orjson.dumps(asked.path[:PATH_CHARS_MAX]), decision, _json(about.case), _json(about.corrects), decision,
            _json(answered.error), decision, spelled(parts), _json(about.purpose), 0, 0, answered.status,
            answered.bytes, state.encode(), _json(about.subject), b"%d" % asked.received_ns, answered.total_us,
            _number(answered.first_us), _number(answered.upstream_us), _json(asked.trace), b"%d" % ts_ns,
        ]  # fmt: skip
        if redacted is not None:
            values.insert(_REDACTED_AT, orjson.dumps(redacted, option=orjson.OPT_SORT_KEYS))
        if row_of is not None:
            values[_CALL_AT : _CALL_AT + 1] = [row_of.call.encode(), row_of.row, b"%d" % (row_of.rows or 0)]
        return Line(form, values, ts_ns=ts_ns, closes="" if row_of is not None and row_of.row else asked.decision)

    def _form(self, kind: tuple[object, ...], asked: Asked, answered: Answered) -> Form | None:
        """Names that are no Unicode have no form: such an entry is refused when it is encoded."""
        draft = closing(asked, answered, ts_ns=0, parts=(), prev=())
        fields = dict(draft.fields)
        call: dict[str, object] = {"method": asked.method, "path": JSON, "request_id": TEXT}
        if asked.row_of is not None:
            call |= {"row": NUMBER, "rows": JSON}
        fields |= {"call": call, **dict.fromkeys(("case", "subject", "purpose", "corrects", "error"), JSON)}
        fields["status"] = NUMBER
        fields["timing"] = {
            "received_ns": TEXT, "upstream_first_us": JSON, "upstream_us": JSON, "total_us": NUMBER
        }  # fmt: skip
        fields["stream"] = {"state": TEXT, "streamed": answered.streamed, "bytes": NUMBER}
        if answered.redacted is not None:
            fields["redacted"] = JSON
        try:
            form = Form(replace(draft, id=TEXT, decision=TEXT, trace=JSON, fields=fields), self._origin)
        except TypeError:
            form = None
        if len(self._forms) >= FORMS_MAX:
            self._forms.clear()
        self._forms[kind] = form
        return form


def _json(value: str | None) -> bytes:
    return b"null" if value is None else orjson.dumps(value)


def _number(value: int | None) -> bytes:
    return b"null" if value is None else b"%d" % value


def _of_the_call(asked: Asked) -> dict[str, object]:
    about, row_of = asked.about, asked.row_of
    call: dict[str, object] = {
        "method": asked.method, "path": asked.path[:PATH_CHARS_MAX], "request_id": asked.decision
    }  # fmt: skip
    if row_of is not None:
        call |= {"request_id": row_of.call, "row": row_of.row, "rows": row_of.rows}
        if row_of.unsplit is not None:
            call["unsplit"] = row_of.unsplit
    return {
        "app": asked.caller.app,
        "call": call,
        "case": about.case,
        "subject": about.subject,
        "purpose": about.purpose,
        "corrects": about.corrects,
        "mode": asked.terms.mode,
        "retention": asked.terms.retention,
    }


def _model(model: Model) -> dict[str, object]:
    return {"name": model.name, "version": model.version, "digest": model.digest, "source": model.source}


def short(headers: Mapping[str, str]) -> dict[str, str]:
    """Recorded headers, each cut to `HEADER_CHARS_MAX`; those that pass `HEADERS_CHARS_MAX` together are left empty."""
    kept = {}
    room = HEADERS_CHARS_MAX
    for name, value in headers.items():
        room -= len(name)
        kept[name] = value[: max(0, min(HEADER_CHARS_MAX, room))]
        room -= len(kept[name])
    return kept


class Capturing:
    """What one route takes from headers and body; expressions are compiled once."""

    def __init__(self, capture: Capture, *, parse_bytes_max: int) -> None:
        """A body longer than `parse_bytes_max` is not parsed: nothing is captured from it."""
        named = {
            "case": capture.case,
            "subject": capture.subject,
            "purpose": capture.purpose,
            "corrects": capture.corrects,
        }
        self._paths = {name: jmespath.compile(path) for name, path in named.items() if path is not None}
        self._parse_bytes_max = parse_bytes_max

    def of(self, headers: RawHeaders, body: bytes) -> About | None:
        """What the call is about; None if neither headers nor body say anything. Headers win over the body.

        Raises:
            BadRequest: a header of ours holds what cannot be recorded.
        """
        return self.about(said_in(headers), body)

    def about(self, said: Mapping[str, str], body: bytes) -> About | None:
        """The same where the headers were read before, by `said_in`."""
        if self._paths and len(body) <= self._parse_bytes_max:
            said = {**self._from_body(body, said), **said}
        return About(**said) if said else None

    def about_row(self, said: Mapping[str, str], value: Any) -> About | None:
        """The same of one row of a call, in which the paths look."""
        if self._paths:
            said = {**self._found(value, said), **said}
        return About(**said) if said else None

    def _from_body(self, body: bytes, said: Mapping[str, str]) -> dict[str, str]:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return {}
        return self._found(document, said)

    def _found(self, document: Any, said: Mapping[str, str]) -> dict[str, str]:
        wanted = {name: path for name, path in self._paths.items() if name not in said}
        found = {}
        for name, path in wanted.items():
            value = _text(path, document)
            if value is not None and _fault(name, value) is None:
                found[name] = value
        return found


def _text(path: Any, document: Any) -> str | None:
    try:
        value = path.search(document)
    except (JMESPathError, TypeError, ValueError):  # what the expression's functions raise on other types
        return None
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def said_in(headers: RawHeaders) -> dict[str, str]:
    """What headers of ours say the call is about, by the field of `About`.

    Raises:
        BadRequest: one of them holds what cannot be recorded.
    """
    said: dict[str, str] = {}
    for name, value in headers:
        low = lowered(name)
        if not low.startswith(_OURS):
            continue
        what = low[len(_OURS) :].decode("ascii", "replace")
        if what not in ("case", "subject", "purpose", "corrects"):
            continue
        try:
            text = value.strip(b" \t").decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRequest(f"the header Answerable-{what.title()} is not UTF-8", code="capture_invalid") from error
        fault = _fault(what, text) if what not in said else "given twice"
        if fault is not None:
            raise BadRequest(f"the header Answerable-{what.title()} is {fault}", code="capture_invalid")
        said[what] = text
    return said


def _fault(what: str, text: str) -> str | None:
    if not 0 < len(text) <= CAPTURED_CHARS_MAX:
        return f"not of 1 to {CAPTURED_CHARS_MAX} characters"
    if what == "purpose" and not _PURPOSE.fullmatch(text):
        return "not a short name (it is recorded in the clear)"
    if what == "corrects" and not is_uuid7(text):
        return "no Decision-Id"
    return None
