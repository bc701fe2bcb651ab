"""Dossiers for tests of what the desk tells: real records, made in memory."""

from dataclasses import replace
from typing import Any

from config.route import Route
from gateway.desk.records import Content, Decision, Dossier, Explanation, Look, Seal
from gateway.desk.roles import Viewer, viewer
from storage.queries import ExplanationRow
from tests.support.desks import START_NS, body

ROUTE = Route.model_validate(
    {
        "name": "mortgage",
        "prefix": "/m",
        "upstream": "http://127.0.0.1:9",
        "model": {"name": "mortgage-approval"},
        "extract": {"label": "label"},
    }
)


def who(*roles: str) -> Viewer:
    """A viewer."""
    matter = {"id": "m", "routes": ["mortgage"], "from": "2000-01-01", "to": "2100-01-01"}
    trying = "developer" in roles
    return viewer(tenant="t", issuer="i", subject="amy", roles=frozenset(roles), matter=matter, trying=trying)


def decision(**changes: Any) -> Decision:
    """An adverse decision."""
    said: dict[str, Any] = {
        "id": "019cb404-5608-7000-9643-c0a3400e14e4",
        "ts_ns": START_NS,
        "tenant": "t",
        "route": "mortgage",
        "app": "branch-office",
        "case": "2026-01-01." + "c" * 43,
        "subject": "2026-01-01." + "s" * 43,
        "purpose": "credit",
        "corrects": None,
        "label": "denied",
        "favourable": False,
        "score": 0.312,
        "extraction_error": None,
        "extractor": "e" * 64,
        "model_name": "mortgage-approval",
        "model_version": "2026.1",
        "model_digest": "ab12" * 16,
        "model_source": "announced",
        "status": 200,
        "error": None,
        "mode": "strict",
        "stream": "complete",
        "upstream_us": 4_120,
        "total_us": 6_900,
        "config": "9f" * 32,
        "retention": "default",
        "origin": "bank/gateway-0/1",
        "seq": 7,
        "leaf": b"l" * 32,
        "extraction_origin": "bank/keeper/1",
        "extraction_seq": 3,
    }
    return Decision(**{**said, **changes})


def explanation(explained: dict[str, Any] | None, *, erased: bool = False, **changes: Any) -> Explanation:
    """An explanation with `explained` as its body; failed where there is none."""
    said = explained or {}
    row: dict[str, Any] = {
        "id": "019cb404-5888-7000-9643-c0a3400e14e4",
        "decision": "019cb404-5608-7000-9643-c0a3400e14e4",
        "ts_ns": START_NS + 640_000_000,
        "tenant": "t",
        "route": "mortgage",
        "key": "k",
        "state": "failed" if explained is None else "ready",
        "error": "features_missing" if explained is None else None,
        "method": "interventional-treeshap",
        "verdict": said.get("verdict", "failed"),
        "binding": said.get("binding"),
        "notice": said.get("notice", "human"),
        "codes": (),
        "model_digest": "ab12" * 16,
        "origin": "bank/keeper/1",
        "seq": 5,
        "leaf": b"e" * 32,
    }
    return Explanation(row=ExplanationRow(**{**row, **changes}), body=None if erased else explained)


def dossier(**changes: Any) -> Dossier:
    """A refused application, explained and proven."""
    look: dict[str, Any] = {
        "id": "x",
        "decision": "d",
        "ts_ns": START_NS + 90_000_000_000,
        "tenant": "t",
        "route": "mortgage",
        "actor": "https://login.example|ben",
        "role": "support",
        "action": "decision",
        "purpose": "customer_question",
        "ticket": None,
        "case": None,
        "subject": None,
        "outcome": "granted",
        "reason": None,
        "rows": 1,
        "matter": None,
        "origin": "bank/keeper/1",
        "seq": 9,
        "leaf": b"a" * 32,
    }
    made = Dossier(
        decision=decision(),
        entry={"timing": {"received_ns": str(START_NS - 7_000_000)}, "config": "9f" * 32},
        entry_leaf=b"l" * 32,
        content=Content(
            request=b'{"applicant": {"name": "Jane Doe", "income": 2500, "married": true, "note": null}}',
            request_media="application/json",
            response=b'{"label": "denied"}',
            response_media="application/json",
            erased=False,
        ),
        explanations=(explanation(body()),),
        extracted_ns=START_NS + 310_000_000,
        corrected_by=(),
        looks=(Look(**look),),
        damage=None,
        sealed=Seal(state="proven", detail="checked", size=16),
    )
    return replace(made, **changes)
