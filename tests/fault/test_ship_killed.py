"""The shipping process killed at any moment, in mid-insert too: everything is in the database once."""

import random
import subprocess
import sys
import time
from pathlib import Path

import orjson

from tests.support.batches import Shard
from tests.support.power import ROOT

KILLS = 6


def test_a_shipper_killed_in_mid_insert_ships_everything_once(tmp_path: Path) -> None:
    shard = Shard()
    for _ in range(60):
        shard.decisions(50, size=300)
    journal = tmp_path / "journal"
    shard.write(journal)
    pace, told = random.Random(7), 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.support.ship_writer", "ship", str(tmp_path), str(journal)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            try:
                lines = [process.stdout.readline() for _ in range(pace.randint(2, 6))]
                time.sleep(pace.uniform(0, 0.08))  # to hit another step of a range each time
            finally:
                process.kill()
        told = max([told, *(int(line) for line in lines if line.strip().isdigit())])
    command = [sys.executable, "-m", "tests.support.ship_writer", "check", str(tmp_path), str(journal), str(told)]
    done = subprocess.run(command, capture_output=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr.decode()
    result = orjson.loads(done.stdout)
    assert result["before"] == {"wanted": told, "rows": told, "right": told}
    assert result["after"] == {"wanted": 3_000, "rows": 3_000, "right": 3_000}
    assert result["counts"] == result["sent"]
