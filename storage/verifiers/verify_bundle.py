# SPDX-License-Identifier: Apache-2.0
"""Check an Answerable evidence bundle: one file, Python 3.9 or later, standard library only, no network.

    python3 verify_bundle.py BUNDLE.zip [--trust policy.json] [--json]

Written from the specification ("Evidence bundles" in storage/README.md) and without the project's other code: it
imports none of it, so that a fault there is not repeated here. Exit 0: holds, 1: something does not, 2: cannot tell.
"""

import argparse
import base64
import binascii
import bisect
import hashlib
import hmac
import json
import re
import struct
import sys
import zlib
from datetime import datetime, timezone

FORMAT = "answerable/bundle/v1"
FILES_MAX, CONTENT_BYTES_MAX, MANIFEST_BYTES_MAX = 20_000, 2 << 30, 64 << 20
LINE_BYTES_MAX, DEPTH_MAX, INTEGER_MAX, SIZE_MAX = 1 << 20, 100, (1 << 53) - 1, (1 << 63) - 1
NOTE_BYTES_MAX, SIGNATURES_MAX, LISTED_MAX = 1 << 20, 100, 10_000
NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
NO_NAME = re.compile("[+\x00-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
PASS, FAIL, UNKNOWN = "PASS", "FAIL", "UNKNOWN"
UNTOLD = "integrity does not hold: nothing else can be told"


class Broken(Exception):
    """A claim does not hold."""


class NotUnderstood(Exception):
    """The file is no bundle of this format."""


# --- Ed25519 (RFC 8032 section 5.1.7; canonical encodings, S < L, no cofactor) --------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def _recover_x(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_M1 % P
    if (x * x - square) % P:
        return None
    return P - x if x & 1 != sign else x


def _point(raw):
    """The point of a canonical encoding in extended coordinates, else None."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    x = _recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


def _add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    x, y, z, t = f - e, d - c, d + c, f + e
    return x * y % P, z * t % P, y * z % P, x * t % P


def _times(scalar, point):
    """By a window of four bits."""
    table = [(0, 1, 1, 0), point]
    for _ in range(14):
        table.append(_add(table[-1], point))
    made = (0, 1, 1, 0)
    for shift in range(252, -1, -4):
        for _ in range(4):
            made = _add(made, made)
        made = _add(made, table[(scalar >> shift) & 15])
    return made


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_holds(public, message, signature):
    """Whether the signature is that of the message under the key."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, nonce = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or nonce is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = _times(s, BASE), _add(nonce, _times(k, key))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


# --- texts and numbers in one spelling ------------------------------------------------------------------------------


def unb64(value, length=32):
    """The bytes of base64url without padding."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", value):
        raise Broken("expected base64url")
    try:
        raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        raise Broken("expected base64url") from None
    if len(raw) != length or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != value:
        raise Broken(f"expected {length} bytes in base64url")
    return raw


def unbase64(text):
    """The bytes of standard base64 with padding."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Broken("not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Broken("not base64 in its one spelling")
    return raw


def _once(pairs):
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member stands twice")
    return made


class _Fraction(float):
    """A number that was written with a fraction or an exponent."""


def _whole(digits):
    """An integer; one that is beyond what an integer may be is none (and Python refuses more than 4,300 digits)."""
    return int(digits) if len(digits) < 18 else _Fraction(digits)


def _no_constant(name):
    raise ValueError(name)


NUMBERS = {"parse_float": _Fraction, "parse_int": _whole}


def parse_json(raw):
    """A document, strictly."""
    try:
        text = raw.decode("utf-8")
        if text.startswith("\ufeff"):
            raise ValueError("a byte order mark")
        depth = 0
        for bracket in re.findall(r"[\[\]{}]", STRING.sub("", text)):
            depth += 1 if bracket in "[{" else -1
            if depth > DEPTH_MAX:
                raise ValueError("nested too deeply")
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, **NUMBERS)
    except (ValueError, RecursionError) as error:
        raise Broken(f"not JSON as it must be: {str(error)[:100]}") from None
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            try:
                one.encode("utf-8")
            except UnicodeEncodeError:
                raise Broken("a lone surrogate") from None
        elif isinstance(one, dict):
            waiting.extend(one.keys())
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return value


def text_of(said, name):
    """A member that is a text."""
    value = said.get(name)
    if not isinstance(value, str):
        raise Broken(f"{name}: expected a text")
    return value


def integer_of(said, name):
    """A member that is an integer."""
    value = said.get(name)
    if type(value) is not int or abs(value) > INTEGER_MAX:
        raise Broken(f"{name}: expected an integer")
    return value


def list_of(said, name, kind, most=None):
    """A member that is a list of `kind`."""
    value = said.get(name)
    if not isinstance(value, list) or not all(isinstance(each, kind) for each in value):
        raise Broken(f"{name}: expected a list")
    if most is not None and len(value) > most:
        raise Broken(f"{name}: more than {most}")
    return value


# --- the container --------------------------------------------------------------------------------------------------


class Container:
    """A ZIP file, by its central directory; nothing that two readers may read differently."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self._raw = file.read()
        self.members = {}
        self._read()

    def _read(self):
        raw, end = self._raw, len(self._raw) - 22
        if end < 0 or raw[end : end + 4] != b"PK\x05\x06":
            raise NotUnderstood("not a ZIP file, or one with a comment or something else behind it")
        disk, start_disk, here, count, size, start, comment = struct.unpack("<HHHHIIH", raw[end + 4 :])
        if disk or start_disk or here != count or comment or count == 0xFFFF or 0xFFFFFFFF in (size, start):
            raise NotUnderstood("a ZIP file of several parts, with a comment, or ZIP64")
        if start + size != end or count > FILES_MAX:
            raise NotUnderstood("the directory is not where its end says, or has too many files")
        at, places = start, []
        for _ in range(count):
            at, place = self._record(at, end)
            places.append(place)
        if at != end or sum(member[4] for member in self.members.values()) > CONTENT_BYTES_MAX:
            raise NotUnderstood("the directory is longer than it says, or the content is too large")
        self._check_places(sorted(places), start)

    def _record(self, at, end):
        """One record of the directory: where the next one begins, and what its local header must be, and where."""
        raw = self._raw
        if at + 46 > end or raw[at : at + 4] != b"PK\x01\x02":
            raise NotUnderstood("the directory is damaged")
        flags, method = struct.unpack("<HH", raw[at + 8 : at + 12])
        crc, packed, size, name_len, extra, comment, disk = struct.unpack("<IIIHHHH", raw[at + 16 : at + 36])
        (local,) = struct.unpack("<I", raw[at + 42 : at + 46])
        after = at + 46 + name_len
        if after > end:
            raise NotUnderstood("the directory is damaged")
        name = raw[at + 46 : after].decode("latin-1")
        if not NAME.fullmatch(name) or any(step in (".", "..") for step in name.split("/")):
            raise NotUnderstood(f"a file named {name[:80]!r}")
        if name in self.members:
            raise NotUnderstood(f"{name} is there twice")
        if extra or comment or disk:
            raise NotUnderstood(f"{name} has an extra field or a comment: another program packed it anew")
        if method not in (0, 8) or flags & ~0x0806 or 0xFFFFFFFF in (packed, size, local):
            raise NotUnderstood(f"{name} is packed in a way that bundles are not")
        begin = local + 30 + name_len
        self.members[name] = (method, crc, begin, packed, size)
        return after, (local, begin + packed, name, (flags, method, crc, packed, size))

    def _check_places(self, places, start):
        """Members fill the file up to its directory, and their own headers say what the directory says."""
        raw, at = self._raw, 0
        for local, end, name, stated in places:
            if local != at or end > start:
                raise NotUnderstood(f"{name} does not begin where the one before it ends, or is too long")
            flags, method, _, crc, packed, size = struct.unpack("<HHIIII", raw[local + 6 : local + 26])
            head = raw[local + 26 : local + 30] + raw[local + 30 : local + 30 + len(name)]
            if raw[local : local + 4] != b"PK\x03\x04" or (flags, method, crc, packed, size) != stated:
                raise NotUnderstood(f"the header of {name} says something else than the directory")
            if head != struct.pack("<HH", len(name), 0) + name.encode():
                raise NotUnderstood(f"{name} has another name in its own header, or an extra field there")
            at = end
        if at != start:
            raise NotUnderstood("bytes that belong to no file")

    def pieces(self, name):
        """The content of a member, piece by piece."""
        if name not in self.members:
            raise Broken(f"{name} is missing")
        method, crc, begin, packed, size = self.members[name]
        data = memoryview(self._raw)[begin : begin + packed]
        if method == 0 and packed != size:
            raise Broken(f"{name} has two sizes, and is stored as it is")
        found, length = 0, 0
        for piece in [bytes(data)] if method == 0 else self._inflated(name, data, size):
            found = zlib.crc32(piece, found)
            length += len(piece)
            if length > size:
                break
            yield piece
        if (found, length) != (crc, size):
            raise Broken(f"{name} is not what its header says")

    @staticmethod
    def _inflated(name, data, size):
        stream = zlib.decompressobj(-15)
        rest, made = bytes(data), 0
        try:
            while not stream.eof and made <= size:
                piece = stream.decompress(rest, 1 << 18)
                rest = stream.unconsumed_tail
                if not piece and not rest:
                    break
                made += len(piece)
                yield piece
        except zlib.error as error:
            raise Broken(f"{name}: {error}") from None
        if not stream.eof or stream.unused_data:
            raise Broken(f"{name} does not end where it says")

    def read(self, name, bytes_max):
        """A whole member."""
        if name in self.members and self.members[name][4] > bytes_max:
            raise Broken(f"{name} has more than {bytes_max} bytes")
        return b"".join(self.pieces(name))

    def lines(self, name):
        """The lines of a member."""
        rest = b""
        for piece in self.pieces(name):
            *whole, rest = (rest + piece).split(b"\n")
            if max(map(len, (*whole, rest))) > LINE_BYTES_MAX:
                raise Broken(f"{name} has a line of more than {LINE_BYTES_MAX} bytes")
            yield from whole
        if rest:
            raise Broken(f"{name} does not end in a newline")


# --- trees and notes ------------------------------------------------------------------------------------------------


def leaf_of(data):
    """RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_of(left, right):
    """RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def check_path(leaf, index, size, path, root):
    """RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        raise Broken(f"no leaf {index} in a tree of {size}")
    node, last, running = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Broken("a path is too long")
        if node & 1 or node == last:
            running = node_of(sibling, running)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            running = node_of(running, sibling)
        node, last = node >> 1, last >> 1
    if last or running != root:
        raise Broken("a path does not lead to the root that was signed")


class Tree:
    """The root over leaves that come one after the other."""

    def __init__(self):
        self._peaks = []
        self.size = 0

    def add(self, leaf):
        """One more leaf."""
        height = 0
        while self._peaks and self._peaks[-1][0] == height:
            leaf = node_of(self._peaks.pop()[1], leaf)
            height += 1
        self._peaks.append((height, leaf))
        self.size += 1

    def root(self):
        """The root of what has come."""
        running = None
        for _, peak in reversed(self._peaks):
            running = peak if running is None else node_of(peak, running)
        return hashlib.sha256(b"").digest() if running is None else running


def _is_name(name):
    return bool(name) and not NO_NAME.search(name)


def parse_note(note):
    """Text and signature lines [(name, raw)] of a signed note (c2sp.org/signed-note)."""
    if len(note) > NOTE_BYTES_MAX:
        raise Broken("a note that is far too long")
    whole = note.decode("utf-8")
    end = whole.rfind("\n\n")
    if end < 0 or not whole.endswith("\n"):
        raise Broken("a note without signatures")
    text, lines = whole[: end + 1], whole[end + 2 :].split("\n")[:-1]
    if any(c < " " and c != "\n" for c in text) or not 1 <= len(lines) <= SIGNATURES_MAX:
        raise Broken("a note with control characters, or too many signatures")
    found = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014" or not _is_name(name):
            raise Broken("a signature line of another form")
        raw = unbase64(encoded)
        if len(raw) < 5:
            raise Broken("a signature line without a signature")
        found.append((name, raw))
    return text, found


def key_id(name, kind, public):
    """The four bytes that name a key."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def checkpoint_of(note, origin, public):
    """Size and root of a checkpoint that the key signed under the origin's name."""
    text, lines = parse_note(note)
    good = 0
    for name, raw in lines:
        if name == origin and raw[:4] == key_id(origin, b"\x01", public):
            if not ed25519_holds(public, text.encode(), raw[4:]):
                raise Broken(f"the signature by {origin} does not verify")
            good += 1
    if not good:
        raise Broken(f"no signature by {origin} under this key")
    stated = text.split("\n")
    if len(stated) != 4 or stated[3] or stated[0] != origin or not _is_name(origin):
        raise Broken(f"not a checkpoint of {origin}")
    if not NUMBER.fullmatch(stated[1]) or int(stated[1]) > SIZE_MAX:
        raise Broken(f"{origin}: not a size")
    root = unbase64(stated[2])
    if len(root) != 32:
        raise Broken(f"{origin}: not a root")
    return int(stated[1]), root


class Policy:
    """The keys that the verifier brought."""

    def __init__(self, raw):
        said = parse_json(raw)
        allowed = {"v", "logs", "quorum", "witnesses", "timestamp_roots"}
        if not isinstance(said, dict) or type(said.get("v")) is not int or said["v"] != 1 or set(said) - allowed:
            raise NotUnderstood("not a trust policy")
        list_of({"timestamp_roots": [], **said}, "timestamp_roots", str)  # for `openssl ts`, not used here
        self.logs = dict(self._key(line, b"\x01") for line in list_of({"logs": [], **said}, "logs", str))
        self.witnesses = [self._key(line, b"\x04") for line in list_of({"witnesses": [], **said}, "witnesses", str)]
        quorum = said.get("quorum", len(self.witnesses))
        if not self.logs or type(quorum) is not int or not 0 <= quorum <= len(self.witnesses):
            raise NotUnderstood("a trust policy without a log, or with a quorum that cannot be")
        if len({public for _, public in self.witnesses}) != len(self.witnesses):
            raise NotUnderstood("a trust policy in which a witness stands twice")
        self.quorum = quorum

    @staticmethod
    def _key(line, kind):
        name, _, rest = line.partition("+")
        identity, _, encoded = rest.partition("+")
        raw = unbase64(encoded)
        if not _is_name(name) or len(raw) != 33 or raw[:1] != kind or identity != key_id(name, kind, raw[1:]).hex():
            raise NotUnderstood(f"not a verifier key: {line[:80]!r}")
        return name, raw[1:]

    def cosigned(self, note):
        """Witness → seconds, of those that cosigned the note."""
        text, lines = parse_note(note)
        found = {}
        for name, public in self.witnesses:
            for by, raw in lines:
                if by != name or raw[:4] != key_id(name, b"\x04", public):
                    continue
                seconds = int.from_bytes(raw[4:12], "big")
                signed = f"cosignature/v1\ntime {seconds}\n{text}".encode()
                if len(raw) != 76 or not 0 < seconds <= SIZE_MAX or not ed25519_holds(public, signed, raw[12:]):
                    raise Broken(f"the cosignature by {name} does not verify")
                found[name] = seconds
        return found


# --- the claims -----------------------------------------------------------------------------------------------------


class Bundle:
    """One bundle under one policy."""

    def __init__(self, path, policy):
        self._policy = policy
        try:
            self._file = Container(path)
            self._manifest = parse_json(self._file.read("manifest.json", MANIFEST_BYTES_MAX))
        except Broken as error:
            raise NotUnderstood(str(error)) from None
        if not isinstance(self._manifest, dict) or self._manifest.get("format") != FORMAT:
            raise NotUnderstood(f"not a bundle of the format {FORMAT}")
        self.entries = 0
        self._head = None
        self._untold = []
        self._counted, self._beats, self._parts = {}, {}, {}

    def claims(self):
        """The four claims, in order."""
        checks = (
            ("integrity", self._integrity),
            ("completeness", self._completeness),
            ("freshness", self._freshness),
            ("authenticity", self._authenticity),
        )
        made = []
        for name, check in checks:
            if made and made[0]["verdict"] == FAIL:
                made.append({"name": name, "verdict": UNKNOWN, "detail": UNTOLD})
                continue
            try:
                verdict, detail = check()
            except Broken as error:
                verdict, detail = FAIL, str(error)
            made.append({"name": name, "verdict": verdict, "detail": detail})
        return made

    def _log_name(self):
        return f"{text_of(self._manifest, 'deployment')}/log"

    def _integrity(self):
        self._check_files()
        stated = unb64(text_of(self._manifest, "key"))
        key = stated if self._policy is None else self._policy.logs.get(self._log_name(), stated)
        origins = {}
        for said in list_of(self._manifest, "origins", dict, LISTED_MAX):
            name = text_of(said, "origin")
            if name in origins or type(said.get("whole")) is not bool:
                raise Broken(f"{name} stands twice, or is neither whole nor not")
            note = text_of(said, "checkpoint").encode()
            size, root = checkpoint_of(note, name, key)
            origins[name] = {"size": size, "root": root, "note": note, "whole": said["whole"], "tree": Tree(), "n": 0}
        self._check_entries(origins)
        if not origins:
            raise Broken("there is no entry here")
        told = self._check_log(origins, key)
        self._check_parts()
        detail = f"{self.entries} entries under {len(origins)} signed checkpoints; {told}"
        return (UNKNOWN, "; ".join([detail, *self._untold])) if self._untold else (PASS, detail)

    def _check_files(self):
        files = self._manifest.get("files")
        if not isinstance(files, dict):
            raise Broken("files: expected an object")
        odd = (set(self._file.members) - {"manifest.json"}) ^ set(files)
        if odd:
            raise Broken(f"{min(odd)[:80]} is missing, or not in the manifest")
        for name, said in files.items():
            digest, size = hashlib.sha256(), 0
            for piece in self._file.pieces(name):
                digest.update(piece)
                size += len(piece)
            if not isinstance(said, dict):
                raise Broken(f"{name}: expected size and sha256")
            if integer_of(said, "size") != size or text_of(said, "sha256") != digest.hexdigest():
                raise Broken(f"{name} is not what the manifest says")

    def _check_entries(self, origins):
        claimed = {self._scope(said) for said in list_of(self._manifest, "scopes", dict, LISTED_MAX)}
        has_parts = "parts.jsonl" in self._file.members
        paths, before = self._file.lines("paths.jsonl"), (b"", -1)
        for raw in self._file.lines("entries.jsonl"):
            line = next(paths, None)
            if line is None:
                raise Broken("there are fewer paths than entries")
            said, path = parse_json(raw), parse_json(line)
            if not isinstance(said, dict) or not isinstance(path, list):
                raise Broken("an entry is no object, or a path no list")
            name, seq = text_of(said, "origin"), integer_of(said, "seq")
            here = (name.encode(), seq)
            if here <= before:
                raise Broken(f"{name}, {seq}: entries are not in their order, or one is there twice")
            before = here
            if name not in origins:
                raise Broken(f"{name}, {seq}: no checkpoint of its ledger is here")
            self._check_entry(origins[name], name, seq, raw, [unb64(node) for node in path])
            scope = (name, said.get("tenant"), said.get("route"))
            if isinstance(scope[1], str) and isinstance(scope[2], (str, type(None))) and scope in claimed:
                self._counted.setdefault(scope, set()).add(integer_of(said, "scope_seq"))
            if said.get("kind") == "heartbeat" and isinstance(said.get("scopes"), list):
                self._beats[name, seq] = said["scopes"]
            if has_parts and isinstance(said.get("parts"), list) and said["parts"]:
                self._parts[name, seq] = said["parts"]
        if next(paths, None) is not None:
            raise Broken("there are more paths than entries")
        for name, origin in origins.items():
            if not origin["n"]:
                raise Broken(f"{name}: there is a checkpoint and no entry")
            tree = origin["tree"]
            if origin["whole"] and (tree.size != origin["size"] or tree.root() != origin["root"]):
                raise Broken(f"{name}: the entries do not make the tree that was signed")

    def _check_entry(self, origin, name, seq, raw, path):
        self.entries += 1
        if origin["whole"]:
            if path or seq != origin["n"]:
                raise Broken(f"{name}, {seq}: the ledger is said to be whole, and is not")
            origin["tree"].add(leaf_of(raw))
        else:
            try:
                check_path(leaf_of(raw), seq, origin["size"], path, origin["root"])
            except Broken as error:
                raise Broken(f"{name}, {seq}: {error}") from None
        origin["n"] += 1

    def _check_log(self, origins, key):
        if "log.json" not in self._file.members:
            return "their place in the log of logs is not shown"
        said = parse_json(self._file.read("log.json", MANIFEST_BYTES_MAX))
        name = self._log_name()
        if not isinstance(said, dict) or text_of(said, "name") != name:
            raise Broken(f"log.json is not about {name}")
        note = text_of(said, "checkpoint").encode()
        size, root = checkpoint_of(note, name, key)
        leaves = list_of(said, "leaves", dict)
        if [text_of(leaf, "origin") for leaf in leaves] != list(origins):
            raise Broken("log.json is about other ledgers than the manifest")
        for leaf in leaves:
            origin, index, raw = leaf["origin"], integer_of(leaf, "index"), text_of(leaf, "leaf").encode()
            stated = parse_json(raw)
            if not isinstance(stated, dict) or (integer_of(stated, "v"), integer_of(stated, "n")) != (1, index):
                raise Broken(f"{origin}: no leaf {index} of the log of logs")
            if [text_of(stated, each) for each in ("log", "kind", "origin")] != [name, "checkpoint", origin]:
                raise Broken(f"{origin}: the leaf of the log of logs is about something else")
            wanted = (origins[origin]["note"], origins[origin]["size"])
            if (text_of(stated, "note").encode(), integer_of(stated, "size")) != wanted:
                raise Broken(f"{origin}: the leaf of the log of logs holds another checkpoint")
            check_path(leaf_of(raw), index, size, [unb64(node) for node in list_of(leaf, "path", str)], root)
        self._head = note
        return f"in the log of logs of {size} leaves"

    def _check_parts(self):
        if "parts.jsonl" not in self._file.members:
            return
        before = (b"", -1, -1)
        for raw in self._file.lines("parts.jsonl"):
            said = parse_json(raw)
            if not isinstance(said, dict):
                raise Broken("a line of parts.jsonl is no object")
            origin, seq, index = text_of(said, "origin"), integer_of(said, "seq"), integer_of(said, "index")
            name = text_of(said, "name")
            here = (origin.encode(), seq, index)
            if here <= before:
                raise Broken("parts.jsonl is not in its order, or a part is there twice")
            before = here
            found = [
                part
                for part in self._parts.get((origin, seq), [])
                if isinstance(part, dict)
                and part.get("name") == name
                and type(part.get("index")) is int
                and part["index"] == index
            ]
            if len(found) != 1:
                raise Broken(f"{origin}, {seq}: the entry states no such part")
            self._check_part(f"{origin}, {seq}, part {name}", name, found[0], said)

    def _check_part(self, where, name, part, said):
        opening, dek = said.get("opening"), said.get("dek")
        if (opening is None) == (dek is None):
            raise Broken(f"{where}: either an opening or a key belongs to it")
        secret = unb64(opening if dek is None else dek)
        committed = part.get("opening_commit" if dek is None else "plain_commit")
        if dek is not None:
            found = hmac.new(secret, b"answerable/dek/v1", hashlib.sha256).digest()
            if found != unb64(part.get("dek_commit")):
                raise Broken(f"{where}: the key is not the one that the entry commits to")
        label = name.encode()
        running = hmac.new(secret, b"answerable/plain/v1" + struct.pack("<I", len(label)) + label, hashlib.sha256)
        for piece in self._file.pieces(text_of(said, "file")):
            running.update(piece)
        if committed is None:
            self._untold.append(f"{where}: the entry does not commit to its plaintext")
        elif running.digest() != unb64(committed):
            raise Broken(f"{where}: the plaintext is not the one that the entry commits to")

    @staticmethod
    def _scope(said):
        route = said.get("route")
        return text_of(said, "origin"), text_of(said, "tenant"), None if route is None else text_of(said, "route")

    def _completeness(self):
        scopes = list_of(self._manifest, "scopes", dict, LISTED_MAX)
        if not scopes:
            return UNKNOWN, "nothing is claimed to be complete"
        ordered = {}
        for said in scopes:
            scope = self._scope(said)
            low, high = self._bound(said, "from", scope), self._bound(said, "to", scope)
            if low > high:
                raise Broken(f"{scope[0]}: a scope ends before it begins")
            known = self._counted.get(scope, set())
            there = ordered.setdefault(scope, sorted(known))
            if bisect.bisect_left(there, high) - bisect.bisect_left(there, low) != high - low:
                number = next(number for number in range(low, high) if number not in known)
                raise Broken(f"{scope[0]}: {scope[1]}, {scope[2]}: entry {number} of the scope is not here")
        return PASS, f"held whole: {len(scopes)}, heartbeat to heartbeat; of the ledgers named, no others"

    def _bound(self, said, name, scope):
        bound = said.get(name)
        if bound is None and name == "from":
            return 0
        if not isinstance(bound, dict):
            raise Broken(f"{scope[0]}: {name} names no heartbeat")
        seq, count = integer_of(bound, "seq"), integer_of(bound, "n")
        for stated in self._beats.get((scope[0], seq), []):
            if isinstance(stated, list) and stated == [scope[1], scope[2], count] and type(stated[2]) is int:
                return count
        raise Broken(f"{scope[0]}, {seq}: no heartbeat that states {count} entries of {scope[1]}, {scope[2]}")

    def _cosigned(self):
        return {} if self._policy is None or self._head is None else self._policy.cosigned(self._head)

    def _freshness(self):
        if self._policy is None or self._policy.quorum < 1:
            return UNKNOWN, "no witness of yours says when it existed: times are the operator's own"
        times = sorted(self._cosigned().values())
        if len(times) < self._policy.quorum:
            return UNKNOWN, f"{len(times)} of your witnesses cosigned, {self._policy.quorum} are asked for"
        try:
            when = f"{datetime.fromtimestamp(times[self._policy.quorum - 1], timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
        except (ValueError, OverflowError, OSError):
            when = f"second {times[self._policy.quorum - 1]} since 1970"
        return PASS, f"existed at {when}, say {self._policy.quorum} of your witnesses"

    def _authenticity(self):
        if self._policy is None:
            return UNKNOWN, "a bundle that brings its own key proves nothing: bring a trust policy"
        trusted = self._policy.logs.get(self._log_name())
        if trusted is None or trusted != unb64(text_of(self._manifest, "key")):
            raise Broken("it is not signed by a key that your trust policy names for this log")
        found = self._cosigned()
        if len(found) < self._policy.quorum:
            raise Broken(f"{len(found)} of your witnesses cosigned, {self._policy.quorum} are asked for")
        return PASS, f"signed by the key you trust; cosigned by {', '.join(sorted(found)) or 'nobody'}"


def verify(path, policy=None):
    """The report on the bundle at `path`; `policy` is the text of a trust policy, bytes.

    Raises NotUnderstood where the policy is none, OSError where the file cannot be read.
    """
    try:
        trust = None if policy is None else Policy(policy)
    except Broken as error:
        raise NotUnderstood(str(error)) from None
    try:
        bundle = Bundle(path, trust)
        claims, entries, code = bundle.claims(), bundle.entries, 0
    except NotUnderstood as error:
        names = ("integrity", "completeness", "freshness", "authenticity")
        return {
            "claims": [{"name": n, "verdict": UNKNOWN, "detail": str(error)} for n in names],
            "entries": 0,
            "exit": 2,
        }
    if any(claim["verdict"] == FAIL for claim in claims):
        code = 1
    elif claims[0]["verdict"] != PASS:
        code = 2
    return {"claims": claims, "entries": entries, "exit": code}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--trust", help="a trust policy (JSON) that you bring yourself")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    wanted = parser.parse_args()
    try:
        policy = None
        if wanted.trust is not None:
            with open(wanted.trust, "rb") as file:
                policy = file.read()
        report = verify(wanted.bundle, policy)
    except (OSError, NotUnderstood) as error:
        print(f"verify_bundle: {error}", file=sys.stderr)
        return 2
    if wanted.json:
        print(json.dumps(report))
        return report["exit"]
    for claim in report["claims"]:
        print(f"{claim['verdict']:8}{claim['name']:14}{claim['detail']}")
    print(f"{report['entries']} entries; {('holds', 'DOES NOT HOLD', 'cannot tell')[report['exit']]}")
    print(
        "Not shown: calls that never reached the gateway, ledgers that are not named here, what was changed before it"
    )
    print("was signed and cosigned. summary.txt and decisions.csv are for reading.")
    return report["exit"]


if __name__ == "__main__":
    sys.exit(main())
