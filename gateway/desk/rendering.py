"""Templates to HTML: one environment, autoescaped, strict about names, with the few filters that pages need (pure)."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gateway.desk import words
from gateway.desk.charts import Bar, Waterfall, svg
from gateway.desk.roles import time_ns

STATIC: Final = {"desk.css": "text/css", "mark.svg": "image/svg+xml", "try.js": "text/javascript"}
SPACE_WORDS: Final = {"margin": "log-odds", "probability": "probability"}


def static_files() -> dict[str, tuple[str, bytes]]:
    """Name → media type and bytes of everything under /static, read once at start."""
    folder = resources.files("gateway.desk") / "static"
    return {name: (media, (folder / name).read_bytes()) for name, media in STATIC.items()}


def assets_digest(files: Mapping[str, tuple[str, bytes]]) -> str:
    """A short name for this version of the static files: it stands in their addresses, so caches may keep them."""
    return hashlib.sha256(b"".join(body for _, body in files.values())).hexdigest()[:12]


def environment() -> Environment:
    """The environment of all pages; a name that a template misspells is an error, never an empty string."""
    made = Environment(
        loader=PackageLoader("gateway.desk", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        when=lambda text: words.date_time(_ns(text)),
        day=lambda text: words.date(_ns(text)),
        brief=lambda text: words.brief(_ns(text)),
        clock=lambda text: words.clock(_ns(text)),
        amount=lambda value: words.number(round(value, 4)),
        signed=words.signed,
        helps=helps,
        by_size=by_size,
        percent=lambda share: f"{share * 100:.0f}\u00a0%",
        tiny=tiny,
        space=lambda name: SPACE_WORDS.get(name, name),
        plain=lambda text: str(text).replace("_", " ").replace("-", " "),
        short=short,
        spaced=words.spaced,
        stream=lambda state: words.STREAM_WORDS.get(state, state),
        took=words.duration,
    )
    return made


def chart(document: Mapping[str, Any]) -> Markup | None:
    """The waterfall of a justification, None where its viewer or its state gives no contributions."""
    explanation = document["explanation"]
    output, factors = explanation.get("output"), explanation.get("factors")
    if not output or not factors:
        return None
    return svg(
        Waterfall(
            base=output["base"],
            value=output["value"],
            cutoff=output.get("cutoff"),
            bars=tuple(Bar(label=str(f["label"]), value=f["value"], contribution=f["contribution"]) for f in factors),
            higher_is_better=output.get("favourable", "higher") == "higher",
            base_label="Comparison group, mean",
            cutoff_label="the line",
        )
    )


def helps(contribution: float, favourable: str) -> Markup:
    """Which way a contribution counts, as an arrow with its meaning for those who hear the page."""
    for_the_person = (contribution >= 0) == (favourable == "higher")
    kind, arrow, told = ("for", "\u25b2", "for the person") if for_the_person else ("against", "\u25bc", "against")
    return Markup(
        '<span class="{}"><span aria-hidden="true">{}</span><span class="visually-hidden">{}</span></span>'
    ).format(kind, arrow, told)


def by_size(attributions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The largest contribution first."""
    return sorted(attributions, key=lambda item: -abs(item["contribution"]))


def tiny(value: float) -> str:
    """A small error as a power of ten, or the number itself."""
    if value == 0 or abs(value) >= 1e-3:
        return words.number(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(
        str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )
    return f"{mantissa} \u00d7 10{raised}"


def short(pseudonym: str) -> str:
    """Enough of a pseudonym to tell two apart on a page; the whole stands in the link."""
    return pseudonym if len(pseudonym) <= 12 else f"\u2026{pseudonym[-8:]}"


def _ns(text: str) -> int:
    found = time_ns(text)
    return 0 if found is None else found
