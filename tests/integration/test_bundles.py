"""Evidence bundles of a real keeper with a real witness: made, checked alone, and every change to one found."""

from __future__ import annotations

import asyncio
import hmac
import shutil
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer

from config.load import Configuration
from gateway import development
from gateway.desk import exports
from gateway.keeper.commands import Commands
from gateway.keeper.keeper import Keeper
from gateway.keeper.socket import Listener, command
from storage import anchors, notes
from storage.bundlecheck import CLAIMS, BundleReport, check_bundle
from storage.findings import Verdict
from storage.ids import b64, unb64
from storage.keys import Keyring
from storage.trust import TrustPolicy
from tests.support.forgeries import members_of
from tests.support.keeping import ROUTE, Gateway, kept, until, written
from tests.support.loans import Loans
from tests.support.witness import Witness

pytestmark = pytest.mark.asyncio(loop_scope="module")
LOG = "test/log"
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
CALLS = 20
BEFORE = 7  # this decision's parts have no openings


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


@dataclass
class Bank:
    """A keeper that runs, with calls on record under a cosigned log."""

    configuration: Configuration
    decisions: list[str]
    policy: dict[str, Any]
    folder: Path
    keeper: Keeper
    made: int = 0

    @property
    def trust(self) -> TrustPolicy:
        return TrustPolicy.parse(self.policy)

    def token(self, *roles: str, subject: str = "ann", tenant: str = "default", matter: str | None = None) -> str:
        return development.sign(
            self.configuration.data,
            subject=subject,
            roles=list(roles) or ["compliance"],
            tenant=tenant,
            expires_s=int(time.time()) + 600,
            matter=matter,
        )

    def headers(self, *roles: str, subject: str = "ann") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(*roles, subject=subject)}"}

    async def ask(self, asked: dict[str, Any], *roles: str, **more: Any) -> dict[str, Any]:
        token = self.token(*roles, tenant=more.pop("tenant", "default"), matter=more.pop("matter", None))
        self.made += 1
        arguments = {"out": str(self.folder / f"{self.made}.zip"), "token": token, "asked": asked, "purpose": "audit"}
        lines = [one async for one in command(self.configuration.data, "bundle", arguments | more)]
        return lines[-1]

    async def bundle(self, asked: dict[str, Any], *roles: str, **more: Any) -> tuple[Path, dict[str, Any]]:
        last = await self.ask(asked, *roles, **more)
        assert last["exit"] == 0, last
        return self.folder / f"{self.made}.zip", last["result"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory, loans: Loans) -> AsyncIterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    public = Keyring.open(folder / "data", create=True).log.public_key().public_bytes_raw()
    witness = Witness("witness.example/w1", {LOG: public})
    ledger = {"log_s": 0.2, "witnesses": {"quorum": 1, "every_s": 0.2, "witnesses": [witness.settings()]}}
    other = ROUTE | {"name": "other", "prefix": "/other", "explain": {"when": "never"}}
    configuration = written(folder, loans=loans, ledger=ledger, routes=[ROUTE, other])
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        listener = Listener(configuration.data, Commands(keeper.parts, keeper).table())
        await listener.start()
        gateway.journal.heartbeat()
        calls = [await gateway.decide(number, before=number == BEFORE) for number in range(CALLS)]
        decisions = [orjson.loads(call.entry)["id"] for call in calls]
        gateway.journal.heartbeat()
        [one async for one in command(configuration.data, "settle", {})]
        recorded = keeper.parts.database.rows("SELECT origin, count() FROM entries GROUP BY origin")
        assert dict(recorded)[gateway.journal.origin] > CALLS
        await until(lambda: _is_covered(keeper, recorded))
        index = keeper.parts.database.rows("SELECT max(seq) FROM log")[0][0]
        await until(lambda: b"witness.example" in (anchors.best_note(keeper.parts.database, LOG, index) or b""))
        policy = {"v": 1, "logs": [notes.verifier_key(LOG, public)], "witnesses": [witness.vkey], "quorum": 1}
        made = tmp_path_factory.mktemp("bundles")
        yield Bank(configuration, decisions, policy, made, keeper)
        await listener.close()
    witness.close()
    await gateway.close()


def _is_covered(keeper: Keeper, recorded: list[tuple[Any, ...]]) -> bool:
    """Explanations, too, which stand in the keeper's own ledger."""
    return all(keeper.parts.shipping.rounds.logged_below(origin) >= count for origin, count in recorded)


def verdicts(report: BundleReport) -> tuple[Verdict, ...]:
    assert [claim.name for claim in report.claims] == list(CLAIMS)
    return tuple(claim.verdict for claim in report.claims)


async def test_decisions_are_proven_alone_and_their_content_disclosed_to_whom_may(bank: Bank) -> None:
    path, made = await bank.bundle({"decisions": bank.decisions[:3]})
    assert (made["decisions"], made["parts"], made["incomplete"]) == (3, 0, [])
    assert verdicts(check_bundle(path)) == (PASS, UNKNOWN, UNKNOWN, UNKNOWN)
    report = check_bundle(path, bank.trust)
    assert verdicts(report) == (PASS, UNKNOWN, PASS, PASS)
    assert report.exit_code == 0
    with zipfile.ZipFile(path) as file:
        entries = [orjson.loads(line) for line in file.read("entries.jsonl").splitlines()]
        assert {entry["decision"] for entry in entries} == set(bank.decisions[:3])
        assert {entry["kind"] for entry in entries} == {"decision", "explanation"}
        assert file.read("decisions.csv").count(b"\r\n") == 4
        assert b"trust policy" in file.read("summary.txt")

    refused = await bank.ask({"decisions": bank.decisions[:1], "parts": ["request"]})
    assert refused["error"]["code"] == "role_forbidden", "compliance sees no content"
    matter = orjson.dumps({"id": "m", "routes": ["loans"], "from": "2020-01-01", "to": "2100-01-01"}).decode()
    asked = {"decisions": bank.decisions[:2], "parts": ["request", "response"]}
    path, made = await bank.bundle(asked, "regulator", matter=matter)
    assert (made["parts"], made["erased"]) == (4, 0)
    assert verdicts(check_bundle(path, bank.trust)) == (PASS, UNKNOWN, PASS, PASS)
    with zipfile.ZipFile(path) as file:
        assert b'"income"' in file.read("parts/000001")


async def test_a_part_that_is_disclosed_opens_no_other_one(bank: Bank) -> None:
    matter = orjson.dumps({"id": "m", "routes": ["loans"], "from": "2020-01-01", "to": "2100-01-01"}).decode()
    whole, _ = await bank.bundle(
        {"decisions": bank.decisions[:1], "parts": ["request", "response"]}, "regulator", matter=matter
    )
    path, _ = await bank.bundle({"decisions": bank.decisions[:1], "parts": ["request"]}, "regulator", matter=matter)
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(whole) as more:
        (line,) = map(orjson.loads, file.read("parts.jsonl").splitlines())
        answer = more.read("parts/000002")
        assert all(answer not in file.read(name) for name in file.namelist())
    (decision,) = (entry for entry in _entries(path) if entry["kind"] == "decision")
    secret, stated = unb64(line["opening"]), {part["name"]: part for part in decision["parts"]}
    asked, answered = stated["request"], stated["response"]
    assert set(line) == {"origin", "seq", "name", "index", "opening", "file"}
    assert b64(hmac.digest(secret, b"answerable/dek/v1", "sha256")) != asked["dek_commit"], "it is not the key"
    guess = b"answerable/plain/v1" + (8).to_bytes(4, "little") + b"response" + answer
    assert b64(hmac.digest(secret, guess, "sha256")) != answered["opening_commit"], "the right guess cannot be told"
    derived = b"answerable/opening/v1" + (1).to_bytes(4, "little") + (8).to_bytes(4, "little") + b"response"
    assert hmac.digest(secret, derived, "sha256") != unb64(_line(whole, 1)["opening"])


async def test_parts_without_openings_are_disclosed_all_or_none(bank: Bank) -> None:
    matter = orjson.dumps({"id": "m", "routes": ["loans"], "from": "2020-01-01", "to": "2100-01-01"}).decode()
    asked = {"decisions": bank.decisions[BEFORE : BEFORE + 1]}
    path, _ = await bank.bundle(asked)
    assert verdicts(check_bundle(path, bank.trust)) == (PASS, UNKNOWN, PASS, PASS)
    refused = await bank.ask(asked | {"parts": ["request"]}, "regulator", matter=matter)
    assert (refused["exit"], refused["error"]["code"]) == (2, "bundle_impossible")
    assert "response is missing" in refused["error"]["advice"]
    assert not (bank.folder / f"{bank.made}.zip").exists()
    path, made = await bank.bundle(asked | {"parts": ["request", "response"]}, "regulator", matter=matter)
    assert (made["parts"], set(_line(path, 0))) == (2, {"origin", "seq", "name", "index", "dek", "file"})
    assert verdicts(check_bundle(path, bank.trust)) == (PASS, UNKNOWN, PASS, PASS)


def _line(path: Path, at: int) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        return dict(orjson.loads(file.read("parts.jsonl").splitlines()[at]))


async def test_a_route_in_a_period_is_complete_from_heartbeat_to_heartbeat(bank: Bank) -> None:
    path, made = await bank.bundle({"route": "loans", "from": "2020-01-01", "to": "2100-01-01"})
    report = check_bundle(path, bank.trust)
    assert verdicts(report) == (PASS, PASS, PASS, PASS)
    assert any("last heartbeat" in sentence for sentence in made["incomplete"])
    ids = {line["decision"] for line in _entries(path) if line["kind"] == "decision"}
    assert ids == set(bank.decisions)


async def test_everything_is_for_auditors_of_the_deployment_and_makes_whole_trees(bank: Bank) -> None:
    for roles in (("compliance",), ("support",), ("regulator",)):
        assert (await bank.ask({"everything": True}, *roles))["exit"] == 2
    assert (await bank.ask({"everything": True}, "auditor", tenant="elsewhere"))["exit"] == 2
    ((stored,),) = bank.keeper.parts.database.rows("SELECT count() FROM entries")
    path, made = await bank.bundle({"everything": True}, "auditor")
    late = [int(sentence.split(": ")[1].split(" ")[0]) for sentence in made["incomplete"]]
    assert made["entries"] + sum(late) >= stored, "what no checkpoint covers yet is told"
    assert verdicts(check_bundle(path, bank.trust)) == (PASS, UNKNOWN, PASS, PASS)
    manifest = _manifest(path)
    assert any(origin["whole"] for origin in manifest["origins"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "say what for"),
        ({"nonsense": 1}, "no member is called nonsense"),
        ({"everything": True, "route": "loans"}, "goes with nothing else"),
        ({"route": "loans"}, "go together"),
        ({"route": "loans", "from": "2026-02-01", "to": "2026-01-01"}, "one before the other"),
        ({"decisions": "x"}, "is a list"),
        ({"decisions": ["01a2f5a0-0000-7000-8000-000000000000"]}, "no such decision"),
        ({"decisions": ["nonsense"]}, "no such decision"),
        ({"case": "unheard of"}, "no decision of this case"),
        ({"decisions": ["x"], "parts": ["key"]}, "are of request, response, target"),
        ({"route": "loans", "from": "2026-01-01", "to": "2026-02-01", "parts": ["request"]}, "not of whole routes"),
    ],
)
async def test_what_cannot_be_asked_for_is_named(bank: Bank, asked: dict[str, Any], says: str) -> None:
    last = await bank.ask(asked)
    assert last["exit"] == 2
    assert says in last["error"]["message"]
    assert not (bank.folder / f"{bank.made}.zip").exists()


async def test_a_file_that_is_there_is_left_alone(bank: Bank) -> None:
    (bank.folder / f"{bank.made + 1}.zip").write_bytes(b"mine")
    last = await bank.ask({"decisions": bank.decisions[:1]})
    assert (last["exit"], last["error"]["code"]) == (2, "bundle_unwritable")
    assert (bank.folder / f"{bank.made}.zip").read_bytes() == b"mine"


async def test_each_bundle_leaves_an_access_entry(bank: Bank) -> None:
    await bank.bundle({"decisions": bank.decisions[4:5]})
    refused = await bank.ask({"decisions": bank.decisions[5:6], "parts": ["request"]})
    assert refused["error"]["code"] == "role_forbidden"
    [one async for one in command(bank.configuration.data, "settle", {})]
    found = bank.keeper.parts.database.rows("SELECT entry FROM entries WHERE kind = 'access'")
    looks = [look for (raw,) in found if (look := orjson.loads(raw))["action"] == "evidence"]
    assert any(look["decision"] == bank.decisions[4] and look["outcome"] == "granted" for look in looks)
    assert any(look["outcome"] == "refused" for look in looks)


@pytest_asyncio.fixture(loop_scope="module")
async def client(bank: Bank) -> AsyncIterator[TestClient[Any, Any]]:
    made: TestClient[Any, Any] = TestClient(TestServer(bank.keeper.desk.web))
    await made.start_server()
    yield made
    await made.close()


async def _ready(client: TestClient[Any, Any], url: str, headers: dict[str, str]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            job = await (await client.get(url, headers=headers)).json()
            if job["state"] != "making":
                return dict(job)
            await asyncio.sleep(0.05)


async def test_over_http_a_bundle_is_a_job_of_whoever_asked_and_of_nobody_else(
    bank: Bank, client: TestClient[Any, Any], tmp_path: Path
) -> None:
    ann, ben = bank.headers("compliance"), bank.headers("compliance", subject="ben")
    asked = {"decisions": bank.decisions[:2], "purpose": "audit"}
    begun = await client.post("/v1/evidence", json=asked, headers=ann)
    assert begun.status == 202
    url = begun.headers["Location"]
    job = await _ready(client, url, ann)
    assert (job["state"], job["made"]["decisions"], job["error"]) == ("ready", 2, None)
    for path in (url, job["links"]["file"]):
        assert (await client.get(path, headers=ben)).status == 404
        assert (await client.get(path)).status == 401
    got = await client.get(job["links"]["file"], headers=ann)
    assert (got.status, got.headers["Content-Type"]) == (200, "application/zip")
    assert got.headers["Cache-Control"] == "no-store"
    (tmp_path / "got.zip").write_bytes(await got.read())
    assert verdicts(check_bundle(tmp_path / "got.zip", bank.trust)) == (PASS, UNKNOWN, PASS, PASS)
    folder = bank.configuration.data / "exports"
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("asked", "roles", "refused"),
    [
        ({"decisions": []}, "compliance", (400, "request_invalid")),
        ({"everything": True}, "compliance", (403, "role_forbidden")),
        ({"everything": True}, "support", (403, "role_forbidden")),
        ({"everything": True, "purpose": "curiosity"}, "auditor", (400, "purpose_unknown")),
        ({"decisions": ["01a2f5a0-0000-7000-8000-000000000000"]}, "compliance", (404, "not_found")),
        ({"everything": "yes"}, "auditor", (400, "request_invalid")),
        ({"everything": True, "ticket": 7}, "auditor", (400, "request_invalid")),
    ],
)
async def test_over_http_what_cannot_be_asked_for_begins_nothing(
    bank: Bank, client: TestClient[Any, Any], asked: dict[str, Any], roles: str, refused: tuple[int, str]
) -> None:
    answer = await client.post("/v1/evidence", json={"purpose": "audit"} | asked, headers=bank.headers(roles))
    assert (answer.status, (await answer.json())["error"]["code"]) == refused


async def test_over_http_only_so_many_bundles_are_made_at_once_and_lie_here(
    bank: Bank, client: TestClient[Any, Any]
) -> None:
    headers = bank.headers("auditor")
    outcomes = []
    for _ in range(exports.KEPT_MAX + 3):
        answer = await client.post("/v1/evidence", json={"everything": True, "purpose": "audit"}, headers=headers)
        outcomes.append(answer.status)
        if answer.status == 202 and len(outcomes) > 6:
            await _ready(client, answer.headers["Location"], headers)
    assert outcomes.count(202) <= exports.KEPT_MAX
    assert set(outcomes) == {202, 503}


def _entries(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as file:
        return [orjson.loads(line) for line in file.read("entries.jsonl").splitlines()]


def _manifest(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        return dict(orjson.loads(file.read("manifest.json")))


def rewritten(path: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy whose members were changed, with a manifest that says so: the digests are the forger's too."""
    from hashlib import sha256

    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    manifest = orjson.loads(members.pop("manifest.json"))
    files = {name: {"size": len(raw), "sha256": sha256(raw).hexdigest()} for name, raw in members.items()}
    with zipfile.ZipFile(out, "w") as file:
        for name, raw in members.items():
            file.writestr(name, raw)
        file.writestr("manifest.json", orjson.dumps(manifest | {"files": files}))
    return out


def _replace(name: str, old: bytes, new: bytes, count: int = 1) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        assert old in members[name], (name, old)
        members[name] = members[name].replace(old, new, count)

    return change


def _document(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def changed(members: dict[str, bytes]) -> None:
        document = orjson.loads(members[name])
        change(document)
        members[name] = orjson.dumps(document)

    return changed


def _lines(name: str, change: Callable[[list[bytes]], None]) -> Callable[[dict[str, bytes]], None]:
    def changed(members: dict[str, bytes]) -> None:
        lines = members[name].splitlines(keepends=True)
        change(lines)
        members[name] = b"".join(lines)

    return changed


def _swap(lines: list[bytes]) -> None:
    lines[0], lines[1] = lines[1], lines[0]


def _other_key(lines: list[bytes]) -> None:
    said = orjson.loads(lines[0])
    lines[0] = orjson.dumps(said | {"opening": "A" * 43}) + b"\n"


FORGERIES: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "an entry's answer": (_replace("entries.jsonl", b'"status":200', b'"status":201'), "integrity"),
    "an entry's place": (_replace("entries.jsonl", b'"seq":', b'"seq":1'), "integrity"),
    "an entry left out": (_lines("entries.jsonl", lambda lines: lines.pop(3)), "integrity"),
    "an entry twice": (_lines("entries.jsonl", lambda lines: lines.insert(0, lines[0])), "integrity"),
    "entries swapped": (_lines("entries.jsonl", _swap), "integrity"),
    "paths swapped": (_lines("paths.jsonl", _swap), "integrity"),
    "a path longer": (_replace("paths.jsonl", b'["', b'["' + b"A" * 43 + b'","'), "integrity"),
    "a path of odd spelling": (_replace("paths.jsonl", b'["', b'["='), "integrity"),
    "another checkpoint's size": (
        _document("manifest.json", lambda d: d["origins"][0].update(checkpoint="x\n1\nAA==\n\n— x AA==\n")),
        "integrity",
    ),
    "a ledger said to be whole": (
        _document("manifest.json", lambda d: d["origins"][0].update(whole=not d["origins"][0]["whole"])),
        "integrity",
    ),
    "another key": (_document("manifest.json", lambda d: d.update(key="A" * 43)), "authenticity"),
    "another deployment": (_document("manifest.json", lambda d: d.update(deployment="other")), "integrity"),
    "a leaf of the log": (_document("log.json", lambda d: d["leaves"][0].update(index=0)), "integrity"),
    "the log's checkpoint": (_document("log.json", lambda d: d.update(checkpoint=d["checkpoint"][:-4])), "integrity"),
    "a cosignature": (
        _document("log.json", lambda d: d.update(checkpoint=_spoiled(d["checkpoint"]))),
        "freshness",
    ),
    "the log left out of the file": (lambda members: members.pop("log.json") and None, "authenticity"),
    "a part's text": (_replace("parts/000001", b'"income"', b'"Income"'), "integrity"),
    "a part's opening": (_lines("parts.jsonl", _other_key), "integrity"),
    "a part that no entry has": (_replace("parts.jsonl", b'"index":0', b'"index":9'), "integrity"),
    "an entry of a scope": (_lines("entries.jsonl", lambda lines: lines.pop(5)), "integrity"),
    "a scope that is larger": (
        _document("manifest.json", lambda d: d["scopes"][0]["to"].update(n=d["scopes"][0]["to"]["n"] + 1)),
        "completeness",
    ),
    "a scope of another route": (
        _document("manifest.json", lambda d: d["scopes"][0].update(route="x")),
        "completeness",
    ),
    "a scope from nothing": (
        _document("manifest.json", lambda d: d["scopes"][0].update({"to": {"seq": 3, "n": 0}})),
        "completeness",
    ),
}  # fmt: skip


def _spoiled(note: str) -> str:
    """With another time in the witness's line."""
    *lines, last = note.rstrip("\n").split("\n")
    dash, name, text = last.split(" ")
    raw = bytearray(notes.unspell(text))
    raw[11] ^= 1
    return "\n".join([*lines, f"{dash} {name} {notes.spell(bytes(raw))}"]) + "\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def full(bank: Bank) -> Path:
    """Everything that a bundle can have: decisions with parts, and a scope."""
    matter = orjson.dumps({"id": "m", "routes": ["loans"], "from": "2020-01-01", "to": "2100-01-01"}).decode()
    asked = {"decisions": bank.decisions[:2], "parts": ["request"], "route": "loans"}
    path, _ = await bank.bundle(asked | {"from": "2020-01-01", "to": "2099-12-31"}, "regulator", matter=matter)
    assert verdicts(check_bundle(path, bank.trust)) == (PASS, PASS, PASS, PASS)
    return path


@pytest.mark.parametrize("name", FORGERIES)
async def test_every_forgery_is_found_whatever_the_manifest_says(
    bank: Bank, full: Path, tmp_path: Path, name: str
) -> None:
    change, claim = FORGERIES[name]
    forged = rewritten(full, tmp_path / "forged.zip", change)
    report = check_bundle(forged, bank.trust)
    told = {one.name: one for one in report.claims}
    assert told[claim].verdict is FAIL, report
    assert report.exit_code == 1
    assert told[claim].detail
    untouched = rewritten(full, tmp_path / "same.zip", lambda _: None)
    assert check_bundle(untouched, bank.trust).exit_code == 0


@pytest.mark.parametrize("at", range(0, 100, 4))
async def test_bytes_flipped_anywhere_never_pass_for_the_same_evidence(
    bank: Bank, full: Path, tmp_path: Path, at: int
) -> None:
    raw = bytearray(full.read_bytes())
    raw[len(raw) * at // 100] ^= 0x10
    (tmp_path / "flipped.zip").write_bytes(raw)
    report = check_bundle(tmp_path / "flipped.zip", bank.trust)
    if report.exit_code == 0:  # a date or a mode in the container, of which nothing is claimed
        assert members_of(bytes(raw)) == members_of(full.read_bytes())


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"nonsense" * 100, b"PK\x05\x06" + bytes(18)], ids=["empty", "PK", "text", "no files"]
)
async def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    report = check_bundle(tmp_path / "x.zip")
    assert (report.exit_code, report.understood) == (2, False)
    assert verdicts(report) == (UNKNOWN,) * 4


async def test_samples_are_left_for_whoever_asks(bank: Bank, full: Path) -> None:
    """`ANSWERABLE_BUNDLES=FOLDER`: a bundle of each sort and the policy, for other verifiers."""
    import os

    folder = os.environ.get("ANSWERABLE_BUNDLES")
    if folder is None:
        return
    for path in (*bank.folder.glob("*.zip"), full):
        shutil.copy(path, folder)
    Path(folder, "policy.json").write_bytes(orjson.dumps(bank.policy))
