"""Making evidence bundles: chosen entries out of ClickHouse, with what an outsider needs to check them.

What is handed out was verified before: entries against the tree, the tree against signed checkpoints, disclosed parts
against their entries. The form is in README.md, "Evidence bundles".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import orjson

from storage import anchors, logleaves, merkle, notes, queries, tiles
from storage.bundlefile import BundleError, BundleWriter
from storage.clickhouse import SWEEP, Database
from storage.entries import Part, decode
from storage.errors import Unverifiable
from storage.ids import b64
from storage.keys import Keyring
from storage.logleaves import log_name
from storage.proofs import LOG_TABLE, Tiles
from storage.seal import open_part, opening
from storage.segment import WrappedKey
from storage.tiles import Tile

ENTRIES_MAX: Final = 200_000  # of one bundle; more is several bundles
PAGE_ROWS: Final = 2_000
DECISIONS_AT_ONCE: Final = 200  # looked for in one statement
TILES_KEPT: Final = 4_096  # 32 MiB
_COLUMNS: Final = (
    *("decision", "time", "kind", "tenant", "route", "app", "case", "subject", "status", "error", "model", "version"),
    *("mode", "state", "origin", "seq"),
)

_STORED = "SELECT origin, count(), max(seq) + 1 FROM entries WHERE origin IN {origins:Array(String)} GROUP BY origin"
_COVERING = """
SELECT min(seq) FROM log
WHERE origin = {log:String} AND shard = {origin:String} AND kind = 'checkpoint' AND size > {seq:UInt64}
"""
_LOGGED = """
SELECT seq, entry FROM log
WHERE origin = {log:String} AND shard = {origin:String} AND kind = 'checkpoint' AND seq < {below:UInt64}
  AND size <= {stored:UInt64}
ORDER BY size DESC, seq DESC LIMIT 1
"""
_RANGE = """
SELECT seq, entry FROM entries
WHERE origin = {origin:String} AND seq >= {low:UInt64} AND seq < {high:UInt64}
  AND ({every:UInt8} OR (tenant = {tenant:String} AND route = {route:String}))
ORDER BY seq LIMIT {limit:UInt32}
"""
_ORIGINS = """
SELECT DISTINCT origin FROM entries WHERE {every:UInt8} OR (tenant = {tenant:String} AND route = {route:String})
ORDER BY origin
"""
_HEARTBEATS = """
SELECT seq, ts, entry FROM entries WHERE origin = {origin:String} AND kind = 'heartbeat' AND seq > {after:Int64}
ORDER BY seq LIMIT {limit:UInt32}
"""

Tell = Callable[[dict[str, object]], None]
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All entries of a tenant's route between two times, Unix nanoseconds; of all routes with `route` None."""

    tenant: str
    route: str | None
    low_ns: int
    high_ns: int


@dataclass(slots=True, kw_only=True)
class Wanted:
    """What shall be in a bundle: whatever is said about `decisions`, the `scopes`, or with `everything` all entries.

    `parts` names parts whose plaintext is disclosed, of the decisions alone; `asked` tells people what was asked for.
    """

    asked: Mapping[str, object]
    decisions: Sequence[str] = ()
    scopes: Sequence[Scope] = ()
    everything: bool = False
    parts: Sequence[str] = ()


@dataclass(slots=True)
class Made:
    """What became of it."""

    entries: int = 0
    decisions: int = 0
    parts: int = 0
    erased: int = 0  # parts asked for whose key is gone
    log_size: int = 0
    incomplete: list[str] = field(default_factory=list)  # sentences: what was left out, or cannot be shown to be whole

    def as_json(self) -> dict[str, object]:
        """For commands."""
        return {
            "entries": self.entries,
            "decisions": self.decisions,
            "parts": self.parts,
            "erased": self.erased,
            "log_size": self.log_size,
            "incomplete": self.incomplete,
        }


@dataclass(slots=True)
class _Origin:
    """One ledger in the bundle: entries by number, and the checkpoint they are proven against."""

    name: str
    entries: dict[int, bytes] = field(default_factory=dict)
    must: int = -1  # the last of them that has to be covered; what comes later may be left out
    stored: int = 0
    size: int = 0
    root: bytes = b""
    note: bytes = b""
    index: int = 0  # of its leaf in the log of logs
    leaf: bytes = b""

    @property
    def whole(self) -> bool:
        return len(self.entries) == self.size


class Bundler:
    """Makes one bundle. Blocking."""

    def __init__(self, database: Database, keyring: Keyring, *, deployment: str, now_ns: int) -> None:
        self._database = database
        self._keyring = keyring
        self._public = keyring.log.public_key().public_bytes_raw()
        self._deployment = deployment
        self._log = log_name(deployment)
        self._now_ns = now_ns
        self._origins: dict[str, _Origin] = {}
        self._scopes: list[dict[str, object]] = []
        self._closings: list[Place] = []
        self.made = Made()

    def make(self, wanted: Wanted, path: Path, *, tell: Tell) -> Made:
        """Write the bundle to `path`, which must not be there; nothing is left there where it fails.

        Raises:
            BundleError: nothing is there, too much is, or no checkpoint covers it yet.
            Unverifiable: what is stored is not what was signed.
            OSError: the file cannot be written.
        """
        tell({"state": "reading entries"})
        self._gather(wanted)
        self.made.entries = sum(len(origin.entries) for origin in self._origins.values())
        if not self.made.entries:
            raise BundleError("nothing is on record of what was asked for")
        tell({"state": "proving", "entries": self.made.entries})
        head = self._prove()
        writer = BundleWriter(path)
        try:
            self._write(writer, head, wanted, tell)
        except BaseException:
            writer.abandon()
            path.unlink(missing_ok=True)
            raise
        return self.made

    # --- which entries ------------------------------------------------------------------------------------------

    def _gather(self, wanted: Wanted) -> None:
        for at in range(0, len(wanted.decisions), DECISIONS_AT_ONCE):
            some = wanted.decisions[at : at + DECISIONS_AT_ONCE]
            for row in queries.entries_about_decisions(self._database, some):
                if row.kind != "access":  # who looked at it is about them, not about the decision
                    self._take(row.origin, row.seq, row.entry)
                if row.kind in ("decision", "call"):
                    self._closings.append((row.origin, row.seq))
                    self._must(row.origin, row.seq)
        self.made.decisions = len(self._closings)
        for scope in wanted.scopes:
            for origin in self._database.rows(_ORIGINS, _where(scope), caps=SWEEP):
                self._take_scope(str(origin[0]), scope)
        if wanted.everything:
            every = {"every": 1, "tenant": "", "route": ""}
            for (origin,) in self._database.rows(_ORIGINS, every, caps=SWEEP):
                for seq, raw in self._range(str(origin), 0, (1 << 63) - 1, every):
                    self._take(str(origin), seq, raw)

    def _take(self, origin: str, seq: int, raw: bytes) -> None:
        known = self._origins.setdefault(origin, _Origin(origin))
        known.entries[seq] = bytes(raw)
        if sum(len(each.entries) for each in self._origins.values()) > ENTRIES_MAX and len(known.entries) % 64 == 0:
            raise BundleError(f"more than {ENTRIES_MAX} entries")

    def _must(self, origin: str, seq: int) -> None:
        known = self._origins[origin]
        known.must = max(known.must, seq)

    def _take_scope(self, origin: str, scope: Scope) -> None:
        """The entries between the heartbeats around the period, these included; what is thereby shown complete."""
        before, after = self._heartbeats(origin, scope)
        low = 0 if before is None else before[0]
        high = (1 << 63) - 1 if after is None else after[0]
        for seq, raw in self._range(origin, low, high, _where(scope)):
            self._take(origin, seq, raw)
        for beat in (before, after):
            if beat is not None:
                self._take(origin, beat[0], beat[2])
                self._must(origin, beat[0])
        route = scope.route or ""
        if after is None:
            self.made.incomplete.append(f"{origin}: no heartbeat after the period states how many entries {route} had")
            return
        self._scopes.append(
            {
                "origin": origin,
                "tenant": scope.tenant,
                "route": scope.route,
                "from": None if before is None else {"seq": before[0], "n": before[1]},
                "to": {"seq": after[0], "n": after[1]},
            }
        )
        if after[3] < scope.high_ns:
            self.made.incomplete.append(f"{origin}: shown up to entry {after[0]}, the last heartbeat there is")

    def _heartbeats(
        self, origin: str, scope: Scope
    ) -> tuple[tuple[int, int, bytes, int] | None, tuple[int, int, bytes, int] | None]:
        """(seq, count, entry, time) of the last statement before the period and the first after it, or the last one."""
        before = after = None
        seq = -1
        while True:
            where = {"origin": origin, "after": seq, "limit": PAGE_ROWS}
            found = self._database.rows(_HEARTBEATS, where, caps=SWEEP)
            for seq, ts, raw in found:
                ts_ns = int(decode(raw)["ts"]) if not isinstance(ts, int) else ts
                count = _stated(decode(raw), scope)
                if count is None:
                    continue
                if ts_ns <= scope.low_ns:
                    before = (seq, count, bytes(raw), ts_ns)
                else:
                    after = (seq, count, bytes(raw), ts_ns)
                    if ts_ns >= scope.high_ns:
                        return before, after
            if len(found) < PAGE_ROWS:
                return before, after

    def _range(self, origin: str, low: int, high: int, where: Mapping[str, object]) -> Iterator[tuple[int, bytes]]:
        while True:
            asked = {**where, "origin": origin, "low": low, "high": high, "limit": PAGE_ROWS}
            found = self._database.rows(_RANGE, asked, caps=SWEEP)
            yield from found
            if len(found) < PAGE_ROWS:
                return
            low = found[-1][0] + 1

    # --- proofs -------------------------------------------------------------------------------------------------

    def _prove(self) -> bytes:
        """Choose a checkpoint for each ledger, each in the log of logs; the checkpoint of that one, as a note."""
        names = sorted(self._origins)
        for name, count, end in self._database.rows(_STORED, {"origins": names}, caps=SWEEP):
            if count != end:
                raise Unverifiable(f"{name}: {end} entries should be there, {count} are")
            self._origins[name].stored = end
        needed = -1
        for origin in self._origins.values():
            if origin.must < 0:
                continue
            where = {"log": self._log, "origin": origin.name, "seq": origin.must}
            found = self._database.rows(_COVERING + "HAVING count() > 0", where, caps=SWEEP)
            if not found:
                raise BundleError(f"no checkpoint in the log of logs covers entry {origin.must} of {origin.name} yet")
            needed = max(needed, found[0][0])
        note = anchors.best_note(self._database, self._log, max(0, needed))
        if note is None:
            raise BundleError("the log of logs has not published a checkpoint over these entries yet")
        head = notes.verified_checkpoint(note, origin=self._log, public=self._public)
        self.made.log_size = head.size
        self._origins = {name: origin for name, origin in self._origins.items() if self._choose(origin, head.size)}
        self.made.entries = sum(len(origin.entries) for origin in self._origins.values())
        if not self.made.entries:
            raise BundleError("no checkpoint covers any of these entries yet")
        return note

    def _choose(self, origin: _Origin, below: int) -> bool:
        """Its newest checkpoint in the log, and what that covers; false: nothing of it is covered yet."""
        where = {"log": self._log, "origin": origin.name, "below": below, "stored": origin.stored}
        found = self._database.rows(_LOGGED, where, caps=SWEEP)
        if not found:
            if origin.must >= 0:
                raise BundleError(f"no checkpoint of {origin.name} in the log of logs is shipped yet")
            self._leave_out(origin, 0)
            return False
        ((origin.index, leaf),) = found
        origin.leaf = bytes(leaf)
        said = logleaves.parse(origin.leaf, log=self._log)
        origin.note = str(said.said["note"]).encode()
        checkpoint = notes.verified_checkpoint(origin.note, origin=origin.name, public=self._public)
        origin.size, origin.root = checkpoint.size, checkpoint.root
        if origin.must >= origin.size:
            raise BundleError(f"entry {origin.must} of {origin.name} is not covered yet")
        self._leave_out(origin, origin.size)
        return bool(origin.entries)

    def _leave_out(self, origin: _Origin, size: int) -> None:
        """What stands behind the first `size` entries (an explanation just made, say) waits for a checkpoint: tell."""
        covered = {seq: raw for seq, raw in origin.entries.items() if seq < size}
        late = len(origin.entries) - len(covered)
        if late:
            self.made.incomplete.append(f"{origin.name}: {late} entries are left out, which no checkpoint covers yet")
        origin.entries = covered

    def _paths(self, origin: _Origin) -> Iterator[list[str]]:
        if origin.whole:
            leaves = [merkle.leaf_hash(origin.entries[seq]) for seq in range(origin.size)]
            if merkle.root_of(leaves) != origin.root:
                raise Unverifiable(f"{origin.name}: the entries do not make the tree that was signed")
            for _ in leaves:
                yield []
            return
        read = _reader(self._database, origin.name)
        for seq in sorted(origin.entries):
            path = tiles.inclusion_path(seq, origin.size, read)
            leaf = merkle.leaf_hash(origin.entries[seq])
            merkle.verify_inclusion(leaf, index=seq, size=origin.size, path=path, root=origin.root)
            yield [b64(node) for node in path]

    # --- the file -----------------------------------------------------------------------------------------------

    def _write(self, writer: BundleWriter, head: bytes, wanted: Wanted, tell: Tell) -> None:
        ordered = [self._origins[name] for name in sorted(self._origins, key=str.encode)]
        writer.add(
            "entries.jsonl", (origin.entries[seq] + b"\n" for origin in ordered for seq in sorted(origin.entries))
        )
        writer.add("paths.jsonl", (orjson.dumps(path) + b"\n" for origin in ordered for path in self._paths(origin)))
        writer.add("log.json", [self._logged(ordered, head)])
        tell({"state": "opening parts", "entries": self.made.entries})
        if wanted.parts:
            self._disclose(writer, wanted.parts)
        writer.add("decisions.csv", [_csv(ordered)])
        manifest = {
            "deployment": self._deployment,
            "made": str(self._now_ns),
            "asked": dict(wanted.asked),
            "key": b64(self._public),
            "origins": [
                {"origin": origin.name, "checkpoint": origin.note.decode(), "whole": origin.whole} for origin in ordered
            ],
            "scopes": self._scopes,
        }
        writer.add("summary.txt", [_summary(manifest, self.made, wanted).encode()])
        for name, raw in verifiers().items():
            writer.add(f"verifiers/{name}", [raw])
        writer.finish(manifest)

    def _logged(self, ordered: Sequence[_Origin], head: bytes) -> bytes:
        checkpoint = notes.verified_checkpoint(head, origin=self._log, public=self._public)
        read = _reader(self._database, self._log, table=LOG_TABLE)
        leaves = []
        for origin in ordered:
            path = tiles.inclusion_path(origin.index, checkpoint.size, read)
            leaf = merkle.leaf_hash(origin.leaf)
            merkle.verify_inclusion(leaf, index=origin.index, size=checkpoint.size, path=path, root=checkpoint.root)
            leaves.append(
                {
                    "origin": origin.name,
                    "index": origin.index,
                    "leaf": origin.leaf.decode(),
                    "path": [b64(node) for node in path],
                }
            )
        tokens = anchors.of_size(self._database, self._log, checkpoint.size, anchors.TIMESTAMP)
        document = {
            "name": self._log,
            "checkpoint": head.decode(),
            "leaves": leaves,
            "timestamps": [{"name": name, "token": notes.spell(tokens[name])} for name in sorted(tokens)],
        }
        return orjson.dumps(document) + b"\n"

    def _disclose(self, writer: BundleWriter, names: Sequence[str]) -> None:
        lines: list[bytes] = []
        for origin, seq in sorted(self._closings, key=lambda place: (place[0].encode(), place[1])):
            raw = self._origins[origin].entries[seq]
            for part, plaintext, dek in self._opened(raw, names):
                file = f"parts/{len(lines) + 1:06d}"
                writer.add(file, [plaintext])
                said = {"origin": origin, "seq": seq, "name": part.name, "index": part.index}
                secret = {"dek": dek} if part.is_under_key else {"opening": opening(dek, part.name, part.index)}
                said |= {name: b64(raw) for name, raw in secret.items()}
                lines.append(orjson.dumps({**said, "file": file}) + b"\n")
        self.made.parts = len(lines)
        writer.add("parts.jsonl", lines)

    def _opened(self, raw: bytes, names: Sequence[str]) -> Iterable[tuple[Part, bytes, bytes]]:
        """The named parts of an entry with plaintext and key; one whose key was erased is counted."""
        entry = decode(raw)
        origin, parts = entry["origin"], [Part.from_json(part) for part in entry["parts"]]
        stated = sorted((part for part in parts if part.name in names), key=lambda part: part.index)
        _check_together(stated, parts, f"{origin}, {entry['seq']}")
        keys = sorted({part.key for part in stated})
        wrapped = {row.key_id: row for row in queries.wrapped_keys(self._database, origin, entry["seq"], keys)}
        chunks = queries.parts(self._database, origin, entry["seq"], keys)
        for part in stated:
            row = wrapped.get(part.key)
            if row is None:
                self.made.erased += 1
                continue
            header = queries.segment_header(self._database, origin, row.segment)
            if header is None:
                raise Unverifiable(f"{origin}: the header of segment {row.segment} is gone")
            key = WrappedKey(row.key_id, row.counter, row.wrapped, row.segment)
            dek = self._keyring.part_key(header, key, origin=origin)
            stored = [chunk.data for chunk in chunks if (chunk.key_id, chunk.index) == (part.key, part.index)]
            yield part, open_part(part, stored, dek, origin), dek


def _check_together(chosen: Sequence[Part], every: Sequence[Part], where: str) -> None:
    """Parts that only the key itself opens are chosen all or none: with it others could be opened and guessed at."""
    under = {part.key for part in chosen if part.is_under_key}
    left = sorted(part.name for part in every if part.key in under and part not in chosen)
    if left:
        raise BundleError(
            f"{where}: recorded when one key opened all parts of an entry",
            advice=f"Disclose all of its parts or none; {', '.join(left)} is missing.",
        )


def verifiers() -> dict[str, bytes]:
    """The programs that come with a bundle, by name; the page holds the script, so that it works without a network."""
    folder = resources.files("storage") / "verifiers"
    program, script = (folder / "verify_bundle.py").read_bytes(), (folder / "verify_bundle.mjs").read_bytes()
    page = (folder / "page.html").read_bytes().replace(b"/*VERIFY_BUNDLE_MJS*/", script)
    return {"verify_bundle.py": program, "verify_bundle.mjs": script, "verify.html": page}


def _reader(database: Database, origin: str, *, table: str | None = None) -> Callable[[Tile], bytes]:
    """Reads each tile once, as far as `TILES_KEPT` reaches."""
    source = Tiles(database, origin) if table is None else Tiles(database, origin, table=table)
    return lru_cache(maxsize=TILES_KEPT)(source.read)


def _where(scope: Scope) -> dict[str, object]:
    return {"every": 0, "tenant": scope.tenant, "route": scope.route or ""}


def _stated(entry: Mapping[str, Any], scope: Scope) -> int | None:
    """How many entries of the scope a heartbeat's sheet states; None where it does not."""
    return next((n for tenant, route, n in entry["scopes"] if (tenant, route) == (scope.tenant, scope.route)), None)


def _csv(ordered: Sequence[_Origin]) -> bytes:
    """One row for each closing entry, for people; it is derived, and no evidence."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(_COLUMNS)
    for origin in ordered:
        for seq in sorted(origin.entries):
            said = decode(origin.entries[seq])
            if said["kind"] not in ("decision", "call"):
                continue
            model, stream = said.get("model") or {}, said.get("stream") or {}
            row = [said.get(name) for name in ("decision", "ts", "kind", "tenant", "route", "app", "case", "subject")]
            row += [said.get("status"), said.get("error"), model.get("name"), model.get("version"), said.get("mode")]
            rows.writerow([spreadsheet_cell(value) for value in (*row, stream.get("state"), origin.name, seq)])
    return text.getvalue().encode()


def spreadsheet_cell(value: object) -> str:
    """Never a formula: what spreadsheets would run is quoted (OWASP, CSV injection)."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _summary(manifest: Mapping[str, Any], made: Made, wanted: Wanted) -> str:
    asked = ", ".join(f"{name} {value}" for name, value in wanted.asked.items())
    lines = [
        f"Evidence of the deployment {manifest['deployment']}",
        "",
        f"Asked for: {asked}",
        f"{made.entries} entries of {len(manifest['origins'])} ledgers; {made.decisions} decisions named.",
        f"{made.parts} parts disclosed, {made.erased} erased.",
        f"Proven against the log of logs of {made.log_size} leaves.",
        "",
        "Check it without a network, by `answerable verify --bundle THIS.zip --trust policy.json`, by what stands in",
        "verifiers/ beside this, or by a program of your own: the form is in storage/README.md of the project.",
        "Bring the trust policy yourself: keys that come with the evidence prove nothing.",
        "",
        "What this does not show: calls that never reached the gateway; what the machine's owner changed before it",
        "was signed and anchored; other ledgers than those named here. This page and decisions.csv are for reading.",
    ]
    if manifest["scopes"]:
        lines += ["", "Claimed to be complete, between the heartbeats named:"]
        lines += [f"    {each['origin']}: {each['tenant']}, {each['route']}" for each in manifest["scopes"]]
    if made.incomplete:
        lines += ["", "Not shown to be complete:", *(f"    {sentence}" for sentence in made.incomplete)]
    if made.parts:
        lines += [
            "",
            "Content was disclosed: these parts and no others. Nothing here opens the other parts of an entry.",
        ]
    return "\n".join(lines) + "\n"
