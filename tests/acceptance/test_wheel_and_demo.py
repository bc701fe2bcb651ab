"""The built wheel, installed outside the checkout, runs the whole demonstration."""

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that holds the wheel's packages and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=170,
    )
    (wheel,) = folder.glob("answerable-*.whl")
    target = folder / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, cwd: Path, *arguments: str, timeout_s: float = 170) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_the_wheel_carries_sql_templates_static_files_and_examples(installed):
    for pattern in (
        "storage/migrations/*.sql",
        "storage/queries.sql",
        "gateway/desk/templates/*.html",
        "gateway/desk/static/*.css",
        "config/examples/*.yaml",
        "storage/README.md",
        "storage/py.typed",
        "storage/verifiers/verify_bundle.py",
        "storage/verifiers/verify_bundle.mjs",
        "storage/verifiers/page.html",
    ):
        assert list(installed.glob(pattern)), pattern


def test_the_demo_sends_records_ships_explains_and_verifies_every_application(installed, tmp_path):
    where = subprocess.run(
        [sys.executable, "-c", "import gateway, storage; print(gateway.__file__, storage.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert all(path.startswith(str(installed)) for path in where)

    ended = run(
        installed,
        tmp_path,
        "demo",
        "--exit",
        "--port",
        str(free_port()),
        "--desk-port",
        str(free_port()),
        "--data",
        "d",
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    assert set(told) == {"sent", "recorded", "shipped", "explained", "verified", "decision_url"}
    assert told["sent"] == told["recorded"] == told["shipped"] == told["explained"] >= 500
    assert told["verified"] is True

    again = run(installed, tmp_path, "verify", "--data", "d")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "sound" in again.stdout


def test_a_port_in_use_is_said_clearly(installed, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(installed, tmp_path, "demo", "--exit", "--port", str(port), "--data", "d")
    assert ended.returncode == 2
    assert f"port {port} is in use" in ended.stderr
    assert "--port" in ended.stderr


def test_the_demo_ends_in_order_on_ctrl_c(installed, tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gateway.cli",
            "demo",
            "--port",
            str(free_port()),
            "--desk-port",
            str(free_port()),
            "--data",
            "d",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        links = []
        for line in process.stdout:
            links += [word for word in line.split() if "/signin/" in word]
            if len(links) == 2:
                break
        assert len(links) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.terminate()  # not killed: it would leave its host behind
        process.wait()
        process.stdout.close()
    assert run(installed, tmp_path, "verify", "--data", "d").returncode == 0
