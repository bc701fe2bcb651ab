"""The parsers of storage/protocols, and redaction, under a coverage-guided fuzzer: no crash, no hang."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from config.processes import start
from tests.contract.environment import python
from tests.support.protocol_vectors import load, names

TARGETS = Path(__file__).parent / "fuzz"
PROTOCOLS = ("generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow")
FOR_S = int(os.environ.get("ANSWERABLE_FUZZ_S", "30"))
HANGS_S = 10
SECRETS = (
    b'{"a":"4111111111111111","b":[1,{"b":"x"}],"c":[{"x":1}],"d":["DE89370400440532013000"],"n":4111111111111111}',
    b'data: {"i":[{"index":0,"t":"4111 1111"}]}\n\ndata: {"i":[{"index":0,"t":" 1111 1111"}]}\n\ndata: [DONE]\n\n',
    b"a=4111+1111+1111+1111&b=%44%45%38%39370400440532013000",
    b'{"a":"\\u0034111111111111111"}\n{"a":1}\n',
)
RSS_MB_MAX = 512


@pytest.mark.contract
@pytest.mark.needs("contract-fuzz")
@pytest.mark.timeout(FOR_S + 120)
def test_the_fuzzer_finds_no_bytes_that_crash_hang_or_swell_the_adapters(tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in names():
        vector = load(name)
        chosen = bytes([PROTOCOLS.index(vector.protocol) + (132 if vector.batch else 0)])
        (corpus / name).write_bytes(chosen + vector.request + b"\xff" + vector.answer)
    fuzzed("protocols.py", corpus)


@pytest.mark.contract
@pytest.mark.needs("contract-fuzz")
@pytest.mark.timeout(FOR_S + 120)
def test_the_fuzzer_finds_no_body_that_crashes_redaction_or_leaves_a_number_in_it(tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in names():
        for chosen in range(10):
            (corpus / f"{name}-{chosen}").write_bytes(bytes([chosen]) + load(name).answer)
    for chosen, body in enumerate(SECRETS * 2):
        (corpus / str(chosen)).write_bytes(bytes([chosen]) + body)
    fuzzed("redaction.py", corpus)


def fuzzed(target: str, corpus: Path) -> None:
    """The fuzzer's whole run ended without a find."""
    process = start(
        [
            str(python("fuzz")),
            str(TARGETS / target),
            f"-max_total_time={FOR_S}",
            f"-timeout={HANGS_S}",
            f"-rss_limit_mb={RSS_MB_MAX}",
            f"-artifact_prefix={corpus.parent}/",
            str(corpus),
        ],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, said = process.communicate(timeout=FOR_S + 90)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said.decode(errors="replace")[-4000:]
    assert b"Done " in said
