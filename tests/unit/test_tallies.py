"""What entries say of each other: the rows of a call count as one, and follow each other."""

from typing import Any

import pytest

from storage.findings import Findings
from storage.tallies import Tallies

ID = "01890a5d-ac96-774b-bcce-b302099a80%02x"


def row(number: int, of: int | None, *, call: int = 0) -> dict[str, Any]:
    said = {"request_id": ID % (call * 16), "row": number, "rows": of}
    return {"kind": "decision", "id": ID % (call * 16 + number), "call": said}


def heartbeat(closed: int) -> dict[str, Any]:
    counters = {"accepted": closed, "closed": closed, "open": 0, "lost": 0, "shed": 0}
    return {"kind": "heartbeat", "tenant": "*", "route": None, "counters": counters, "sheet": 0, "sheets": 1}


def fed(entries: list[dict[str, Any]]) -> Findings:
    findings = Findings("d/gateway-0/1")
    tallies = Tallies(findings)
    scopes: dict[tuple[str, str | None], int] = {}
    for seq, entry in enumerate(entries):
        said = {"tenant": "acme", "route": "r", "decision": entry.get("id"), "at": seq, **entry}
        scope = (said["tenant"], said["route"])
        said["scopes"] = [[*one, count] for one, count in scopes.items()]
        tallies.feed(seq, {**said, "scope_seq": scopes.get(scope, 0)}, 202601)
        scopes[scope] = scopes.get(scope, 0) + 1
    return findings


def broken(entries: list[dict[str, Any]]) -> list[int | None]:
    return [finding.seq for finding in fed(entries).claims() if finding.verdict.name == "FAIL"]


def test_the_rows_of_a_call_are_one_call_that_was_closed() -> None:
    rows = [row(number, 3) for number in range(3)]
    assert broken([*rows, row(0, 1, call=1), row(0, None, call=2), heartbeat(3)]) == []
    assert broken([*rows, heartbeat(3)]) == [3]


@pytest.mark.parametrize(
    ("entries", "at"),
    [
        ([row(0, 3), row(2, 3)], 1),
        ([row(1, 3), row(2, 3)], 0),
        ([row(0, 3), row(1, 3), row(0, 1, call=1)], 2),
        ([row(0, 2), row(1, 2, call=1)], 1),
        ([row(0, 3), row(1, 4)], 1),
        ([row(0, 2), heartbeat(1), row(1, 2)], 1),
    ],
)
def test_a_row_that_does_not_follow_the_one_before_is_found(entries: list[dict[str, Any]], at: int) -> None:
    assert broken(entries)[0] == at
