"""Comparators that come from registries, each in an environment of its own under the cache, installed once.

The versions are pinned so that a figure names what it was taken against. Nothing is put into the project's own
environment, and nothing at all where `allowed` is false.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from load_tests import machine

LITELLM = "1.106.2"
PORTKEY = "1.15.2"
INSTALL_S = 900.0


class AbsentError(Exception):
    """A comparator cannot be had here; the message is what the report says in its place."""


def litellm(*, allowed: bool) -> Path:
    """The `litellm` command of an environment that holds `litellm[proxy]`.

    Raises:
        AbsentError: it is not installed and may not or cannot be.
    """
    home = machine.cache() / f"litellm-{LITELLM}"
    command = home / "bin" / "litellm"
    if not (home / "complete").exists():
        _check(allowed, "LiteLLM", f"litellm[proxy]=={LITELLM} from PyPI")
        _run("LiteLLM", [sys.executable, "-m", "venv", "--clear", str(home)])
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run("LiteLLM", [*pip, f"litellm[proxy]=={LITELLM}"])
        (home / "complete").touch()
    return command


def portkey(*, allowed: bool) -> list[str]:
    """The command that starts Portkey's gateway under node.

    Raises:
        AbsentError: node is missing, or it is not installed and may not or cannot be.
    """
    node, npm = machine.which("node"), machine.which("npm")
    if node is None:
        raise AbsentError("Portkey: node is missing (Debian: apt-get install nodejs npm)")
    home = machine.cache() / f"portkey-{PORTKEY}"
    script = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not (home / "complete").exists():
        _check(allowed, "Portkey", f"@portkey-ai/gateway@{PORTKEY} from npm")
        if npm is None:
            raise AbsentError("Portkey: npm is missing (Debian: apt-get install npm)")
        home.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        _run("Portkey", [npm, "install", "--prefix", str(home), *quiet, f"@portkey-ai/gateway@{PORTKEY}"])
        (home / "complete").touch()
    return [node, str(script)]


def _check(allowed: bool, name: str, what: str) -> None:  # noqa: FBT001 - handed on as it came
    if not allowed:
        raise AbsentError(f"{name}: {what} is not in the cache, and nothing may be installed (--no-install)")
    print(f"installing {what} into the bench's cache, once …", file=sys.stderr, flush=True)


def _run(name: str, argv: list[str]) -> None:
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.CalledProcessError as error:
        problem = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
        raise AbsentError(f"{name}: could not be installed ({problem[-1][:200]})") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AbsentError(f"{name}: could not be installed ({type(error).__name__})") from error
