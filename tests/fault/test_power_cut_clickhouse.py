"""An emulated power cut of embedded ClickHouse: what was read back and called shipped is there afterwards.

The negative control leaves the tables' sync settings out, and keeps its ship log on another disk so that nothing else
syncs; it must lose rows: else the emulation shows nothing.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from tests.support.batches import Shard
from tests.support.power import ROOT, cut_off, fresh_image, mounted

IMAGE_BYTES = 512 * 1024 * 1024
CUTS = int(os.environ.get("ANSWERABLE_CUTS", "5"))  # `make chaos` says 100
RANGES = (1, 3, 7, 12, 20)  # told before the cut

pytestmark = [pytest.mark.needs("root", "loop", "losetup", "mkfs.ext4")]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal that survives: it lies on another disk than the database."""
    shard = Shard()
    for batch in range(40):
        if batch == 20:
            shard.roll()
        shard.decisions(20, size=300)
    directory = tmp_path_factory.mktemp("journal")
    shard.write(directory)
    return directory


def cut(tmp_path: Path, journal: Path, ranges: int, *options: str) -> tuple[int, Path]:
    """Ship until so many ranges are told, cut the power; the end of what was told, and the disk as it is then."""
    image = fresh_image(tmp_path / "image", IMAGE_BYTES)
    copy = tmp_path / "copy"

    def command(place: Path) -> Sequence[str]:
        return [sys.executable, "-m", "tests.support.ship_writer", "ship", str(place), str(journal), *options]

    told = cut_off(image, copy, tmp_path / "mounted", command, enough=lambda line: line == str(ranges * 20))
    image.unlink()
    return int(told[-1]), copy


def looked_at(tmp_path: Path, copy: Path, journal: Path, end: int, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Mount the copy and let a new process look, then ship the rest."""
    with mounted(copy, tmp_path / "mounted") as place:
        command = [sys.executable, "-m", "tests.support.ship_writer", "check", str(place), str(journal), str(end)]
        return subprocess.run([*command, *options], capture_output=True, timeout=120, cwd=ROOT, check=False)


@pytest.mark.parametrize("ranges", [RANGES[number % len(RANGES)] for number in range(CUTS)])
def test_what_was_called_shipped_survives_a_power_cut_and_the_rest_follows_once(
    tmp_path: Path, journal: Path, ranges: int
) -> None:
    end, copy = cut(tmp_path, journal, ranges)
    done = looked_at(tmp_path, copy, journal, end)
    assert done.returncode == 0, done.stderr.decode()
    result = orjson.loads(done.stdout)
    assert end >= ranges * 20
    assert result["before"] == {"wanted": end, "rows": end, "right": end}
    assert result["after"] == {"wanted": 800, "rows": 800, "right": 800}
    assert result["counts"] == result["sent"]


def test_without_the_sync_settings_the_same_cut_loses_what_was_acknowledged(tmp_path: Path, journal: Path) -> None:
    end, copy = cut(tmp_path, journal, 12, "unsynced")
    done = looked_at(tmp_path, copy, journal, end, "unsynced")
    if done.returncode == 0:
        assert orjson.loads(done.stdout)["before"]["right"] < end
    else:  # not even opened: parts or tables are damaged
        assert b"DB::Exception" in done.stderr, done.stderr.decode()
