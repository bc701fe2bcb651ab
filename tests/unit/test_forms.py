"""Forms give the bytes that encoding would give."""

from __future__ import annotations

import orjson

from storage.entries import JSON, NUMBER, TEXT, Draft, Form, Line, decode, encode, finish


def test_a_filled_form_is_the_entry_that_encoding_gives() -> None:
    def draft(identifier: str, count: object, note: object) -> Draft:
        return Draft(
            kind="decision",
            tenant="100 %",
            route='"quoted"',
            actor="app:é",
            id=identifier,
            ts_ns=7,
            decision=identifier,
            config="c" * 64,
            fields={"zeta": {"count": count, "note": note}, "app": "%d %b"},
        )

    form = Form(draft(TEXT, NUMBER, JSON), "d/s/1")
    assert form.blanks == 8
    filled: list[bytes | int] = [b"an-id", b"an-id", b"", 0, 0, b"7", 5, orjson.dumps("two\nlines")]
    line = Line(form, filled, ts_ns=7, closes="an-id")
    wanted = encode(draft("an-id", 5, "two\nlines"), origin="d/s/1", seq=12, scope_seq=3)
    assert finish(line, seq=12, scope_seq=3) == wanted
    assert decode(wanted)["seq"] == 12
