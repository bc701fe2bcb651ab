"""An emulated power cut: ext4 on a loop device, its image copied while the writer is stopped.

What the writer synced is on the copy; what only its page cache held is not, because the mount's own commits are
five minutes apart. Needs root.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
ROOT = Path(__file__).parents[2]


def run(*command: str | Path) -> None:
    """Run a system tool to its end."""
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60, env=ENVIRONMENT)


def fresh_image(path: Path, size_bytes: int) -> Path:
    """An empty ext4 file system in a sparse file."""
    path.touch()
    os.truncate(path, size_bytes)
    run("mkfs.ext4", "-q", "-F", path)
    return path


@contextlib.contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """The image's file system at `place`."""
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop,commit=300", image, place)
    try:
        yield place
    finally:
        run("umount", place)


def cut_off(
    image: Path, copy: Path, place: Path, command: Callable[[Path], Sequence[str]], *, enough: Callable[[str], bool]
) -> list[str]:
    """Run `command` on the mounted image until `enough` says so of a line that it told; the lines told.

    On return `copy` is the image as a disk would have it after a power cut at that moment.
    """
    told: list[str] = []
    with mounted(image, place) as root, subprocess.Popen(command(root), stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                told.append(line.decode().strip())
                if enough(told[-1]):
                    break
            process.send_signal(signal.SIGSTOP)
            wait_stopped(process.pid)
            os.set_blocking(process.stdout.fileno(), False)
            rest = (process.stdout.read() or b"").splitlines(keepends=True)
            told += [line.decode().strip() for line in rest if line.endswith(b"\n")]
            run("cp", "--sparse=always", image, copy)
        finally:
            process.kill()
    return told


def wait_stopped(pid: int) -> None:
    """Return when every thread of the process stands still."""
    deadline = time.monotonic() + 10
    while True:
        states = {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}
        if states == {"T"}:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"threads are {states}")
        time.sleep(0.01)
