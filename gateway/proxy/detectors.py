"""Card numbers and IBANs in free text, told by their check digits (pure).

A card number is 13 to 19 digits of a scheme's range (ISO/IEC 7812 issuer prefixes, as the schemes publish them) and
length whose Luhn sum is right; an IBAN is of its country's length and structure (ISO 13616 registry) and 97 divides
into it with remainder 1 (ISO 7064). Digits are Unicode's decimal digits; between them may stand up to three spaces or
dashes of any kind, no-break ones included. What touches a letter, a digit or an underscore of an identifier is none;
nor is what follows a plus sign, as telephone numbers do. Time is linear: RE2 looks for what could be one, and only
there the rest is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import re2  # type: ignore[import-untyped] # the wheel brings no types

Kind = Literal["card", "iban"]
SEPARATORS: Final = " \u00a0\u2007\u2009\u202f\u2010\u2011\u2012\u2013\u2212-"
SEPARATORS_MAX: Final = 3  # between two groups: a printed space is one, a dash with spaces round it three
DIGITS_MIN, DIGITS_MAX = 13, 19  # ISO/IEC 7812-1: at most 19; 13 is the shortest that was issued
SHOWN_CHARS: Final = 4  # of what was found: what receipts print (PCI DSS 3.4.1 allows the last four)
MARKED: Final = re.compile(r"\[(?:card|iban):(?:[A-Z]{2})?\*{4}[0-9A-Z]{0,4}\]")  # what stands in the place of a find

# prefix from, prefix to, lengths
_SCHEMES: Final = (
    ("4", "4", (13, 16, 18, 19)),  # Visa
    ("51", "55", (16,)), ("2221", "2720", (16,)),  # Mastercard
    ("34", "34", (15,)), ("37", "37", (15,)),  # American Express
    ("300", "305", range(14, 20)), ("3095", "3095", range(14, 20)), ("36", "36", range(14, 20)),  # Diners Club
    ("38", "39", range(14, 20)),
    ("6011", "6011", range(16, 20)), ("644", "649", range(16, 20)),  # Discover
    ("3528", "3589", range(16, 20)),  # JCB
    ("62", "62", range(16, 20)),  # UnionPay
    ("5018", "5018", range(13, 20)), ("5020", "5020", range(13, 20)), ("5038", "5038", range(13, 20)),  # Maestro
    ("5893", "5893", range(13, 20)), ("6304", "6304", range(13, 20)), ("6759", "6759", range(13, 20)),
    ("6761", "6763", range(13, 20)),
    ("2200", "2204", range(16, 20)),  # Mir
    ("9792", "9792", (16,)),  # Troy
    ("60", "60", (16,)), ("65", "65", range(16, 20)), ("81", "82", (16,)), ("508", "508", (16,)),  # RuPay and others
    ("506", "507", (16, 18, 19)), ("509", "509", (16,)), ("6363", "6363", (16,)), ("6362", "6362", (16,)),  # Elo, Verve
)  # fmt: skip
# how digits stand in groups where more digits stand beside them; alone, any grouping counts
_GROUPINGS: Final = frozenset(
    {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 4, 4, 1), (4, 4, 4, 2), (4, 4, 4, 3), (6, 13), (8, 8)}
    | {(4, 4, 4, 4, more) for more in (1, 2, 3)}
)
_BEGINNINGS: Final = frozenset(sizes[:count] for sizes in _GROUPINGS for count in range(1, len(sizes) + 1))
# country: what stands behind the two check digits; n digits, a letters, c either (ISO 13616 registry, release 100)
_STRUCTURES: Final = """
AD:8n12c AE:19n AL:8n16c AT:16n AZ:4a20c BA:16n BE:12n BG:4a6n8c BH:4a14c BI:23n BR:8c15n2c BY:4c4n16c CH:5n12c CR:18n
CY:8n16c CZ:20n DE:18n DJ:23n DK:14n DO:4c20n EE:16n EG:25n ES:20n FI:14n FK:2a12n FO:14n FR:10n11c2n GB:4a14n GE:2a16n
GI:4a15c GL:14n GR:7n16c GT:24c HN:4a20n HR:17n HU:24n IE:4a14n IL:19n IQ:4a15n IS:22n IT:1a10n12c JO:4a4n18c KW:4a22c
KZ:3n13c LB:4n20c LC:4a24c LI:5n12c LT:16n LU:3n13c LV:4a13c LY:21n MC:10n11c2n MD:20c ME:18n MK:3n10c2n MN:16n MR:23n
MT:4a5n18c MU:4a19n3a NI:4a20n NL:4a10n NO:11n OM:3n16c PK:4a16c PL:24n PS:4a21c PT:21n QA:4a21c RO:4a16c RS:18n
RU:14n15c SA:2n18c SC:4a20n3a SD:14n SE:20n SI:15n SK:20n SM:1a10n12c SO:19n ST:21n SV:4a20n TL:19n TN:20n TR:6n16c
UA:6n19c VA:18n VG:4a16n XK:16n YE:4a4n18c
"""
_CLASSES: Final = {"n": r"\d", "a": "[A-Z]", "c": r"[A-Z\d]"}


class Found(NamedTuple):
    """What stands at text[start:end], and what is recorded in its place."""

    start: int
    end: int
    kind: Kind
    mark: str


def _structure(spelled: str) -> tuple[str, tuple[re.Pattern[str], int]]:
    country, _, parts = spelled.partition(":")
    found = re.findall(r"(\d+)([nac])", parts)
    pattern = "".join(f"{_CLASSES[kind]}{{{count}}}" for count, kind in found)
    return country, (re.compile(rf"\d{{2}}{pattern}", re.ASCII), 2 + sum(int(count) for count, _ in found))


IBANS: Final = dict(map(_structure, _STRUCTURES.split()))  # country: what follows it, and how many characters that are
_SEP = rf"[{SEPARATORS}]{{0,{SEPARATORS_MAX}}}"
_NUMBER: Final = r"\p{Nd}"
_HEAD: Final = rf"(?i:{'|'.join(IBANS)}){_SEP}{_NUMBER}{_SEP}{_NUMBER}"  # no head of another IBAN begins inside
_GROUP = re.compile(r"\d+")
_REST = re.compile(rf"(?:{_SEP}[A-Za-z\d]){{1,32}}+")  # possessive: what it took it never gives back
_JOINT = frozenset("_+")
_COULD: Final[Mapping[Kind, str]] = {
    "card": rf"{_NUMBER}(?:{_SEP}{_NUMBER}){{{DIGITS_MIN - 1}}}",
    "iban": rf"{_HEAD}(?:{_SEP}[{_NUMBER}A-Za-z]){{11}}",
}


def _linear(expression: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(expression, options)


_RUNS: Final = _linear(rf"{_NUMBER}(?:{_SEP}{_NUMBER}){{{DIGITS_MIN - 1},}}")
_HEADS: Final = _linear(_HEAD)


class Detectors:
    """Looks for the kinds that a route declares."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        """At least one kind."""
        self.kinds = tuple(kinds)
        self._could = _linear("|".join(_COULD[kind] for kind in self.kinds))
        self._finders = [_FINDERS[kind] for kind in ("iban", "card") if kind in self.kinds]

    def may_find(self, text: str | bytes) -> bool:
        """False: there is nothing in `text` (UTF-8 where it is bytes). True: `find` must look."""
        return self._could.search(text) is not None

    def find(self, text: str) -> list[Found]:
        """What stands in `text`, in order, without overlaps; of what could be read in several ways nothing is shown."""
        found = sorted(one for finder in self._finders for one in finder(text))
        merged: list[Found] = []
        for one in found:
            if merged and one.start < merged[-1].end:
                before = merged.pop()
                merged.append(Found(before.start, max(before.end, one.end), before.kind, f"[{before.kind}:****]"))
            else:
                merged.append(one)
        return merged


def _cards(text: str) -> Iterator[Found]:
    for run in _RUNS.finditer(text):
        groups = [(group.start(), group.end()) for group in _GROUP.finditer(text, run.start(), run.end())]
        if _is_joined(text, groups[-1][1], before=False):
            groups.pop()
        if groups and _is_joined(text, groups[0][0] - 1, before=True):
            groups.pop(0)
        yield from _cards_in(text, groups)


def _cards_in(text: str, groups: list[tuple[int, int]]) -> Iterator[Found]:
    """Those whose digits are whole groups of one run; each group begins few groupings, so that time is linear."""
    may_be_whole = len(groups) <= DIGITS_MAX
    for first, (start, _) in enumerate(groups):
        sizes: tuple[int, ...] = ()
        total = 0
        for group_start, end in groups[first : first + DIGITS_MAX]:
            sizes = (*sizes, end - group_start)
            total += end - group_start
            whole = may_be_whole and first == 0
            if total > DIGITS_MAX or not (whole or len(sizes) == 1 or sizes in _BEGINNINGS):
                break
            if total >= DIGITS_MIN and (len(sizes) in (1, len(groups)) or sizes in _GROUPINGS):
                digits = _digits(text[start:end])
                if is_card(digits):
                    yield Found(start, end, "card", f"[card:****{digits[-SHOWN_CHARS:]}]")


def is_card(digits: str) -> bool:
    """Whether ASCII `digits` are of a scheme's range and length, with a right Luhn sum (ISO/IEC 7812-1 Annex B)."""
    if not any(len(digits) in lengths and low <= digits[: len(low)] <= high for low, high, lengths in _SCHEMES):
        return False
    total = sum(map(int, digits[-1::-2])) + sum(_DOUBLED[digit] for digit in digits[-2::-2])
    return total % 10 == 0


_DOUBLED: Final = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}


def _ibans(text: str) -> Iterator[Found]:
    for head in _HEADS.finditer(text):
        start = head.start()
        if start and _is_joined(text, start - 1, before=True):
            continue
        country = text[start : start + 2].upper()
        pattern, count = IBANS[country]
        rest = _REST.match(text, start + 2)
        end = None if rest is None else _end_of(rest[0], count)
        if rest is None or end is None or _is_joined(text, rest.start() + end, before=False):
            continue
        spelled = _digits(rest[0][:end]).upper()
        if pattern.fullmatch(spelled) and is_iban(country + spelled):
            yield Found(start, rest.start() + end, "iban", f"[iban:{country}****{spelled[-SHOWN_CHARS:]}]")


def _end_of(rest: str, count: int) -> int | None:
    """Where the character numbered `count` that is no separator ends."""
    for at, char in enumerate(rest):
        if char not in SEPARATORS:
            count -= 1
            if count == 0:
                return at + 1
    return None


def is_iban(spelled: str) -> bool:
    """Whether the check digits of an IBAN without separators are right (ISO 7064 MOD 97-10)."""
    return int("".join(str(int(char, 36)) for char in spelled[4:] + spelled[:4])) % 97 == 1


def _is_joined(text: str, at: int, *, before: bool) -> bool:
    """Whether the character at `at` makes what stands beside it a part of something longer."""
    if not 0 <= at < len(text):
        return False
    char = text[at]
    return char.isdecimal() or (char.isascii() and char.isalpha()) or (char in _JOINT if before else char == "_")


def _digits(text: str) -> str:
    """Without separators, each decimal digit as ASCII spells it."""
    kept = "".join(char for char in text if char not in SEPARATORS)
    return kept if kept.isascii() else "".join(_ascii(char) for char in kept)


def _ascii(char: str) -> str:
    return str(unicodedata.decimal(char)) if char.isdecimal() else char


_FINDERS: Final[dict[Kind, Callable[[str], Iterator[Found]]]] = {"card": _cards, "iban": _ibans}
