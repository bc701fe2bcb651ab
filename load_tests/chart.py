"""A bar chart as SVG, by hand: small, readable on light and dark pages, with its figures as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
LABEL_WIDTH = 230
VALUE_WIDTH = 70
ROW = 26
TOP = 58
BOTTOM = 14

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1c2024; }
.title { font-size: 15px; font-weight: 600; }
.unit { fill: #5a626b; }
.bar { fill: #8b95a1; }
.ours { fill: #0b63c5; }
.strong { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #e8eaed; }
  .unit { fill: #a3abb5; }
  .bar { fill: #6b7682; }
  .ours { fill: #6cb0ff; }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: a label and a value ≥ 0 in the chart's unit."""

    label: str
    value: float
    ours: bool = False


def bars(title: str, unit: str, lines: Sequence[Bar]) -> str:
    """The chart as a whole SVG document; the longest bar takes the whole width."""
    height = TOP + ROW * len(lines) + BOTTOM
    most = max((line.value for line in lines), default=0.0) or 1.0
    summary = "; ".join(f"{line.label}: {_figure(line.value)}" for line in lines)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        f' width="{WIDTH}" height="{height}">',
        f"<title>{escape(title)}: {escape(unit)}</title>",
        f"<desc>{escape(summary)}</desc>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
        f'<text class="unit" x="8" y="42">{escape(unit)}</text>',
    ]
    for number, line in enumerate(lines):
        out += _line(line, TOP + number * ROW, most)
    return "\n".join([*out, "</svg>", ""])


def _line(line: Bar, top: int, most: float) -> list[str]:
    length = max(1.0, (WIDTH - LABEL_WIDTH - VALUE_WIDTH) * max(line.value, 0.0) / most)
    strong = " strong" if line.ours else ""
    kind = "ours" if line.ours else "bar"
    middle = top + ROW * 0.66
    return [
        f'<text class="label{strong}" x="8" y="{middle:.0f}">{escape(line.label)}</text>',
        f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{top + 4}" width="{length:.1f}" height="{ROW - 9}" rx="2"/>',
        f'<text class="value{strong}" x="{LABEL_WIDTH + length + 8:.1f}" y="{middle:.0f}">{_figure(line.value)}</text>',
    ]


def _figure(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
