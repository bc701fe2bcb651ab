"""Redaction under Hypothesis: what is valid is found wherever it stands; what is not is left byte for byte."""

from __future__ import annotations

import hmac
import json
from typing import Any

import orjson
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config.redaction import Redact
from gateway.proxy.detectors import DIGITS_MAX, DIGITS_MIN, IBANS, Detectors, is_card
from gateway.proxy.redact import Side
from gateway.proxy.spelling import Meant
from storage.ids import b64

DETECT = Redact.model_validate({"detect": ["card", "iban"]})
RULES = Redact.model_validate(
    {
        "request": [
            {"path": "**.a", "how": "hash"},
            {"path": "b[*].*", "how": "token"},
            {"path": "c", "how": "mask", "last": 4},
            {"path": "**.d[*]", "how": "drop"},
        ],
        "detect": ["card", "iban"],
    }
)
FREE, RULED = (Side.of(redact.request, redact, route="m", bytes_max=1 << 20) for redact in (DETECT, RULES))
DETECTORS = Detectors(["card", "iban"])
PREFIXES = ("4", "51", "2221", "2720", "34", "37", "36", "6011", "644", "3528", "62", "5018", "6759", "2200", "9792")


def keyed(kind: str, value: str) -> str:
    return "p." + b64(hmac.digest(b"k", f"{kind}|{value}".encode("utf-8", "surrogatepass"), "sha256"))


def copied(side: Side | None, raw: bytes, media: str = "application/json") -> Any:
    assert side is not None
    return side.copy(raw, media=media, coding="", keyed=keyed)


@st.composite
def cards(draw: st.DrawFn) -> str:
    prefix = draw(st.sampled_from(PREFIXES))
    length = draw(st.integers(DIGITS_MIN, DIGITS_MAX))
    digits = prefix + draw(st.text("0123456789", min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1))
    (card,) = [digits + check for check in "0123456789" if is_card(digits + check)] or [""]
    assume(card)
    separator = draw(st.sampled_from(["", "", " ", "-", "\u00a0", " - "]))
    return separator.join(card[at : at + 4] for at in range(0, len(card), 4))


@st.composite
def ibans(draw: st.DrawFn) -> str:
    country = draw(st.sampled_from(sorted(IBANS)))
    structure = IBANS[country][0].pattern.removeprefix(r"\d{2}").replace(r"\d", "0-9").replace("0-9{", "[0-9]{")
    bban = draw(st.from_regex(structure, fullmatch=True))
    number = int("".join(str(int(char, 36)) for char in f"{bban}{country}00"))
    spelled = f"{country}{98 - number % 97:02d}{bban}"
    return draw(st.sampled_from([spelled, " ".join(spelled[at : at + 4] for at in range(0, len(spelled), 4))]))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd") | TEXTS, inner, max_size=4),
    max_leaves=12,
)
SPELLINGS = st.sampled_from(
    [
        orjson.dumps,
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, indent=2, ensure_ascii=False).encode(),
    ]
)


@st.composite
def documents(draw: st.DrawFn, number: str) -> tuple[Any, str]:
    """A JSON document with a number in one of its texts, keys and values; and that text."""
    text = f"{draw(TEXTS)} \u2022 {number} \u2022 {draw(TEXTS)}"
    place = draw(st.sampled_from(["value", "key", "element"]))
    rest = draw(st.dictionaries(TEXTS, VALUES, max_size=4))
    return {**rest, **({text: 1} if place == "key" else {"x": text} if place == "value" else {"x": [1, text]})}, text


@given(st.data(), cards() | ibans(), SPELLINGS)
@settings(max_examples=400, deadline=None)
def test_each_valid_number_in_any_json_text_is_found(data: st.DataObject, number: str, spell: Any):
    document, _ = data.draw(documents(number))
    hidden = copied(FREE, spell(document))
    assert sum(hidden.stated["detected"].values()) >= 1
    meant = orjson.dumps(orjson.loads(hidden.body)).decode()
    assert number not in meant
    assert "".join(filter(str.isalnum, number)) not in meant


@given(cards() | ibans(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_number_escaped_in_any_way_is_found(number: str, data: st.DataObject):
    escaped = "".join(f"\\u{ord(char):04x}" if data.draw(st.booleans()) else char for char in number)
    hidden = copied(FREE, f'{{"a":"<{escaped}>"}}'.encode())
    assert orjson.loads(hidden.body)["a"].startswith("<[")


@given(VALUES, SPELLINGS)
@settings(max_examples=300, deadline=None)
def test_a_document_without_such_a_number_is_left_byte_for_byte(document: Any, spell: Any):
    raw = spell(document)
    assume(not DETECTORS.find(Meant(raw.decode(), "json").text))
    assume("\0" not in raw.decode())
    assert copied(FREE, raw) == (raw, {})


@given(st.text("0123456789", min_size=DIGITS_MIN, max_size=25))
@settings(max_examples=300, deadline=None)
def test_a_number_is_changed_if_and_only_if_it_is_a_card(digits: str):
    hidden = copied(FREE, f'{{"a":"{digits}"}}'.encode())
    assert (hidden.stated == {}) == (not is_card(digits))


@given(VALUES, SPELLINGS)
@settings(max_examples=300, deadline=None)
def test_rules_hide_every_value_that_they_select_and_nothing_else(document: Any, spell: Any):
    raw = spell({"top": document, "c": "secret-1234", "b": [{"x": "secret"}]})
    assume("\\u0000" not in raw.decode() and "\0" not in raw.decode())
    hidden = copied(RULED, raw)
    shown = json.loads(hidden.body)
    assert shown["c"] == "****1234"
    assert shown["b"][0]["x"].startswith("tok_")
    assert b"secret" not in hidden.body.replace(orjson.dumps(document), b"")
    if hidden.stated.get("paths", {}).keys() == {"c", "b[*].*"} and "detected" not in hidden.stated:
        assert shown["top"] == json.loads(raw)["top"]


@given(TEXTS, cards() | ibans(), TEXTS, st.lists(st.integers(1, 6), min_size=3, max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_number_cut_into_events_anyhow_is_hidden_in_the_text_they_make(before, number, after, sizes):
    text = f"{before} \u2022 {number} \u2022 {after}"
    pieces, at = [], 0
    for size in (*sizes, len(text)):
        pieces.append(text[at : at + size])
        at += size
    said = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces if piece]
    assume("\0" not in text)
    for media, form in (("text/event-stream", b"data: %b\n\n"), ("application/x-ndjson", b"%b\n")):
        raw = b"".join(form % orjson.dumps(one) for one in said)
        hidden = copied(FREE, raw, media)
        shown = [
            orjson.loads(line.removeprefix(b"data: "))["choices"][0]["delta"]["content"]
            for line in hidden.body.split(b"\n")
            if line
        ]
        assert len(shown) == len(said)
        whole = copied(FREE, orjson.dumps({"a": text}))
        assert "".join(shown) == orjson.loads(whole.body)["a"]


@given(
    st.binary(max_size=300),
    st.sampled_from(["application/json", "text/event-stream", "application/x-ndjson", "a/b", "x/urlencoded"]),
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_redacted_or_withheld_and_what_is_recorded_holds_no_number(raw: bytes, media: str):
    for side in (FREE, RULED):
        body, stated = copied(side, raw, media)
        assert (body is None) == ("withheld" in stated)
        if body:
            assert DETECTORS.find(Meant(body.decode(), "url" if "urlencoded" in media else "json").text) == []


@given(
    st.integers(1, 1_200),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"x":', "}]")]),
    st.sampled_from([FREE, RULED]),
)
@settings(max_examples=200, deadline=None)
def test_documents_of_any_depth_are_redacted_or_withheld(depth: int, brackets: tuple[str, str], side: Any):
    body, stated = copied(side, (brackets[0] * depth + f'"{10**15}"' + brackets[1] * depth).encode())
    assert (body is None) == ("withheld" in stated)


@given(st.text(min_size=1, max_size=20), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_a_stream_that_breaks_off_within_a_character_is_recorded_up_to_its_last_event(text: str, count: int):
    assume("\0" not in text and "\n" not in text and "\r" not in text)
    whole = b'data: {"a":"pay 4111111111111111"}\n\n'
    behind = f'data: {{"a":"{text}\U0001f600'.encode()[:-count]
    body, stated = copied(FREE, whole + behind, "text/event-stream")
    assert body == b'data: {"a":"pay [card:****1111]"}\n\n'
    assert stated == {"detected": {"card": 1}, "unfinished_bytes": len(behind)}
