"""The API as OpenAPI 3.1, served at /openapi.json. Tests hold it to what the handlers do."""

from typing import Any, Final

from gateway.desk.evidence import PARTS
from gateway.desk.filters import ROWS_DEFAULT, ROWS_MAX
from gateway.desk.holds import REASON_CHARS_MAX, Action, Basis
from gateway.desk.roles import PURPOSES

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_MAYBE: Final[dict[str, Any]] = {"type": ["string", "null"]}
_TIME: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
_UUID: Final[dict[str, Any]] = {"type": "string", "format": "uuid", "description": "a UUIDv7"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _with(described: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The same object with properties that are not always there."""
    return {**described, "properties": {**described["properties"], **optional}}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _says(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/E{status}"} for status in statuses}


def _query(name: str, schema: dict[str, Any], description: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


_ID: Final = {"name": "id", "in": "path", "required": True, "schema": _UUID}
_PURPOSE: Final = [{"$ref": "#/components/parameters/purpose"}, {"$ref": "#/components/parameters/ticket"}]
_ERRORS: Final = {
    400: "a parameter is missing or not of its kind",
    401: "not signed in, or the token is not good",
    403: "the role may never do this",
    404: "not there, or outside the caller's scope: the two look the same",
    409: "it contradicts what is on record already: answered, released, or asked for before",
    415: "not JSON",
    428: "no purpose (or, for support, no ticket) was stated for this yet",
    503: "the journal or the database is not available; nothing was shown",
}

_ANSWER: Final = _object(label=_MAYBE, direction={"enum": ["favourable", "adverse", None]}, error=_MAYBE)
_SCHEMAS: Final[dict[str, Any]] = {
    "Export": _object(
        id=_TEXT,
        state={"enum": ["making", "ready", "failed"]},
        progress={"type": "object"},
        made={"type": ["object", "null"]},
        error={"type": ["object", "null"]},
        expires=_TIME,
        links={"type": "object"},
    ),
    "Error": _object(error=_object(code=_TEXT, message=_TEXT, advice=_TEXT, request_id=_TEXT)),
    "Link": _object(
        kind={"enum": ["case", "subject", "decision"]}, pseudonym=_MAYBE, links=_object(self=_TEXT, page=_TEXT)
    ),
    "Line": _object(
        id=_UUID,
        reference=_TEXT,
        at=_TIME,
        route=_TEXT,
        app=_TEXT,
        case=_MAYBE,
        subject=_MAYBE,
        corrects=_MAYBE,
        call=_object(id=_TEXT, row={"type": "integer"}, rows={"type": ["integer", "null"]}),
        answer=_ANSWER,
        model=_object(name=_MAYBE, version=_MAYBE),
        status={"type": "integer"},
        stream=_TEXT,
        explanation=_object(state=_TEXT, text=_TEXT),
        links=_object(self=_TEXT, page=_TEXT),
    ),
    "Case": _object(
        case=_TEXT,
        subjects=_list(_TEXT),
        complete={"type": "boolean", "description": "false: only the newest decisions are listed"},
        decisions=_list(_ref("Line")),
        links=_object(self=_TEXT, page=_TEXT),
    ),
    "Page": _object(
        **{"from": _TIME},
        to=_TIME,
        routes={"type": ["array", "null"], "items": _TEXT},
        decisions=_list(_ref("Line")),
        cursor=_MAYBE,
    ),
    "Justification": _object(
        decision={
            "type": "object",
            "description": "the call, its answer and who made it; `case` and `subject` are null where masked",
        },
        model={"type": "object"},
        card=_object(
            say={**_list(_TEXT), "maxItems": 4, "description": "to be said to the person, word by word"},
            lead=_TEXT,
            reasons=_list(_TEXT),
            decided_by={**_TEXT, "description": "for whoever speaks to the person, like the two below"},
            ai_role=_TEXT,
            next_step=_TEXT,
        ),
        explanation={
            "type": "object",
            "description": "its state always; reasons, contributions, quality as the role allows",
        },
        content={"type": "object", "description": "`state`: shown, masked, erased or withheld"},
        timeline=_list(_object(at=_TIME, day=_TEXT, clock=_TEXT, title=_TEXT, detail=_TEXT)),
        integrity={"type": "object", "description": "`state`: proven, pending or broken"},
        masked={**_list(_TEXT), "description": "what was left out for this role"},
        links={"type": "object"},
    ),
    "Proof": {
        "type": "object",
        "properties": {
            "decision": _UUID,
            "entry": _object(origin=_TEXT, seq={"type": "integer"}, leaf=_TEXT),
            "state": {"enum": ["pending", "checkpointed", "included"]},
            "checkpoint_size": {"type": "integer"},
            "log_size": {"type": "integer"},
            "proofs": _list(_object(of=_TEXT, text={"type": "string", "description": "a C2SP tlog-proof"})),
            "links": _object(self=_TEXT, page=_TEXT),
        },
        "required": ["decision", "entry", "state", "proofs", "links"],
    },
    "Hold": _with(
        _object(
            id=_UUID,
            state={"enum": ["requested", "in_force", "released", "rejected", "withdrawn", "lapsed"]},
            scope={"type": "object", "description": "decisions, cases, subjects (pseudonyms), or route, from and to"},
            basis={"enum": list(Basis)},
            by=_TEXT,
            at=_TIME,
            release={**_MAYBE, "description": "the request for its release that waits"},
            entry=_object(origin=_TEXT, seq={"type": "integer"}),
            links={"type": "object"},
        ),
        covers={"type": "integer", "description": "where it was just placed: decisions that are on record now"},
        reason={
            **_MAYBE,
            "description": "of one hold; null: its key is gone, or it is not shipped yet",
        },
    ),
    "Holds": _object(holds=_list(_ref("Hold")), complete={"type": "boolean"}, links={"type": "object"}),
    "Approval": _with(
        _object(
            id=_UUID,
            action={"enum": list(Action)},
            object={**_UUID, "description": "the hold"},
            state={"enum": ["waiting", "approved", "rejected", "withdrawn", "lapsed"]},
            by=_TEXT,
            at=_TIME,
            mine={"type": "boolean"},
            decided_by=_MAYBE,
            decided_at=_MAYBE,
            links={"type": "object"},
        ),
        reason={**_MAYBE, "description": "in the list of what waits, like `hold`"},
        hold=_ref("Hold"),
    ),
    "Approvals": _object(approvals=_list(_ref("Approval")), complete={"type": "boolean"}, links={"type": "object"}),
    "Health": _object(status=_TEXT),
}

_LOOKUP: Final = {
    "operationId": "lookup",
    "summary": "Find a case or person by the customer's reference, or a decision by its id or the"
    " twelve characters that a call card gives; the purpose then holds for it",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "reference": {"type": "string", "maxLength": 200},
                        "kind": {"enum": ["case", "subject", "decision"]},
                        "purpose": {"enum": list(PURPOSES)},
                        "ticket": {"type": "string", "maxLength": 120},
                    },
                    "required": ["reference", "kind", "purpose"],
                }
            }
        },
    },
    "responses": {"200": _says("A pseudonymous link", "Link"), **_errors(400, 401, 403, 404, 415, 428, 503)},
}
_DECISIONS: Final = {
    "operationId": "decisions",
    "summary": "A page of decisions, newest first; a bounded period is required",
    "parameters": [
        _query("from", _TEXT, "ISO 8601, inclusive", required=True),
        _query("to", _TEXT, "ISO 8601, exclusive", required=True),
        _query("route", _TEXT, "name of a route"),
        _query("label", _TEXT, "the answer's label"),
        _query("direction", {"enum": ["favourable", "adverse"]}, "which way the answer went"),
        _query("case", _TEXT, "a case's pseudonym"),
        _query("subject", _TEXT, "a person's pseudonym"),
        _query("model_version", _TEXT, "the model's version"),
        _query("reason", _TEXT, "the code of a principal reason"),
        _query("reference", _TEXT, "how the decision's id ends: the twelve characters that a call card gives"),
        _query("call", _TEXT, "the id of a call: its rows; then from and to may be missing"),
        _query("status", {"enum": ["ready", "failed", "none"]}, "state of the newest explanation"),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": ROWS_MAX, "default": ROWS_DEFAULT}, "rows"),
        _query("cursor", _TEXT, "from the page before"),
        *_PURPOSE,
    ],
    "responses": {"200": _says("A page", "Page"), **_errors(400, 401, 403, 404, 428, 503)},
}


def _get(operation: str, summary: str, schema: str, parameters: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "parameters": parameters,
            "responses": {"200": _says(summary, schema), **_errors(401, 403, 404, 428, 503), **more},
        }
    }


_OPEN: Final[list[Any]] = []
_EXPORT_ID: Final = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
_EVIDENCE: Final[dict[str, Any]] = {
    "operationId": "evidence",
    "summary": "Begin to make an evidence bundle; the look is on record before it begins",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "purpose": {"enum": list(PURPOSES)},
                        "ticket": _MAYBE,
                        "decisions": _list(_UUID),
                        "case": _MAYBE,
                        "subject": _MAYBE,
                        "route": _MAYBE,
                        "from": _MAYBE,
                        "to": _MAYBE,
                        "everything": {"type": "boolean"},
                        "parts": _list({"enum": list(PARTS)}),
                    },
                    "required": ["purpose"],
                }
            }
        },
    },
    "responses": {
        "202": _says("It is being made; see Location", "Export"),
        **_errors(400, 401, 403, 404, 415, 428, 503),
    },
}
_WHY: Final = {"type": "string", "maxLength": REASON_CHARS_MAX, "description": "in your words; stored sealed"}


def _does(operation: str, summary: str, required: list[str], asked: dict[str, Any], **answers: Any) -> dict[str, Any]:
    """An operation whose body states purpose and ticket beside what is asked for."""
    properties = {"purpose": {"enum": list(PURPOSES)}, "ticket": _MAYBE, **asked}
    schema = {"type": "object", "properties": properties, "required": ["purpose", *required]}
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {**answers, **_errors(400, 401, 403, 404, 409, 415, 428, 503)},
    }


_PLACE: Final = _does(
    "placeHold",
    "Keep decisions, a case, a person or a route's period until two people release it",
    ["basis", "reason"],
    {
        "basis": {"enum": list(Basis)},
        "reason": _WHY,
        "decisions": _list(_UUID),
        "case": _MAYBE,
        "subject": _MAYBE,
        "route": _MAYBE,
        "from": _MAYBE,
        "to": _MAYBE,
    },
    **{
        "201": _says("It is in force; `covers` decisions that are on record now", "Hold"),
        "202": _says("Your role may only ask: it waits for a second person", "Hold"),
    },
)
_RELEASE: Final = _does(
    "releaseHold",
    "Ask for a hold's release",
    ["reason"],
    {"reason": _WHY},
    **{"202": _says("The request, which waits for a second person", "Approval")},
)
_DECIDE: Final = _does(
    "decideApproval",
    "Answer a request as the second person, or withdraw one's own",
    ["verdict", "reason"],
    {"verdict": {"enum": ["approve", "reject", "withdraw"]}, "reason": _WHY},
    **{"200": _says("The request as it stands now", "Approval")},
)
DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Answerable: the justification API",
        "version": "1",
        "description": "Why a model's decision came out as it did, and the proof that the record is what was recorded."
        " Every individual read is itself recorded before anything is returned.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "security": [{"bearer": []}, {"session": []}],
    "paths": {
        "/v1/lookup": {"post": _LOOKUP},
        "/v1/cases/{pseudonym}": _get(
            "case",
            "Everything that happened in one case",
            "Case",
            [{"name": "pseudonym", "in": "path", "required": True, "schema": _TEXT}, *_PURPOSE],
        ),
        "/v1/decisions": {"get": _DECISIONS},
        "/v1/decisions/{id}": _get("decision", "The justification of one decision", "Justification", [_ID, *_PURPOSE]),
        "/v1/decisions/{id}/proof": _get(
            "proof",
            "The two proofs that the decision's entry stands in its ledger, and that one in the log of logs",
            "Proof",
            [
                _ID,
                _query("format", {"enum": ["text", "log"]}, "one tlog-proof alone, as text: the first, or the second"),
                *_PURPOSE,
            ],
            **{"202": _says("The log of logs does not hold a checkpoint over the entry yet; see Retry-After", "Proof")},
        ),
        "/v1/evidence": {"post": _EVIDENCE},
        "/v1/evidence/{id}": _get("export", "How far a bundle of yours is", "Export", [_EXPORT_ID]),
        "/v1/evidence/{id}/file": {
            "get": {
                "operationId": "exportFile",
                "summary": "The bundle, for an hour",
                "parameters": [_EXPORT_ID],
                "responses": {
                    "200": {"description": "The bundle", "content": {"application/zip": {}}},
                    **_errors(401, 403, 404),
                },
            }
        },
        "/v1/holds": {
            "post": _PLACE,
            **_get("holds", "Holds, newest first: all of them, or those that you asked for", "Holds", [*_PURPOSE]),
        },
        "/v1/holds/{id}": {
            "delete": {**_RELEASE, "parameters": [_ID]},
            **_get("hold", "One hold, with its reason", "Hold", [_ID, *_PURPOSE]),
        },
        "/v1/approvals": _get("approvals", "What waits for a second person", "Approvals", [*_PURPOSE]),
        "/v1/approvals/{id}": {"post": {**_DECIDE, "parameters": [_ID]}},
        "/healthz": {
            "get": {
                "operationId": "healthz",
                "security": _OPEN,
                "responses": {"200": _says("The process answers", "Health")},
            }
        },
        "/readyz": {
            "get": {
                "operationId": "readyz",
                "security": _OPEN,
                "responses": {
                    "200": _says("Ready", "Health"),
                    "503": _says("Not ready; `problems` says why", "Health"),
                },
            }
        },
    },
    "components": {
        "schemas": _SCHEMAS,
        "responses": {f"E{status}": _says(text, "Error") for status, text in _ERRORS.items()},
        "parameters": {
            "purpose": {
                "name": "Answerable-Purpose",
                "in": "header",
                "schema": {"enum": list(PURPOSES)},
                "description": "Why you look; needed once per case, then remembered for a session's time.",
            },
            "ticket": {
                "name": "Answerable-Ticket",
                "in": "header",
                "schema": {"type": "string", "maxLength": 120},
                "description": "The ticket you work on; the role support needs one.",
            },
        },
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "session": {"type": "apiKey", "in": "cookie", "name": "answerable_desk"},
        },
    },
}
