"""The sides of the comparison: how each is started before the same upstream, and what it records.

Each launcher starts one proxy on the gateway's core and returns a `Side`, which has answered one real call with the
upstream's answer before it counts. What cannot be had on this machine raises `AbsentError` and is named in the report.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from load_tests import compiled, gateway, installs, machine, traffic, upstream
from load_tests.installs import AbsentError
from load_tests.process import BrokenError, Process, free_port

READY_S = 20.0
LITELLM_READY_S = 120.0  # it imports for half a minute on a shared machine
PROBE_S = 30.0
MIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every side stands on: folders, cores, and the upstream that all of them call."""

    work: Path
    cores: machine.Cores
    upstream_port: int
    stack: ExitStack
    install: bool


@dataclass(slots=True, kw_only=True)
class Side:
    """A running proxy and how to call it."""

    name: str
    port: int
    processes: list[Process]
    headers: Mapping[str, str] = field(default_factory=dict)
    emptied: tuple[Path, ...] = ()  # files that grow with traffic, cut to nothing between windows
    gateway: gateway.Gateway | None = None

    @property
    def rss_mib(self) -> float:
        """Resident memory of all its processes now, MiB."""
        return sum(process.rss_bytes for process in self.processes) / MIB

    @property
    def cpu_s(self) -> float:
        """Processor time of all its processes so far, seconds."""
        return sum(process.cpu_s for process in self.processes)

    def tidy(self) -> None:
        """Drop what the last window left in files, so that writing it back does not fall into a neighbour's window."""
        for path in self.emptied:
            os.truncate(path, 0)

    def probe(self, path: str = traffic.CHAT_PATH, body: bytes | None = None) -> None:
        """One call, as the load will make it, gives status 200 and the upstream's answer.

        Raises:
            BrokenError: anything else.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PROBE_S)
        try:
            sent = {"Content-Type": "application/json", **self.headers}
            connection.request("POST", path, body=body or traffic.chat_request(), headers=sent)
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise BrokenError(f"{self.name} did not answer: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise BrokenError(f"{self.name} answered {answer.status}: {raw[:300]!r}")
        if path == traffic.CHAT_PATH and _said(raw) != _said(traffic.chat_answer()):
            raise BrokenError(f"{self.name} answered something else than the upstream: {raw[:300]!r}")
        if self.gateway is not None and answer.getheader("Decision-Receipt") is None:
            raise BrokenError("our gateway answered without a receipt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparator:
    """A proxy that can be measured; `records` is the column of the table that tells why figures differ."""

    key: str
    name: str
    records: str
    launch: Callable[[Ground, Path], Side]

    def start(self, ground: Ground) -> Side:
        """Start it and make one call through it.

        Raises:
            AbsentError: it cannot be had here.
        """
        base = ground.work / self.key
        base.mkdir(parents=True, exist_ok=True)
        try:
            side = self.launch(ground, base)
            side.probe()
        except BrokenError as failure:
            if self.key == "ours":
                raise
            raise AbsentError(f"{self.name}: {failure}") from failure
        return side


def _source(ground: Ground, base: Path) -> Side:
    if compiled.find() is None:
        raise AbsentError("Answerable, not compiled: the one above is (`make compiled` needs cc and Python's headers)")
    return _ours(ground, base, is_compiled=False)


def _ours(ground: Ground, base: Path, *, is_compiled: bool = True) -> Side:
    running = gateway.start(
        base,
        ground.stack,
        upstream_port=ground.upstream_port,
        cores=(ground.cores.gateway,),
        is_compiled=is_compiled,
    )
    return Side(
        name="Answerable" if is_compiled else "Answerable, not compiled",
        port=running.port,
        processes=running.workers,
        headers={"Authorization": f"Bearer {running.key}"},
        gateway=running,
    )


def _nginx(ground: Ground, base: Path, *, log: Path | None = None) -> Side:
    port = free_port()
    logging = ""
    if log is not None:
        line = '{"time":"$time_iso8601","method":"$request_method","uri":"$request_uri","status":$status,'
        line += '"request_time":$request_time,"request":"$request_body"}'
        logging = f"  log_format evidence escape=json '{line}';\n  access_log {log} evidence buffer=256k flush=1s;\n"
    block = f"""{logging}
  upstream model {{ server 127.0.0.1:{ground.upstream_port}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}"""
    process = upstream.nginx(base, block, cores=(ground.cores.gateway,))
    ground.stack.callback(process.stop)
    process.wait_for_port(port, within_s=READY_S)
    return Side(name="nginx", port=port, processes=[process], emptied=() if log is None else (log,))


def _nginx_log(ground: Ground, base: Path) -> Side:
    return _nginx(ground, base, log=base / "access.log")


def _bare(ground: Ground, base: Path) -> Side:
    port = free_port()
    argv = [sys.executable, "-m", "load_tests.bare", str(port), f"http://127.0.0.1:{ground.upstream_port}"]
    process = _pinned(ground, base, argv)
    process.wait_for_port(port, within_s=READY_S)
    return Side(name="bare aiohttp", port=port, processes=[process])


def _portkey(ground: Ground, base: Path) -> Side:
    port = free_port()
    argv = [*installs.portkey(allowed=ground.install), f"--port={port}", "--headless"]
    trusted = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}  # it refuses loopback upstreams else
    process = _pinned(ground, base, argv, env=trusted)
    process.wait_for_port(port, within_s=READY_S)
    headers = {
        "Authorization": "Bearer sk-bench",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{ground.upstream_port}/v1",
    }
    return Side(name="Portkey", port=port, processes=[process], headers=headers)


def _litellm(ground: Ground, base: Path) -> Side:
    command = installs.litellm(allowed=ground.install)
    port = free_port()
    key = f"sk-{secrets.token_hex(16)}"
    params = {
        "model": "openai/gpt-4o-mini",
        "api_base": f"http://127.0.0.1:{ground.upstream_port}/v1",
        "api_key": "sk-bench",
    }
    settings = {"model_list": [{"model_name": "gpt-4o-mini", "litellm_params": params}]}
    configuration = base / "config.yaml"
    configuration.write_text(json.dumps(settings))
    argv = [
        str(command),
        "--config",
        str(configuration),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    quiet = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no look-up of prices on the network
        "LITELLM_TELEMETRY": "False",
        "DISABLE_ADMIN_UI": "True",
    }
    process = _pinned(ground, base, argv, env=quiet)
    process.wait_for_port(port, within_s=LITELLM_READY_S)
    return Side(name="LiteLLM", port=port, processes=[process], headers={"Authorization": f"Bearer {key}"})


def _pinned(ground: Ground, base: Path, argv: list[str], env: Mapping[str, str] | None = None) -> Process:
    process = Process(argv, cores=(ground.cores.gateway,), log=base / "log", env=env)
    ground.stack.callback(process.stop)
    return process


def _said(raw: bytes) -> object:
    try:
        return json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None


COMPARATORS = (
    Comparator(
        key="ours",
        name="Answerable",
        records="every request and answer, sealed, signed, on disk before the answer ends; key checked",
        launch=_ours,
    ),
    Comparator(
        key="source", name="Answerable, not compiled", records="as above, run from its Python sources", launch=_source
    ),
    Comparator(key="nginx", name="nginx proxy_pass", records="nothing", launch=_nginx),
    Comparator(key="nginx-log", name="nginx, body log", records="request bodies, buffered, plain", launch=_nginx_log),
    Comparator(key="bare", name="bare aiohttp", records="nothing", launch=_bare),
    Comparator(key="portkey", name=f"Portkey gateway {installs.PORTKEY}", records="nothing", launch=_portkey),
    Comparator(
        key="litellm", name=f"LiteLLM proxy {installs.LITELLM}", records="nothing; key checked", launch=_litellm
    ),
)
KEYS = tuple(comparator.key for comparator in COMPARATORS)


def free(work: Path) -> None:
    """Remove a run's folder; what is left of a journal is of no use to anybody."""
    shutil.rmtree(work, ignore_errors=True)
