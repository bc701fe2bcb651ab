"""What happened to one decision, in order of time (pure)."""

from typing import Any, Final

from gateway.desk import words
from gateway.desk.records import Dossier
from gateway.desk.roles import PURPOSES

RECORDED: Final = {  # by evidence mode: what had happened when the answer ended
    "strict": "durable before the answer ended",
    "spool": "written before the answer ended, durable a moment later (mode spool)",
    "best_effort": "the answer did not wait for it (mode best effort)",
}
RECORDED_SOMEHOW: Final = "in the journal"


def timeline(dossier: Dossier, *, people: bool) -> list[dict[str, Any]]:
    """Events `{at, clock, title, detail}`, earliest first; `people` = who looked at it is told too."""
    decision = dossier.decision
    events: list[tuple[int, str, str]] = []
    received_ns = _received_ns(dossier)
    if received_ns is not None:
        events.append((received_ns, "Request received", f"by the service \u201c{decision.route}\u201d"))
        if decision.upstream_us:
            took = f"after {words.duration(decision.upstream_us)}"
            answered = "Model answered" if decision.stream == "complete" else "Answer ended early"
            # two clocks, one that counts on and one that tells the time: what is recorded was answered before
            answered_ns = min(received_ns + decision.upstream_us * 1_000, decision.ts_ns)
            events.append((answered_ns, answered, took))
    lost = decision.stream == "gateway_lost"
    when = "after the gateway was started again" if lost else RECORDED.get(decision.mode or "", RECORDED_SOMEHOW)
    events.append((decision.ts_ns, "Recorded", when))
    if dossier.extracted_ns is not None:
        found = f"\u201c{decision.label}\u201d" if decision.label is not None else "no label found"
        events.append((dossier.extracted_ns, "Answer read", found))
    for explanation in dossier.explanations:
        row = explanation.row
        ready = row.state == "ready"
        detail = (row.verdict or "") if ready else (row.error or "").replace("_", " ")
        events.append((row.ts_ns, "Explained" if ready else "Explanation failed", detail))
    if people:
        for look in dossier.looks:
            what = "Looked at" if look.outcome == "granted" else "Look refused"
            why = PURPOSES.get(look.purpose or "", look.purpose or "no purpose stated")
            events.append(
                (look.ts_ns, what, f"{look.actor.rpartition('|')[2]} ({look.role}), {why[:1].lower()}{why[1:]}")
            )
    events.sort(key=lambda event: event[0])
    return [
        {"at": words.iso(at), "day": words.date(at), "clock": words.clock(at), "title": title, "detail": detail}
        for at, title, detail in events
    ]


def _received_ns(dossier: Dossier) -> int | None:
    timing = dossier.entry.get("timing")
    received = timing.get("received_ns") if isinstance(timing, dict) else None
    return int(received) if isinstance(received, str | int) and str(received).isdigit() else None
