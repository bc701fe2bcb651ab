"""The desk's API over a real journal and a real database: what each role is told, and what is written before it is."""

import asyncio
import errno
import io
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from gateway import logs
from gateway.desk.context import Job, JobState
from gateway.desk.openapi import DOCUMENT
from storage.durable import Syscalls
from storage.ids import unb64
from storage.keys import Keyring
from storage.proofs import check_proof
from tests.support.database import fresh_profile, opened
from tests.support.desks import DAY_NS, START_NS, Records, Running, past, running, write_bank

PERIOD = "from=2026-03-01&to=2026-03-10"
MATTER = {"id": "2026-17", "routes": ["mortgage"], "from": "2026-02-01", "to": "2026-04-01"}
ENDPOINTS = ("lookup", "case", "list", "list of a case", "decision", "proof")
MAY = {
    "support": (200, 200, 403, 200, 200, 403),
    "compliance": (200, 200, 200, 200, 200, 200),
    "regulator": (200, 200, 200, 200, 200, 200),
    "model_owner": (403, 403, 200, 403, 200, 200),
    "dpo": (200, 200, 200, 200, 200, 200),
    "admin": (403, 403, 403, 403, 403, 200),
    "developer": (403, 403, 403, 403, 403, 403),
    "nobody": (403, 403, 403, 403, 403, 403),
}


@pytest.fixture(scope="module")
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    data = tmp_path_factory.mktemp("bank")
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(data=data, database=database, keyring=Keyring.open(data, create=True))
        asyncio.run(write_bank(records))
        yield records


@pytest.fixture
async def desk(bank: Records, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(bank, tmp_path) as up:
        yield up


async def ask(desk: Running, bank: Records, endpoint: str, headers: dict[str, str]):
    case, denied = bank.pseudonym("case", "A-1"), bank.id("denied")
    if endpoint == "lookup":
        said = {"reference": "A-1", "kind": "case", "purpose": "audit", "ticket": "T-1"}
        return await desk.client.post("/v1/lookup", json=said, headers=headers)
    path = {
        "case": f"/v1/cases/{case}",
        "list": f"/v1/decisions?{PERIOD}",
        "list of a case": f"/v1/decisions?{PERIOD}&case={case}",
        "decision": f"/v1/decisions/{denied}",
        "proof": f"/v1/decisions/{denied}/proof",
    }[endpoint]
    return await desk.client.get(path, headers=headers)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("role", MAY)
async def test_each_role_may_what_the_table_says_and_each_attempt_leaves_one_entry(bank, desk, role, endpoint):
    answer = await ask(desk, bank, endpoint, desk.headers(role, matter=MATTER))
    expected = MAY[role][ENDPOINTS.index(endpoint)]
    assert answer.status == expected, await answer.text()
    entries = desk.accesses()
    if role in ("developer", "nobody"):  # holds no role here: not a viewer, so nobody whose look could be recorded
        assert entries == []
        return
    (entry,) = entries
    assert entry["outcome"] == ("granted" if expected == 200 else "refused")
    assert entry["actor"] == "https://login.example|amy"
    assert entry["role"] == role
    assert entry["tenant"] == "first-bank"


async def test_the_entry_is_durable_before_a_row_is_returned(bank, desk):
    answer = await desk.client.get(f"/v1/decisions/{bank.id('denied')}", headers=desk.headers("support"))
    assert answer.status == 200
    (entry,) = desk.accesses()  # read from the journal's files, up to the watermark, while the answer is unread
    assert (entry["purpose"], entry["rows"], entry["decision"]) == ("audit", 1, bank.id("denied"))
    assert entry["case"] == bank.pseudonym("case", "A-1")
    await answer.read()


class NoSync(Syscalls):
    """A disk that fails when it is asked to keep something."""

    armed = False

    def datasync(self, fd: int) -> None:
        if self.armed:
            raise OSError(errno.EIO, "EIO")
        super().datasync(fd)


async def test_where_the_entry_cannot_be_written_nothing_is_shown(bank, tmp_path):
    calls = NoSync()
    async with running(bank, tmp_path, syscalls=calls) as desk:
        calls.armed = True
        for endpoint in ENDPOINTS:
            answer = await ask(desk, bank, endpoint, desk.headers("compliance"))
            text = await answer.text()
            assert answer.status == 503, text
            assert set(json.loads(text)) == {"error"}
            assert bank.pseudonym("case", "A-1") not in text
        calls.armed = False


async def test_a_ticket_is_sealed_and_a_reference_is_written_nowhere(bank, desk):
    said = {"reference": "A-1", "kind": "case", "purpose": "complaint", "ticket": "ticket of Jane Doe"}
    answer = await desk.client.post("/v1/lookup", json=said, headers=desk.headers("support"))
    assert answer.status == 200
    (entry,) = desk.accesses()
    assert [part["name"] for part in entry["parts"]] == ["ticket"]
    assert "A-1" not in json.dumps(entry)
    for path in desk.journal.rglob("*"):
        if path.is_file():
            assert b"Jane Doe" not in path.read_bytes()


async def test_without_a_purpose_nothing_is_told_not_even_whether_it_exists(bank, desk):
    headers = desk.headers("compliance", purpose=None, ticket=None)
    answers = [
        await desk.client.get(f"/v1/decisions/{identifier}", headers=headers)
        for identifier in (bank.id("denied"), bank.id("foreign"), "019cb404-5608-7000-9643-000000000000")
    ]
    told = [re.sub('"request_id":"[0-9a-f]+"', "", await answer.text()) for answer in answers]
    assert [answer.status for answer in answers] == [428, 428, 428]
    assert len(set(told)) == 1


async def test_support_needs_a_ticket(bank, desk):
    headers = desk.headers("support", ticket=None)
    answer = await desk.client.get(f"/v1/decisions/{bank.id('denied')}", headers=headers)
    assert (answer.status, (await answer.json())["error"]["code"]) == (428, "ticket_required")


async def test_a_purpose_is_stated_once_per_case(bank, desk):
    said = {"reference": "A-1", "kind": "case", "purpose": "complaint", "ticket": "T-1"}
    silent = desk.headers("support", purpose=None, ticket=None)
    found = await (await desk.client.post("/v1/lookup", json=said, headers=silent)).json()
    case = await desk.client.get(found["links"]["self"], headers=silent)
    assert case.status == 200
    for one in (await case.json())["decisions"]:
        assert (await desk.client.get(one["links"]["self"], headers=silent)).status == 200
    other = await desk.client.get(f"/v1/decisions/{bank.id('approved')}", headers=silent)
    assert other.status == 428
    assert {entry["purpose"] for entry in desk.accesses()} == {"complaint"}


async def test_an_unknown_purpose_or_an_endless_ticket_is_refused(bank, desk):
    for headers in (desk.headers("support", purpose="curiosity"), desk.headers("support", ticket="x" * 121)):
        answer = await desk.client.get(f"/v1/decisions/{bank.id('denied')}", headers=headers)
        assert answer.status == 400


async def test_another_tenants_decisions_are_not_there(bank, desk):
    theirs, made_up = bank.id("foreign"), bank.id("foreign")[:-4] + "0000"
    answers = [
        await desk.client.get(f"/v1/decisions/{identifier}{rest}", headers=desk.headers("compliance"))
        for identifier in (theirs, made_up)
        for rest in ("", "/proof")
    ]
    assert {answer.status for answer in answers} == {404}
    foreign = desk.headers("compliance", tenant="other-bank")
    assert (await desk.client.get(f"/v1/decisions/{theirs}", headers=foreign)).status == 200
    listed = await (await desk.client.get(f"/v1/decisions?{PERIOD}", headers=desk.headers("compliance"))).json()
    assert theirs not in [one["id"] for one in listed["decisions"]]


@pytest.mark.parametrize("name", ["cards", "old"])
async def test_what_lies_outside_a_matter_looks_like_what_is_not_there(bank, desk, name):
    headers = desk.headers("regulator", matter=MATTER)
    made_up = bank.id(name)[:-4] + "0000"
    answers = [
        await desk.client.get(f"/v1/decisions/{identifier}", headers=headers) for identifier in (bank.id(name), made_up)
    ]
    told = [re.sub('"request_id":"[0-9a-f]+"', "", await answer.text()) for answer in answers]
    assert [answer.status for answer in answers] == [404, 404]
    assert told[0] == told[1]
    assert [(e["outcome"], e["reason"], e["matter"]) for e in desk.accesses()] == [
        ("refused", "not_found", "2026-17")
    ] * 2
    reference = {"cards": "C-1", "old": "O-1"}[name]
    said = {"reference": reference, "kind": "case", "purpose": "supervision"}
    assert (await desk.client.post("/v1/lookup", json=said, headers=headers)).status == 404
    case = await desk.client.get(f"/v1/cases/{bank.pseudonym('case', reference)}", headers=headers)
    assert case.status == 404


async def test_a_regulator_lists_the_matter_and_cannot_page_out_of_it(bank, desk):
    headers = desk.headers("regulator", matter=MATTER)
    wide = "from=2000-01-01&to=2100-01-01"
    listed = await (await desk.client.get(f"/v1/decisions?{wide}", headers=headers)).json()
    assert {one["route"] for one in listed["decisions"]} == {"mortgage"}
    assert (listed["from"], listed["to"]) == ("2026-02-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z")
    assert bank.id("old") not in [one["id"] for one in listed["decisions"]]
    assert (await desk.client.get(f"/v1/decisions?{wide}&route=cards", headers=headers)).status == 404


async def test_a_regulator_without_a_matter_sees_nothing(bank, desk):
    answer = await desk.client.get(f"/v1/decisions/{bank.id('denied')}", headers=desk.headers("regulator"))
    assert (answer.status, (await answer.json())["error"]["code"]) == (403, "matter_missing")


async def test_a_list_pages_through_everything_once_and_a_changed_cursor_is_refused(bank, desk):
    headers, seen, cursor = desk.headers("compliance"), [], ""
    for _ in range(20):
        page = await (await desk.client.get(f"/v1/decisions?{PERIOD}&limit=3{cursor}", headers=headers)).json()
        seen += [one["id"] for one in page["decisions"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
        last = page["cursor"]
    whole = await (await desk.client.get(f"/v1/decisions?{PERIOD}&limit=500", headers=headers)).json()
    assert seen == [one["id"] for one in whole["decisions"]]
    assert len(set(seen)) == len(seen) == 12
    for changed in (last[:-2] + "AA", last[::-1], "x"):
        answer = await desk.client.get(f"/v1/decisions?{PERIOD}&limit=3&cursor={changed}", headers=headers)
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "cursor_invalid")
    answer = await desk.client.get(f"/v1/decisions?{PERIOD}&label=denied&cursor={last}", headers=headers)
    assert answer.status == 400


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("route=cards", {"cards"}),
        ("label=approved", {"approved", "corrected"}),
        ("direction=favourable", {"approved", "corrected"}),
        ("status=failed", {"failed"}),
        ("reason=R01", {"denied", "erased"}),
        ("model_version=2", set()),
    ],
)
async def test_a_filter_narrows_the_list(bank, desk, query, names):
    found = await (await desk.client.get(f"/v1/decisions?{PERIOD}&{query}", headers=desk.headers("dpo"))).json()
    assert {one["id"] for one in found["decisions"]} == {bank.id(name) for name in names}


async def test_a_call_is_listed_by_its_id_without_a_period(bank, desk):
    headers = desk.headers("compliance")
    found = await (await desk.client.get(f"/v1/decisions?call={bank.id('denied')}", headers=headers)).json()
    (line,) = found["decisions"]
    assert line["call"] == {"id": bank.id("denied"), "row": 0, "rows": 1}
    elsewhere = await (await desk.client.get(f"/v1/decisions?call={bank.id('foreign')}", headers=headers)).json()
    assert elsewhere["decisions"] == []


@pytest.mark.parametrize("query", ["", "from=2026-03-01", "from=2026-03-01&to=2026-02-01", f"{PERIOD}&case=A-1"])
async def test_a_list_without_a_bounded_period_or_with_a_raw_reference_is_refused(desk, query):
    answer = await desk.client.get(f"/v1/decisions?{query}", headers=desk.headers("compliance"))
    assert answer.status == 400
    assert "A-1" not in await answer.text()


async def test_a_model_owners_list_names_nobody(bank, desk):
    found = await (await desk.client.get(f"/v1/decisions?{PERIOD}", headers=desk.headers("model_owner"))).json()
    assert len(found["decisions"]) == 12
    assert {(one["case"], one["subject"]) for one in found["decisions"]} == {(None, None)}


async def test_a_person_is_found_by_reference_and_their_decisions_listed(bank, desk):
    said = {"reference": "S-1", "kind": "subject", "purpose": "access_request"}
    silent = desk.headers("dpo", purpose=None, ticket=None)
    found = await (await desk.client.post("/v1/lookup", json=said, headers=silent)).json()
    listed = await (await desk.client.get(found["links"]["self"], headers=silent)).json()
    assert {one["id"] for one in listed["decisions"]} == {bank.id(n) for n in ("denied", "waiting", "corrected", "old")}
    assert "S-1" not in found["links"]["self"]


def asked_by(reference: str, kind: str = "decision") -> dict[str, str]:
    return {"reference": reference, "kind": kind, "purpose": "complaint", "ticket": "T-1"}


@pytest.mark.parametrize("kind", ["decision", "case"])
async def test_the_reference_that_a_card_gives_leads_back_to_the_decision(bank, desk, kind):
    headers, silent = desk.headers("support"), desk.headers("support", purpose=None, ticket=None)
    denied = bank.id("denied")
    card = await (await desk.client.get(f"/v1/decisions/{denied}", headers=headers)).json()
    given = card["decision"]["reference"]
    assert len(given) == 12
    for spoken in (given, f" {given[:4].upper()} {given[4:8]}-{given[8:]} "):
        found = await (await desk.client.post("/v1/lookup", json=asked_by(spoken, kind), headers=silent)).json()
        assert found == {
            "kind": "decision",
            "pseudonym": None,
            "links": {"self": f"/v1/decisions/{denied}", "page": f"/decisions/{denied}"},
        }
    assert (await desk.client.get(found["links"]["self"], headers=silent)).status == 200
    looks = [(e["action"], e["decision"], e["rows"], e["case"]) for e in desk.accesses()[1:3]]
    assert looks == [("lookup", denied, 1, bank.pseudonym("case", "A-1"))] * 2


async def test_a_whole_decision_number_can_be_looked_up_too(bank, desk):
    said = asked_by(bank.id("denied").upper())
    found = await (await desk.client.post("/v1/lookup", json=said, headers=desk.headers("support"))).json()
    assert found["links"]["page"] == f"/decisions/{bank.id('denied')}"


@pytest.mark.parametrize("name", ["foreign", "cards", "old", "made up"])
@pytest.mark.parametrize("length", [12, 36])
async def test_a_reference_outside_the_scope_leads_nowhere(bank, desk, name, length):
    identifier = bank.id(name) if name in bank.by_name else bank.id("denied")[:-12] + "0" * 12
    headers = desk.headers("regulator", matter=MATTER)
    answer = await desk.client.post("/v1/lookup", json=asked_by(identifier[-length:]), headers=headers)
    assert answer.status == 404
    (entry,) = desk.accesses()
    assert (entry["action"], entry["outcome"], entry["decision"]) == ("lookup", "refused", None)


async def test_a_reference_needs_a_ticket_by_support_and_a_role_that_reads(bank, desk):
    said = {**asked_by(bank.id("denied")[-12:]), "ticket": None}
    answer = await desk.client.post("/v1/lookup", json=said, headers=desk.headers("support"))
    assert (answer.status, (await answer.json())["error"]["code"]) == (428, "ticket_required")
    owner = await desk.client.post("/v1/lookup", json=said, headers=desk.headers("model_owner"))
    assert (await owner.json())["links"]["page"] == f"/decisions/{bank.id('denied')}"
    admin = await desk.client.post("/v1/lookup", json=said, headers=desk.headers("admin"))
    assert (await admin.json())["links"]["page"] == f"/decisions/{bank.id('denied')}/proof"


async def test_a_reference_that_several_decisions_share_leads_to_a_list_of_them(
    tmp_path: Path, request: pytest.FixtureRequest
):
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "data", database=database, keyring=Keyring.open(tmp_path / "data", create=True)
        )
        async with past(records) as writing:
            same = bytes.fromhex("00010203040506ff")
            made = [
                await writing.decide(f"d{days}", at_ns=START_NS - days * DAY_NS, random=same) for days in (0, 1, 500)
            ]
            made.append(await writing.decide("other"))
            await writing.extract(made)
        assert len({one.id[-12:] for one in made}) == 2
        async with running(records, tmp_path) as desk:
            silent = desk.headers("support", purpose=None, ticket=None)
            answer = await desk.client.post("/v1/lookup", json=asked_by(made[0].id[-12:]), headers=silent)
            found = await answer.json()
            assert f"reference={made[0].id[-12:]}" in found["links"]["page"]
            listed = await (await desk.client.get(found["links"]["self"], headers=silent)).json()
            assert [one["id"] for one in listed["decisions"]] == [made[0].id, made[1].id]  # 500 days is too long ago
            assert (await desk.client.get(f"/v1/decisions/{made[1].id}", headers=silent)).status == 200
            assert [entry["rows"] for entry in desk.accesses()] == [2, 2, 1]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("denied", "ready"),
        ("waiting", "pending"),
        ("failed", "failed"),
        ("unbound", "unbound"),
        ("uncertain", "review"),
        ("blocked", "blocked"),
        ("cards", "skipped"),
        ("broken-off", "unanswered"),
        ("erased", "erased"),
    ],
)
async def test_the_state_of_each_explanation_is_told(bank, desk, name, state):
    answer = await desk.client.get(f"/v1/decisions/{bank.id(name)}", headers=desk.headers("support"))
    found = await answer.json()
    assert found["explanation"]["state"] == state
    assert bool(found["card"]["reasons"]) is (state == "ready")


async def test_a_job_that_the_host_holds_is_told(bank, desk):
    desk.jobs[bank.id("waiting")] = Job(JobState.RUNNING)
    answer = await desk.client.get(f"/v1/decisions/{bank.id('waiting')}", headers=desk.headers("support"))
    assert (await answer.json())["explanation"]["state"] == "running"


async def test_erased_content_is_told_and_its_proof_still_stands(bank, desk):
    found = await (
        await desk.client.get(
            f"/v1/decisions/{bank.id('erased')}", headers=desk.headers("regulator", purpose="audit", matter=MATTER)
        )
    ).json()
    assert found["content"]["state"] == "erased"
    assert found["content"]["request"] is None
    assert found["integrity"]["state"] == "proven"


async def test_old_and_corrected_decision_point_at_each_other(bank, desk):
    headers = desk.headers("support")
    old = await (await desk.client.get(f"/v1/decisions/{bank.id('denied')}", headers=headers)).json()
    new = await (await desk.client.get(f"/v1/decisions/{bank.id('corrected')}", headers=headers)).json()
    assert old["decision"]["corrected_by"] == [bank.id("corrected")]
    assert new["decision"]["corrects"] == bank.id("denied")


async def test_a_regulator_is_told_of_no_correction_outside_the_matter(tmp_path: Path, request: pytest.FixtureRequest):
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "data", database=database, keyring=Keyring.open(tmp_path / "data", create=True)
        )
        async with past(records) as writing:
            old = await writing.decide("old", case="A-1", at_ns=START_NS - 60 * DAY_NS)
            first = await writing.decide("first", case="A-1", corrects=old.id)
            second = await writing.decide("second", case="A-1", corrects=first.id, at_ns=START_NS + 1)
            other = await writing.decide("other", case="A-1", route="cards", corrects=first.id, at_ns=START_NS + 2)
            await writing.extract([old, first, second, other])
        async with running(records, tmp_path) as desk:
            for headers, corrects, corrected_by in (
                (desk.headers("regulator", matter=MATTER), None, [second.id]),
                (desk.headers("compliance"), old.id, [other.id, second.id]),
            ):
                found = await (await desk.client.get(f"/v1/decisions/{first.id}", headers=headers)).json()
                assert found["decision"]["corrected_by"] == corrected_by
                assert found["decision"]["corrects"] == corrects
                assert ("corrects" in found["links"]) is (corrects is not None)
                for path in (f"cases/{records.pseudonym('case', 'A-1')}", f"decisions?{PERIOD}&route=mortgage"):
                    listed = await (await desk.client.get(f"/v1/{path}", headers=headers)).json()
                    told = {one["id"]: one["corrects"] for one in listed["decisions"]}
                    assert (told[second.id], told[first.id]) == (first.id, corrects)


async def test_a_proof_can_be_checked_with_the_logs_public_key_alone(bank, desk):
    path = f"/v1/decisions/{bank.id('denied')}/proof"
    told = await (await desk.client.get(path, headers=desk.headers("compliance"))).json()
    public = bank.keyring.log.public_key().public_bytes_raw()
    leaf, origin = unb64(told["entry"]["leaf"]), told["entry"]["origin"]
    proof = check_proof(told["proofs"][0]["text"].encode(), leaf=leaf, origin=origin, public=public)
    assert proof.index == told["entry"]["seq"]
    text = await desk.client.get(path, headers={**desk.headers("compliance"), "Accept": "text/plain"})
    assert (text.content_type, await text.text()) == ("text/plain", told["proofs"][0]["text"])
    assert "attachment" in text.headers["Content-Disposition"]


async def test_before_a_checkpoint_covers_it_a_decision_is_pending_and_its_proof_202(
    tmp_path: Path, request: pytest.FixtureRequest
):
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "data", database=database, keyring=Keyring.open(tmp_path / "data", create=True)
        )
        async with past(records) as writing:
            made = await writing.decide("fresh", case="A-1")
            await writing.extract([made])
        database.command("TRUNCATE TABLE checkpoints")
        async with running(records, tmp_path) as desk:
            answer = await desk.client.get(f"/v1/decisions/{made.id}/proof", headers=desk.headers("admin"))
            assert (answer.status, answer.headers["Retry-After"]) == (202, "5")
            assert (await answer.json())["proofs"] == []
            found = await (await desk.client.get(f"/v1/decisions/{made.id}", headers=desk.headers("support"))).json()
            assert found["integrity"]["state"] == "pending"


async def test_a_changed_entry_is_shown_as_broken(tmp_path: Path, request: pytest.FixtureRequest):
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "data", database=database, keyring=Keyring.open(tmp_path / "data", create=True)
        )
        async with past(records) as writing:
            made = await writing.decide("changed", case="A-1")
            await writing.extract([made])
        changed = """replaceOne(entry, '"status":200', '"status":201')"""
        database.command(
            f"ALTER TABLE entries UPDATE entry = {changed} WHERE id = {{id:UUID}}",
            {"id": made.id},
            settings={"mutations_sync": 2},
        )
        async with running(records, tmp_path) as desk:
            found = await (await desk.client.get(f"/v1/decisions/{made.id}", headers=desk.headers("support"))).json()
            assert found["integrity"]["state"] == "broken"
            page = await desk.client.get(f"/v1/decisions/{made.id}/proof", headers=desk.headers("admin"))
            assert page.status >= 400
            assert set(await page.json()) == {"error"}


async def test_who_looked_is_told_to_compliance_once_it_is_shipped(tmp_path: Path, request: pytest.FixtureRequest):
    with opened(fresh_profile("chdb", request)) as database:
        records = Records(
            data=tmp_path / "data", database=database, keyring=Keyring.open(tmp_path / "data", create=True)
        )
        async with past(records) as writing:
            made = await writing.decide("looked-at", case="A-1", at_ns=START_NS - DAY_NS)
            await writing.extract([made])
        async with running(records, tmp_path) as desk:
            await desk.client.get(
                f"/v1/decisions/{made.id}", headers=desk.headers("support", purpose="complaint", subject="ben")
            )
        (tmp_path / "desk-journal").rename(records.data / "journal" / "desk")
        await asyncio.to_thread(records.ship)
        async with running(records, tmp_path) as desk:
            found = await (await desk.client.get(f"/v1/decisions/{made.id}", headers=desk.headers("compliance"))).json()
            assert [event["detail"] for event in found["timeline"] if event["title"] == "Looked at"] == [
                "ben (support), a complaint"
            ]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic YTpi"}, {"Cookie": "answerable_desk=made-up"}],
)
async def test_without_a_good_token_or_session_the_answer_is_401_in_the_one_shape(bank, desk, headers):
    answer = await desk.client.get(f"/v1/decisions/{bank.id('denied')}", headers=headers)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    error = (await answer.json())["error"]
    assert set(error) == {"code", "message", "advice", "request_id"}
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert desk.accesses() == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/cases/A-1", 404),
        ("GET", "/v1/decisions/A-1", 404),
        ("GET", f"/v1/decisions/{uuid.UUID(int=4)}", 404),
        ("DELETE", "/v1/decisions", 405),
        ("POST", "/v1/lookup", 415),
    ],
)
async def test_every_refusal_has_the_one_shape_and_repeats_no_input(desk, method, path, status):
    answer = await desk.client.request(method, path, headers=desk.headers("compliance"))
    assert answer.status == status
    assert set((await answer.json())["error"]) == {"code", "message", "advice", "request_id"}
    assert "A-1" not in await answer.text()
    assert not [entry for entry in desk.accesses() if "A-1" in json.dumps(entry)]


@pytest.mark.parametrize(
    "said",
    [
        b"not json",
        b"[]",
        b'{"reference": 4711, "kind": "case", "purpose": "audit"}',
        b'{"reference": "", "kind": "case", "purpose": "audit"}',
        b'{"reference": "A-1", "kind": "person", "purpose": "audit"}',
        b'{"reference": "A-1", "kind": "case", "purpose": "none"}',
        b'{"reference": "A-1", "kind": "case", "purpose": "audit", "more": ""}',
        b'{"kind": "case", "purpose": "audit", "reference": "' + b"x" * 300 + b'"}',
    ],
)
async def test_a_lookup_that_is_none_is_refused(desk, said):
    headers = {**desk.headers("compliance"), "Content-Type": "application/json"}
    answer = await desk.client.post("/v1/lookup", data=said, headers=headers)
    assert answer.status == 400
    assert "4711" not in await answer.text()


async def test_a_body_that_is_too_large_is_refused(desk):
    headers = {**desk.headers("compliance"), "Content-Type": "application/json"}
    answer = await desk.client.post("/v1/lookup", data=b" " * 70_000, headers=headers)
    assert (answer.status, (await answer.json())["error"]["code"]) == (413, "body_too_large")


async def test_health_and_readiness_need_no_token_and_say_what_is_wrong(desk):
    assert (await desk.client.get("/healthz")).status == 200
    assert (await desk.client.get("/readyz")).status == 200
    desk.problems.append("the database is away")
    answer = await desk.client.get("/readyz")
    assert (answer.status, (await answer.json())["problems"]) == (503, ["the database is away"])


async def test_the_openapi_document_names_every_route_and_every_status_that_was_seen(desk):
    served = await (await desk.client.get("/openapi.json")).json()
    assert served == json.loads(json.dumps(DOCUMENT))
    assert served["openapi"] == "3.1.0"
    stated = {(method.upper(), path) for path, item in served["paths"].items() for method in item}
    real = {
        (route.method, route.resource.canonical)
        for route in desk.desk.web.router.routes()
        if route.resource is not None
        and route.method in ("GET", "POST", "DELETE")
        and (route.resource.canonical.startswith("/v1/") or route.resource.canonical in ("/healthz", "/readyz"))
    }
    assert stated == real
    for item in served["paths"].values():
        for operation in item.values():
            for reference in re.findall(r'"\$ref": "#/components/([a-zA-Z]+)/([A-Za-z0-9]+)"', json.dumps(operation)):
                assert reference[1] in served["components"][reference[0]]


async def test_the_answers_are_what_the_openapi_document_says(bank, desk):
    schemas = DOCUMENT["components"]["schemas"]
    headers = desk.headers("compliance")
    pages = {
        "Justification": f"/v1/decisions/{bank.id('denied')}",
        "Page": f"/v1/decisions?{PERIOD}",
        "Case": f"/v1/cases/{bank.pseudonym('case', 'A-1')}",
        "Proof": f"/v1/decisions/{bank.id('denied')}/proof",
    }
    for name, path in pages.items():
        found = await (await desk.client.get(path, headers=headers)).json()
        assert set(schemas[name]["required"]) <= set(found), name
        assert set(found) <= set(schemas[name]["properties"]), name
    lines = (await (await desk.client.get(pages["Page"], headers=headers)).json())["decisions"]
    assert set(lines[0]) == set(schemas["Line"]["properties"])


async def test_the_command_why_tells_the_sentences_by_the_tokens_rights(bank, desk):
    found = await desk.desk.why(desk.token("support"), bank.id("denied"), purpose="complaint", ticket="T-9")
    assert found["sentences"][1].startswith("The main things that counted against the application:")
    assert [entry["action"] for entry in desk.accesses()] == ["decision"]


@pytest.fixture
def logged_to() -> Iterator[io.StringIO]:
    """All that loggers of this process write meanwhile, whoever configured them before."""
    before, stream = structlog.get_config(), io.StringIO()
    logs.configure(writer=stream)  # type: ignore[arg-type]  # writes lines too
    yield stream
    structlog.configure(**before)


async def test_no_log_line_holds_an_address_a_reference_or_a_code(bank, desk, logged_to):
    said = {"reference": "A-1", "kind": "case", "purpose": "audit"}
    await desk.client.post("/v1/lookup", json=said, headers=desk.headers("compliance"))
    await desk.client.get(f"/v1/cases/{bank.pseudonym('case', 'A-1')}", headers=desk.headers("compliance"))
    path = desk.desk.invite(subject="amy", roles=["support"])
    await desk.client.get(path)
    logged = logged_to.getvalue()
    assert "/v1/cases/{pseudonym}" in logged
    for secret in ("A-1", bank.pseudonym("case", "A-1"), path.removeprefix("/signin/"), "Bearer"):
        assert secret not in logged
