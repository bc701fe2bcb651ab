"""`answerable reconcile`: a loan book against the decisions on record, both ways, with a real keeper."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from gateway import development
from gateway.keeper.commands import Commands
from gateway.keeper.keeper import Keeper
from gateway.keeper.socket import Listener, command
from tests.support.keeping import ROUTE, Gateway, kept, written
from tests.support.loans import Loans

pytestmark = pytest.mark.asyncio(loop_scope="module")
CALLS = 12


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Loans:
    return Loans(tmp_path_factory.mktemp("loans"))


@dataclass
class Bank:
    keeper: Keeper
    labels: dict[str, str]  # case → what the model answered

    @property
    def data(self) -> Path:
        return self.keeper.parts.configuration.data

    async def reconcile(self, path: Path, *roles: str, **more: Any) -> dict[str, Any]:
        token = development.sign(
            self.data,
            subject="ann",
            roles=list(roles) or ["compliance"],
            tenant="default",
            expires_s=int(time.time()) + 60,
        )
        asked = {"file": str(path), "case": "loan", "token": token, "purpose": "audit"} | more
        return [one async for one in command(self.data, "reconcile", asked)][-1]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory, loans: Loans) -> AsyncIterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    configuration = written(folder, loans=loans, routes=[ROUTE | {"explain": {"when": "never"}}])
    gateway = await Gateway.open(configuration, loans)
    async with kept(configuration) as keeper:
        listener = Listener(configuration.data, Commands(keeper.parts, keeper).table())
        await listener.start()
        labels = {}
        for number in range(CALLS):
            await gateway.decide(number)
            asked, answered = (orjson.loads(body) for body in gateway.bodies(number))
            labels[asked["case"]] = answered["decision"]
        [one async for one in command(configuration.data, "settle", {})]
        yield Bank(keeper, labels)
        await listener.close()
    await gateway.close()


def book(path: Path, rows: list[tuple[str, str]], *, delimiter: str = ",", bom: bool = False) -> Path:
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(["loan", "outcome", "note"])
        out.writerows([case, outcome, 'said "so", and\nmore'] for case, outcome in rows)
    return path


def outcomes(bank: Bank) -> list[tuple[str, str]]:
    return [(case, "paid out" if label == "approved" else "turned down") for case, label in bank.labels.items()]


COMPARED = {"disposition": "outcome", "favourable": ["paid out"], "adverse": ["turned down"]}


async def test_a_book_that_says_what_the_ledger_says_agrees(bank: Bank, tmp_path: Path) -> None:
    path = book(tmp_path / "book.csv", outcomes(bank), bom=True)
    last = await bank.reconcile(path, **COMPARED)
    assert last["exit"] == 0, last
    found = last["result"]
    assert (found["listed"], found["matched"], found["decisions"]) == (CALLS, CALLS, CALLS)
    assert set(found["counts"].values()) == {0}
    assert found["ledgers"]["test/gateway-0/1"] > CALLS
    assert found["list_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


async def test_each_sort_of_difference_is_found_and_written_with_the_books_own_references(
    bank: Bank, tmp_path: Path
) -> None:
    rows = outcomes(bank)
    gone = rows.pop(0)[0]
    wrong_case, said = rows[0]
    rows[0] = (wrong_case, "turned down" if said == "paid out" else "paid out")
    rows[1] = (rows[1][0], "withdrawn")
    rows += [("never asked for", "paid out"), ("=cmd()", "paid out"), rows[3]]
    out = tmp_path / "findings.csv"
    path = book(tmp_path / "book.csv", rows, delimiter=";")
    last = await bank.reconcile(path, out=str(out), delimiter=";", **COMPARED)
    assert last["exit"] == 1
    counts = last["result"]["counts"]
    assert counts == {
        "case_without_decision": 2,
        "decision_without_case": 1,
        "label_contradicts_disposition": 1,
        "decision_names_no_case": 0,
        "cannot_be_compared": 1,
        "case_listed_twice": 1,
    }
    with out.open(newline="") as file:
        written_ = list(csv.DictReader(file))
    assert len(written_) == sum(counts.values())
    by = {row["finding"]: row for row in written_}
    assert by["label_contradicts_disposition"]["case"] == wrong_case
    assert by["decision_without_case"]["case"] == "", "the ledger knows a case by its pseudonym alone"
    assert by["decision_without_case"]["decision"]
    assert {row["case"] for row in written_ if row["finding"] == "case_without_decision"} == {
        "never asked for",
        "'=cmd()",
    }
    assert oct(out.stat().st_mode & 0o777) == "0o600"
    assert gone not in out.read_text()
    again = await bank.reconcile(path, out=str(out), delimiter=";")
    assert again["error"]["code"] == "out_unwritable"


async def test_without_a_disposition_cases_alone_are_compared_in_a_period(bank: Bank, tmp_path: Path) -> None:
    path = book(tmp_path / "book.csv", outcomes(bank))
    assert (await bank.reconcile(path))["exit"] == 0
    last = await bank.reconcile(path, **{"from": "2001-01-01", "to": "2002-01-01"})
    assert (last["exit"], last["result"]["counts"]["case_without_decision"], last["result"]["decisions"]) == (
        1,
        CALLS,
        0,
    )
    last = await bank.reconcile(path, route="elsewhere")
    assert last["result"]["counts"]["case_without_decision"] == CALLS


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        (b"", {}, "empty"),
        (b"loan,loan\n1,2\n", {}, "more than one column is called loan"),
        (b"id,outcome\n1,2\n", {}, "no column is called loan; there are id, outcome"),
        (b"loan,outcome\n1,2\n3\n", {}, "line 3: 1 cells under 2 columns"),
        (b"loan,outcome\n1,2\n ,3\n", {}, "line 3, column loan: expected 1 to 200 characters"),
        (b"loan\n\xff\xfe\n", {}, "not UTF-8"),
        (b'loan\n"1\n', {}, "after row 1"),
        (b"loan\n1\n", {"disposition": "outcome"}, "no column is called outcome"),
        (b"loan\n1\n", {"from": "soon"}, "`from` is a date"),
        (b"loan\n1\n", {"from": "2026-01-02", "to": "2026-01-01"}, "not before"),
        (b"loan\n1\n", {"delimiter": "::"}, "one character"),
        (b"loan\n1\n", {"purpose": "curiosity"}, "the purpose is one of"),
    ],
)
async def test_what_is_no_book_is_named(
    bank: Bank, tmp_path: Path, content: bytes, more: dict[str, Any], says: str
) -> None:
    (tmp_path / "book.csv").write_bytes(content)
    last = await bank.reconcile(tmp_path / "book.csv", **more)
    assert (last["exit"], says in last["error"]["message"]) == (2, True), last


async def test_it_is_for_those_who_may_join_references_with_decisions_and_is_on_record(
    bank: Bank, tmp_path: Path
) -> None:
    path = book(tmp_path / "book.csv", outcomes(bank))
    for role in ("support", "model_owner", "admin", "auditor"):
        assert (await bank.reconcile(path, role))["error"]["code"] == "role_forbidden"
    assert (await bank.reconcile(tmp_path / "none.csv"))["error"]["message"].endswith("No such file or directory")
    [one async for one in command(bank.data, "settle", {})]
    rows = bank.keeper.parts.database.rows("SELECT entry FROM entries WHERE kind = 'access'")
    looks = [look for (raw,) in rows if (look := orjson.loads(raw))["action"] == "reconcile"]
    assert {look["outcome"] for look in looks} == {"granted", "refused"}
    everything = b"".join(raw for (raw,) in rows)
    assert not any(case.encode() in everything for case in bank.labels)


async def test_a_long_book_is_read_in_bounded_memory(bank: Bank, tmp_path: Path) -> None:
    rows = [(f"case {number}", "paid out") for number in range(20_000)]
    last = await bank.reconcile(book(tmp_path / "book.csv", rows))
    assert last["result"]["counts"]["case_without_decision"] == 20_000
    assert len(last["result"]["shown"]["case_without_decision"]) == 20
