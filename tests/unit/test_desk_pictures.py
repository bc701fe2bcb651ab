import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.desk import charts, words
from gateway.desk.charts import BARS_MAX, Bar, Waterfall, shown, svg
from gateway.desk.rendering import STATIC, environment, static_files, tiny
from tests.support.desks import EVIL

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
BARS = st.lists(
    st.builds(Bar, label=st.text(max_size=50), value=st.none() | st.text(max_size=30), contribution=NUMBERS)
)


def waterfall(bars: list[Bar], *, base: float = 1.0, cutoff: float | None = 0.0, higher: bool = True) -> Waterfall:
    return Waterfall(
        base=base,
        value=base + sum(bar.contribution for bar in bars),
        cutoff=cutoff,
        bars=tuple(bars),
        higher_is_better=higher,
        base_label="Comparison group, mean",
        cutoff_label="the line",
    )


@given(BARS)
def test_what_is_shown_adds_up_to_what_there_is_in_at_most_nine_bars(bars):
    found = shown(bars)
    assert len(found) <= BARS_MAX
    assert sum(bar.contribution for bar in found) == pytest.approx(sum(bar.contribution for bar in bars), abs=1e-3)


@given(BARS, NUMBERS, st.none() | NUMBERS, st.booleans())
def test_the_picture_is_always_well_formed_and_inside_its_frame(bars, base, cutoff, higher):
    printable = [
        Bar(label="".join(filter(str.isprintable, b.label)), value=None, contribution=b.contribution) for b in bars
    ]
    root = ET.fromstring(svg(waterfall(printable, base=base, cutoff=cutoff, higher=higher)))
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    for element in root.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("y1", height), ("y2", height)):
            if name in element.attrib:
                assert -1 <= float(element.attrib[name]) <= most + 1


def test_colour_never_stands_alone():
    root = ET.fromstring(
        svg(waterfall([Bar(label="a", value=None, contribution=-1), Bar(label="b", value=None, contribution=2)]))
    )
    amounts = ["".join(e.itertext()) for e in root.iter() if e.attrib.get("class", "").startswith("amount ")]
    assert amounts[1:3] == ["+2.00 \u25b2", "\u22121.00 \u25bc"]
    assert ["".join(e.itertext()) for e in root.iter() if e.tag == "title"] == ["What moved the model\u2019s output"]


def test_what_helps_a_person_depends_on_which_way_is_better():
    bars = [Bar(label="risk", value=None, contribution=1.0)]
    assert 'class="bar against"' in svg(waterfall(bars, higher=False))
    assert 'class="bar for"' in svg(waterfall(bars, higher=True))


def test_recorded_text_in_the_picture_stays_text():
    drawn = svg(waterfall([Bar(label=EVIL, value=EVIL, contribution=1.0)]))
    assert "<img" not in drawn
    assert "<script" not in drawn
    ET.fromstring(drawn)


def test_the_picture_is_small():
    bars = [Bar(label=f"Feature number {n}", value="1,234", contribution=1.0 / (n + 1)) for n in range(34)]
    assert len(svg(waterfall(bars)).encode()) < 8_000
    assert charts.BARS_MAX == 9


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.31234567, "0.3123"), (-1234.0, "\u22121,234"), (1e21, "1e+21"), (62000.0, "62,000")],
)
def test_numbers_are_written_as_people_read_them(value, text):
    assert words.number(value) == text


def test_small_errors_are_written_as_powers_of_ten():
    assert tiny(3.1e-13) == "3.1 \u00d7 10\u207b\u00b9\u00b3"
    assert tiny(0.0) == "0"
    assert tiny(0.5) == "0.5"


def test_durations_and_times_are_told_in_fitting_units():
    assert [words.duration(n) for n in (840, 12_400, 1_400_000)] == ["840 \u00b5s", "12 ms", "1.4 s"]
    assert words.date_time(1_772_546_709_120_000_000) == "3 March 2026, 14:05 UTC"
    assert words.iso(1_772_546_709_120_000_000) == "2026-03-03T14:05:09.120Z"


def test_no_template_carries_a_style_a_script_or_an_address_of_its_own():
    folder = Path(charts.__file__).parent / "templates"
    for path in folder.glob("*.html"):
        markup = path.read_text()
        assert not re.search(r"\sstyle\s*=|<style|\son[a-z]+\s*=|javascript:|https?://(?!127)", markup), path.name
        assert "|safe" not in markup
        for script in re.findall(r"<script[^>]*>", markup):
            assert 'src="/static/' in script
    assert environment().autoescape is True


def test_no_static_file_names_another_host():
    for name, (_, content) in static_files().items():
        found = re.findall(
            rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", content.replace(b"http://www.w3.org/2000/svg", b"")
        )
        assert not found, name
    assert set(STATIC) == set(static_files())


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_have_the_contrast_that_wcag_2_2_aa_asks_for(theme):
    sheet = static_files()["desk.css"][1].decode()
    parts = sheet.split("@media (prefers-color-scheme: dark)")
    source = parts[0] if theme == "light" else parts[1][: parts[1].index("}")]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", source))
    on_grounds = [(ink, ground) for ink in ("ink", "soft", "accent") for ground in ("ground", "sheet", "sunk")]
    on_washes = [(kind, f"{kind}-wash") for kind in ("for", "against", "wait", "accent")]
    on_sheet = [(kind, "sheet") for kind in ("for", "against", "wait")]
    for ink, ground in [*on_grounds, *on_washes, *on_sheet, ("accent-ink", "accent"), ("ink", "against-wash")]:
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (theme, ink, ground)
    assert _contrast(colours["field"], colours["sheet"]) >= 3.0  # WCAG 1.4.11: edges of fields
