"""What entries of holds and approvals come to: the rules of the second person, whoever wrote the entries."""

from typing import Any

import orjson
import pytest

from gateway.desk.errors import RequestError
from gateway.desk.holds import DECISIONS_MAX, REQUEST_NS, HoldRequest, Standing, standing
from storage.rows import EntryRow

AMY, BOB = "i|amy", "i|bob"


class Written:
    """Entries, one after the other."""

    def __init__(self) -> None:
        self.rows: list[EntryRow] = []

    def add(self, kind: str, actor: str, *, at: int | None = None, **said: Any) -> str:
        number = len(self.rows) + 1
        at = number * 1_000 if at is None else at
        entry = orjson.dumps({"kind": kind, "actor": actor, **said})
        name = f"entry-{number}"
        self.rows.append(EntryRow(origin="o", seq=number, id=name, kind=kind, ts_ns=at, entry=entry, leaf=b"\x01" * 32))
        return name

    def place(self, actor: str = AMY, event: str = "placed", **scope: Any) -> str:
        return self.add("hold", actor, event=event, scope=scope or {"cases": ["c"]}, basis="audit")

    def ask(self, hold: str, actor: str = AMY) -> str:
        return self.add("approval", actor, event="requested", action="hold_release", object=hold)

    def say(self, request: str, verdict: str, actor: str = BOB, **more: Any) -> str:
        return self.add("approval", actor, event=verdict, request=request, **more)

    def now(self, now_ns: int = 1_000_000) -> Standing:
        return standing(self.rows, now_ns=now_ns)


def test_a_hold_is_in_force_until_two_people_release_it() -> None:
    written = Written()
    hold = written.place()
    assert written.now().holds[hold].state == "in_force"
    request = written.ask(hold)
    assert written.now().holds[hold].state == "in_force"
    assert written.now().releases.get(hold).id == request
    written.say(request, "approved")
    assert written.now().holds[hold].state == "released"
    assert written.now().in_force == ()
    assert written.now().approvals[request].decided_by == BOB
    assert written.now().releases.get(hold) is None


@pytest.mark.parametrize(("verdict", "state"), [("approved", "in_force"), ("rejected", "rejected")])
def test_a_hold_that_was_asked_for_waits_for_the_second_person(verdict: str, state: str) -> None:
    written = Written()
    hold = written.place(event="requested")
    assert written.now().holds[hold].state == "requested"
    assert written.now().approvals[hold].state == "waiting"
    written.say(hold, verdict)
    assert written.now().holds[hold].state == state


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
def test_ones_own_verdict_counts_for_nothing(verdict: str) -> None:
    written = Written()
    hold = written.place()
    request = written.ask(hold)
    written.say(request, verdict, actor=AMY)
    assert written.now().approvals[request].state == "waiting"
    assert written.now().holds[hold].state == "in_force"


def test_only_whoever_asked_withdraws() -> None:
    written = Written()
    request = written.ask(written.place())
    written.say(request, "withdrawn", actor=BOB)
    assert written.now().approvals[request].state == "waiting"
    written.say(request, "withdrawn", actor=AMY)
    assert written.now().approvals[request].state == "withdrawn"


def test_the_first_verdict_stands() -> None:
    written = Written()
    hold = written.place()
    request = written.ask(hold)
    written.say(request, "rejected")
    written.say(request, "approved", actor="i|cleo")
    assert written.now().approvals[request].state == "rejected"
    assert written.now().holds[hold].state == "in_force"


def test_a_request_lapses_and_a_verdict_after_that_counts_for_nothing() -> None:
    written = Written()
    hold = written.place()
    request = written.ask(hold)
    asked_ns = written.rows[-1].ts_ns
    assert written.now(asked_ns + REQUEST_NS).approvals[request].state == "waiting"
    assert written.now(asked_ns + REQUEST_NS + 1).approvals[request].state == "lapsed"
    written.say(request, "approved", at=asked_ns + REQUEST_NS + 1)
    assert written.now(asked_ns + REQUEST_NS + 2).approvals[request].state == "lapsed"
    assert written.now(asked_ns + REQUEST_NS + 2).holds[hold].state == "in_force"


def test_a_verdict_from_before_its_request_counts_for_nothing() -> None:
    written = Written()
    hold = written.place()
    request = written.ask(hold)
    written.say(request, "approved", at=1)
    assert written.now().holds[hold].state == "in_force"


def test_a_release_of_one_hold_leaves_another_alone() -> None:
    written = Written()
    one, other = written.place(), written.place()
    written.say(written.ask(one), "approved")
    assert [hold.id for hold in written.now().in_force] == [other]


def test_what_is_no_statement_of_ours_counts_for_nothing() -> None:
    written = Written()
    written.add("hold", AMY, event="placed", scope="everything", basis="audit")
    written.add("hold", AMY, event="renamed", scope={"cases": ["c"]}, basis="audit")
    written.add("approval", AMY, event="requested", action="model_promote", object="x")
    written.say("entry-3", "approved")
    written.say("nowhere", "approved")
    now = written.now()
    assert (now.holds, now.approvals) == ({}, {})


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ({"decisions": ["d", "e"]}, True),
        ({"decisions": ["e"]}, False),
        ({"cases": ["c", "old-c"]}, True),
        ({"cases": ["x"]}, False),
        ({"subjects": ["s"]}, True),
        ({"subjects": ["x"]}, False),
        ({"route": "loans", "from_ns": "10", "to_ns": "11"}, True),
        ({"route": "loans", "from_ns": "11", "to_ns": "12"}, False),
        ({"route": "loans", "from_ns": "9", "to_ns": "10"}, False),
        ({"route": "cards", "from_ns": "0", "to_ns": "20"}, False),
    ],
)
def test_a_hold_covers_what_its_scope_names(scope: dict[str, Any], covered: bool) -> None:
    written = Written()
    hold = written.place(**scope)
    about = {"decision": "d", "case": "c", "subject": "s", "route": "loans", "ts_ns": 10}
    assert written.now().holds[hold].covers(**about) is covered
    bare = {"decision": "d", "case": None, "subject": None, "route": None, "ts_ns": 10}
    assert written.now().holds[hold].covers(**bare) is (covered and "decisions" in scope)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"basis": "audit", "reason": "r"}, "say what for"),
        ({"basis": "audit", "reason": "r", "case": "1", "subject": "2"}, "or a case, or a subject"),
        ({"basis": "audit", "reason": "r", "everything": True}, "no `everything`"),
        ({"basis": "audit", "reason": "r", "case": "1", "parts": ["request"]}, "no `parts`"),
        ({"basis": "whim", "reason": "r", "case": "1"}, "`basis` is one of"),
        ({"reason": "r", "case": "1"}, "`basis` is one of"),
        ({"basis": ["audit"], "reason": "r", "case": "1"}, "`basis` is one of"),
        ({"basis": "audit", "case": "1"}, "`reason` has"),
        ({"basis": "audit", "reason": " ", "case": "1"}, "`reason` has"),
        ({"basis": "audit", "reason": "r" * 2_001, "case": "1"}, "`reason` has"),
        ({"basis": "audit", "reason": "r", "route": "loans"}, "go together"),
        ({"basis": "audit", "reason": "r", "case": "1", "colour": "red"}, "no member is called colour"),
        ({"basis": "audit", "reason": "r", "decisions": ["d"] * 3 + [str(n) for n in range(DECISIONS_MAX)]}, "at most"),
    ],
)
def test_what_is_no_hold_is_refused_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        HoldRequest.parse(given)
