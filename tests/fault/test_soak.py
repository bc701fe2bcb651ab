"""The soak, in seconds: everything at once, and then every promise is counted. `make chaos` says ten minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("ANSWERABLE_SOAK_S", "20"))
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.parametrize("database", ["", "--server"])
def test_nothing_promised_is_lost_while_models_callers_keeper_and_clickhouse_fail(
    tmp_path: Path, database: str
) -> None:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "load_tests.soak",
                "--seconds",
                str(SECONDS),
                "--results",
                str(tmp_path / "results"),
            ),
            *([database] if database else []),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSWERABLE_BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=SECONDS + 800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    name = "soak-server" if database else "soak"
    document = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert all(claim["met"] for claim in document["claims"])
    counts = {row["cells"][0]: int(row["cells"][1]) for row in document["rows"]}
    assert counts["outcome 200"] > 10 * SECONDS
    assert not list((tmp_path / "cache" / "work").iterdir()), "a run leaves no journal behind"
