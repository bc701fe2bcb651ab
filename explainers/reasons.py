"""From contributions to at most four reasons (pure): what counted against the person, in the registration's words.

The rules, in the order in which they are applied:

1. Columns of one factor are told as one thing; their contributions are summed with their signs.
2. Only what counted against the person, and at least 5 % of the gap between person and baseline, ranked by size.
3. Equal texts are merged after ranking; at most four reasons; never padded.
4. A factor without a code goes to a human, never under "other". So does a factor whose text would contradict the side
   of the baseline on which the person's value lies ("too many" for somebody who has few).
5. A protected factor among the reasons blocks the notice. It is flagged, never silently left out. Protected columns are
   also judged by themselves, by what they count against the person alone and whatever their rank: what other columns of
   their factor count for the person does not hide them.

Whenever 4 or 5 strike, nothing is handed out as a reason: the list would not be the true one. What was found is kept
under `withheld`. Source: Regulation B, 12 CFR 1002.9(b)(2) and its commentary (specific principal reasons, about four).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from config.registration import Feature, Reason, Registration
from config.wording import rendered

REASONS_MAX = 4  # commentary on 1002.9(b)(2): more than four is not likely to be helpful
SHARE_MIN = 0.05  # of the gap: what is below would not have changed the outcome
MISSING = "not stated"
PROTECTED = "protected_factor"
TOLD_WITHIN = Decimal("0.005")  # of the value, as a number in a sentence may be rounded

Notice = Literal["ready", "human", "blocked", "none"]
Side = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One feature of one person: its contribution to the margin, and where it lies against the baseline.

    `side` is where more baseline rows differ from the value on the other side; None if they balance or it is missing.
    `shown` is the value in words, `shown(feature, value, …)`.
    """

    feature: str
    value: float | None
    shown: str
    contribution: float
    side: Side | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One or several features told as one thing; `driver` is the feature that counts most towards its direction."""

    factor: str
    label: str
    features: tuple[str, ...]
    contribution: float
    driver: str
    protected: bool
    protected_contributions: tuple[float, ...]  # of its protected columns, each by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenReason:
    """One reason; `share` is its part of the gap (together they may pass 1: other factors spoke for the person)."""

    rank: int
    code: str
    factor: str
    factors: tuple[str, ...]
    text: str
    language: str
    value: float | None
    shown: str
    contribution: float
    share: float
    protected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Something a human must look at; `factor` where it concerns one."""

    kind: str
    factor: str | None = None
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """The flag as it stands in the explanation's body."""
        return asdict(self)

    def in_clear(self) -> dict[str, str | None]:
        """The flag as it may stand unsealed: which protected factor counted is for the body alone."""
        return {"kind": self.kind, "factor": None if self.kind == PROTECTED else self.factor}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """`notice`: `ready` (hand `reasons` out), `human` or `blocked` (look at `flags` first), `none` (not adverse)."""

    notice: Notice
    reasons: tuple[GivenReason, ...] = ()
    withheld: tuple[GivenReason, ...] = ()
    flags: tuple[Flag, ...] = ()


def factors(registration: Registration, columns: Sequence[Column]) -> tuple[Factor, ...]:
    """All factors, the largest contribution first (by size, then by name)."""
    groups: dict[str, list[tuple[Feature, Column]]] = {}
    known = {feature.name: feature for feature in registration.features}
    for column in columns:
        feature = known[column.feature]
        groups.setdefault(feature.factor or feature.name, []).append((feature, column))
    found = [_factor(name, members) for name, members in groups.items()]
    return tuple(sorted(found, key=lambda factor: (-abs(factor.contribution), factor.factor)))


def _factor(name: str, members: Sequence[tuple[Feature, Column]]) -> Factor:
    total = sum(column.contribution for _, column in members)
    sign = 1.0 if total >= 0 else -1.0
    driver = max(members, key=lambda member: sign * member[1].contribution)[0].name
    label = members[0][0].label if len(members) == 1 else name.replace("_", " ").capitalize()
    return Factor(
        factor=name,
        label=label,
        features=tuple(feature.name for feature, _ in members),
        contribution=total,
        driver=driver,
        protected=any(feature.protected for feature, _ in members),
        protected_contributions=tuple(column.contribution for feature, column in members if feature.protected),
    )


def reasons(
    registration: Registration,
    found: Sequence[Factor],
    columns: Mapping[str, Column],
    *,
    base: float,
    value: float,
) -> Reasons:
    """The reasons of an adverse decision whose margin is `value` where the baseline's mean margin is `base`."""
    direction = 1.0 if registration.output.favourable == "higher" else -1.0
    gap = (base - value) * direction
    if not gap > 0:
        return Reasons(
            notice="human", flags=(Flag(kind="no_gap", detail="the model places the person on the better side"),)
        )
    against = sorted(
        (factor for factor in found if -factor.contribution * direction >= SHARE_MIN * gap),
        key=lambda factor: (factor.contribution * direction, factor.factor),
    )
    given: list[GivenReason] = []
    flags: list[Flag] = []
    slots = 0
    for factor in against:
        reason, flag = _told(registration, factor, columns[factor.driver], gap=gap, direction=direction)
        same = next((i for i, other in enumerate(given) if reason is not None and other.text == reason.text), None)
        if reason is not None and same is not None:
            given[same] = _merged(given[same], reason)
            flags += [flag] if flag is not None else []
            continue
        if slots == REASONS_MAX:
            break
        slots += 1
        given += [replace(reason, rank=slots)] if reason is not None else []
        flags += [flag] if flag is not None else []
    if not against:
        flags.append(Flag(kind="no_factor_counts", detail="no factor reaches 5 % of the gap"))
    flagged = {flag.factor for flag in flags if flag.kind == PROTECTED}
    flags += [
        Flag(kind=PROTECTED, factor=factor.factor)
        for factor in found
        if factor.factor not in flagged and _protected_against(factor, direction) >= SHARE_MIN * gap
    ]
    return _noticed(tuple(given), tuple(flags))


def _protected_against(factor: Factor, direction: float) -> float:
    """What the factor's protected columns count against the person, nothing set off; minus infinity without any."""
    against = [-contribution * direction for contribution in factor.protected_contributions]
    return math.fsum(value for value in against if value > 0) if against else -math.inf


def _noticed(given: tuple[GivenReason, ...], flags: tuple[Flag, ...]) -> Reasons:
    if not flags:
        return Reasons(notice="ready", reasons=given)
    blocked = any(flag.kind == PROTECTED for flag in flags)
    return Reasons(notice="blocked" if blocked else "human", withheld=given, flags=flags)


def _told(
    registration: Registration, factor: Factor, column: Column, *, gap: float, direction: float
) -> tuple[GivenReason | None, Flag | None]:
    feature = next(feature for feature in registration.features if feature.name == factor.driver)
    flag = Flag(kind=PROTECTED, factor=factor.factor) if factor.protected else None
    if feature.code is None:
        return None, flag or Flag(kind="unmapped_factor", factor=factor.factor)
    template = _template(registration.reasons[feature.code], feature, column.side)
    if template is None:
        detail = f"the text would contradict where the value of {feature.name} lies against the baseline"
        return None, flag or Flag(kind="direction_disagrees", factor=factor.factor, detail=detail)
    text = rendered(template, value=column.shown, label=feature.label, unit=feature.unit or "")
    return (
        GivenReason(
            rank=0,
            code=feature.code,
            factor=factor.factor,
            factors=(factor.factor,),
            text=text,
            language=registration.reasons[feature.code].language,
            value=column.value,
            shown=column.shown,
            contribution=factor.contribution,
            share=-factor.contribution * direction / gap,
            protected=factor.protected,
        ),
        flag,
    )


def _template(reason: Reason, feature: Feature, side: Side | None) -> str | None:
    """The text that agrees with `side`, None if there is no such text."""
    if feature.adverse is not None and side != feature.adverse:
        return None
    sided = {"higher": reason.when_higher, "lower": reason.when_lower}
    return (sided[side] if side is not None else None) or reason.text


def _merged(first: GivenReason, other: GivenReason) -> GivenReason:
    return replace(
        first,
        factors=(*first.factors, *other.factors),
        contribution=first.contribution + other.contribution,
        share=first.share + other.share,
        protected=first.protected or other.protected,
    )


def shown(feature: Feature, value: float | None, *, is_alike: Callable[[float], bool]) -> str:
    """A person's value in words: the registration's text for it, else the number as people write it.

    A number is rounded only as far as the told one stays true: within 0.5 %, no integer (so neither 0 nor 1) where the
    value is none, and alike to the model (`is_alike`: on the same side of the baseline). What `value` itself is must be
    alike.
    """
    if value is None:
        return feature.values.get("null", MISSING)
    raw = str(int(value)) if value == int(value) else repr(value)
    if raw in feature.values:
        return feature.values[raw]
    return f"{int(value):,}" if value == int(value) else _rounded(Decimal(raw), is_alike)


def _rounded(exact: Decimal, is_alike: Callable[[float], bool]) -> str:
    """The shortest decimal, of two places and three digits at least, that may stand for `exact`."""
    exponent = exact.as_tuple().exponent
    places_max = -exponent if isinstance(exponent, int) else 0
    for places in range(max(2, 2 - exact.adjusted()), places_max):
        told = exact.quantize(Decimal(1).scaleb(-places))
        if told != told.to_integral_value() and abs(told - exact) <= TOLD_WITHIN * abs(exact) and is_alike(float(told)):
            return _plain(told)
    return _plain(exact)


def _plain(number: Decimal) -> str:
    return f"{number:,f}".rstrip("0").rstrip(".")
