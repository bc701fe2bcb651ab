"""Changed evidence bundles: one change each, of every level, and a manifest that agrees with it."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from collections.abc import Callable
from typing import Any

import orjson

Members = dict[str, bytes]


def members_of(raw: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(members: Members, *, method: int = zipfile.ZIP_DEFLATED, agrees: bool = True) -> bytes:
    """The ZIP file; with `agrees` its manifest states the members as they are."""
    members = dict(members)
    if agrees and "manifest.json" in members:
        try:
            manifest = orjson.loads(members["manifest.json"])
            manifest["files"] = {
                name: {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
                for name, raw in members.items()
                if name != "manifest.json"
            }
            members["manifest.json"] = orjson.dumps(manifest)
        except (orjson.JSONDecodeError, TypeError):
            pass
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return out.getvalue()


def forged(whole: bytes, roll: random.Random) -> tuple[str, bytes]:
    """What sort of change it is (`valid` where it is none that counts), and the bundle."""
    name, change = roll.choices(CHANGES, [weight for _, _, weight in _WEIGHED])[0]
    return name, change(whole, roll)


def _valid(whole: bytes, roll: random.Random) -> bytes:
    members = members_of(whole)
    names = list(members)
    roll.shuffle(names)
    members = {each: members[each] for each in names}
    if roll.random() < 0.5:
        manifest = orjson.loads(members["manifest.json"])
        manifest["more"] = roll.choice([None, 1.5, {"a": ["b"]}, "x" * 100])
        members["manifest.json"] = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
    return packed(members, method=roll.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def _document(members: Members, roll: random.Random) -> tuple[str, int, list[bytes]]:
    """A member of JSON documents, one of them, and all its lines."""
    name = roll.choice([each for each in members if each.endswith((".json", ".jsonl"))] + ["log.json", "manifest.json"])
    lines = [members[name]] if name.endswith(".json") else members[name].splitlines()
    return name, roll.randrange(len(lines)), lines


def _put(members: Members, name: str, lines: list[bytes]) -> None:
    members[name] = lines[0] if name.endswith(".json") else b"".join(line + b"\n" for line in lines)


def _semantic(whole: bytes, roll: random.Random) -> bytes:
    """One value of a document is another one, or gone, or there twice."""
    members = members_of(whole)
    name, at, lines = _document(members, roll)
    lines[at] = altered(lines[at], roll)
    _put(members, name, lines)
    return packed(members)


def altered(raw: bytes, roll: random.Random) -> bytes:
    """A JSON document in which one value is another one, or gone, or there twice."""
    document = orjson.loads(raw)
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        one = waiting.pop()
        items = list(one.items()) if isinstance(one, dict) else list(enumerate(one)) if isinstance(one, list) else []
        for key, value in items:
            places.append((one, key))
            waiting.append(value)
    if places:
        holder, key = roll.choice(places)
        _change(holder, key, roll)
    return orjson.dumps(document)


def _change(holder: Any, key: Any, roll: random.Random) -> None:
    value = holder[key]
    how = roll.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, value)
    elif how == 2:
        holder[key] = roll.choice([None, True, False, 0, 1, -1, 1.0, "", [], {}, 2**53, 2**63, "A" * 43])
    elif isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int):
        holder[key] = value + roll.choice([-1, 1, 256])
    elif isinstance(value, str) and value:
        place = roll.randrange(len(value))
        other = roll.choice("AQgw09-_=+/ \n\u2014x")
        holder[key] = roll.choice(
            [value[:place] + other + value[place + 1 :], value[:place] + value[place + 1 :], value + other]
        )
    elif isinstance(value, list) and len(value) > 1:
        first, second = roll.sample(range(len(value)), 2)
        value[first], value[second] = value[second], value[first]
    else:
        holder[key] = roll.choice([None, 7, "x"])


def _spelling(whole: bytes, roll: random.Random) -> bytes:
    """A document is spelled otherwise: some readers would take it."""
    members = members_of(whole)
    name, at, lines = _document(members, roll)
    lines[at] = respelled(lines[at], roll)
    _put(members, name, lines)
    return packed(members)


def respelled(raw: bytes, roll: random.Random) -> bytes:
    """A JSON document that is spelled otherwise, and perhaps is none."""
    changes: list[Callable[[bytes], bytes]] = [
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw + b" ",
        lambda raw: raw + b"x",
        lambda raw: raw.replace(b"{", b'{"seq":1,"key":"x","origin":"y",', 1),
        lambda raw: raw.replace(b'"', b'"\\u0041', 1),
        lambda raw: raw.replace(b'"', b'"\\ud800', 1),
        lambda raw: raw.replace(b'"seq":', b'"seq":0', 1),
        lambda raw: raw.replace(b":1,", b":1.0,", 1),
        lambda raw: raw.replace(b":0,", b":-0,", 1),
        lambda raw: raw.replace(b":0,", b":0e0,", 1),
        lambda raw: raw.replace(b"null", b"NaN", 1),
        lambda raw: raw.replace(b"}", b',"a":' + b"[" * 120 + b"]" * 120 + b"}", 1),
        lambda raw: raw.replace(b'"', b'"\xff', 1),
        lambda raw: raw.replace(b",", b" , ", 1),
        lambda raw: raw.replace(b"/", b"\\/", 1),
        lambda raw: raw.rstrip(b"}"),
    ]
    return roll.choice(changes)(raw)


def _lines(whole: bytes, roll: random.Random) -> bytes:
    """Lines are swapped, gone, there twice, or end otherwise."""
    members = members_of(whole)
    name = roll.choice([each for each in members if each.endswith(".jsonl")])
    lines = members[name].splitlines()
    at = roll.randrange(len(lines))
    how = roll.randrange(5)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(at, lines[at])
    elif how == 2:
        other = roll.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == 3:
        lines.insert(at, b"")
    _put(members, name, lines)
    if how == 4:
        members[name] = members[name][:-1]
    return packed(members)


def _bytes(whole: bytes, roll: random.Random) -> bytes:
    """A byte of a member is another one, and the manifest agrees or does not."""
    members = members_of(whole)
    name = roll.choice(list(members))
    raw = bytearray(members[name])
    if raw:
        raw[roll.randrange(len(raw))] ^= 1 << roll.randrange(8)
    members[name] = bytes(raw)
    return packed(members, agrees=roll.random() < 0.7)


def _container(whole: bytes, roll: random.Random) -> bytes:
    """The file itself: bytes flipped, cut, appended; members added, missing, or named oddly."""
    how = roll.randrange(6)
    if how == 0:
        raw = bytearray(whole)
        raw[roll.randrange(len(raw))] ^= 1 << roll.randrange(8)
        return bytes(raw)
    if how == 1:
        return whole[: roll.randrange(len(whole))]
    if how == 2:
        return whole + b"x" * roll.randint(1, 40)
    members = members_of(whole)
    if how == 3:
        members[roll.choice(["more", "../x", "a//b", "parts/./x", "/etc/x", "na me", "\u00e9"])] = b"more"
    elif how == 4:
        members.pop(roll.choice(list(members)))
        return packed(members, agrees=roll.random() < 0.5)
    else:
        return packed(members, method=roll.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    return packed(members)


_WEIGHED = [
    ("valid", _valid, 10),
    ("semantic", _semantic, 45),
    ("spelling", _spelling, 15),
    ("lines", _lines, 10),
    ("bytes", _bytes, 10),
    ("container", _container, 10),
]
CHANGES = [(name, change) for name, change, _ in _WEIGHED]
