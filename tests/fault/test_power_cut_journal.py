"""An emulated power cut: ext4 on a loop device, its image copied while the writer is stopped, mounted, recovered.

What the writer told before it was stopped must be on the copy, because it was synced; the page cache is not. The
negative control leaves fdatasync out and must lose acknowledged entries: else the emulation shows nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import receipts
from storage.journal import JournalLimits
from storage.keys import Keyring
from storage.merkle import leaf_hash
from tests.support.journals import entries_of, open_journal, read_all

CUTS = int(os.environ.get("ANSWERABLE_CUTS", "5"))  # `make chaos` says 100
CALLS = 16
LIMITS = JournalLimits(segment_bytes=1024 * 1024)
IMAGE_BYTES = (96 + 4 * CUTS) * 1024 * 1024
ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}

pytestmark = [pytest.mark.needs("root", "loop", "losetup", "mkfs.ext4"), pytest.mark.timeout(180 + 20 * CUTS)]


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60, env=ENVIRONMENT)


@contextlib.contextmanager
def _mounted(image: Path, place: Path) -> Iterator[Path]:
    """The image's file system at ``place``; commit=300: the kernel's own write-back does not help the writer."""
    place.mkdir(exist_ok=True)
    _run("mount", "-o", "loop,commit=300", image, place)
    try:
        yield place
    finally:
        _run("umount", place)


def _cut_while_writing(root: Path, image: Path, *options: str, lines: int = 100) -> tuple[list[str], Path]:
    """Receipts that were told before the cut, and the image as the disk has it then."""
    copy = root / "copy.img"
    with _mounted(image, root / "mounted") as place:
        command = [sys.executable, "-m", "tests.support.journal_writer", str(place / "data"), str(CALLS), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"ready\n"
                told = [process.stdout.readline() for _ in range(lines)]
                process.send_signal(signal.SIGSTOP)
                _wait_stopped(process.pid)
                os.set_blocking(process.stdout.fileno(), False)
                told += (process.stdout.read() or b"").splitlines(keepends=True)
                _run("cp", "--sparse=always", image, copy)
            finally:
                process.kill()
    return [line.decode().rstrip("\n") for line in told if line.endswith(b"\n")], copy


def _wait_stopped(pid: int) -> None:
    """Every thread of the process stands still."""
    deadline = time.monotonic() + 10
    while True:
        states = {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}
        if states == {"T"}:
            return
        assert time.monotonic() < deadline, f"threads are {states}"


def _prepared(root: Path) -> Path:
    image = root / "disk.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run("mkfs.ext4", "-q", "-F", image)
    with _mounted(image, root / "mounted") as place:
        Keyring.open(place / "data", create=True)
        _run("sync", "-f", place)
    return image


async def test_all_that_was_acknowledged_before_a_power_cut_is_there_after_it(tmp_path: Path) -> None:
    image = _prepared(tmp_path)
    told: list[str] = []
    for _ in range(CUTS):
        more, copy = _cut_while_writing(tmp_path, image)
        told += more
        copy.replace(image)
    with _mounted(image, tmp_path / "mounted") as place:
        keyring = Keyring.open(place / "data")
        directory = place / "data" / "journal" / "gateway-0"
        journal = await open_journal(directory, keyring.journal_keys(), limits=LIMITS, boot_id=bytes(16))
        counters = journal.counters
        await journal.close()
        batches = read_all(directory, host_keys={keyring.journal_keys().host_public})
    leaves = {record.seq: leaf_hash(record.entry) for batch in batches for record in batch.records}
    assert len(told) >= CUTS * 100
    for text in told:
        receipt = receipts.parse(text)
        assert leaves.get(receipt.seq) == receipt.leaf
    entries = entries_of(batches)
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    assert (counters.open, counters.accepted) == (0, counters.closed + counters.lost)
    assert any(entry["kind"] == "gap" and entry["count"] == "unknown" for entry in entries)


async def test_without_fdatasync_the_same_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    image = _prepared(tmp_path)
    told, copy = _cut_while_writing(tmp_path, image, "--unsynced")
    with _mounted(copy, tmp_path / "mounted") as place:
        directory = place / "data" / "journal" / "gateway-0"
        batches = read_all(directory) if directory.exists() else []
    leaves = {record.seq: leaf_hash(record.entry) for batch in batches for record in batch.records}
    lost = [text for text in told if leaves.get(receipts.parse(text).seq) != receipts.parse(text).leaf]
    assert len(lost) > len(told) // 2


async def test_of_what_was_spooled_a_power_cut_takes_only_the_end_and_the_gap_says_that_it_cannot_count(
    tmp_path: Path,
) -> None:
    image = _prepared(tmp_path)
    kept_once = False
    for _ in range(CUTS):
        told, copy = _cut_while_writing(tmp_path, image, "--spool", lines=2_000)  # over many syncs
        copy.replace(image)
        with _mounted(image, tmp_path / "mounted") as place:
            keyring = Keyring.open(place / "data")
            directory = place / "data" / "journal" / "gateway-0"
            journal = await open_journal(directory, keyring.journal_keys(), limits=LIMITS, boot_id=bytes(16))
            counters = journal.counters
            await journal.close()
            assert not list((directory / "quarantine").glob("*")), "a cut is no corruption"
            batches = read_all(directory, host_keys={keyring.journal_keys().host_public})
            _run("sync", "-f", place)
        leaves = {record.seq: leaf_hash(record.entry) for batch in batches for record in batch.records}
        acknowledged = sorted((receipts.parse(text) for text in told), key=lambda receipt: receipt.seq)
        is_kept = [leaves.get(receipt.seq) == receipt.leaf for receipt in acknowledged]
        assert is_kept == sorted(is_kept, reverse=True), "nothing is missing before something that is there"
        kept_once = kept_once or any(is_kept)
        entries = entries_of(batches)
        assert [entry["seq"] for entry in entries] == list(range(len(entries)))
        assert (counters.open, counters.accepted) == (0, counters.closed + counters.lost)
        assert any(entry["kind"] == "gap" and entry["count"] == "unknown" for entry in entries)
    assert kept_once
