"""Holds and approvals over a real journal and a real database: two people, every step an entry, nothing else kept."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import development
from gateway.desk import governing
from gateway.desk.openapi import DOCUMENT
from storage.keys import Keyring
from tests.support.database import fresh_profile, opened
from tests.support.desks import TENANT, Records, Running, running, write_bank
from tests.support.journals import read_all
from tests.support.keeping import Gateway
from tests.support.keeping import written as loaded
from tests.support.loans import Loans
from tests.support.tokens import ISSUER

MATTER = {"id": "2026-17", "routes": ["mortgage"], "from": "2026-02-01", "to": "2026-04-01"}
WHY = {"purpose": "legal", "ticket": "T-7", "reason": "The customer has sued."}
SETTLE = """
import asyncio, sys
from pathlib import Path
from config.load import load
from gateway.keeper.socket import command

async def settle(loaded):
    async for line in command(loaded.data, "settle", {}, configuration=loaded):
        assert "error" not in line, line

asyncio.run(settle(load(Path(sys.argv[1]), {})))
"""
HELD = {**WHY, "basis": "litigation", "case": "A-1"}


@pytest.fixture(scope="module")
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    data = tmp_path_factory.mktemp("bank")
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(data=data, database=database, keyring=Keyring.open(data, create=True))
        asyncio.run(write_bank(records))
        yield records


@pytest.fixture
async def own_bank(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    """One for a test that ships what it stated: the other tests share theirs."""
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "bank", database=database, keyring=Keyring.open(tmp_path / "bank", create=True)
        )
        await write_bank(records)
        yield records


@pytest.fixture
async def desk(bank: Records, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(bank, tmp_path) as up:
        yield up


async def call(
    desk: Running, method: str, path: str, body: Any = None, *, by: str = "amy", role: str = "compliance", status: int
) -> dict[str, Any]:
    headers = desk.headers(role, subject=by, matter=MATTER)
    async with desk.client.request(method, path, json=body, headers=headers) as answer:
        told = await answer.json()
        assert answer.status == status, told
        return told


def written(desk: Running, *kinds: str) -> list[dict[str, Any]]:
    entries = [orjson.loads(record.entry) for batch in read_all(desk.journal) for record in batch.records]
    return [entry for entry in entries if entry["kind"] in kinds]


async def test_one_person_places_a_hold_and_two_release_it(bank: Records, desk: Running) -> None:
    placed = await call(desk, "POST", "/v1/holds", HELD, status=201)
    assert (placed["state"], placed["by"], placed["covers"]) == ("in_force", f"{ISSUER}|amy", 2)
    assert placed["scope"] == {"cases": [bank.pseudonym("case", "A-1")]}
    hold = f"/v1/holds/{placed['id']}"

    asked = await call(desk, "DELETE", hold, {**WHY, "reason": "settled"}, status=202)
    assert (asked["state"], asked["action"], asked["mine"]) == ("waiting", "hold_release", True)
    again = await call(desk, "DELETE", hold, WHY, by="bob", status=409)
    assert "asked for already" in again["error"]["message"]

    request = f"/v1/approvals/{asked['id']}"
    own = await call(desk, "POST", request, {**WHY, "verdict": "approve"}, status=403)
    assert own["error"]["code"] == "own_request"
    assert (await call(desk, "GET", hold, status=200))["state"] == "in_force"
    done = await call(desk, "POST", request, {**WHY, "verdict": "approve"}, by="bob", role="dpo", status=200)
    assert (done["state"], done["decided_by"]) == ("approved", f"{ISSUER}|bob")
    assert (await call(desk, "GET", hold, status=200))["state"] == "released"
    late = await call(desk, "POST", request, {**WHY, "verdict": "reject"}, by="cleo", status=409)
    assert "approved by" in late["error"]["message"]
    gone = await call(desk, "DELETE", hold, WHY, status=409)
    assert "released" in gone["error"]["message"]

    entries = written(desk, "hold", "approval")
    assert [(entry["kind"], entry["event"], entry["actor"].rpartition("|")[2]) for entry in entries] == [
        ("hold", "placed", "amy"),
        ("approval", "requested", "amy"),
        ("approval", "approved", "bob"),
    ]
    assert entries[1]["prev"][0]["id"] == placed["id"]
    assert entries[2]["prev"][0]["id"] == asked["id"]
    assert {entry["tenant"] for entry in entries} == {TENANT}


async def test_each_step_leaves_one_access_entry_and_no_words_in_clear(bank: Records, desk: Running) -> None:
    placed = await call(desk, "POST", "/v1/holds", HELD, status=201)
    await call(desk, "GET", "/v1/holds", status=200)
    await call(desk, "DELETE", f"/v1/holds/{placed['id']}", WHY, by="bob", role="support", status=403)
    assert [(entry["action"], entry["outcome"]) for entry in desk.accesses()] == [
        ("hold", "granted"),
        ("holds", "granted"),
        ("hold", "refused"),
    ]
    (entry,) = written(desk, "hold")
    assert {part["name"] for part in entry["parts"]} == {"reason", "ticket", "reference"}
    assert entry["ticket"] == bank.pseudonym("ticket", "T-7")
    raw = b"".join(path.read_bytes() for path in desk.journal.glob("*.jrn"))
    assert b"sued" not in raw
    assert b"T-7" not in raw
    assert b"A-1" not in raw


@pytest.mark.parametrize(
    ("role", "status"),
    [
        ("support", 202),
        ("compliance", 201),
        ("regulator", 202),
        ("dpo", 201),
        ("model_owner", 403),
        ("admin", 403),
        ("auditor", 403),
    ],
)
async def test_who_may_place_who_may_ask_and_who_may_not(desk: Running, role: str, status: int) -> None:
    told = await call(desk, "POST", "/v1/holds", HELD, role=role, status=status)
    if status == 403:
        assert written(desk, "hold") == []
        return
    listed = await call(desk, "GET", "/v1/approvals", by="zoe", role="dpo", status=200)
    assert [one["object"] for one in listed["approvals"]] == ([] if status == 201 else [told["id"]])
    # a colleague without the right to place holds sees only what they asked for themselves
    others = await call(desk, "GET", "/v1/holds", by="zoe", role="support", status=200)
    assert others["holds"] == []


async def test_what_support_asked_for_is_in_force_once_somebody_approves(desk: Running) -> None:
    asked = await call(desk, "POST", "/v1/holds", HELD, role="support", status=202)
    assert asked["state"] == "requested"
    request = f"/v1/approvals/{asked['id']}"
    await call(desk, "POST", request, {**WHY, "verdict": "approve"}, by="sid", role="support", status=403)
    await call(desk, "POST", request, {**WHY, "verdict": "approve"}, by="bob", status=200)
    found = await call(desk, "GET", f"/v1/holds/{asked['id']}", role="support", status=200)
    assert found["state"] == "in_force"


async def test_a_request_is_withdrawn_by_whoever_asked_and_by_nobody_else(desk: Running) -> None:
    asked = await call(desk, "POST", "/v1/holds", HELD, role="support", status=202)
    request = f"/v1/approvals/{asked['id']}"
    other = await call(desk, "POST", request, {**WHY, "verdict": "withdraw"}, by="bob", status=403)
    assert other["error"]["code"] == "not_your_request"
    unseen = await call(desk, "POST", request, {**WHY, "verdict": "withdraw"}, by="sid", role="support", status=404)
    assert unseen["error"]["code"] == "not_found"
    done = await call(desk, "POST", request, {**WHY, "verdict": "withdraw"}, role="support", status=200)
    assert done["state"] == "withdrawn"


async def test_a_regulators_hold_stays_within_the_matter(bank: Records, desk: Running) -> None:
    outside = {**WHY, "basis": "supervision"}
    for scope in (
        {"case": "C-1"},
        {"decisions": [bank.id("cards")]},
        {"route": "cards", "from": "2026-03-01", "to": "2026-03-02"},
        {"route": "mortgage", "from": "2026-01-01", "to": "2026-03-02"},
    ):
        await call(desk, "POST", "/v1/holds", {**outside, **scope}, role="regulator", status=404)
    inside = {**outside, "route": "mortgage", "from": "2026-03-01", "to": "2026-03-10"}
    asked = await call(desk, "POST", "/v1/holds", inside, role="regulator", status=202)
    assert asked["covers"] > 5
    assert asked["scope"] == {"route": "mortgage", "from": "2026-03-01T00:00:00.000Z", "to": "2026-03-10T00:00:00.000Z"}


async def test_what_holds_nothing_is_refused_and_so_is_another_tenants(bank: Records, desk: Running) -> None:
    await call(desk, "POST", "/v1/holds", {**HELD, "case": "no-such-case"}, status=404)
    await call(desk, "POST", "/v1/holds", {**WHY, "basis": "audit", "decisions": [bank.id("foreign")]}, status=404)
    placed = await call(desk, "POST", "/v1/holds", HELD, status=201)
    headers = desk.headers("compliance", subject="eve", tenant="other-bank")
    async with desk.client.get(f"/v1/holds/{placed['id']}", headers=headers) as answer:
        assert answer.status == 404
    async with desk.client.get("/v1/holds", headers=headers) as answer:
        assert (await answer.json())["holds"] == []


async def test_one_person_cannot_flood_the_others_with_requests(desk: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governing, "WAITING_MAX", 3)
    monkeypatch.setattr(governing, "LISTED_MAX", 2)
    asked = [await call(desk, "POST", "/v1/holds", HELD, role="support", status=202) for _ in range(3)]
    told = await call(desk, "POST", "/v1/holds", HELD, role="support", status=409)
    assert "3 requests of yours wait" in told["error"]["message"]
    await call(desk, "POST", "/v1/holds", HELD, by="sid", role="support", status=202)
    listed = await call(desk, "GET", "/v1/approvals", status=200)
    assert ([one["id"] for one in listed["approvals"]], listed["complete"]) == ([one["id"] for one in asked[:2]], False)
    newest = await call(desk, "GET", "/v1/holds", status=200)
    assert (len(newest["holds"]), newest["complete"]) == (2, False)
    assert newest["holds"][0]["by"].endswith("|sid")


async def test_two_answers_at_once_count_as_one(desk: Running) -> None:
    asked = await call(desk, "POST", "/v1/holds", HELD, role="support", status=202)

    async def answer(by: str, verdict: str) -> int:
        headers = desk.headers("compliance", subject=by)
        body = {**WHY, "verdict": verdict}
        async with desk.client.post(f"/v1/approvals/{asked['id']}", json=body, headers=headers) as told:
            return told.status

    statuses = await asyncio.gather(*(answer(f"p{n}", ("approve", "reject")[n % 2]) for n in range(6)))
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]
    assert len(written(desk, "approval")) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/holds", {**HELD, "basis": "whim"}, 400),
        ("POST", "/v1/holds", {**HELD, "reason": ""}, 400),
        ("POST", "/v1/holds", {name: value for name, value in HELD.items() if name != "purpose"}, 400),
        ("POST", "/v1/holds", ["case"], 400),
        ("DELETE", "/v1/holds/x", WHY, 400),
        ("DELETE", "/v1/holds/019db2f3-4bd5-7a00-8000-000000000000", WHY, 404),
        ("DELETE", "/v1/holds/019db2f3-4bd5-7a00-8000-000000000000", {**WHY, "force": True}, 400),
        ("POST", "/v1/approvals/019db2f3-4bd5-7a00-8000-000000000000", {**WHY, "verdict": "approve"}, 404),
        ("POST", "/v1/approvals/019db2f3-4bd5-7a00-8000-000000000000", {**WHY, "verdict": "maybe"}, 400),
        ("POST", "/v1/approvals/019db2f3-4bd5-7a00-8000-000000000000", {**WHY, "verdict": {"a": 1}}, 400),
        ("POST", "/v1/approvals/019db2f3-4bd5-7a00-8000-000000000000", WHY, 400),
    ],
)
async def test_bad_requests_are_refused_and_state_nothing(
    desk: Running, method: str, path: str, body: Any, status: int
) -> None:
    told = await call(desk, method, path, body, status=status)
    assert set(told["error"]) == {"code", "message", "advice", "request_id"}
    assert written(desk, "hold", "approval") == []


async def test_the_ledger_is_the_only_state(own_bank: Records, tmp_path: Path) -> None:
    """A desk that starts again knows what is shipped, and refuses to answer while it cannot know all."""
    async with running(own_bank, tmp_path) as desk:
        kept = await call(desk, "POST", "/v1/holds", HELD, status=201)
        asked = await call(desk, "POST", "/v1/holds", HELD, role="support", status=202)
    async with running(own_bank, tmp_path) as desk:
        told = await call(desk, "POST", f"/v1/approvals/{asked['id']}", {**WHY, "verdict": "approve"}, status=503)
        assert "not in the database yet" in told["error"]["message"]
        await asyncio.to_thread(ship_desk, own_bank, desk.journal)
        listed = await call(desk, "GET", "/v1/holds", status=200)
        states = {one["id"]: one["state"] for one in listed["holds"]}
        assert (states[kept["id"]], states[asked["id"]]) == ("in_force", "requested")
        shown = await call(desk, "GET", f"/v1/holds/{kept['id']}", status=200)
        assert shown["reason"] == WHY["reason"]
        await call(desk, "POST", f"/v1/approvals/{asked['id']}", {**WHY, "verdict": "approve"}, by="bob", status=200)
        found = await call(desk, "GET", f"/v1/holds/{asked['id']}", status=200)
        assert found["state"] == "in_force"


def ship_desk(bank: Records, journal: Path) -> None:
    """Bring the desk's own journal into the database, as its keeper does."""
    link = bank.data / "journal" / "desk"
    link.symlink_to(journal)
    try:
        bank.ship()
    finally:
        link.unlink()
        bank.tails.pop(link)[0].close()


async def test_two_people_at_the_command_line_without_a_keeper(tmp_path: Path) -> None:
    """Each command opens the data, waits for what the one before wrote, and lets go; the ledger stays sound."""
    loans = Loans(tmp_path)
    configuration = loaded(tmp_path, loans=loans)
    gateway = await Gateway.open(configuration, loans)
    await gateway.decide(0)
    await gateway.close()
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", SETTLE, str(configuration.path))
    assert await done.wait() == 0

    async def run(who: str, role: str, *arguments: str) -> tuple[int, str]:
        token = development.sign(
            configuration.data, subject=who, roles=[role], tenant="default", expires_s=int(time.time()) + 300
        )
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli", *arguments, "--config", str(configuration.path),
            env={**os.environ, "ANSWERABLE_TOKEN": token},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await started.communicate()
        return started.returncode or 0, (out + err).decode()

    why = ("--purpose", "legal", "--reason", "sued")
    code, told = await run("amy", "compliance", "hold", "place", "--case", "L-0", "--basis", "litigation", *why)
    assert (code, "in force, 1 decision on record" in told) == (0, True), told
    hold = told.split()[1].rstrip(":")
    code, told = await run("amy", "compliance", "hold", "release", hold, *why)
    assert code == 0, told
    request = told.split()[1]
    code, told = await run("amy", "compliance", "approve", request, *why)
    assert (code, "you asked for this yourself" in told) == (2, True), told
    code, told = await run("bob", "dpo", "hold", "list", "--purpose", "legal")
    assert (code, f"waiting {request}" in told) == (0, True), told
    code, told = await run("bob", "dpo", "approve", request, *why)
    assert (code, told.strip().endswith(f"hold release {hold}: approved")) == (0, True), told
    code, told = await run("bob", "dpo", "hold", "list", "--purpose", "legal")
    assert (code, f"released  {hold}" in told) == (0, True), told
    code, told = await run("bob", "dpo", "verify")
    assert code == 0, told


async def test_the_answers_are_what_the_openapi_document_says(desk: Running) -> None:
    schemas = DOCUMENT["components"]["schemas"]
    asked = await call(desk, "POST", "/v1/holds", HELD, role="support", status=202)
    listed = (await call(desk, "GET", "/v1/holds", status=200))["holds"][0]
    waiting = (await call(desk, "GET", "/v1/approvals", status=200))["approvals"][0]
    assert set(listed) == set(schemas["Hold"]["required"])
    one = await call(desk, "GET", asked["links"]["self"], status=200)
    assert set(schemas["Hold"]["required"]) < set(one) < set(schemas["Hold"]["properties"])
    assert set(schemas["Hold"]["required"]) <= set(asked) <= set(schemas["Hold"]["properties"])
    assert set(waiting) == set(schemas["Approval"]["properties"])


async def test_the_console_places_asks_and_decides_without_javascript(desk: Running) -> None:
    csrf = await desk.sign_in("compliance")
    asking = await desk.client.get("/holds")
    assert asking.status == 428
    stated = {"csrf": csrf, "next": "/holds", "purpose": "legal", "ticket": "T-7"}
    answer = await desk.client.post("/purpose", data=stated, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/holds")
    form = {"csrf": csrf, "kind": "case", "reference": "A-1", "basis": "litigation", "reason": "<b>sued</b>"}
    forged = await desk.client.post("/holds", data={**form, "csrf": "x"}, allow_redirects=False)
    assert forged.status == 403
    placed = await desk.client.post("/holds", data=form, allow_redirects=False)
    assert placed.status == 303, await placed.text()
    page = await (await desk.client.get("/holds")).text()
    assert "in force" in page
    assert "<b>sued" not in page
    hold = page.partition('action="/holds/')[2].partition("/release")[0]
    released = {"csrf": csrf, "reason": "settled"}
    answer = await desk.client.post(f"/holds/{hold}/release", data=released, allow_redirects=False)
    assert answer.status == 303
    page = await (await desk.client.get("/holds")).text()
    assert "You asked for it: another person decides." in page
    request = page.partition('action="/approvals/')[2].partition('"')[0]
    own = {"csrf": csrf, "verdict": "approve", "reason": "mine"}
    assert (await desk.client.post(f"/approvals/{request}", data=own, allow_redirects=False)).status == 403
    withdrawn = await desk.client.post(
        f"/approvals/{request}", data={**own, "verdict": "withdraw"}, allow_redirects=False
    )
    assert withdrawn.status == 303
