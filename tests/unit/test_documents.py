import gzip
import math
import tracemalloc
import zlib

import pytest
import zstandard

from storage.protocols.documents import DEPTH_MAX, json_part, parsed, plain
from storage.protocols.faults import Unreadable


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'"\x01"', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        (b'"\\ud800"', "not Unicode"),
        (b'{"a": ["\\uDFFF"]}', "not Unicode"),
        (b'{"a": 1, "a": 1}', "a key stands twice"),
        (b'[{"x": {"a": 1, "\\u0061": 2}}]', "a key stands twice"),
        (b"9" * 5_000, "a number is too long"),
        (b"[" * 100_000, f"nested more than {DEPTH_MAX} deep"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, f"nested more than {DEPTH_MAX} deep"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), f"nested more than {DEPTH_MAX} deep"),
    ],
)
def test_what_two_readers_could_understand_differently_is_not_read(raw, what):
    with pytest.raises(Unreadable) as caught:
        parsed(raw, "answer")
    assert (caught.value.where, caught.value.what) == ("answer", what)


def test_numbers_keep_their_digits_and_python_s_own_words_are_read():
    assert parsed(b"[123456789012345678901234567890, 1.5]", "answer") == [123456789012345678901234567890, 1.5]
    assert math.isnan(parsed(b"NaN", "answer"))
    assert parsed(b"[Infinity, -Infinity, 1e999]", "answer") == [math.inf, -math.inf, math.inf]


def test_nesting_is_counted_outside_texts_and_up_to_the_limit():
    assert parsed(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, "answer")
    assert parsed(b'["' + b"[{" * 500 + b'\\"[[[[\\\\"]', "answer")[0].startswith("[{[{")
    assert len(parsed(b"[" + b"[[]]," * 5_000 + b"1]", "answer")) == 5_001


def test_a_byte_order_mark_and_surrogate_pairs_are_read():
    assert parsed(b'\xef\xbb\xbf"\\ud83d\\ude00"', "answer") == "😀"


@pytest.mark.parametrize("code", [gzip.compress, zlib.compress, zstandard.ZstdCompressor().compress])
def test_content_codings_are_taken_off_within_the_limit(code):
    assert plain(code(b'{"a": 1}'), "answer", 1_000) == b'{"a": 1}'
    bomb = code(b" " * 5_000_000)
    assert len(bomb) < 6_000
    tracemalloc.start()
    with pytest.raises(Unreadable, match="more than 10000 bytes when expanded"):
        plain(bomb, "answer", 10_000)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("code", [gzip.compress, zlib.compress])
def test_a_broken_or_cut_coding_is_said_to_be_broken(code):
    whole = code(b'{"a": 1}' * 100)
    for damaged in (whole[:-6], whole[:12], whole + b"more", whole[:10] + b"\xff\xff" + whole[12:]):
        with pytest.raises(Unreadable, match="its content coding is broken"):
            plain(damaged, "answer", 10_000)


def test_a_body_over_the_limit_is_not_even_looked_at():
    with pytest.raises(Unreadable, match="12 bytes, at most 11 are parsed"):
        plain(b"x" * 12, "request", 11)


def test_the_json_part_ends_where_its_object_ends():
    head = b' {"a": "}\\"{", "b": [{}]}'
    assert json_part(head + b"\x00\xff{{{", "request") == head
    for raw in (b"[1]", b"", b"{", b'{"a": "}', b'"x"', b"{[" * 200):
        with pytest.raises(Unreadable):
            json_part(raw, "request")
