from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from storage import durable
from tests.support.journals import Failing


class _Slow(durable.Syscalls):
    """Writes three bytes at a time, and is interrupted before each."""

    interrupted = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._interrupt()
        return super().pwrite(fd, data[:3], offset)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._interrupt()
        return super().write(fd, data[:3])

    def _interrupt(self) -> None:
        self.interrupted = not self.interrupted
        if self.interrupted:
            raise InterruptedError


class _Stuck(durable.Syscalls):
    """Writes nothing, and says so."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return 0

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return 0


def test_short_and_interrupted_writes_go_on_where_they_stopped(tmp_path: Path) -> None:
    durable.replace_file(tmp_path / "whole", b"0123456789", _Slow())
    assert (tmp_path / "whole").read_bytes() == b"0123456789"
    durable.append_line(tmp_path / "log", b"one line\n", _Slow())
    durable.append_line(tmp_path / "log", b"two\n", _Slow())
    assert (tmp_path / "log").read_bytes() == b"one line\ntwo\n"
    fd = os.open(tmp_path / "whole", os.O_RDWR)
    durable.append_batch(fd, b"abcdefgh", 4, _Slow())
    durable.datasync(fd)
    os.close(fd)
    assert (tmp_path / "whole").read_bytes() == b"0123abcdefgh"


def test_a_write_that_makes_no_progress_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no progress"):
        durable.replace_file(tmp_path / "x", b"data", _Stuck())
    with pytest.raises(OSError, match="no progress"):
        durable.append_batch(0, b"data", 0, _Stuck())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename"])
def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / "settings"
    durable.replace_file(path, b"old")
    with pytest.raises(OSError):
        durable.replace_file(path, b"new", Failing(name, lambda number, *_: errno.EIO if number == 1 else None))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_is_created_once(tmp_path: Path) -> None:
    assert durable.create_file(tmp_path / "key", b"first")
    assert not durable.create_file(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [tmp_path / "key"]


@pytest.mark.parametrize("name", ["fallocate", "fsync"])
def test_space_that_cannot_be_reserved_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        durable.reserve(tmp_path / "ahead", 8192, Failing(name, lambda *_: errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
    durable.reserve(tmp_path / "ahead", 8192)
    assert (tmp_path / "ahead").read_bytes() == bytes(8192)


def test_a_segment_bears_its_name_only_once_its_header_is_durable(tmp_path: Path) -> None:
    durable.reserve(tmp_path / "ahead", 8192)
    for name in ("pwrite", "fsync", "rename"):
        failing = Failing(name, lambda number, *_: errno.EIO if number == 1 else None)
        with pytest.raises(OSError):
            durable.create_segment(tmp_path / "ahead", tmp_path / "0.jrn", b"header", failing)
        assert not (tmp_path / "0.jrn").exists()
    os.close(durable.create_segment(tmp_path / "ahead", tmp_path / "0.jrn", b"header"))
    durable.cut(tmp_path / "0.jrn", 6)
    assert (tmp_path / "0.jrn").read_bytes() == b"header"


def test_files_are_moved_removed_and_directories_made_with_their_parents(tmp_path: Path) -> None:
    durable.make_directory(tmp_path / "a" / "b")
    durable.make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    durable.replace_file(tmp_path / "x", b"1")
    durable.move(tmp_path / "x", tmp_path / "a" / "b" / "y")
    assert (tmp_path / "a" / "b" / "y").read_bytes() == b"1"
    durable.remove(tmp_path / "a" / "b" / "y")
    durable.remove(tmp_path / "a" / "b" / "y")
    assert list((tmp_path / "a" / "b").iterdir()) == []


class _Counting(durable.Syscalls):
    """Notes what was synced: a file's content, or a directory's names."""

    def __init__(self) -> None:
        self.synced: list[bool] = []

    def fsync(self, fd: int) -> None:
        self.synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))
        super().fsync(fd)


def test_a_new_file_that_was_written_to_is_settled_with_its_name(tmp_path: Path) -> None:
    calls, path = _Counting(), tmp_path / "evidence"
    fd = durable.new_private(path)
    durable.append_batch(fd, b"whole", 0)
    durable.settle_new(fd, path, calls)
    os.close(fd)
    assert calls.synced == [False, True], "its content, then its name"
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"whole", 0o600)
