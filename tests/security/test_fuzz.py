"""The parsers of storage/protocols under a coverage-guided fuzzer: no crash, no hang, memory bounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from config.processes import start
from tests.contract.environment import python
from tests.support.protocol_vectors import load, names

TARGET = Path(__file__).parent / "fuzz" / "protocols.py"
PROTOCOLS = ("generic", "openai", "anthropic", "inference-v2", "kserve-v1", "mlflow")
FOR_S = int(os.environ.get("ANSWERABLE_FUZZ_S", "30"))
HANGS_S = 10
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
    process = start(
        [
            str(python("fuzz")),
            str(TARGET),
            f"-max_total_time={FOR_S}",
            f"-timeout={HANGS_S}",
            f"-rss_limit_mb={RSS_MB_MAX}",
            f"-artifact_prefix={tmp_path}/",
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
