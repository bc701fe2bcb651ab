from __future__ import annotations

import uuid

import pytest

from storage import ids


def test_a_uuid7_carries_its_time_version_and_variant() -> None:
    # RFC 9562 appendix A.6: 2022-02-22T19:22:22.000Z
    made = ids.uuid7(1645557742000 * 1_000_000, bytes.fromhex("18c4dc0c0c07398f"))
    assert made == "017f22e2-79b0-7000-98c4-dc0c0c07398f"
    read = uuid.UUID(made)
    assert read.version == 7
    assert read.variant == uuid.RFC_4122
    assert ids.uuid7_ms(made) == 1645557742000
    assert ids.is_uuid7(made)
    assert ids.id_text(ids.id_bytes(made)) == made


def test_ids_only_go_up_even_where_the_clock_goes_back() -> None:
    moments = iter([5_000_000, 5_000_000, 5_000_001, 3_000_000, 9_000_000])
    maker = ids.Ids(lambda: next(moments), bytes)
    made = [maker.new() for _ in range(5)]
    assert made == sorted(set(made))
    assert ids.uuid7_ms(made[-1]) == 9


@pytest.mark.parametrize(
    "text",
    [
        "",
        "017f22e2-79b0-7000-98c4-dc0c0c07398",
        "017F22E2-79B0-7000-98C4-DC0C0C07398F",
        "017f22e2-79b0-4000-98c4-dc0c0c07398f",
        "017f22e2-79b0-7000-18c4-dc0c0c07398f",
        "017f22e279b0700098c4dc0c0c07398f",
        "017f22e2-79b0-7000-98c4-dc0c0c07398f\n",
    ],
)
def test_what_is_no_uuid7_is_refused(text: str) -> None:
    assert not ids.is_uuid7(text)
    with pytest.raises(ValueError, match="UUIDv7"):
        ids.uuid7_ms(text)


def test_base64url_has_one_spelling() -> None:
    assert ids.unb64(ids.b64(b"\xfb\xff\x00")) == b"\xfb\xff\x00"
    assert ids.unb64("") == b""
    for wrong in ("YQ==", "YR", "Y", "Y Q", "+/8", "YQ\n", "é"):
        with pytest.raises(ValueError, match="base64url"):
            ids.unb64(wrong)


def test_ids_of_another_length_are_refused() -> None:
    for wrong in ("00", "0" * 32, "x" * 36):
        with pytest.raises(ValueError):
            ids.id_bytes(wrong)
    with pytest.raises(ValueError, match="16 bytes"):
        ids.id_text(b"short")
