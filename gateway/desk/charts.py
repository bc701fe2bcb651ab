"""The waterfall of contributions as SVG, written by hand (pure): about 3 KB, no script, no style of its own.

It reads from top to bottom: where the comparison group stands on average, what each factor adds or takes, where this
decision ended, and the line it had to reach. Colour never stands alone: each bar carries a signed number and an arrow.
Classes are coloured by desk.css, so that light and dark and high contrast follow the page. A table with the same
numbers stands under it in the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from gateway.desk import words

BARS_MAX: Final = 9  # more are told as one bar "others": a person reads ten lines, not thirty-four
LABEL_CHARS_MAX: Final = 50
VALUE_CHARS_MAX: Final = 18

_WIDTH: Final = 760
_LEFT: Final = 322  # labels stand left of it
_RIGHT: Final = 676  # numbers stand right of it
_ROW: Final = 34
_BAR: Final = 18
_TOP: Final = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One factor: its label, the person's value as text (None where the viewer may not see it), its contribution."""

    label: str
    value: str | None
    contribution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """What the picture shows; numbers in the space where the cutoff acts, `higher_is_better` for the person."""

    base: float
    value: float
    cutoff: float | None
    bars: tuple[Bar, ...]
    higher_is_better: bool
    base_label: str
    cutoff_label: str


def shown(bars: Sequence[Bar]) -> tuple[Bar, ...]:
    """The largest bars first, at most BARS_MAX; the rest summed with sign into one."""
    ordered = sorted(bars, key=lambda bar: (-abs(bar.contribution), bar.label))
    if len(ordered) <= BARS_MAX:
        return tuple(ordered)
    kept, rest = ordered[: BARS_MAX - 1], ordered[BARS_MAX - 1 :]
    others = Bar(label=f"{len(rest)} others together", value=None, contribution=sum(bar.contribution for bar in rest))
    return (*kept, others)


def svg(waterfall: Waterfall) -> Markup:
    """The picture as one `<svg>` element; every text in it is escaped."""
    bars = shown(waterfall.bars)
    scale = _Scale.of(waterfall, bars)
    height = _TOP + _ROW * (len(bars) + 2) + 34
    body = [
        Markup('<svg class="waterfall" viewBox="0 0 {} {}" role="img" aria-labelledby="wf-t wf-d">').format(
            _WIDTH, height
        ),
        Markup('<title id="wf-t">What moved the model\u2019s output</title><desc id="wf-d">{}</desc>').format(
            _told(waterfall, bars)
        ),
        _cutoff(waterfall, scale, height),
        _end(waterfall.base_label, waterfall.base, scale, 0, "base"),
    ]
    at = waterfall.base
    for index, bar in enumerate(bars):
        body.append(_row(bar, at, scale, index + 1, higher_is_better=waterfall.higher_is_better))
        at += bar.contribution
    body.append(_end("This decision", waterfall.value, scale, len(bars) + 1, "result"))
    body.append(_ways(height, higher_is_better=waterfall.higher_is_better))
    body.append(Markup("</svg>"))
    return Markup("").join(body)


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float

    @classmethod
    def of(cls, waterfall: Waterfall, bars: Sequence[Bar]) -> "_Scale":
        points = [waterfall.base, waterfall.value]
        if waterfall.cutoff is not None:
            points.append(waterfall.cutoff)
        at = waterfall.base
        for bar in bars:
            at += bar.contribution
            points.append(at)
        low, high = min(points), max(points)
        margin = (high - low) * 0.06 or 1.0
        return cls(low - margin, high + margin)

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.low) / (self.high - self.low) * (_RIGHT - _LEFT), 1)


def _cutoff(waterfall: Waterfall, scale: _Scale, height: int) -> Markup:
    if waterfall.cutoff is None:
        return Markup("")
    x = scale.x(waterfall.cutoff)
    anchor = "end" if x > (_LEFT + _RIGHT) / 2 else "start"
    text = f"{waterfall.cutoff_label}: {words.number(waterfall.cutoff)}"
    return Markup(
        '<line class="cutoff" x1="{x}" x2="{x}" y1="24" y2="{y}"/>'
        '<text class="cutoff-label" x="{tx}" y="16" text-anchor="{anchor}">{text}</text>'
    ).format(x=x, y=height - 24, tx=x + (6 if anchor == "end" else -6), anchor=anchor, text=text)


def _ways(height: int, *, higher_is_better: bool) -> Markup:
    left, right = (
        ("against the person", "for the person") if higher_is_better else ("for the person", "against the person")
    )
    return Markup(
        '<text class="way" x="{left_x}" y="{y}">\u25c0 {left}</text>'
        '<text class="way" x="{right_x}" y="{y}" text-anchor="end">{right} \u25b6</text>'
    ).format(left_x=_LEFT, right_x=_RIGHT, y=height - 6, left=left, right=right)


def _end(label: str, value: float, scale: _Scale, row: int, kind: str) -> Markup:
    y = _TOP + row * _ROW
    x = scale.x(value)
    return Markup(
        '<text class="factor {kind}" x="0" y="{ty}">{label}</text>'
        '<line class="level {kind}" x1="{x}" x2="{x}" y1="{y0}" y2="{y1}"/>'
        '<text class="amount {kind}" x="{width}" y="{ty}" text-anchor="end">{amount}</text>'
    ).format(
        kind=kind,
        label=label,
        x=x,
        y0=y + 2,
        y1=y + _ROW - 4,
        ty=y + 21,
        width=_WIDTH,
        amount=words.number(round(value, 2)),
    )


def _row(bar: Bar, at: float, scale: _Scale, row: int, *, higher_is_better: bool) -> Markup:
    y = _TOP + row * _ROW
    helps = (bar.contribution >= 0) == higher_is_better
    start, end = sorted((scale.x(at), scale.x(at + bar.contribution)))
    tip = scale.x(at + bar.contribution)
    value = Markup("")
    if bar.value is not None:
        value = Markup(' <tspan class="value">{}</tspan>').format(_cut(bar.value, VALUE_CHARS_MAX))
    return Markup(
        '<text class="factor" x="0" y="{ty}">{label}{value}</text>'
        '<rect class="bar {kind}" x="{x}" y="{by}" width="{width}" height="{height}" rx="2"/>'
        '<line class="join" x1="{tip}" x2="{tip}" y1="{j0}" y2="{j1}"/>'
        '<text class="amount {kind}" x="{right}" y="{ty}" text-anchor="end">{amount} {arrow}</text>'
    ).format(
        label=_cut(bar.label, LABEL_CHARS_MAX - (min(len(bar.value), VALUE_CHARS_MAX) + 1 if bar.value else 0)),
        value=value,
        kind="for" if helps else "against",
        x=start,
        width=max(1.5, round(end - start, 1)),
        by=y + (_ROW - _BAR) // 2 - 1,
        height=_BAR,
        tip=tip,
        j0=y + (_ROW + _BAR) // 2 - 1,
        j1=y + _ROW + (_ROW - _BAR) // 2 - 1,
        ty=y + 21,
        right=_WIDTH,
        amount=words.signed(bar.contribution),
        arrow="\u25b2" if helps else "\u25bc",
    )


def _told(waterfall: Waterfall, bars: Sequence[Bar]) -> str:
    largest = "; ".join(f"{bar.label} {words.signed(bar.contribution)}" for bar in bars[:4])
    return (
        f"{waterfall.base_label} {words.number(round(waterfall.base, 2))}, this decision"
        f" {words.number(round(waterfall.value, 2))}. Largest contributions: {largest}."
    )


def _cut(text: str, chars_max: int) -> Markup:
    chars_max = max(chars_max, 12)
    return escape(text if len(text) <= chars_max else text[: chars_max - 1].rstrip() + "\u2026")
