"""The only file that makes things durable: nothing else in the project calls these system calls.

    pwrite            a batch into space that was reserved                    append_batch
    write             whole small files, lines at the end of a log            replace_file, create_file, append_line
    fdatasync         a batch, a log line (Linux; F_FULLFSYNC or fsync else)  datasync
    fsync             new files, and every directory whose names changed      _sync_directory
    posix_fallocate   a segment before it is needed                           reserve
    statvfs           how much is left                                        free_bytes
    ftruncate         a segment to its end                                    cut
    rename, link      a finished file into place                              replace_file, move, create_file
    unlink            what is spent                                           remove
    mkdir             a directory, entered into its parent                    make_directory

A short write goes on where it stopped; EINTR is retried. A failed fsync is never retried: the page cache lies
afterwards (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020), so it raises and
the caller stops. The calls go through a :class:`Syscalls`, so that each of them can be made to fail.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from pathlib import Path

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700


class Syscalls:
    """The kernel, as this file uses it."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file (0600 where it is new)."""
        return os.open(path, flags | os.O_CLOEXEC, _FILE_MODE)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at an offset; the number of bytes written may be fewer than given."""
        return os.pwrite(fd, data, offset)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write at the descriptor's place; perhaps fewer bytes than given."""
        return os.write(fd, data)

    def datasync(self, fd: int) -> None:
        """fdatasync(2) or what the platform has in its place."""
        if sys.platform == "darwin":  # pragma: no cover - fsync there leaves data in the drive's cache
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        """Make a file's content, size and allocation durable, or a directory's names."""
        os.fsync(fd)

    def fallocate(self, fd: int, size: int) -> None:
        """posix_fallocate(3) from the file's beginning."""
        os.posix_fallocate(fd, 0, size)

    def free(self, path: Path) -> tuple[int, int]:
        """Bytes that this user may still write to the file system of ``path``, and all it has (statvfs(3))."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def truncate(self, fd: int, size: int) -> None:
        """End a file at a size."""
        os.ftruncate(fd, size)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing what bears the new name."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a second name; FileExistsError where it is taken."""
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        path.unlink()

    def mkdir(self, path: Path) -> None:
        """Make a directory (0700)."""
        path.mkdir(_DIRECTORY_MODE)


KERNEL = Syscalls()


def free_bytes(path: Path, calls: Syscalls = KERNEL) -> tuple[int, int]:
    """Free bytes of the file system of ``path``, and all that it has."""
    return calls.free(path)


def append_batch(fd: int, data: bytes, offset: int, calls: Syscalls = KERNEL) -> None:
    """All of ``data`` is written at ``offset`` on return, not yet durable."""
    view = memoryview(data)
    while view:
        try:
            written = calls.pwrite(fd, view, offset)
        except InterruptedError:
            continue
        if written == 0:
            raise OSError(errno.EIO, "a write made no progress")
        view, offset = view[written:], offset + written


def datasync(fd: int, calls: Syscalls = KERNEL) -> None:
    """What was written to ``fd`` is durable on return."""
    calls.datasync(fd)


def reserve(path: Path, size: int, calls: Syscalls = KERNEL) -> None:
    """Create ``path`` with ``size`` bytes of allocated zeros, durable; writes into it succeed on a full disk.

    Raises OSError (ENOSPC: no room) and leaves nothing behind.
    """
    fd = calls.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        calls.fallocate(fd, size)
        calls.fsync(fd)
        _sync_directory(path.parent, calls)
    except OSError:
        with contextlib.suppress(OSError):
            calls.unlink(path)
        raise
    finally:
        os.close(fd)


def create_segment(spare: Path, path: Path, header: bytes, calls: Syscalls = KERNEL) -> int:
    """Turn a reserved file into the segment ``path``; its header and its name are durable on return.

    The name appears only after the header is durable. Returns a descriptor to write batches with.
    """
    fd = calls.open(spare, os.O_RDWR)
    try:
        append_batch(fd, header, 0, calls)
        calls.fsync(fd)
        calls.rename(spare, path)
        _sync_directory(path.parent, calls)
    except OSError:
        os.close(fd)
        raise
    return fd


def cut(path: Path, size: int, calls: Syscalls = KERNEL) -> None:
    """``path`` ends at ``size`` bytes, durable on return."""
    fd = calls.open(path, os.O_RDWR)
    try:
        calls.truncate(fd, size)
        calls.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, calls: Syscalls = KERNEL) -> None:
    """``path`` holds ``data`` and nothing else, durable on return; a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_whole(temporary, data, calls)
        calls.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            calls.unlink(temporary)
        raise
    _sync_directory(path.parent, calls)


def create_file(path: Path, data: bytes, calls: Syscalls = KERNEL) -> bool:
    """Like :func:`replace_file`, but where ``path`` exists it stays as it is and the answer is False."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _write_whole(temporary, data, calls)
    try:
        calls.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        calls.unlink(temporary)
        _sync_directory(path.parent, calls)
    return True


def append_line(path: Path, line: bytes, calls: Syscalls = KERNEL) -> None:
    """``line`` stands at the end of ``path`` (created if missing), durable on return.

    Raises OSError; then the file may end in a part of it, and the caller must append nothing more: the next line would
    be joined to that part, and what seems to be there may be on no disk.
    """
    is_new = not path.exists()
    fd = calls.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        _write_all(fd, line, calls)
        calls.datasync(fd)
    finally:
        os.close(fd)
    if is_new:
        _sync_directory(path.parent, calls)


def move(source: Path, target: Path, calls: Syscalls = KERNEL) -> None:
    """``source`` is named ``target``, durable on return; both on one file system."""
    calls.rename(source, target)
    _sync_directory(target.parent, calls)
    if source.parent != target.parent:
        _sync_directory(source.parent, calls)


def remove(path: Path, calls: Syscalls = KERNEL) -> None:
    """``path`` is gone, durable on return; nothing happens where it was missing."""
    try:
        calls.unlink(path)
    except FileNotFoundError:
        return
    _sync_directory(path.parent, calls)


def make_directory(path: Path, calls: Syscalls = KERNEL) -> None:
    """``path`` is a directory (0700 where it is new), durable on return with its missing parents."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory(path.parent, calls)
    with contextlib.suppress(FileExistsError):
        calls.mkdir(path)
    _sync_directory(path.parent, calls)


def _write_whole(path: Path, data: bytes, calls: Syscalls) -> None:
    fd = calls.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        _write_all(fd, data, calls)
        calls.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, calls: Syscalls) -> None:
    view = memoryview(data)
    while view:
        try:
            written = calls.write(fd, view)
        except InterruptedError:
            continue
        if written == 0:
            raise OSError(errno.EIO, "a write made no progress")
        view = view[written:]


def _sync_directory(path: Path, calls: Syscalls) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        calls.fsync(fd)
    finally:
        os.close(fd)


def new_private(path: Path) -> int:
    """A descriptor of a new file that nobody else may read; FileExistsError where there is one."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def settle_new(fd: int, path: Path, calls: Syscalls = KERNEL) -> None:
    """The new file `path`, all of which was written to ``fd``, is durable with its name on return."""
    calls.fsync(fd)
    _sync_directory(path.parent, calls)
