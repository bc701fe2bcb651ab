import pytest

from gateway.proxy.detectors import MARKED, Detectors, is_card, is_iban
from gateway.proxy.redact_text import Tally, without

BOTH = Detectors(["card", "iban"])
# numbers that the schemes and processors publish for tests
CARDS = {
    "4111111111111111": "Visa",
    "4222222222222": "Visa of 13 digits",
    "5555555555554444": "Mastercard",
    "2223003122003222": "Mastercard, 2-series",
    "378282246310005": "American Express",
    "30569309025904": "Diners Club",
    "6011111111111117": "Discover",
    "3530111333300000": "JCB",
    "6200000000000005": "UnionPay",
    "6759649826438453": "Maestro",
    "2200770239097761": "Mir",
}
# the examples of the ISO 13616 registry
IBANS = (
    "AD1200012030200359100100", "AE070331234567890123456", "AL47212110090000000235698741", "AT611904300234573201",
    "BE68539007547034", "BG80BNBG96611020345678", "BR1800360305000010009795493C1", "CH9300762011623852957",
    "CY17002001280000001200527600", "CZ6508000000192000145399", "DE89370400440532013000", "DK5000400440116243",
    "EE382200221020145685", "ES9121000418450200051332", "FI2112345600000785", "FR1420041010050500013M02606",
    "GB29NWBK60161331926819", "GI75NWBK000000007099453", "GR1601101250000000012300695", "HR1210010051863000160",
    "HU42117730161111101800000000", "IE29AIBK93115212345678", "IL620108000000099999999",
    "IS140159260076545510730339", "IT60X0542811101000000123456", "KW81CBKU0000000000001234560101",
    "LI21088100002324013AA", "LT121000011101001000", "LU280019400644750000", "LV80BANK0000435195001",
    "MC5811222000010123456789030", "MT84MALT011000012345MTLCAST001S", "NL91ABNA0417164300", "NO9386011117947",
    "PL61109010140000071219812874", "PT50000201231234567890154", "RO49AAAA1B31007593840000",
    "SA0380000000608010167519", "SE4550000000058398257466", "SI56263300012039086", "SK3112000000198742637541",
    "SM86U0322509800000000270100", "TR330006100519786457841326", "VG96VPVG0000012345678901",
)  # fmt: skip


@pytest.mark.parametrize("number", CARDS)
@pytest.mark.parametrize("form", ["{}", "card {}.", "({})", "pan={};", "卡号{}。", "é{}", "#{}", "-{}-"])
def test_the_schemes_own_test_numbers_are_found_whatever_stands_beside_them(number, form):
    (found,) = BOTH.find(form.format(number))
    assert (found.kind, found.mark) == ("card", f"[card:****{number[-4:]}]")
    assert form.format(number)[found.start : found.end] == number


@pytest.mark.parametrize("number", IBANS)
def test_the_examples_of_the_registry_are_found_plain_printed_and_in_small_letters(number):
    printed = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    for spelled in (number, printed, printed.replace(" ", "\u00a0"), number.lower()):
        (found,) = BOTH.find(f"to {spelled} today")
        assert found.mark == f"[iban:{number[:2]}****{number[-4:]}]"
        assert is_iban(number)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111 - 1111 - 1111 - 1111",
        "4111\u00a01111\u20111111\u20131111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "\u0664" + 3 * "\u0661" + 3 * (" " + 4 * "\u0661"),
        "\uff14" + 15 * "\uff11",
        "2026 4111 1111 1111 1111 12/27",
        "4111111111111111 123",
        "12 4111111111111111 99",
    ],
)
def test_separators_other_digits_and_neighbours_hide_no_card(text):
    (found,) = BOTH.find(text)
    assert found.mark == "[card:****1111]"


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "411111111111111",
        "14111111111111111",
        "4111111111111111a",
        "x4111111111111111",
        "id_4111111111111111",
        "4111111111111111_2",
        "+4222222222222",
        "1700000000000000000",
        "550e8400-e29b-41d4-a716-446655440000",
        "9999999999999999",
        "0000000000000000",
        "4111\n1111\n1111\n1111",
        "4111.1111.1111.1111",
        "DE88370400440532013000",
        "XDE89370400440532013000",
        "DE89370400440532013000X",
        "DE8937040044053201300",
        "ZZ89370400440532013000",
        "DEAB370400440532013000",
    ],
)
def test_what_is_no_such_number_is_left_alone(text):
    assert BOTH.find(text) == []


def test_of_what_can_be_read_in_several_ways_nothing_is_shown():
    sixteen, nineteen = "4111 1111 1111 1111", "4111 1111 1111 1111 003"
    assert is_card(sixteen.replace(" ", ""))
    assert is_card(nineteen.replace(" ", ""))
    (found,) = BOTH.find(nineteen)
    assert (found.mark, found.end) == ("[card:****]", len(nineteen))


def test_only_what_is_declared_is_looked_for():
    text = "4111111111111111 DE89370400440532013000"
    assert [found.kind for found in Detectors(["card"]).find(text)] == ["card"]
    assert [found.kind for found in Detectors(["iban"]).find(text)] == ["iban"]
    assert [found.kind for found in BOTH.find(text)] == ["card", "iban"]


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ('{"a":"4\\u0031\\u00311111111111111 \\"b"}', '{"a":"[card:****1111] \\"b"}'),
        ('{"a":"x\\n4111111111111111\\tz"}', '{"a":"x\\n[card:****1111]\\tz"}'),
        ('{"a":"\\\\u0034111111111111111"}', '{"a":"\\\\u0034111111111111111"}'),
        ('{"a":"\\ud835\\udfd2111111111111111"}', '{"a":"[card:****1111]"}'),
        ('{"a":4111111111111111}', '{"a":"[card:****1111]"}'),
        ('{"a":[1,4111111111111111.0,2]}', '{"a":[1,"[card:****1111]",2]}'),
        ("41\\11111111111111", "41\\11111111111111"),  # found by the fuzzer: no escape of JSON, so no number
        ('{"a":-4111111111111111}', '{"a":"[card:****1111]"}'),
        ('{"4111111111111111":1}', '{"[card:****1111]":1}'),
        ('{"a":"{\\"b\\":\\"4111111111111111\\"}"}', '{"a":"{\\"b\\":\\"[card:****1111]\\"}"}'),
    ],
)
def test_in_json_escapes_are_read_as_they_are_meant_and_json_stays_json(text, becomes):
    assert without(text, BOTH, "json", Tally(), is_json=True) == becomes


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("a=4111+1111+1111+1111&b=1", "a=[card:****1111]&b=1"),
        ("/x/%34111111111111111", "/x/[card:****1111]"),
        ("a=4111%C2%A01111%C2%A01111%C2%A01111", "a=[card:****1111]"),
        ("a=%FF4111111111111111%zz", "a=%FF[card:****1111]%zz"),
        ("a=DE89%203704%200044%200532%200130%2000", "a=[iban:DE****3000]"),
    ],
)
def test_in_urls_escapes_are_read_as_they_are_meant(text, becomes):
    assert without(text, BOTH, "url", Tally()) == becomes


def test_marks_are_known_again_and_hold_no_number():
    for mark in ("[card:****1111]", "[card:****]", "[iban:DE****3000]"):
        assert MARKED.fullmatch(mark)
        assert BOTH.find(mark) == []
