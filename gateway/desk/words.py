"""How the desk tells times, names and states: one place for each phrase that more than one page uses (pure)."""

from collections.abc import Mapping
from datetime import UTC, datetime

NS_PER_S = 1_000_000_000
DAY_NS = 86_400 * NS_PER_S
BEGINNING_NS = 946_684_800 * NS_PER_S  # 2000-01-01: older than any record

STREAM_WORDS: Mapping[str, str] = {
    "complete": "complete",
    "client_aborted": "cut off: the caller went away",
    "upstream_aborted": "cut off by the model's endpoint",
    "gateway_lost": "cut off: the gateway stopped; what had passed is kept",
}
BINDING_WORDS: Mapping[str, str] = {
    "announced": "the endpoint announced this version and it is registered",
    "output-matched": "no version was announced; the registered model gives the same output",
    "declared": "the configuration says so; the endpoint announced nothing",
    "unbound": "the registered model gives another output than the recorded one",
}
BASELINE_WORDS: Mapping[str, str] = {
    "near_cutoff": "applicants just above the line",
    "all_applicants": "all applicants",
    "uploaded": "the comparison group that the model owner registered",
}


def iso(ts_ns: int) -> str:
    """RFC 3339 in UTC with milliseconds, as the API writes times."""
    moment = _moment(ts_ns)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def date(ts_ns: int) -> str:
    """`3 March 2026`."""
    moment = _moment(ts_ns)
    return f"{moment.day} {moment.strftime('%B %Y')}"


def date_time(ts_ns: int) -> str:
    """`3 March 2026, 14:05 UTC`."""
    return f"{date(ts_ns)}, {_moment(ts_ns).strftime('%H:%M')} UTC"


def brief(ts_ns: int) -> str:
    """`3 Mar 2026, 14:05:09`."""
    moment = _moment(ts_ns)
    return f"{moment.day} {moment.strftime('%b %Y, %H:%M:%S')}"


def clock(ts_ns: int) -> str:
    """`14:05:09.120`."""
    moment = _moment(ts_ns)
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def duration(microseconds: int) -> str:
    """`840 µs`, `12 ms`, `1.4 s`."""
    if microseconds < 1_000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1_000:.0f} ms"
    return f"{microseconds / 1_000_000:.1f} s"


def number(value: float) -> str:
    """At most four significant digits beside the whole part, with a real minus sign."""
    text = f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.4g}"
    return text.replace("-", "\u2212")


def signed(value: float) -> str:
    """A contribution: always with its sign, two decimals (three where smaller)."""
    digits = 2 if abs(value) >= 0.1 or value == 0 else 3
    return f"{value:+.{digits}f}".replace("-", "\u2212")


def spaced(reference: str) -> str:
    """A reference in groups of four, as people read it out."""
    return " ".join(reference[at : at + 4] for at in range(0, len(reference), 4))


def short(identifier: str) -> str:
    """The end of an id: enough to read out on the telephone (its beginning is only the time)."""
    return identifier[-12:]


def _moment(ts_ns: int) -> datetime:
    seconds, rest_ns = divmod(ts_ns, NS_PER_S)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1_000)
