"""Checking an evidence bundle with nothing but the file and the verifier's own keys (see README.md). Blocking.

Four claims, in this order: integrity, completeness, freshness, authenticity. Nothing in the file is believed by itself.
"""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from storage import cosignatures, merkle, notes
from storage.bundlefile import FORMAT, MANIFEST, MANIFEST_BYTES_MAX, BundleReader
from storage.errors import Unverifiable
from storage.findings import Verdict
from storage.ids import b64, unb64
from storage.logleaves import log_name
from storage.seal import dek_commit, plain_commit
from storage.strictjson import parse
from storage.trust import TrustPolicy

CLAIMS: Final = ("integrity", "completeness", "freshness", "authenticity")
UNTOLD: Final = "integrity does not hold: nothing else can be told"
LISTED_MAX: Final = 10_000  # origins, and scopes: each costs a signature, or a search
INTEGER_MAX: Final = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class BundleClaim:
    """One of the four claims."""

    name: str
    verdict: Verdict
    detail: str

    def as_json(self) -> dict[str, str]:
        """For commands."""
        return {"name": self.name, "verdict": str(self.verdict), "detail": self.detail}


@dataclass(frozen=True, slots=True)
class BundleReport:
    """All four claims, how many entries were looked at; `understood`: the file is a bundle of this format."""

    claims: tuple[BundleClaim, ...]
    entries: int
    understood: bool = True

    @property
    def exit_code(self) -> int:
        """1: something is FAIL; 2: not understood, or integrity cannot be told; else 0."""
        if any(claim.verdict is Verdict.FAIL for claim in self.claims):
            return 1
        return 2 if not self.understood or self.claims[0].verdict is not Verdict.PASS else 0

    def as_json(self) -> dict[str, object]:
        """For commands."""
        return {
            "claims": [claim.as_json() for claim in self.claims],
            "entries": self.entries,
            "exit": self.exit_code,
        }


class NotUnderstoodError(Exception):
    """The file is no bundle of this format."""


@dataclass(slots=True)
class _Origin:
    """What a bundle says of one ledger, and what was found of it."""

    name: str
    size: int
    root: bytes
    note: bytes
    whole: bool
    seqs: int = 0
    last: int = -1
    leaves: list[bytes] = field(default_factory=list)  # of a whole one


@dataclass(slots=True)
class _Content:
    """What was read on the way over all entries, for what comes after."""

    counted: dict[tuple[str, str, str | None], set[int]] = field(default_factory=dict)  # of the scopes that are claimed
    beats: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    parts: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    entries: int = 0


def check_bundle(path: Path, policy: TrustPolicy | None = None) -> BundleReport:
    """The four claims about the bundle at `path`; never raises for what is in it.

    Raises:
        OSError: the file cannot be read.
    """
    path.stat()
    try:
        return _Check(path, policy).run()
    except NotUnderstoodError as error:
        unknown = tuple(BundleClaim(name, Verdict.UNKNOWN, str(error)) for name in CLAIMS)
        return BundleReport(unknown, 0, understood=False)


class _Check:
    def __init__(self, path: Path, policy: TrustPolicy | None) -> None:
        self._policy = policy
        try:
            self._reader = BundleReader(path)
        except Unverifiable as error:
            raise NotUnderstoodError(error.message) from error
        try:
            manifest = parse(self._reader.read(MANIFEST, bytes_max=MANIFEST_BYTES_MAX))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                _fail(f"not a bundle of the format {FORMAT}")
        except Unverifiable as error:
            self._reader.close()
            raise NotUnderstoodError(error.message) from error
        self._manifest: dict[str, Any] = manifest
        self._content = _Content()
        self._unknown: list[str] = []
        self._head: bytes | None = None

    def run(self) -> BundleReport:
        try:
            integrity = self._integrity()
        except Unverifiable as error:
            integrity = BundleClaim("integrity", Verdict.FAIL, error.message)
        entries = self._content.entries
        if integrity.verdict is Verdict.FAIL:
            self._reader.close()
            return BundleReport(
                (integrity, *(BundleClaim(name, Verdict.UNKNOWN, UNTOLD) for name in CLAIMS[1:])), entries
            )
        completeness = self._guarded("completeness", self._completeness)
        freshness = self._guarded("freshness", self._freshness)
        authenticity = self._guarded("authenticity", self._authenticity)
        self._reader.close()
        return BundleReport((integrity, completeness, freshness, authenticity), entries)

    def _guarded(self, name: str, check: Any) -> BundleClaim:
        try:
            verdict, detail = check()
        except Unverifiable as error:
            return BundleClaim(name, Verdict.FAIL, error.message)
        return BundleClaim(name, verdict, detail)

    # --- integrity ----------------------------------------------------------------------------------------------

    def _integrity(self) -> BundleClaim:
        self._files()
        key = self._key()
        origins = self._origins(key)
        self._entries(origins)
        told = self._log(origins, key)
        self._parts()
        detail = f"{self._content.entries} entries under {len(origins)} signed checkpoints; {told}"
        if self._unknown:
            return BundleClaim("integrity", Verdict.UNKNOWN, "; ".join([detail, *self._unknown]))
        return BundleClaim("integrity", Verdict.PASS, detail)

    def _files(self) -> None:
        """Every member is what the manifest says, and there are no others."""
        files = _object(self._manifest, "files")
        there = set(self._reader.members) - {MANIFEST}
        if there != set(files):
            odd = min(there ^ set(files))
            _fail(f"{odd[:80]} is {'not in the manifest' if odd in there else 'missing'}")
        for name in sorted(files):
            stated = files[name] if isinstance(files[name], dict) else {}
            size, digest = self._reader.digest(name)
            if (_integer(stated, "size"), _text(stated, "sha256")) != (size, digest):
                _fail(f"{name} is not what the manifest says")

    def _key(self) -> bytes:
        log = log_name(_text(self._manifest, "deployment"))
        stated = _hash(_text(self._manifest, "key"))
        if self._policy is None:
            return stated
        return self._policy.logs.get(log, stated)

    def _origins(self, key: bytes) -> dict[str, _Origin]:
        origins: dict[str, _Origin] = {}
        for said in _listed(self._manifest, "origins"):
            name, note = _text(said, "origin"), _text(said, "checkpoint").encode()
            if name in origins:
                _fail(f"{name} stands twice in the manifest")
            head = notes.verified_checkpoint(note, origin=name, public=key)
            whole = said.get("whole")
            if type(whole) is not bool:
                _fail(f"{name}: whole is true or false")
            origins[name] = _Origin(name, head.size, head.root, note, whole)
        if not origins:
            _fail("there is no entry here")
        return origins

    def _entries(self, origins: Mapping[str, _Origin]) -> None:
        claimed = self._claimed()
        paths = self._reader.lines("paths.jsonl")
        before = (b"", -1)
        for raw in self._reader.lines("entries.jsonl"):
            line = next(paths, None)
            if line is None:
                _fail("there are fewer paths than entries")
            said = parse(raw)
            if not isinstance(said, dict):
                _fail("an entry is no object")
            name, seq = _text(said, "origin"), _integer(said, "seq")
            here = (name.encode(), seq)
            if here <= before:
                _fail(f"{name}, {seq}: entries are not in their order, or one is there twice")
            before = here
            origin = origins.get(name)
            if origin is None:
                _fail(f"{name}, {seq}: no checkpoint of its ledger is here")
            self._prove(origin, seq, raw, parse(line))
            self._note(said, name, seq, claimed)
        if next(paths, None) is not None:
            _fail("there are more paths than entries")
        for origin in origins.values():
            self._end(origin)

    def _prove(self, origin: _Origin, seq: int, raw: bytes, said: Any) -> None:
        leaf = merkle.leaf_hash(raw)
        if not isinstance(said, list):
            _fail(f"{origin.name}, {seq}: its path is no list")
        path = [_hash(node) for node in said]
        self._content.entries += 1
        origin.seqs += 1
        if origin.whole:
            if path or seq != origin.last + 1:
                _fail(f"{origin.name}, {seq}: the ledger is said to be whole, and is not")
            origin.leaves.append(leaf)
        else:
            try:
                merkle.verify_inclusion(leaf, index=seq, size=origin.size, path=path, root=origin.root)
            except Unverifiable as error:
                _fail(f"{origin.name}, {seq}: {error.message}")
        origin.last = seq

    def _end(self, origin: _Origin) -> None:
        if not origin.seqs:
            _fail(f"{origin.name}: there is a checkpoint and no entry")
        if origin.whole and (len(origin.leaves) != origin.size or merkle.root_of(origin.leaves) != origin.root):
            _fail(f"{origin.name}: the entries do not make the tree that was signed")
        origin.leaves = []

    def _note(self, said: dict[str, Any], name: str, seq: int, claimed: set[tuple[str, str, str | None]]) -> None:
        content = self._content
        tenant, route = said.get("tenant"), said.get("route")
        scope = (name, tenant, route) if isinstance(tenant, str) and isinstance(route, str | None) else None
        if scope is not None and scope in claimed:
            content.counted.setdefault(scope, set()).add(_integer(said, "scope_seq"))
        if said.get("kind") == "heartbeat" and isinstance(said.get("scopes"), list):
            content.beats[name, seq] = said["scopes"]
        if "parts.jsonl" in self._reader.members and isinstance(said.get("parts"), list) and said["parts"]:
            content.parts[name, seq] = said["parts"]

    def _log(self, origins: Mapping[str, _Origin], key: bytes) -> str:
        if "log.json" not in self._reader.members:
            return "their place in the log of logs is not shown"
        document = parse(self._reader.read("log.json", bytes_max=MANIFEST_BYTES_MAX))
        name = log_name(_text(self._manifest, "deployment"))
        if not isinstance(document, dict) or _text(document, "name") != name:
            _fail(f"log.json is not about {name}")
        note = _text(document, "checkpoint").encode()
        head = notes.verified_checkpoint(note, origin=name, public=key)
        leaves = _list(document, "leaves")
        if [_text(said, "origin") for said in leaves] != list(origins):
            _fail("log.json is about other ledgers than the manifest")
        for said in leaves:
            origin = origins[said["origin"]]
            raw, index = _text(said, "leaf").encode(), _integer(said, "index")
            _check_leaf(parse(raw), name, index, origin)
            path = [_hash(node) for node in _list(said, "path", of=str)]
            merkle.verify_inclusion(merkle.leaf_hash(raw), index=index, size=head.size, path=path, root=head.root)
        self._head = note
        return f"in the log of logs of {head.size} leaves"

    def _parts(self) -> None:
        if "parts.jsonl" not in self._reader.members:
            return
        before: tuple[bytes, int, int] = (b"", -1, -1)
        for raw in self._reader.lines("parts.jsonl"):
            said = parse(raw)
            if not isinstance(said, dict):
                _fail("a line of parts.jsonl is no object")
            origin, seq, index = _text(said, "origin"), _integer(said, "seq"), _integer(said, "index")
            here = (origin.encode(), seq, index)
            if here <= before:
                _fail("parts.jsonl is not in its order, or a part is there twice")
            before = here
            self._part(f"{origin}, {seq}, part {_text(said, 'name')}", said)

    def _part(self, where: str, said: dict[str, Any]) -> None:
        stated = self._content.parts.get((said["origin"], said["seq"]), [])
        found = [
            part
            for part in stated
            if isinstance(part, dict)
            and part.get("name") == said["name"]
            and type(part.get("index")) is int
            and part["index"] == said["index"]
        ]
        if len(found) != 1:
            _fail(f"{where}: the entry states no such part")
        secret, committed = _opened(where, said, found[0])
        plaintext = b"".join(self._reader.pieces(_text(said, "file")))
        if committed is None:
            self._unknown.append(f"{where}: the entry does not commit to its plaintext")
        elif not hmac.compare_digest(_hash(committed), plain_commit(secret, said["name"], plaintext)):
            _fail(f"{where}: the plaintext is not the one that the entry commits to")

    # --- the other claims ---------------------------------------------------------------------------------------

    def _claimed(self) -> set[tuple[str, str, str | None]]:
        return {(_text(said, "origin"), _text(said, "tenant"), _route(said)) for said in self._scopes()}

    def _scopes(self) -> list[dict[str, Any]]:
        return _listed(self._manifest, "scopes")

    def _completeness(self) -> tuple[Verdict, str]:
        scopes = self._scopes()
        if not scopes:
            return Verdict.UNKNOWN, "nothing is claimed to be complete"
        ordered: dict[tuple[str, str, str | None], list[int]] = {}
        for said in scopes:
            scope = (_text(said, "origin"), _text(said, "tenant"), _route(said))
            low, high = self._bound(said, "from", scope), self._bound(said, "to", scope)
            where = f"{scope[0]}: {scope[1]}, {scope[2]}"
            if low > high:
                _fail(f"{where}: it ends before it begins")
            there = ordered.setdefault(scope, sorted(self._content.counted.get(scope, ())))
            if bisect_left(there, high) - bisect_left(there, low) != high - low:
                known = self._content.counted.get(scope, ())
                missing = next(number for number in range(low, high) if number not in known)
                _fail(f"{where}: entry {missing} of the scope is not here")
        return Verdict.PASS, f"held whole: {len(scopes)}, heartbeat to heartbeat; of the ledgers named, no others"

    def _bound(self, said: dict[str, Any], name: str, scope: tuple[str, str, str | None]) -> int:
        bound = said.get(name)
        if bound is None and name == "from":
            return 0
        if not isinstance(bound, dict):
            _fail(f"{scope[0]}: {name} names no heartbeat")
        seq, count = _integer(bound, "seq"), _integer(bound, "n")
        stated = self._content.beats.get((scope[0], seq), [])
        if not any(_states(one, scope, count) for one in stated):
            _fail(f"{scope[0]}, {seq}: no heartbeat that states {count} entries of {scope[1]}, {scope[2]}")
        return count

    def _cosigned(self) -> dict[str, int]:
        if self._policy is None or self._head is None:
            return {}
        return cosignatures.cosigned(self._head, self._policy.witnesses)

    def _freshness(self) -> tuple[Verdict, str]:
        policy = self._policy
        if policy is None or policy.quorum < 1:
            return Verdict.UNKNOWN, "no witness of yours says when it existed: times are the operator's own"
        times = sorted(self._cosigned().values())
        if len(times) < policy.quorum:
            return Verdict.UNKNOWN, f"{len(times)} of your witnesses cosigned, {policy.quorum} are asked for"
        when = _moment(times[policy.quorum - 1])
        return Verdict.PASS, f"existed at {when}, say {policy.quorum} of your witnesses"

    def _authenticity(self) -> tuple[Verdict, str]:
        policy = self._policy
        if policy is None:
            return Verdict.UNKNOWN, "a bundle that brings its own key proves nothing: bring a trust policy"
        log = log_name(_text(self._manifest, "deployment"))
        trusted = policy.logs.get(log)
        if trusted is None:
            _fail(f"your trust policy names no key of {log}")
        if trusted != _hash(_text(self._manifest, "key")):
            _fail("it is signed by another key than the one you trust")
        found = self._cosigned()
        if len(found) < policy.quorum:
            _fail(f"{len(found)} of your witnesses cosigned, {policy.quorum} are asked for")
        return Verdict.PASS, f"signed by the key you trust; cosigned by {', '.join(sorted(found)) or 'nobody'}"


def _opened(where: str, said: dict[str, Any], part: dict[str, Any]) -> tuple[bytes, Any]:
    """The secret that a line of parts.jsonl brings, and what the entry's part says is made with it."""
    if (said.get("opening") is None) == (said.get("dek") is None):
        _fail(f"{where}: either an opening or a key belongs to it")
    if said.get("dek") is None:
        return _hash(said["opening"]), part.get("opening_commit")
    dek = _hash(said["dek"])
    if not hmac.compare_digest(_hash(part.get("dek_commit")), dek_commit(dek)):
        _fail(f"{where}: the key is not the one that the entry commits to")
    return dek, part.get("plain_commit")


def _check_leaf(said: Any, log: str, index: int, origin: _Origin) -> None:
    """It is the leaf `index` of `log`, and holds the checkpoint of `origin`; the rest of it is not looked at."""
    if not isinstance(said, dict) or (_integer(said, "v"), _integer(said, "n")) != (1, index):
        _fail(f"{origin.name}: no leaf {index} of the log of logs")
    if tuple(_text(said, each) for each in ("log", "kind", "origin")) != (log, "checkpoint", origin.name):
        _fail(f"{origin.name}: the leaf of the log of logs is about something else")
    if _text(said, "note").encode() != origin.note or _integer(said, "size") != origin.size:
        _fail(f"{origin.name}: the leaf of the log of logs holds another checkpoint")


def _states(stated: Any, scope: tuple[str, str, str | None], count: int) -> bool:
    """Whether one of a heartbeat's scopes is this one, with so many entries."""
    if not isinstance(stated, list) or len(stated) != 3 or type(stated[2]) is not int:
        return False
    return (stated[0], stated[1], stated[2]) == (*scope[1:], count)


def _moment(second: int) -> str:
    try:
        return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # a witness may state any time
        return f"second {second} since 1970"


def _fail(text: str) -> NoReturn:
    raise Unverifiable(text)


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str):
        _fail(f"{name}: expected a text")
    return value


def _integer(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not -INTEGER_MAX <= value <= INTEGER_MAX:
        _fail(f"{name}: expected an integer")
    return value


def _object(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = said.get(name)
    if not isinstance(value, dict):
        _fail(f"{name}: expected an object")
    return value


def _list(said: Mapping[str, Any], name: str, *, of: type = dict) -> list[Any]:
    value = said.get(name)
    if not isinstance(value, list) or not all(isinstance(each, of) for each in value):
        _fail(f"{name}: expected a list")
    return value


def _listed(said: Mapping[str, Any], name: str) -> list[Any]:
    found = _list(said, name)
    if len(found) > LISTED_MAX:
        _fail(f"{name}: more than {LISTED_MAX}")
    return found


def _route(said: Mapping[str, Any]) -> str | None:
    return None if said.get("route") is None else _text(said, "route")


def _hash(value: Any) -> bytes:
    """32 bytes in `b64`."""
    try:
        raw = unb64(value) if isinstance(value, str) else b""
    except (ValueError, Unverifiable):
        raw = b""
    if len(raw) != 32 or b64(raw) != value:
        _fail("expected 32 bytes in base64url")
    return raw
