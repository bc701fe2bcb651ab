"""What README.md settles of evidence bundles, case by case: our check and both verifiers say what stands there.

Each bundle is signed by whoever changed it, so the change itself is judged, and no signature over it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import random
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from storage import ed25519
from storage.bundlecheck import check_bundle
from storage.errors import Unverifiable
from storage.strictjson import parse
from storage.trust import TrustPolicy
from tests.integration.test_bundle_verifiers import COUNT, VERIFIER, Script, theirs, verdicts
from tests.support.browser import browsing
from tests.support.forgeries import altered, respelled
from tests.support.handmade import (
    DEK,
    OPENING,
    UNDER_KEY,
    Handmade,
    Key,
    Members,
    Neutral,
    b64,
    deflated,
    many,
    note,
    part,
    standard,
    verifier_key,
    zipped,
)

pytestmark = [pytest.mark.needs("node"), pytest.mark.timeout(120)]

verifier = functools.cache(theirs)
HOLDS = "PPPP0"  # integrity, completeness, freshness, authenticity; the exit code
FALSE = "FUUU1"
FOREIGN = "UUUU2"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    made = Script(tmp_path_factory.mktemp("node"))
    yield made
    made.close()


def told(path: Path, policy: bytes | None, script: Script) -> dict[str, str]:
    """What each says, a letter a claim and the exit code; all of them must see the same sort of file."""
    brought = None if policy is None else TrustPolicy.parse(parse(policy))
    reports = {
        "ours": verdicts(check_bundle(path, brought).as_json()),
        "Python": verdicts(verifier().verify(str(path), policy)),
        "JavaScript": script.verify(path, policy),
    }
    return {who: letters(said) for who, said in reports.items()}


def letters(said: tuple[str, ...]) -> str:
    """Four verdicts and an exit code."""
    return "".join(verdict[0] for verdict in said[:-1]) + said[-1]


def check(raw: bytes, expected: str, tmp_path: Path, script: Script, *, policy: bytes | None) -> None:
    (tmp_path / "x.zip").write_bytes(raw)
    assert told(tmp_path / "x.zip", policy, script) == dict.fromkeys(("ours", "Python", "JavaScript"), expected)


def more(raw: bytes) -> Any:
    """A change of a document: one more member, `raw` as it stands."""
    return lambda document: document.replace(b"{", b'{"zz":' + raw + b",", 1)


def padded(size: int) -> Any:
    """A change of lines: blanks make the first one that long."""

    def change(raw: bytes) -> bytes:
        first, rest = raw.split(b"\n", 1)
        return first.ljust(size) + b"\n" + rest

    return change


LINE = 1 << 20
NEUTRAL = bytes([1]) + bytes(31)
SPELLED_OTHERWISE = {
    "a sign on x = 0": bytes([1]) + bytes(30) + b"\x80",
    "y = p + 1": b"\xee" + b"\xff" * 30 + b"\x7f",
    "y = p + 1 and a sign": b"\xee" + b"\xff" * 31,
}
DOCUMENTS: dict[str, tuple[bytes, bool]] = {  # a value in the manifest, and whether it is JSON
    "an integer of 5,000 digits": (b"9" * 5000, True),
    "a negative one": (b"-" + b"9" * 5000, True),
    "beyond what a float holds": (b"1e999", True),
    "minus nought": (b"-0", True),
    "a capital E": (b"1E5", True),
    "a leading nought": (b"01", False),
    "a bare point": (b"1.", False),
    "a bare fraction": (b".5", False),
    "a plus": (b"+1", False),
    "NaN": (b"NaN", False),
    "Infinity": (b"-Infinity", False),
    "True": (b"True", False),
    "a trailing comma": (b"[1,]", False),
    "99 deep": (b"[" * 99 + b"]" * 99, True),  # and the document itself
    "100 deep": (b"[" * 100 + b"]" * 100, False),
    "brackets in a text": (b'"' + b"[" * 300 + b'"', True),
    "a control character": (b'"\x1f"', False),
    "DEL": (b'"\x7f"', True),
    "NUL by an escape": (b'"\\u0000"', True),
    "U+2028": ('"\u2028"'.encode(), True),
    "U+FFFF": ('"\uffff"'.encode(), True),
    "a byte order mark in a text": ('"\ufeff"'.encode(), True),
    "a pair by escapes": (b'"\\ud83d\\ude00"', True),
    "half a pair": (b'"\\ud83d\\u0041"', False),
    "a pair the wrong way round": (b'"\\ude00\\ud83d"', False),
    "a capital U": (b'"\\U0041"', False),
    "blanks among hex digits": (b'"\\u 041"', False),
    "an underscore among hex digits": (b'"\\u0_41"', False),
    "a sign among hex digits": (b'"\\u+041"', False),
    "a form feed as white space": (b"\x0c1", False),
    "U+00A0 as white space": ("\u00a01".encode(), False),
    "an overlong NUL": (b'"\xc0\x80"', False),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', False),
    "beyond U+10FFFF": (b'"\xf4\x90\x80\x80"', False),
    "__proto__": (b'1,"__proto__":null', True),
    "__proto__ twice": (b'1,"__proto__":1,"__proto__":2', False),
    "a member twice, once by an escape": (b'1,"\\u007az":2', False),
}
WHITE = "\u0085\u00a0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
NO_WHITE = "\ufeff\u180e\u200b\u2060\u007f\u0080"

SUMMARY = hashlib.sha256(b"hi\n").hexdigest()


def swapped(raw: bytes) -> bytes:
    """A change of lines: the first two in each other's place."""
    first, second, rest = raw.split(b"\n", 2)
    return b"\n".join((second, first, rest))


def twice(raw: bytes) -> bytes:
    """A change of lines: the first one stands twice."""
    return raw.split(b"\n", 1)[0] + b"\n" + raw


def fewer(raw: bytes) -> bytes:
    """A change of lines: the last one is gone."""
    return b"".join(raw.splitlines(keepends=True)[:-1])


def first_path(path: bytes) -> Any:
    """A change of paths.jsonl: the first one is this."""
    return lambda raw: path + b"\n" + raw.split(b"\n", 1)[1]


def at_node(change: Any) -> Any:
    """A change of paths.jsonl: of the first one's first hash."""

    def changed(raw: bytes) -> bytes:
        first, rest = raw.split(b"\n", 1)
        nodes = orjson.loads(first)
        return orjson.dumps(change(nodes)) + b"\n" + rest

    return changed


def last_bits(text: str) -> str:
    """43 characters of base64url stand for 258 bits: another spelling of the same 256."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def last_line(signed: str, change: Any) -> str:
    """The last signature line of a note, with other bytes."""
    dash, name, text = signed.rstrip("\n").split("\n")[-1].split(" ")
    return f"{dash} {name} {standard(change(base64.b64decode(text)))}\n"


def cosigned(change: Any) -> Any:
    """A change of log.json: other bytes in the witness's line."""

    def changed(log: dict[str, Any]) -> dict[str, Any]:
        signed = log["checkpoint"]
        rest = signed[: signed.rstrip("\n").rindex("\n") + 1]
        return log | {"checkpoint": rest + last_line(signed, change)}

    return changed


NOTES: dict[str, Any] = {  # changes of a checkpoint's text, signed as it then is
    "an extension line": lambda text: text + "more\n",
    "a line too few": lambda text: "\n".join(text.split("\n")[:2]) + "\n",
    "another origin": lambda text: "u" + text,
    "a size with a nought before it": lambda text: text.replace("\n3\n", "\n03\n"),
    "a size with a sign": lambda text: text.replace("\n3\n", "\n+3\n"),
    "a size in other digits": lambda text: text.replace("\n3\n", "\n\u0663\n"),
    "a size of 2^63": lambda text: text.replace("\n3\n", f"\n{2**63}\n"),
    "another size": lambda text: text.replace("\n3\n", "\n2\n"),
    "no size": lambda text: text.replace("\n3\n", "\n\n"),
    "a root of 31 bytes": lambda text: "\n".join([*text.split("\n")[:2], standard(bytes(31)), ""]),
    "another root": lambda text: "\n".join([*text.split("\n")[:2], standard(bytes(32)), ""]),
    "a root in base64url": lambda text: "\n".join(
        [*text.split("\n")[:2], standard(b"\xff" * 32).replace("/", "_"), ""]
    ),
    "a control character": lambda text: text + "\t\n",
}
SIGNED: dict[str, Any] = {  # changes of the note
    "no signature": lambda note: note.split("\n\n")[0] + "\n\n",
    "no empty line": lambda note: note.replace("\n\n", "\n"),
    "no last newline": lambda note: note[:-1],
    "a hyphen for the dash": lambda note: note.replace("\u2014 ", "- "),
    "two blanks": lambda note: note.replace("\u2014 ", "\u2014  "),
    "a signature of another": lambda note: note.replace("\u2014 t/", "\u2014 u/"),
    "a damaged signature under an unknown key": lambda note: note + "\u2014 who AAAAAA\n",
    "a signature in odd base64": lambda note: note[:-2] + "\n",
    "101 signatures": lambda note: note + "\u2014 who AAAAAAA=\n" * 100,
    "more than 2^20 bytes": lambda note: note + f"\u2014 who {'A' * (1 << 20)}\n",
    "a second line by the key that is false": lambda note: (
        note + last_line(note, lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
    ),
    "a second line by the key that is short": lambda note: note + last_line(note, lambda raw: raw[:-1]),
}
FILES: dict[str, Any] = {  # what the manifest says of files
    "another digest": {"summary.txt": {"size": 3, "sha256": "0" * 64}},
    "a digest in capitals": {"summary.txt": {"size": 3, "sha256": SUMMARY.upper()}},
    "another size": {"summary.txt": {"size": 4, "sha256": SUMMARY}},
    "a size that is a text": {"summary.txt": {"size": "3", "sha256": SUMMARY}},
    "no record": {"summary.txt": [3, SUMMARY]},
    "a file too few": {"summary.txt": ...},
    "a file too many": {"more.txt": {"size": 3, "sha256": SUMMARY}},
    "the manifest itself": {"manifest.json": {"size": 3, "sha256": SUMMARY}},
}
MEMBERS: dict[str, dict[str, Any]] = {  # changes of files, with which the manifest agrees
    "entries swapped": {"entries.jsonl": swapped, "paths.jsonl": swapped},
    "an entry twice": {"entries.jsonl": twice, "paths.jsonl": twice},
    "paths swapped": {"paths.jsonl": swapped},
    "a path too few": {"paths.jsonl": fewer},
    "a path too many": {"paths.jsonl": twice},
    "an entry too few": {"entries.jsonl": fewer},
    "an entry that is a list": {"entries.jsonl": lambda raw: b"[]\n" + raw.split(b"\n", 1)[1]},
    "no newline at the end": {"entries.jsonl": lambda raw: raw[:-1]},
    "an empty line": {"entries.jsonl": lambda raw: raw + b"\n", "paths.jsonl": lambda raw: raw + b"[]\n"},
    "a path that is an object": {"paths.jsonl": first_path(b"{}")},
    "a path of a number": {"paths.jsonl": first_path(b"[1]")},
    "an empty path": {"paths.jsonl": first_path(b"[]")},
    "a path too short": {"paths.jsonl": at_node(lambda nodes: nodes[:-1])},
    "a path too long": {"paths.jsonl": at_node(lambda nodes: [*nodes, nodes[0]])},
    "a path turned round": {"paths.jsonl": at_node(lambda nodes: nodes[::-1])},
    "a hash with padding": {"paths.jsonl": at_node(lambda nodes: [nodes[0] + "=", *nodes[1:]])},
    "a hash in another spelling": {"paths.jsonl": at_node(lambda nodes: [last_bits(nodes[0]), *nodes[1:]])},
    "a hash of 31 bytes": {"paths.jsonl": at_node(lambda nodes: [nodes[0][:-1], *nodes[1:]])},
    "a hash with a newline": {"paths.jsonl": at_node(lambda nodes: [nodes[0] + "\n", *nodes[1:]])},
    "no paths": {"paths.jsonl": None},
    "no entries": {"entries.jsonl": None},
    "a log that is a list": {"log.json": b"[]"},
    "a part twice": {"parts.jsonl": twice},
    "a part that is a list": {"parts.jsonl": b"[]\n"},
    "a part of an unknown entry": {"parts.jsonl": lambda raw: raw.replace(b'"seq":1', b'"seq":7')},
    "a part whose file is missing": {"parts.jsonl": lambda raw: raw.replace(b"parts/1", b"parts/2")},
    "other content": {"parts/1": b"hallo"},
}
WITH_POLICY: dict[str, dict[str, Any]] = {
    "a key id of another key": {"logs": [verifier_key("t/log", 1, Key(1).public).replace("+c", "+d", 1)]},
    "a key of 33 bytes": {"logs": [verifier_key("t/log", 1, Key(1).public + b"x")]},
    "a witness as a log": {"logs": [verifier_key("t/log", 4, Key(1).public)]},
}


def _origins(change: Any) -> Any:
    """A change of the manifest: of its ledgers."""

    def changed(raw: bytes) -> bytes:
        manifest = orjson.loads(raw)
        manifest["origins"] = change(manifest["origins"])
        return orjson.dumps(manifest)

    return changed


CASES: dict[str, tuple[Handmade, str]] = {
    **{f"a checkpoint with {name}": (Handmade(text=change), FALSE) for name, change in NOTES.items()},
    **{f"a note with {name}": (Handmade(signed=change), FALSE) for name, change in SIGNED.items()},
    "a note with an unknown key's line": (Handmade(signed=lambda note: note + "\u2014 who AAAAAAA=\n"), HOLDS),
    "a note with 100 signatures": (Handmade(signed=lambda note: note + "\u2014 who AAAAAAA=\n" * 99), HOLDS),
    **{f"a manifest that states {name}": (Handmade(files=said), FALSE) for name, said in FILES.items()},
    **{f"files with {name}": (Handmade(member=changes), FALSE) for name, changes in MEMBERS.items()},
    **{
        f"a whole ledger with {name}": (Handmade(is_whole=True, member=changes), FALSE)
        for name, changes in {
            "an entry too few": {"entries.jsonl": fewer, "paths.jsonl": fewer},
            "the first one gone": {
                each: lambda raw: raw.split(b"\n", 1)[1] for each in ("entries.jsonl", "paths.jsonl")
            },
            "a path": {"paths.jsonl": first_path(b'["' + b"A" * 43 + b'"]')},
        }.items()
    },
    "a whole ledger of another root": (Handmade(is_whole=True, text=NOTES["another root"]), FALSE),
    "ledgers twice": (Handmade(raw_manifest=_origins(lambda origins: origins * 2)), FALSE),
    "a ledger without an entry": (
        Handmade(
            raw_manifest=_origins(lambda o: [*o, {**o[0], "origin": "u", "checkpoint": note("u", 1, NEUTRAL, Key(1))}])
        ),
        FALSE,
    ),
    "an entry of no ledger": (Handmade(raw_manifest=_origins(lambda origins: []), has_log=False), FALSE),
    **{
        f"whole is {odd}": (Handmade(raw_manifest=_origins(lambda o, odd=odd: [{**o[0], "whole": odd}])), FALSE)
        for odd in (None, 0, 1, "false")
    },
    "another key in the manifest": (Handmade(manifest={"key": b64(Key(9).public)}), "PPPF1"),
    "a key of 31 bytes": (Handmade(manifest={"key": b64(bytes(31))}), FALSE),
    "files that are a list": (Handmade(manifest={"files": []}), FALSE),
    "a manifest that is a list": (Handmade(raw_manifest=lambda raw: b"[" + raw + b"]"), FOREIGN),
    "a log of another name": (Handmade(log={"name": "u/log"}), FALSE),
    "a log without leaves": (Handmade(log={"leaves": []}), FALSE),
    "a log with a leaf too many": (Handmade(raw_log=lambda log: log | {"leaves": log["leaves"] * 2}), FALSE),
    "a log's path too long": (
        Handmade(raw_log=lambda log: log | {"leaves": [log["leaves"][0] | {"path": log["leaves"][0]["path"] * 2}]}),
        FALSE,
    ),
    "a log's leaf elsewhere": (
        Handmade(raw_log=lambda log: log | {"leaves": [log["leaves"][0] | {"index": 3}]}),
        FALSE,
    ),
    "a claim that ends before it begins": (
        Handmade(scopes=[["x", "r", 1], ["x", "r", 0]], claim={"from": {"seq": 2, "n": 1}, "to": {"seq": 2, "n": 0}}),
        "PFPP1",
    ),
    "a short cosignature": (Handmade(raw_log=cosigned(lambda raw: raw[:-1])), "PPFF1"),
    "a long cosignature": (Handmade(raw_log=cosigned(lambda raw: raw + b"x")), "PPFF1"),
    "a false cosignature": (Handmade(raw_log=cosigned(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))), "PPFF1"),
    "a cosignature by an unknown key": (Handmade(raw_log=cosigned(lambda raw: b"none" + raw[4:])), "PPUF1"),
    "another time in a cosignature": (Handmade(raw_log=cosigned(lambda raw: raw[:11] + b"\1" + raw[12:])), "PPFF1"),
    "nothing": (Handmade(), HOLDS),
    "a whole ledger": (Handmade(is_whole=True), HOLDS),
    "no log of logs": (Handmade(has_log=False), "PPUF1"),
    "the neutral element as a key": (Handmade(key=Neutral(NEUTRAL)), HOLDS),
    "no entry": (
        Handmade(
            member={"entries.jsonl": b"", "paths.jsonl": b"", "parts.jsonl": None, "parts/1": None},
            log={"leaves": []},
            manifest={"origins": [], "scopes": []},
        ),
        FALSE,
    ),
    **{f"a key with {name}": (Handmade(key=Neutral(raw)), FALSE) for name, raw in SPELLED_OTHERWISE.items()},
    **{f"a witness with {name}": (Handmade(witness=Neutral(raw)), "PPFF1") for name, raw in SPELLED_OTHERWISE.items()},
    **{f"an origin with U+{ord(c):04X}": (Handmade(origin=f"t/g{c}0/1"), HOLDS) for c in NO_WHITE},
    **{
        f"an origin with white space U+{ord(c):04X}": (Handmade(origin=f"t/g{c}0/1"), FALSE) for c in WHITE + " \t+\x1f"
    },
    **{f"a witness with U+{ord(c):04X}": (Handmade(witness_name=f"w{c}1"), HOLDS) for c in NO_WHITE},
    **{
        f"a cosignature of second {seconds}": (Handmade(seconds=seconds), expected)
        for seconds, expected in [
            *((0, "PPFF1"), (1, HOLDS), (253_402_300_799, HOLDS), (253_402_300_800, HOLDS), (2**53 + 1, HOLDS)),
            *((2**62, HOLDS), (2**63 - 1, HOLDS), (2**63, "PPFF1"), (2**64 - 1, "PPFF1")),
        ]
    },
    **{
        f"a leaf with {changes}": (Handmade(leaf=changes), FALSE)
        for changes in [
            *({"v": True}, {"v": 1.0}, {"v": "1"}, {"v": ...}, {"n": True}, {"n": 2.0}, {"n": 3}, {"kind": "open"}),
            *(
                {"size": 4},
                {"size": 3.0},
                {"size": "3"},
                {"size": ...},
                {"note": ...},
                {"log": "u/log"},
                {"origin": None},
            ),
        ]
    },
    **{
        f"a leaf with {changes}": (Handmade(leaf=changes), HOLDS)
        for changes in ({"ts": ...}, {"ts": 3}, {"ts": "x"}, {"more": [1.5]})
    },
    "a leaf in which a member stands twice": (
        Handmade(raw_leaf=lambda raw: raw.replace(b"{", b'{"z":1,"z":1,')),
        FALSE,
    ),
    "a leaf with a long integer": (Handmade(raw_leaf=more(b"9" * 5000)), HOLDS),
    "a leaf with 1e999": (Handmade(raw_leaf=more(b"1e999")), HOLDS),
    **{
        f"an entry with {changes}": (Handmade(decision=changes), expected)
        for changes, expected in [
            *(({name: odd}, "PFPP1") for name in ("tenant", "route") for odd in (["x"], {}, 1, True, "y")),
            *(({"scope_seq": odd}, FALSE) for odd in (0.0, False, "0", None)),
            *(({"seq": odd}, FALSE) for odd in (True, 1.0, "1", -1, None)),
            ({"scope_seq": 1}, "PFPP1"),
            ({"parts": [1, part()]}, HOLDS),
            *(({"parts": odd}, FALSE) for odd in ({}, "x", [], [part(), part()])),
            ({"__proto__": {"origin": "u"}}, HOLDS),
        ]
    },
    **{
        f"nothing claimed, and an entry with {changes}": (Handmade(decision=changes, claim=None), "PUPP0")
        for changes in ({"tenant": ["x"]}, {"route": {}}, {"scope_seq": "0"})
    },
    **{
        f"a part with {changes}": (Handmade(part=changes), expected)
        for changes, expected in [
            *(({"index": odd}, FALSE) for odd in (0.0, False, "0", 1)),
            *(({"opening_commit": odd}, "UPPP2") for odd in (None, ...)),
            *(({"opening_commit": odd}, FALSE) for odd in (3, "", part()["opening_commit"] + "=", "A" * 43)),
            *(({"dek_commit": odd}, HOLDS) for odd in (None, ..., "A" * 43)),  # it has no part in this
            ({"opening_commit": ..., "plain_commit": part()["opening_commit"]}, "UPPP2"),
        ]
    },
    **{
        f"a part of before with {changes}": (Handmade(part=UNDER_KEY | changes, secrets={"dek": DEK}), expected)
        for changes, expected in [
            ({}, HOLDS),
            *(({"plain_commit": odd}, "UPPP2") for odd in (None, ...)),
            *(({"plain_commit": odd}, FALSE) for odd in (3, "", UNDER_KEY["plain_commit"] + "=", "A" * 43)),
            *(({"dek_commit": odd}, FALSE) for odd in (None, ..., "A" * 43, 3)),
            ({"opening_commit": UNDER_KEY["plain_commit"], "plain_commit": ...}, "UPPP2"),
        ]
    },
    "a part without a secret": (Handmade(secrets={}), FALSE),
    "a part with two secrets": (Handmade(part=UNDER_KEY, secrets={"dek": DEK, "opening": OPENING}), FALSE),
    "a part with a short secret": (Handmade(secrets={"opening": OPENING[:31]}), FALSE),
    "a part with another opening": (Handmade(secrets={"opening": DEK}), FALSE),
    "a part of before with another key": (Handmade(part=UNDER_KEY, secrets={"dek": OPENING}), FALSE),
    **{
        f"a heartbeat that states {scopes}": (Handmade(scopes=scopes), expected)
        for scopes, expected in [
            *(([["x", "r", odd]], "PFPP1") for odd in (True, 1.0, "1", 2)),
            ([["x", "r", 1, 2]], "PFPP1"),
            ({"a": 1}, "PFPP1"),
            ([1, None, ["x", ["r"], 1], ["x", "r", 0], ["x", "r", 1]], HOLDS),
        ]
    },
    **{
        f"a claim with {changes}": (Handmade(claim=changes), expected)
        for changes, expected in [
            *(({"from": odd}, "PFPP1") for odd in ({}, False, 0, [])),
            *(
                ({"to": odd}, "PFPP1")
                for odd in (None, {"seq": 2.0, "n": 1}, {"seq": 2, "n": True}, {"seq": 1, "n": 1})
            ),
            ({"from": {"seq": 2, "n": 1}}, HOLDS),
            ({"origin": "u"}, "PFPP1"),
            ({"route": None}, "PFPP1"),
            ({"tenant": None}, FALSE),
        ]
    },
    "a claim 10,000 times": (Handmade(claims=10_000), HOLDS),
    "a claim 10,001 times": (Handmade(claims=10_001), FALSE),
    "a claim of negative numbers": (
        Handmade(scopes=[["x", "r", -1], ["x", "r", 0]], claim={"from": {"seq": 2, "n": -1}, "to": {"seq": 2, "n": 0}}),
        "PFPP1",
    ),
    "a claim from minus one to minus one": (
        Handmade(scopes=[["x", "r", -1]], claim={"from": {"seq": 2, "n": -1}, "to": {"seq": 2, "n": -1}}),
        HOLDS,
    ),
    "a claim up to 2^53 - 1": (
        Handmade(scopes=[["x", "r", 2**53 - 1]], claim={"to": {"seq": 2, "n": 2**53 - 1}}),
        "PFPP1",
    ),
    "10,001 ledgers": (
        Handmade(raw_manifest=lambda raw: raw.replace(b'"origins":[', b'"origins":[' + b"{}," * 10_000)),
        FALSE,
    ),
    "a claim of no route": (Handmade(decision={"route": None}, scopes=[["x", None, 1]], claim={"route": None}), HOLDS),
    **{
        f"a policy with {changes}": (Handmade(policy_changes=changes), expected)
        for changes, expected in [
            ({"quorum": 0}, "PPUP0"),
            ({"logs": [verifier_key("u/log", 1, Key(1).public)]}, "PPPF1"),
            ({"logs": [verifier_key("t/log", 1, Key(9).public)]}, FALSE),
            ({"witnesses": [verifier_key("w.example/1", 4, Key(9).public)]}, "PPUF1"),
        ]
    },
    **{
        f"JSON: {name}": (Handmade(raw_manifest=more(raw)), HOLDS if ok else FOREIGN)
        for name, (raw, ok) in DOCUMENTS.items()
    },
    "a byte order mark": (Handmade(raw_manifest=lambda raw: b"\xef\xbb\xbf" + raw), FOREIGN),
    "NUL behind the manifest": (Handmade(raw_manifest=lambda raw: raw + b"\0"), FOREIGN),
    "another format": (Handmade(manifest={"format": "answerable/bundle/v2"}), FOREIGN),
    "a line of 2^20 bytes": (Handmade(member={"paths.jsonl": padded(LINE)}), HOLDS),
    "a line of 2^20 bytes and one": (Handmade(member={"paths.jsonl": padded(LINE + 1)}), FALSE),
    "a line of 3 MiB": (Handmade(member={"paths.jsonl": padded(3 * LINE)}), FALSE),
    "an entry of 2^20 bytes and one": (Handmade(raw_entry=lambda raw: raw.ljust(LINE + 1)), FALSE),
    "lines that end in CR LF": (Handmade(member={"paths.jsonl": lambda raw: raw.replace(b"\n", b"\r\n")}), HOLDS),
    "a part's file that is another file": (
        Handmade(member={"parts.jsonl": lambda raw: raw.replace(b"parts/1", b"summary.txt")}),
        FALSE,
    ),
    "20,000 files": (Handmade(member={f"more/{at}": b"" for at in range(20_000 - 7)}), HOLDS),
    "20,001 files": (Handmade(member={f"more/{at}": b"" for at in range(20_001 - 7)}), FOREIGN),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_bundle_says_is_judged_as_specified_by_all_three(name: str, tmp_path: Path, script: Script) -> None:
    made, expected = CASES[name]
    check(made.zipped(), expected, tmp_path, script, policy=made.policy)


@pytest.mark.parametrize("name", SPELLED_OTHERWISE)
def test_without_a_policy_too_a_key_has_one_spelling(name: str, tmp_path: Path, script: Script) -> None:
    check(Handmade().zipped(), "PPUU0", tmp_path, script, policy=None)
    check(Handmade(key=Neutral(SPELLED_OTHERWISE[name])).zipped(), FALSE, tmp_path, script, policy=None)


def _field(number: int, data: bytes) -> bytes:
    return struct.pack("<2H", number, len(data)) + data


def _renaming(name: bytes) -> bytes:
    """Info-ZIP's Unicode path (APPNOTE 4.6.9): some readers take this name instead."""
    return _field(0x7075, struct.pack("<BI", 1, zlib.crc32(b"summary.txt")) + name)


ENTRIES = Handmade().members()["entries.jsonl"]
NAMES = ["a\\b", "a:b", "a b", "a/", "/a", "a//b", "./a", "a/../b", "..", "a/.", "a\n", "\n", "\u00e9", "a\0b"]
CONTAINERS: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "nothing": ({}, HOLDS),
    "stored content with something behind it": ({"summary_txt": {"packed": b"hi\nJUNK"}}, FALSE),
    "stored content that is cut": ({"summary_txt": {"packed": b"hi"}}, FALSE),
    "a stream with something behind it": ({"entries_jsonl": {"packed": deflated(ENTRIES) + b"JUNK"}}, FALSE),
    "two streams": ({"entries_jsonl": {"packed": deflated(ENTRIES) + deflated(b"x")}}, FALSE),
    "a stream with more content than stated": ({"entries_jsonl": {"packed": deflated(ENTRIES + b"more\n")}}, FALSE),
    "a stream with less": ({"entries_jsonl": {"packed": deflated(ENTRIES[:-1])}}, FALSE),
    "a stream that is cut": ({"entries_jsonl": {"packed": deflated(ENTRIES)[:-3]}}, FALSE),
    "a stream without an end": ({"entries_jsonl": {"packed": deflated(ENTRIES, flush=zlib.Z_SYNC_FLUSH)}}, FALSE),
    "a stream with a zlib header": ({"entries_jsonl": {"packed": zlib.compress(ENTRIES)}}, FALSE),
    "a CRC that does not fit": ({"summary_txt": {"crc": 1}}, FALSE),
    "a manifest whose CRC does not fit": ({"manifest_json": {"crc": 1}}, FOREIGN),
    "a manifest of 70 MiB": ({"manifest_json": {"size": 70 << 20}}, FOREIGN),
    "an odd method": ({"summary_txt": {"method": 12, "packed": b"hi\n"}}, FOREIGN),
    **{
        f"flag {bit}": ({"summary_txt": {"flags": 1 << bit}}, HOLDS if bit in (1, 2, 11) else FOREIGN)
        for bit in range(16)
    },
    **{f"version {number}": ({"summary_txt": {"version": number}}, HOLDS) for number in (0, 10, 45, 64, 255, 0x314)},
    **{
        f"{where} with {name}": ({"summary_txt": {where: raw}}, FOREIGN)
        for where in ("extra", "local_extra")
        for name, raw in {
            "any field": _field(0x9999, b"abcd"),
            "ZIP64": _field(1, bytes(8)),
            "another path": _renaming(b"entries.jsonl"),
            "a path elsewhere": _renaming(b"../../evil"),
            "a byte": b"a",
        }.items()
    },
    "a comment of a file": ({"summary_txt": {"comment": b"x"}}, FOREIGN),
    "a comment": ({"end": {"comment": b"x"}}, FOREIGN),
    "a comment that looks like an end": ({"end": {"comment": b"PK\x05\x06" + bytes(18)}}, FOREIGN),
    "something behind the end": ({"end": {"behind": b"\n"}}, FOREIGN),
    "something before the first file": ({"entries_jsonl": {"before": b"#!/bin/sh\n"}}, FOREIGN),
    "something between files": ({"summary_txt": {"before": b"x"}}, FOREIGN),
    "a file that only its own header names": (
        {"summary_txt": {"before": struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"h"}},
        FOREIGN,
    ),
    "an end on another disk": ({"end": {"disk": 1}}, FOREIGN),
    "a directory on another disk": ({"end": {"first_disk": 1}}, FOREIGN),
    "a directory elsewhere": ({"end": {"start": 1}}, FOREIGN),
    "a directory of ZIP64": ({"end": {"start": 0xFFFFFFFF}}, FOREIGN),
    "a longer directory": ({"end": {"longer": 4}}, FOREIGN),
    "a shorter directory": ({"end": {"longer": -4}}, FOREIGN),
    "2 GiB and more": ({"summary_txt": {"size": 1 << 31, "method": 8}}, FOREIGN),
    "more than the file has room for": ({"summary_txt": {"packed_size": 1 << 20}}, FOREIGN),
    "another mark before a file": ({"summary_txt": {"local_mark": b"PK\x03\x05"}}, FOREIGN),
    "another mark in the directory": ({"summary_txt": {"mark": b"PK\x01\x03"}}, FOREIGN),
    "another mark at the end": ({"end": {"mark": b"PK\x05\x07"}}, FOREIGN),
    "another disk": ({"summary_txt": {"disk": 1}}, FOREIGN),
    **{
        f"{name} otherwise in its own header": ({"summary_txt": {f"local_{name}": value}}, FOREIGN)
        for name, value in {
            "crc": 5,
            "size": 7,
            "packed_size": 7,
            "method": 8,
            "flags": 2,
            "name": b"summarY.txt",
        }.items()
    },
    "one file fewer": ({"end": {"count": 6, "here": 6}}, FOREIGN),
    "one file more": ({"end": {"count": 8, "here": 8}}, FOREIGN),
    "two counts": ({"end": {"here": 6}}, FOREIGN),
    "a file in the place of another": ({"summary_txt": {"offset": 0}}, FOREIGN),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_judged_as_specified_by_all_three(name: str, tmp_path: Path, script: Script) -> None:
    changes, expected = CONTAINERS[name]
    check(Handmade().zipped(**changes), expected, tmp_path, script, policy=Handmade().policy)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_not_understood(name: str, tmp_path: Path, script: Script) -> None:
    check(Handmade(member={name: b"x"}).zipped(), FOREIGN, tmp_path, script, policy=None)


def test_a_file_within_another_one_is_not_understood(tmp_path: Path, script: Script) -> None:
    """Some versions of Python's `zipfile` take it, others do not."""
    inner = zipped({"inner": b"hello"})[: 30 + 5 + 5]
    made = Handmade(member={"outer": b"A" * 4 + inner, "inner": b"hello"})
    at = zipped(made.members()).index(b"A" * 4 + inner) + 4
    check(made.zipped(inner={"offset": at}), FOREIGN, tmp_path, script, policy=None)


def test_a_second_directory_by_zip64_within_a_comment_is_not_understood(tmp_path: Path, script: Script) -> None:
    """Readers that look for ZIP64 read that one."""
    raw = Handmade().zipped(manifest_json={"comment": b"L" * 76})
    at = raw.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack("<H2I", raw[at + 10 : at + 20])
    other = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size - 76, start)
    other += struct.pack("<4sIQI", b"PK\x06\x07", 0, at - 76, 1)
    check(raw[: at - 76] + other + raw[at:], FOREIGN, tmp_path, script, policy=None)


def test_a_name_that_stands_twice_is_not_understood(tmp_path: Path, script: Script) -> None:
    members: Members = Handmade(member={"summary.tx_": b"other"}).members()
    raw = zipped(members).replace(b"summary.tx_", b"summary.txt")
    check(raw, FOREIGN, tmp_path, script, policy=None)


POLICIES: dict[str, Any] = {
    **{f"v is {odd}": {"v": odd} for odd in (True, 1.0, 2, "1", None)},
    **{f"the quorum is {odd}": {"quorum": odd} for odd in (True, 1.0, 2, -1, None, "1")},
    "an unknown member": {"more": 1},
    "no log": {"logs": []},
    "time stamp roots that are a text": {"timestamp_roots": "x"},
    "a witness twice": {"witnesses": [verifier_key("w.example/1", 4, Key(2).public)] * 2},
    **WITH_POLICY,
    "a log as a witness": {"witnesses": [verifier_key("w.example/1", 1, Key(2).public)]},
    **{
        f"U+{ord(c):04X} in a witness's name": {"witnesses": [verifier_key(f"w{c}1", 4, Key(2).public)]}
        for c in WHITE + "+\n"
    },
    **{
        f"U+{ord(c):04X} in a log's name": {"logs": [verifier_key(f"t{c}/log", 1, Key(1).public)]}
        for c in WHITE + "+\n"
    },
}


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_no_trust_policy_is_refused_by_all_three(name: str, tmp_path: Path, script: Script) -> None:
    policy = Handmade(policy_changes=POLICIES[name]).policy
    path = tmp_path / "x.zip"
    path.write_bytes(Handmade().zipped())
    with pytest.raises(Unverifiable):
        TrustPolicy.parse(orjson.loads(policy))
    module = verifier()
    with pytest.raises(module.NotUnderstood):
        module.verify(str(path), policy)
    assert script.verify(path, policy)[-1] == "-1", "it throws"


@pytest.mark.parametrize("argv", [[sys.executable, "-I", "-S", "verify_bundle.py"], ["node", "verify_bundle.mjs"]])
def test_a_thousand_decisions_are_checked_alone_in_an_empty_folder(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "evidence.zip").write_bytes(zipped(many(1000)))
    (tmp_path / "policy.json").write_bytes(Handmade().policy)
    (tmp_path / argv[-1]).write_bytes(VERIFIER.with_name(argv[-1]).read_bytes())
    command = [*argv, "evidence.zip", "--trust", "policy.json", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    said = orjson.loads(done.stdout)
    assert (done.returncode, said["exit"], said["entries"]) == (0, 0, 1000)
    assert [claim["verdict"] for claim in said["claims"]] == ["PASS", "UNKNOWN", "PASS", "PASS"]


IN_A_PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
/*VERIFY_BUNDLE_MJS*/
globalThis.told = async (raw, policy) => {
  const report = await verifyBundle(Uint8Array.from(atob(raw), (c) => c.charCodeAt(0)), policy);
  return report.claims.map((claim) => claim.verdict[0]).join("") + report.exit;
};
</script>"""


@pytest.mark.needs("chromium")
async def test_a_browser_says_the_same_of_each_though_it_unpacks_by_other_means(tmp_path: Path) -> None:
    script = VERIFIER.with_suffix(".mjs").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(IN_A_PAGE.replace("/*VERIFY_BUNDLE_MJS*/", script), encoding="utf-8")
    cases = {name: (made.zipped(), made.policy, expected) for name, (made, expected) in CASES.items()}
    plain = Handmade()
    for name, (changes, expected) in CONTAINERS.items():
        cases[f"container: {name}"] = (plain.zipped(**changes), plain.policy, expected)
    wrong = {}
    async with browsing(tmp_path / "profile") as tab:
        await tab.go((tmp_path / "page.html").as_uri())
        for name, (raw, policy, expected) in cases.items():
            arguments = orjson.dumps([standard(raw), policy.decode()]).decode()
            said = await tab.run(f"told(...{arguments}).catch((error) => String(error.stack))")
            if said != expected:
                wrong[name] = said
        assert tab.problems == []
    assert wrong == {}


RESIGNED = ("raw_entry", "raw_beat", "raw_leaf", "raw_manifest", "raw_policy", "log.json", "parts.jsonl", "nothing")


def _resigned(roll: random.Random) -> tuple[str, Handmade]:
    """One document is another one, and signed as it is."""
    made = Handmade(is_whole=roll.random() < 0.2, has_log=roll.random() < 0.9, claim=roll.choice([{}, {}, None]))
    if roll.random() < 0.3:
        made.part, made.secrets = dict(UNDER_KEY), {"dek": DEK}
    where, change = roll.choice(RESIGNED), roll.choice([altered, altered, altered, respelled])

    def changed(raw: bytes) -> bytes:
        other = change(raw.rstrip(b"\n"), roll)
        return raw if b"\xff" in other else other  # neither a text within JSON nor a policy can be handed on so

    if where.startswith("raw_"):
        setattr(made, where, changed)
    elif where != "nothing" and (where != "log.json" or made.has_log):
        made.member = {where: lambda raw: changed(raw) + b"\n"}
    return where, made


def _expected(made: Handmade, *, is_trusted: bool) -> str:
    """Of what nobody changed."""
    complete, fresh = "U" if made.claim is None else "P", "P" if is_trusted and made.has_log else "U"
    authentic = ("P" if made.has_log else "F") if is_trusted else "U"
    return f"P{complete}{fresh}{authentic}{int(authentic == 'F')}"


def _said(path: Path, policy: bytes | None, script: Script) -> dict[str, str]:
    """As `told`; `refused` by those for whom the policy is none."""
    module, said = verifier(), dict.fromkeys(("ours", "Python"), "refused")
    with contextlib.suppress(Unverifiable):
        brought = None if policy is None else TrustPolicy.parse(parse(policy))
        said["ours"] = letters(verdicts(check_bundle(path, brought).as_json()))
    with contextlib.suppress(module.NotUnderstood):
        said["Python"] = letters(verdicts(module.verify(str(path), policy)))
    found = script.verify(path, policy)
    said["JavaScript"] = "refused" if found[0].startswith("threw Error:") else letters(found)  # no TypeError
    return said


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("round_", range(2))
def test_they_agree_on_whatever_the_forger_signed(tmp_path: Path, script: Script, round_: int) -> None:
    roll, outcomes = random.Random(100 + round_), Counter[str]()
    path = tmp_path / "resigned.zip"
    for number in range(COUNT // 4):
        where, made = _resigned(roll)
        is_trusted = roll.random() < 0.8
        path.write_bytes(made.zipped())
        policy = made.policy if is_trusted else None
        said = _said(path, policy, script)
        assert len(set(said.values())) == 1, f"round {round_}, number {number}, {where}: {said} {policy!r}"
        if where == "nothing":
            assert said["ours"] == _expected(made, is_trusted=is_trusted)
        outcomes[said["ours"][-1]] += 1
    assert min(outcomes[code] for code in "012d") >= COUNT // 1000, outcomes


def _encoded(point: tuple[int, ...], prime: int) -> bytes:
    shrunk = pow(point[2], prime - 2, prime)
    return (point[1] * shrunk % prime | (point[0] * shrunk % prime & 1) << 255).to_bytes(32, "little")


def _multiple(module: ModuleType, scalar: int, point: tuple[int, ...]) -> tuple[int, ...]:
    made: tuple[int, ...] = (0, 1, 1, 0)
    for bit in f"{scalar:b}":
        made = module._add(made, made)
        made = module._add(made, point) if bit == "1" else made
    return made


def _odd_signatures(module: ModuleType, roll: random.Random, count: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(key, message, signature) with points of small and mixed order, odd spellings, and scalars beyond the order."""
    prime, order = module.P, module.L
    # of order 8 L: RFC 8032's curve has a cofactor of 8
    some = next(p for y in range(2, 99) if (p := module._point(y.to_bytes(32, "little"))) and _is_mixed(module, p))
    small = [_multiple(module, order * n, some) for n in range(8)]
    odd = [(prime + y | sign << 255).to_bytes(32, "little") for y in range(19) for sign in (0, 1)]
    odd += [(y | 1 << 255).to_bytes(32, "little") for y in (1, prime - 1)] + [_encoded(p, prime) for p in small]
    for _ in range(count):
        secret, nonce, message = roll.randrange(1, order), roll.randrange(1, order), roll.randbytes(roll.randrange(40))
        key, r = (
            _encoded(module._add(_multiple(module, scalar, module.BASE), roll.choice([*small[:1] * 12, *small])), prime)
            for scalar in (secret, nonce)
        )
        if roll.random() < 0.4:
            key, secret = roll.choice(odd), 0
        if roll.random() < 0.3:
            r, nonce = roll.choice(odd), 0
        k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % order
        s = (nonce + k * secret) % order + roll.choice([0, 0, 0, 0, 1, 15]) * order
        yield key, message, r + s.to_bytes(33, "little")[:32]


def _is_mixed(module: ModuleType, point: tuple[int, ...]) -> bool:
    return _encoded(_multiple(module, module.L * 4, point), module.P) != NEUTRAL


def test_the_three_take_the_same_signatures_whatever_points_they_are_made_of(tmp_path: Path) -> None:
    module = verifier()
    cases = list(_odd_signatures(module, random.Random(7), 600))
    run = """
    const { ed25519Holds } = await import(process.argv[1]), { createInterface } = await import("node:readline");
    for await (const line of createInterface({ input: process.stdin })) {
      const [key, message, signature] = JSON.parse(line).map((hex) => new Uint8Array(Buffer.from(hex, "hex")));
      console.log(ed25519Holds(key, message, signature));
    }"""
    argv = ["node", "--input-type=module", "-e", run, VERIFIER.with_suffix(".mjs").as_uri()]
    lines = b"".join(orjson.dumps([raw.hex() for raw in case]) + b"\n" for case in cases)
    done = subprocess.run(argv, input=lines, capture_output=True, check=True, timeout=60, cwd=tmp_path)
    script = [line == "true" for line in done.stdout.decode().split()]
    python = [module.ed25519_holds(*case) for case in cases]
    ours = []
    for key, message, signature in cases:
        try:
            ed25519.verify(key, signature, message, said="no")
        except Unverifiable:
            ours.append(False)
        else:
            ours.append(True)
    assert ours == python == script
    assert 0.1 * len(cases) < sum(ours) < 0.9 * len(cases)
