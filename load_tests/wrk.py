"""The closed loop: wrk with 64 connections, as fast as answers come.

A closed loop measures throughput; its latencies are those of a saturated proxy and leave out what waiting callers
would have seen (coordinated omission). Latency at a given load is `openloop`'s.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from load_tests import machine
from load_tests.process import BrokenError

CONNECTIONS = 64
TIMEOUT_S = 30  # LiteLLM's slowest answers; an answer that takes longer is an error
MARK = "@bench "

_SCRIPT = """
wrk.method = "POST"
wrk.body = {body}
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{mark}{{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"status":%d,"socket":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write, e.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one window of load gave."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int  # answers that are not 2xx or 3xx, broken connections, timeouts


def load(
    scratch: Path,
    *,
    port: int,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    seconds: float,
    cores: tuple[int, ...],
    connections: int = CONNECTIONS,
) -> Window:
    """Load loopback's `port` for `seconds` (at least 1, whole) with one thread of wrk on `cores`.

    Raises:
        BrokenError: wrk could not run.
    """
    lines = {"Content-Type": "application/json", **headers}
    script = scratch / "load.lua"
    script.write_text(
        _SCRIPT.format(
            body=_lua(body.decode()),
            headers="\n".join(f"wrk.headers[ {_lua(name)} ] = {_lua(value)}" for name, value in lines.items()),
            mark=MARK,
        )
    )
    whole_s = max(1, round(seconds))
    argv = [machine.tool("taskset"), "--cpu-list", ",".join(map(str, cores)), machine.tool("wrk")]
    argv += ["--threads", "1", "--connections", str(connections), "--duration", f"{whole_s}s"]
    argv += ["--timeout", f"{TIMEOUT_S}s", "--script", str(script), f"http://127.0.0.1:{port}{path}"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=whole_s + 60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise BrokenError(f"wrk failed: {error}: {error.stderr!r}") from error
    if done.stderr:  # a faulty script is no error to wrk
        raise BrokenError(f"wrk: {done.stderr.strip()}")
    return _read(done.stdout)


def _read(output: str) -> Window:
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise BrokenError(f"wrk said nothing of use: {output[-500:]}")
    said = json.loads(line.removeprefix(MARK))
    return Window(
        requests=said["requests"],
        per_s=said["requests"] / (said["duration_us"] / 1e6),
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        errors=said["status"] + said["socket"] + said["timeout"],
    )


def _lua(text: str) -> str:
    """`text` as a Lua string, whatever stands in it."""
    level = "="
    while f"]{level}]" in text:
        level += "="
    return f"[{level}[{text}]{level}]"
