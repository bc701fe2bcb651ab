"""Entries: the small JSON lines that state what happened, and are the leaves of a ledger. Pure.

A *draft* is what a caller knows; the journal adds origin and sequence numbers and encodes it once. Nobody
re-serialises: hashes are over the stored bytes (README.md, "Entries").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from storage import merkle
from storage.errors import EntryTooLarge
from storage.ids import b64, b64_hashes, unb64

VERSION = 1
ENTRY_BYTES_MAX = 65_535  # C2SP tlog-tiles entry bundles carry u16 lengths
SYSTEM_TENANT = "*"  # the tenant of what a shard says about itself
_OF_A_CALL = ("begin", "decision", "call")
_ABOUT_DECISIONS = ("extraction", "explanation", "disposition", "truth", "review", "access", "notice")
_OF_GOVERNANCE = ("approval", "lifecycle", "incident", "hold", "erasure", "prune", "metric", "report")
_OF_THE_SHARD = ("gap", "recovery", "heartbeat")
CLOSING = frozenset(("decision", "call"))  # kinds that `closes_call` looks at; the begin entry says which as `record`
KINDS = frozenset((*_OF_A_CALL, *_ABOUT_DECISIONS, *_OF_GOVERNANCE, *_OF_THE_SHARD))
_OPENED, _UNDER_KEY = "opening_commit", "plain_commit"  # what commits to a part's plaintext, now and before
INT_MAX = 2**53  # beyond it a JavaScript verifier would read another number


@dataclass(slots=True, kw_only=True)  # not frozen: two a call, and freezing triples what making one costs
class Part:
    """What an entry says of one sealed part; the bytes themselves travel beside it as PART frames. Nobody changes one.

    ``len`` and ``sha256`` are of the stored bytes (all chunks joined), ``chunks`` is how many there are. Who closes
    the call of a killed writer has no key to make an ``opening_commit`` with: None. Entries of before committed to the
    plaintext under the key itself (``is_under_key``), in ``plain_commit``: README.md, "Parts".
    """

    name: str
    index: int
    media: str
    encoding: str  # identity | zstd
    len: int
    sha256: bytes
    key: str
    dek_commit: bytes
    opening_commit: bytes | None
    chunks: int = 1
    is_under_key: bool = False

    def as_json(self) -> dict[str, Any]:
        """The form inside an entry; hashes are base64url."""
        commit = None if self.opening_commit is None else b64(self.opening_commit)
        return {
            "name": self.name,
            "index": self.index,
            "media": self.media,
            "encoding": self.encoding,
            "len": self.len,
            "sha256": b64(self.sha256),
            "key": self.key,
            "dek_commit": b64(self.dek_commit),
            (_UNDER_KEY if self.is_under_key else _OPENED): commit,
            "chunks": self.chunks,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Part:
        """The inverse; KeyError or ValueError for what no entry of this version holds."""
        is_under_key = _OPENED not in value
        commit = value[_UNDER_KEY if is_under_key else _OPENED]
        return cls(
            name=value["name"],
            index=value["index"],
            media=value["media"],
            encoding=value["encoding"],
            len=value["len"],
            sha256=unb64(value["sha256"]),
            key=value["key"],
            dek_commit=unb64(value["dek_commit"]),
            opening_commit=None if commit is None else unb64(commit),
            chunks=value["chunks"],
            is_under_key=is_under_key,
        )


_PART_FORMS_MAX = 256  # media types are the callers' words: beyond so many, all are forgotten
_part_forms: dict[tuple[str, int, str, str, int], bytes] = {}


def spelled(parts: Sequence[Part]) -> bytes:
    """The parts as they stand in an entry, between its brackets: the bytes that orjson makes of ``as_json``, sooner."""
    hashes: list[bytes] = []
    for part in parts:
        assert part.opening_commit is not None, "whoever closes its own call has sealed the parts itself"
        assert not part.is_under_key, "as above"
        hashes += (part.dek_commit, part.opening_commit, part.sha256)
    texts = b64_hashes(hashes)
    made = []
    for at, part in enumerate(parts):
        kind = (part.name, part.index, part.media, part.encoding, part.chunks)
        form = _part_forms.get(kind) or _part_form(kind)
        made.append(form % (texts[3 * at], part.key.encode(), part.len, texts[3 * at + 1], texts[3 * at + 2]))
    return b",".join(made)


def _part_form(kind: tuple[str, int, str, str, int]) -> bytes:
    name, index, media, encoding, chunks = kind
    blank: dict[str, Any] = dict.fromkeys(("sha256", "key", "dek_commit", _OPENED), TEXT) | {"len": NUMBER}
    made = {"name": name, "index": index, "media": media, "encoding": encoding, "chunks": chunks, **blank}
    if len(_part_forms) >= _PART_FORMS_MAX:
        _part_forms.clear()
    form = _part_forms[kind] = _blanked(orjson.dumps(made, option=orjson.OPT_SORT_KEYS))
    return form  # and not what stands there now: rows are spelled in a thread


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to an earlier entry: its id and its leaf hash."""

    id: str
    leaf: bytes

    def as_json(self) -> dict[str, str]:
        """The form inside an entry's ``prev``."""
        return {"id": self.id, "leaf": b64(self.leaf)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An entry before the journal gave it a place. ``fields`` are the kind's own, beside the common ones."""

    kind: str
    tenant: str
    actor: str
    id: str
    ts_ns: int
    config: str  # hex digest of the active configuration
    route: str | None = None
    decision: str | None = None
    trace: str | None = None
    prev: tuple[Ref, ...] = ()
    parts: tuple[Part, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict)


_FOR_EVERY_READER = ("v", "origin", "seq", "scope_seq", "id", "ts", "kind", "prev", "parts")
_OF_THE_SCOPE = ("tenant", "actor", "trace", "config", "route", "decision")
COMMON = frozenset((*_FOR_EVERY_READER, *_OF_THE_SCOPE))


def encode(draft: Draft, *, origin: str, seq: int, scope_seq: int) -> bytes:
    """The entry's bytes: one UTF-8 line of JSON with sorted keys, without a newline.

    Raises EntryTooLarge over 65,535 bytes, ValueError for an unknown kind or a field that shadows a common one,
    TypeError for what is no JSON.
    """
    return finish(document(draft, origin), seq=seq, scope_seq=scope_seq)


def document(draft: Draft, origin: str) -> dict[str, Any]:
    """The entry but for ``seq`` and ``scope_seq``: what can be made before its place is known."""
    if draft.kind not in KINDS:
        raise ValueError(f"unknown kind of entry: {draft.kind!r}")
    if not COMMON.isdisjoint(draft.fields):
        raise ValueError(f"fields shadow {sorted(COMMON.intersection(draft.fields))}")
    made = dict(draft.fields) if _is_plain(draft.fields) else plain(draft.fields)
    made["v"] = VERSION
    made["origin"] = origin
    made["id"] = draft.id
    made["ts"] = str(draft.ts_ns)
    made["kind"] = draft.kind
    made["tenant"] = draft.tenant
    made["actor"] = draft.actor
    made["trace"] = draft.trace
    made["config"] = draft.config
    made["route"] = draft.route
    made["decision"] = draft.decision
    made["prev"] = [ref.as_json() for ref in draft.prev]
    made["parts"] = [part.as_json() for part in draft.parts]
    return made


_BLANK = "\0"  # begins the stand-in for a value in a form; no name, path or header that gets here can hold it
_BLANK_IN_JSON = re.compile(rb'"\\u0000(text|json|number)"')
_FILLED_BY = {b"text": b'"%b"', b"json": b"%b", b"number": b"%d"}
TEXT, JSON, NUMBER = _BLANK + "text", _BLANK + "json", _BLANK + "number"


class Form:
    """Entries that differ in few values: encoded once, with blanks in the places of these, then filled in.

    The draft that it is made of holds ``TEXT`` (ASCII that JSON need not escape), ``JSON`` (encoded by who fills it
    in) or ``NUMBER`` where a value will stand. So the bytes are those that :func:`encode` would give.
    """

    __slots__ = ("at", "blanks", "scope", "template")

    def __init__(self, draft: Draft, origin: str) -> None:
        """Time and parts are blanks whatever the draft says. Raises as :func:`encode`."""
        made = document(draft, origin)
        made["ts"], made["parts"] = TEXT, [JSON]
        made["scope_seq"] = made["seq"] = NUMBER
        encoded = orjson.dumps(made, option=orjson.OPT_SORT_KEYS)
        before = encoded[: encoded.index(b'"scope_seq":"\\u0000number"')]
        self.at = len(_BLANK_IN_JSON.findall(before))  # of the scope_seq among the blanks; the seq comes next
        self.blanks = len(_BLANK_IN_JSON.findall(encoded))
        self.template = _blanked(encoded)
        self.scope = (draft.tenant, draft.route)


def _blanked(encoded: bytes) -> bytes:
    """A template: ``%`` formats where the blanks stand."""
    return _BLANK_IN_JSON.sub(lambda found: _FILLED_BY[found[1]], encoded.replace(b"%", b"%%"))


class Line:
    """A form that was filled in, but for its place."""

    __slots__ = ("closes", "form", "scope", "ts_ns", "values")

    def __init__(self, form: Form, values: list[bytes | int], *, ts_ns: int, closes: str) -> None:
        """``values`` stand in the order of the blanks; ``closes`` is the decision that the entry closes, or empty."""
        self.form = form
        self.scope = form.scope
        self.values = values
        self.ts_ns = ts_ns
        self.closes = closes

    def placed(self, *, seq: int, scope_seq: int) -> bytes:
        """The entry's bytes."""
        form, values = self.form, self.values
        values[form.at], values[form.at + 1] = scope_seq, seq
        return form.template % tuple(values)


def finish(made: dict[str, Any] | Line, *, seq: int, scope_seq: int) -> bytes:
    """Place a :func:`document` or a line and encode it; raises EntryTooLarge."""
    if isinstance(made, Line):
        entry = made.placed(seq=seq, scope_seq=scope_seq)
    else:
        made["seq"] = seq
        made["scope_seq"] = scope_seq
        entry = orjson.dumps(made, option=orjson.OPT_SORT_KEYS)
    if len(entry) > ENTRY_BYTES_MAX:
        raise EntryTooLarge(f"an entry of {len(entry)} bytes; at most {ENTRY_BYTES_MAX} are allowed")
    return entry


def _is_plain(value: object) -> bool:
    """True if :func:`plain` would change nothing: the usual case, found without copying."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -INT_MAX <= value <= INT_MAX  # type: ignore[operator]
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is dict:
        for name, inner in value.items():  # type: ignore[attr-defined]
            if type(name) is not str or not (type(inner) is str or inner is None or _is_plain(inner)):
                return False
        return True
    return kind is list and all(map(_is_plain, value))  # type: ignore[call-overload]


def plain(value: object) -> Any:
    """A value as JSON that every reader reads alike.

    orjson writes NaN and infinities silently as null, and JavaScript rounds integers above 2^53: both become strings.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if isinstance(value, int):
        return int(value) if -INT_MAX <= value <= INT_MAX else str(int(value))
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{kind.__name__} is no JSON value")


def closes_call(said: Mapping[str, Any]) -> bool:
    """Whether this entry ends an admitted call: of the rows of one call only the first does."""
    if said["kind"] not in CLOSING:
        return False
    call = said.get("call")
    return not (isinstance(call, dict) and call.get("row"))


def leaf_hash(entry: bytes) -> bytes:
    """The entry's leaf: SHA-256(0x00 || entry)."""
    return merkle.leaf_hash(entry)


def decode(entry: bytes) -> dict[str, Any]:
    """An entry as a dictionary; ValueError unless it is one JSON object on one line."""
    if b"\n" in entry:
        raise ValueError("an entry is one line")
    value = orjson.loads(entry)
    if not isinstance(value, dict):
        raise ValueError("an entry is a JSON object")  # noqa: TRY004 - what came in is wrong, not how we call
    return value
