"""What every test shares: the `needs` marker, and the promise that nothing is left out silently.

`@pytest.mark.needs("root", "strace", …)` runs where these exist. Where one does not, the test is listed by
name at the end of the run; under `ANSWERABLE_CI=1` it fails instead.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.contract import environment
from tests.support.database import database, embedded, embedded_path, server_url  # noqa: F401 - fixtures

_left_out = pytest.StashKey[list[str]]()


def _missing(tools: tuple[str, ...]) -> list[str]:
    have = {
        "root": lambda: os.geteuid() == 0,
        **{f"contract-{name}": lambda name=name: environment.is_built(name) for name in environment.NAMES},
        "loop": lambda: os.geteuid() == 0 and Path("/dev/loop-control").exists(),
    }
    return [tool for tool in tools if not have.get(tool, lambda tool=tool: shutil.which(tool, path=_path()))()]


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        missing = _missing(mark.args)
        if not missing:
            continue
        if os.environ.get("ANSWERABLE_CI") == "1":
            pytest.fail(f"needs {', '.join(missing)}, which .ci/run should have installed", pytrace=False)
        pytest.skip(f"needs {', '.join(missing)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = [r for r in terminalreporter.stats.get("skipped", []) if r.when == "setup"]
    if left_out:
        terminalreporter.section("left out on this machine")
        for report in left_out:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            terminalreporter.line(f"{report.nodeid}: {reason}")
