"""Environments of their own for other people's clients and servers, outside the repository.

`python -m tests.contract.environment [NAME…]` builds them (network, minutes, some GB); a built one is kept until its
requirements change. `ANSWERABLE_CONTRACT_CACHE` says where, by default ~/.cache/answerable-contract.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
NAMES = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
BUILD_S = 1_800


def folder(name: str) -> Path:
    """Where the environment stands or would stand."""
    default = Path.home() / ".cache" / "answerable-contract"
    return Path(os.environ.get("ANSWERABLE_CONTRACT_CACHE") or default) / name


def python(name: str) -> Path:
    """Its interpreter."""
    return folder(name) / "bin" / "python"


def is_built(name: str) -> bool:
    """Whether it stands with today's requirements."""
    stamp = folder(name) / "requirements.txt"
    return stamp.exists() and stamp.read_text() == (REQUIREMENTS / f"{name}.txt").read_text() and python(name).exists()


def build(name: str) -> None:
    """True on return: it stands with today's requirements."""
    if is_built(name):
        return
    shutil.rmtree(folder(name), ignore_errors=True)
    venv.create(folder(name), with_pip=True)
    wanted = REQUIREMENTS / f"{name}.txt"
    command = [str(python(name)), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(wanted)]
    subprocess.run(command, check=True, timeout=BUILD_S)
    shutil.copy(wanted, folder(name) / "requirements.txt")


if __name__ == "__main__":
    for asked_for in sys.argv[1:] or NAMES:
        build(asked_for)
