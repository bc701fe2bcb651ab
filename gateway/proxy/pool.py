"""Connections to the model endpoints: kept alive, handed out last in first out, and one ticker for all deadlines.

Idle connections are closed before most servers would close them, because a request written into a closing
connection may or may not have run and, where it is not idempotent, must not be sent again (RFC 9110 §9.2.2).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.proxy.call import Call
from gateway.proxy.errors import UpstreamFailed, UpstreamSlow
from gateway.proxy.upstream import Connection

TICK_S = 0.05  # how late a deadline may be noticed
IDLE_S = 4.0  # below the 5 s of uvicorn and node; a `Keep-Alive: timeout` of the upstream moves it
IDLE_MARGIN_S = 1.0  # before the time that the upstream promised
IDLE_MAX = 256  # connections kept per endpoint; more are closed when their call ends


@dataclass(frozen=True, slots=True)
class Origin:
    """One endpoint: scheme, host and port, and how it is named in `Host`."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of `http(s)://host[:port]/…`."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def authority(self) -> bytes:
        """What stands in `Host`: the port only where it is not the scheme's own (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = 443 if self.scheme == "https" else 80
        return (host if self.port == standard else f"{host}:{self.port}").encode(
            "idna" if not host.isascii() else "ascii"
        )


class Pool:
    """The connections to one origin."""

    def __init__(self, origin: Origin, *, tls: ssl.SSLContext | None = None, server_name: str | None = None) -> None:
        """Connect to nothing yet; where the scheme is https, `tls` is used in place of the system's trust.

        `server_name` is whom the certificate must name, where that is not the origin's host.
        """
        self.origin = origin
        self._loop = asyncio.get_running_loop()
        self._tls = (tls or ssl.create_default_context()) if origin.scheme == "https" else None
        self._server_name = server_name if origin.scheme == "https" else None
        self.seats = 0  # calls under way here of routes that choose among replicas (see replicas.py)
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()

    def idle(self) -> Connection | None:
        """A connection that was used before and is still there, the last one freed; None where there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None

    def give_back(self, connection: Connection) -> None:
        """Nothing was written on it after all."""
        self._idle.append(connection)

    async def connect(self, timeout_s: float) -> Connection:
        """A new connection.

        Raises:
            UpstreamFailed: refused, unreachable, unknown host, or its certificate is not trusted.
            UpstreamSlow: not there within `timeout_s`.
        """
        origin = self.origin
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, self._free),
                    origin.host,
                    origin.port,
                    ssl=self._tls,
                    server_hostname=self._server_name,
                )
        except TimeoutError as error:
            raise UpstreamSlow(f"no connection within {timeout_s:g} s", code="upstream_connect_timeout") from error
        except ssl.SSLError as error:
            raise UpstreamFailed(f"no trusted TLS connection: {error.reason}", code="upstream_tls") from error
        except OSError as error:
            raise UpstreamFailed(f"no connection: {error.strerror or type(error).__name__}") from error
        self._open.add(connection)
        return connection

    def tick(self, now: float) -> None:
        """Keep the deadlines of all calls, and close what has been idle for too long. `now`: the loop's clock."""
        for connection in list(self._open):
            call = connection.call
            if call is not None:
                _keep(call, now, paused=connection.paused)
        while self._idle and self._is_stale(self._idle[0], now):
            self._idle.popleft().abort()

    async def close(self) -> None:
        """Close every connection and wait for it."""
        waiting = list(self._open)
        for connection in waiting:
            connection.abort()
        for connection in waiting:
            await connection.closed()

    def _free(self, connection: Connection) -> None:
        if not connection.alive:
            self._open.discard(connection)
        elif len(self._idle) >= IDLE_MAX:
            connection.abort()
        else:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    @staticmethod
    def _is_stale(connection: Connection, now: float) -> bool:
        promised_s = connection.keep_s
        keep_s = IDLE_S if promised_s is None else max(0.0, promised_s - IDLE_MARGIN_S)
        return not connection.alive or now - connection.idle_since > keep_s


class Upstreams:
    """The pools of all origins of a configuration, and their ticker."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """No pools yet; `tls` is used towards https endpoints in place of the system's trust."""
        self._tls = tls
        self._pools: dict[tuple[Origin, ssl.SSLContext | None, str | None], Pool] = {}
        self._contexts: dict[Hashable, ssl.SSLContext] = {}
        self._ticker: asyncio.Task[None] | None = None

    def pool(self, url: str, *, tls: ssl.SSLContext | None = None, server_name: str | None = None) -> Pool:
        """The pool of an endpoint: one for each origin and trust, shared by the routes that have it."""
        origin, trust = Origin.of(url), tls or self._tls
        key = (origin, trust, server_name)
        known = self._pools.get(key)
        if known is None:
            known = self._pools[key] = Pool(origin, tls=trust, server_name=server_name)
        return known

    def context(self, settings: Hashable, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """The TLS context for `settings`, made once: routes that say the same share their connections."""
        known = self._contexts.get(settings)
        if known is None:
            known = self._contexts[settings] = make()
        return known

    def start(self) -> None:
        """Begin to keep deadlines."""
        self._ticker = asyncio.create_task(self._tick(), name="upstream-deadlines")

    async def close(self) -> None:
        """Stop the ticker and close every connection."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for pool in self._pools.values():
            await pool.close()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            for pool in self._pools.values():
                pool.tick(now)


def _keep(call: Call, now: float, *, paused: bool) -> None:
    timeouts = call.limits.timeouts
    if not call.overdue and now >= call.patience_until:
        call.overdue = True
        call.wake()
    if now - call.started_at > timeouts.total_s:
        call.fail(UpstreamSlow(f"no complete answer within {timeouts.total_s:g} s", code="upstream_total_timeout"))
    elif not call.first_byte_at:
        if now - call.started_at > timeouts.first_byte_s:
            call.fail(UpstreamSlow(f"no answer within {timeouts.first_byte_s:g} s"))
    elif not paused and now - call.last_byte_at > timeouts.idle_s:
        call.fail(UpstreamSlow(f"silent for {timeouts.idle_s:g} s in mid-answer", code="upstream_idle_timeout"))
