"""Coverage-guided: any bytes as request and answer, through every adapter, reading and terminal. Run by atheris.

`python tests/security/fuzz/protocols.py -max_total_time=60 CORPUS` in the contract environment `fuzz`.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[3]))

with atheris.instrument_imports(include=["storage.protocols"]):
    from storage.protocols import Extractor, ExtractSpec
    from storage.protocols.faults import Unreadable
    from storage.protocols.reading import adapter_for, read
    from storage.protocols.terminals import Terminal

from config.extract import Extract

PROTOCOLS = ("generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow")
READINGS = ("@", "choices[0].message.content", {"json": "a"}, {"tool": "f", "argument": "@"}, {"match": "a|(.)"})
BYTES_MAX = 50_000


def extractor(protocol: str, reading: object, *, batch: bool) -> Extractor:
    """All that a route could declare, with this reading."""
    declared = Extract.model_validate({"label": reading, "score": reading})
    return Extractor(
        ExtractSpec(
            protocol=protocol,
            batch=batch,
            label=declared.label,
            score=declared.score,
            case="@",
            features="@",
            favourable=("a",),
            parse_bytes_max=BYTES_MAX,
            rows_max=8,
        )
    )


EXTRACTORS = [extractor(name, one, batch=batch) for name in PROTOCOLS for batch in (False, True) for one in READINGS]


def once(data: bytes) -> None:
    """One input: a byte that chooses, then request and answer with 0xFF between, which is in no UTF-8."""
    if not data:
        return
    request, _, answer = data[1:].partition(b"\xff")
    protocol = PROTOCOLS[data[0] % len(PROTOCOLS)]
    adapter = adapter_for(protocol, batch=data[0] >= 128)
    assert 1 <= len(read(adapter, request, answer, parse_bytes_max=BYTES_MAX, rows_max=8).rows) <= 8
    for row in EXTRACTORS[data[0] % len(EXTRACTORS)].rows(request, answer):
        assert row.label is not None or row.error is not None
        assert row.label is None or len(row.label.encode()) <= 64
    if adapter.ends is not None:
        terminal, free = Terminal(protocol, event_bytes_max=500), 0
        try:
            for at in range(0, len(answer), 7):
                now = terminal.feed(answer[at : at + 7])
                assert free <= now <= at + 7
                free = now
        except Unreadable:
            pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
