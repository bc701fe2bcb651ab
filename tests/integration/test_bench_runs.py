"""The load tests themselves: they run in their short form, say what is missing, and charge for what waits."""

import asyncio
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from load_tests import chart, fdatasync, openloop, traffic
from load_tests.percentile import percentile

ROOT = Path(__file__).parents[2]

LONGEST_S = 120


def _bench(tmp_path: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSWERABLE_BENCH_CACHE": str(tmp_path / "cache")}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [sys.executable, "-m", "load_tests", *arguments, "--results", str(tmp_path / "results")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )


@pytest.mark.needs("nginx", "wrk", "taskset")
def test_the_short_comparison_measures_ours_beside_bare_aiohttp(tmp_path: Path) -> None:
    done = _bench(tmp_path, "data-plane", "--short", "--only", "bare,litellm", "--no-install")

    assert done.returncode == 0, done.stderr
    assert "Answerable" in done.stdout
    assert "left out: LiteLLM" in done.stdout
    document = json.loads((tmp_path / "results" / "data-plane.json").read_text())
    assert {row["key"] for row in document["rows"]} == {"ours", "bare"}
    claims = {claim["text"]: claim for claim in document["claims"]}
    assert claims["Answerable: calls lost or open"]["met"]
    assert claims["Answerable: decisions closed ÷ answers counted"]["met"]
    assert claims["Answerable: answers that were errors"]["met"]
    ET.parse(tmp_path / "results" / "data-plane.svg")
    assert not list((tmp_path / "cache" / "work").iterdir()), "a run leaves no journal behind"


@pytest.mark.needs("nginx", "wrk", "taskset")
def test_the_short_evidence_section_measures_journal_database_and_proofs(tmp_path: Path) -> None:
    done = _bench(tmp_path, "evidence", "--short")

    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results" / "evidence.json").read_text())
    claims = {claim["text"]: claim for claim in document["claims"]}
    assert len(claims) == 9
    assert claims["bytes of a proof"]["met"]
    assert all(claim["value"] > 0 for claim in claims.values())
    measured = document["measured_here"]["database"]
    assert measured["verify: leaves inside ClickHouse"]["count"] == 2_008
    assert 1_024 <= measured["verify: what is recent"]["count"] < 2_008


@pytest.mark.needs("nginx", "wrk", "taskset")
def test_the_short_open_loop_and_streams_come_through_whole(tmp_path: Path) -> None:
    done = _bench(tmp_path, "latency", "streams", "--short", "--only", "ours")

    assert done.returncode == 0, done.stderr
    latency = json.loads((tmp_path / "results" / "latency.json").read_text())
    streams = json.loads((tmp_path / "results" / "streams.json").read_text())
    assert latency["measured_here"]["ours-100"]["failed"] == 0
    assert latency["measured_here"]["fdatasync"]["samples"] > 0
    untimed = [claim for claim in streams["claims"] if not claim["text"].endswith("ms")]
    assert all(claim["met"] for claim in untimed), untimed


def test_a_machine_without_the_tools_is_told_which_packages_to_install(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from load_tests import __main__ as bench, machine\n"
        "machine.PACKAGES['no-such-tool'] = 'no-such-package'\n"
        f"sys.argv = ['load_tests', 'data-plane', '--short', '--results', {str(tmp_path)!r}]\n"
        "sys.exit(bench.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )

    assert done.returncode == 2
    assert "no-such-tool" in done.stderr
    assert "apt-get install" in done.stderr
    assert "no-such-package" in done.stderr


async def test_a_stall_of_the_server_is_charged_to_every_call_that_was_due_meanwhile() -> None:
    stall_s = 0.3
    release = asyncio.Event()
    stalling: list[asyncio.TimerHandle] = []  # from when the first call arrived

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            if not stalling:
                stalling.append(asyncio.get_running_loop().call_later(stall_s, release.set))
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    data = openloop.request(traffic.CHAT_PATH, b"{}", {})
    outcome = await asyncio.to_thread(openloop.run, port, data, openloop.evenly(20, 0.2), connections=2)
    server.close()

    assert outcome.failed == 0
    assert len(outcome.whole_ms) == 20
    assert min(outcome.whole_ms) >= (stall_s - 0.2) * 1e3, "the last one, due 0.19 s after the first, waited too"
    assert percentile(outcome.late_ms, 99) >= 50, "with two connections the others left late, and that is said"


async def test_calls_are_made_in_a_process_whose_descriptors_lie_about_the_end_of_select() -> None:
    """select(2) ends at 1,023; low holes among the descriptors say nothing of where the next ones come to lie."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    taken = [os.dup(0)]
    while taken[-1] < openloop.FD_SETSIZE - 3:
        taken.append(os.dup(0))
    try:
        os.close(taken.pop(0))  # a hole at the bottom
        data = openloop.request(traffic.CHAT_PATH, b"{}", {})
        outcome = await asyncio.to_thread(openloop.run, port, data, openloop.evenly(20, 0.1), connections=4)
    finally:
        for descriptor in taken:
            os.close(descriptor)
    server.close()

    assert outcome.failed == 0
    assert len(outcome.whole_ms) == 20


async def test_a_connection_that_breaks_is_a_failed_call_and_no_short_time() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(65536):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    data = openloop.request(traffic.CHAT_PATH, b"{}", {})
    outcome = await asyncio.to_thread(openloop.run, port, data, openloop.evenly(3, 0.05), connections=3)
    server.close()

    assert outcome.failed == 3
    assert outcome.whole_ms == []


def test_the_same_seed_gives_the_same_arrivals_and_about_the_rate_asked_for() -> None:
    due = openloop.poisson(200, 5, seed=1)

    assert due == openloop.poisson(200, 5, seed=1)
    assert due == sorted(due)
    assert 850 <= len(due) <= 1150


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile(list(range(1, 101)), 99) == 99
    assert percentile([7.0], 99) == 7.0


def test_fdatasync_is_timed_and_leaves_nothing(tmp_path: Path) -> None:
    disk = fdatasync.Disk(tmp_path)
    disk.measure(5)

    assert len(disk.samples_ms) == 5
    assert disk.p99_ms >= disk.p50_ms > 0
    assert list(tmp_path.iterdir()) == []


def test_the_chart_is_valid_xml_whatever_labels_say() -> None:
    drawn = ET.fromstring(
        chart.bars("a < b", "ours = 1", [chart.Bar("x & y", 0.012), chart.Bar("ours", 1.0, ours=True)])
    )

    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "x & y" in texts
    assert "0.012" in texts


def test_chat_traffic_has_the_sizes_that_the_comparison_names() -> None:
    assert 800 <= len(traffic.chat_request()) <= 1000
    assert 250 <= len(traffic.chat_answer()) <= 350
    assert [len(traffic.sized_request(size)) for size in traffic.SIZES_KB] == [1024, 8192, 65536]
