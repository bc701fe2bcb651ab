"""The only door to ClickHouse: one code path for embedded chDB and for a server, cluster or cloud over HTTP.

Calls are synchronous and may come from several threads; each call borrows one of a few clients, because one client
serialises its calls. Nothing is connected before the first call, so that a keeper starts while its server is down.

What holds for every call:

* An insert is one block with a deduplication token, synchronous, and is *never sent twice by this file*: after any
  doubt the caller reads back first. (clickhouse-connect replays a cut insert by itself unless its body cannot be
  rewound, hence the iterator below. A token is an optimisation: it does not survive a power cut.)
* Each call goes as the account that it is for (profiles.py): reads as reader, inserts as the table's, DDL as migrator.
* A read carries caps on time, memory and rows; running into one is an error, never a shortened answer.
* Columns named in ``BYTES`` come back as bytes, times as integer nanoseconds, everything else as text and numbers.
* No ``readonly`` setting: an embedded handle that ran with it stays read-only.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform

from storage.errors import NothingRecorded, QueryError, StorageUnavailable
from storage.profiles import Account, Login, Profile

# Columns that hold bytes and not text, by name in every table and every query.
BYTES: Final = ("bytes", "entry", "hashes", "header", "wrapped")
CLIENTS_MAX: Final = 8  # at once: the keeper's few threads and the desk's; an embedded engine has the cores of its host
CLIENT_WAIT_S: Final = 30.0  # for a free client, longer than any capped read should take
HTTP_TIMEOUT_S: Final = 120  # above every cap on execution time, so that the server's own limit speaks first

_UNKNOWN_DATABASE: Final = 81
_ACCESS_DENIED: Final = 497
# Answers that say "not now": the same call may succeed later, unchanged.
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
_LATER: Final = frozenset(
    {
        3,  # UNEXPECTED_END_OF_FILE: a body that was cut
        33,  # CANNOT_READ_ALL_DATA: the same, seen by the Native reader
        159,  # TIMEOUT_EXCEEDED
        173,  # CANNOT_ALLOCATE_MEMORY
        201,  # QUOTA_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        216,  # QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: the insert in doubt has not ended yet
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED: no replica of a shard answers
        285,  # TOO_FEW_LIVE_REPLICAS
        286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
        289,  # REPLICA_IS_NOT_IN_QUORUM
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        516,  # AUTHENTICATION_FAILED: mended at the server or in the configuration, the backlog waits
        745,  # SERVER_OVERLOADED
        999,  # KEEPER_EXCEPTION
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one read may cost before it is refused."""

    rows_max: int
    memory_bytes_max: int
    time_s_max: float

    def settings(self) -> dict[str, Any]:
        """As ClickHouse settings of one query."""
        return {
            "max_result_rows": self.rows_max,
            "result_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes_max,
            "max_execution_time": self.time_s_max,
            "timeout_overflow_mode": "throw",
        }


PAGE: Final = Caps(rows_max=5_000, memory_bytes_max=512 << 20, time_s_max=15)  # what a person waits for
BULK: Final = Caps(rows_max=200_000, memory_bytes_max=1 << 30, time_s_max=60)  # chunks and keys, by verification
SWEEP: Final = Caps(rows_max=50_000, memory_bytes_max=1 << 30, time_s_max=60)  # read-back, verification, rebuilding


class Database:
    """A handle on one database; safe to share between threads.

    Every method raises `StorageUnavailable` when the same call may succeed later, and `QueryError` when it will not.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._free: dict[Login, list[Client]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(CLIENTS_MAX)
        self._types: dict[tuple[str, tuple[str, ...]], Sequence[Any]] = {}
        self._closed = False

    @classmethod
    def open(cls, profile: Profile) -> Database:
        """A handle; connects at the first call. One process may hold one embedded path at a time."""
        if profile.path is not None:
            profile.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(profile)

    def close(self) -> None:
        """Close every client that is not in use; those in use are closed as they come back."""
        with self._lock:
            self._closed = True
            clients, self._free = self._free, {}
        for client in (client for free in clients.values() for client in free):
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        caps: Caps = PAGE,
        account: Account = Account.READER,
        settings: Mapping[str, object] | None = None,
    ) -> list[tuple[Any, ...]]:
        """The rows of a SELECT with parameters bound by the server (``{name:Type}``), all of them or an error."""
        formats: dict[str, str | dict[str, str]] = dict.fromkeys(BYTES, "bytes")
        with self._client(account) as client:
            result = client.query(
                sql,
                parameters=dict(parameters) if parameters else None,
                settings={**caps.settings(), **self.profile.read_settings(), **(settings or {})},
                column_formats=formats,
                query_formats={"DateTime64*": "int"},
            )
            return [tuple(row) for row in result.result_rows]

    def command(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        inside: bool = True,
        account: Account = Account.MIGRATOR,
    ) -> None:
        """Run a statement without rows, such as DDL; `inside` = within this handle's database."""
        with self._client(account) as client:
            client.command(
                sql,
                parameters=dict(parameters) if parameters else None,
                settings=dict(settings) if settings else None,
                use_database=inside,
            )

    def insert(
        self,
        table: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        token: str,
        query: str = "",
        account: Account = Account.WRITER,
    ) -> None:
        """Insert `rows` as one block; on return the server has acknowledged it (durable by the tables' settings).

        Args:
            table: a table of this database.
            columns: the names of the values of each row; times are integer nanoseconds.
            rows: at most a few thousand; an empty sequence inserts nothing.
            token: deduplicates within the server's window; another token for other rows, always.
            account: as whom.
            query: names the running query: a server refuses a second one of that name while the first still runs.
        """
        if not rows:
            return
        settings: dict[str, Any] = {
            **self.profile.insert_settings(),
            "insert_deduplication_token": token,
            "query_id": query or "answerable-" + hashlib.sha256(f"{table} {token}".encode()).hexdigest()[:32],
        }
        with self._client(account) as client:
            payload = self._block(client, table, columns, rows)
            client.raw_insert(table, columns, (chunk for chunk in (payload,)), settings=settings, fmt="Native")

    def ping(self) -> None:
        """True on return: the database answers.

        Raises:
            StorageUnavailable: it does not.
        """
        self.rows("SELECT 1")

    def version(self) -> str:
        """The server's version, as a client asked for it when it connected; the database need not exist yet."""
        with self._client(Account.WRITER) as client:
            return str(client.server_version)

    def _block(self, client: Client, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
        """The rows as one Native block: one block is one part, and one part is there or is not."""
        key = (table, tuple(columns))
        context: InsertContext = client.create_insert_context(
            table, list(columns), column_types=self._types.get(key), data=rows
        )
        self._types[key] = context.column_types
        context.block_row_count = len(rows)
        chunks = list(NativeTransform.build_insert(context))
        if context.insert_exception is not None:
            raise context.insert_exception
        _, _, block = b"".join(chunks).partition(b"\n")  # the first line is the statement, which raw_insert makes
        return block

    @contextlib.contextmanager
    def _client(self, account: Account) -> Iterator[Client]:
        """A client for one call as `account`, in this database; errors leave as ours."""
        login = self.profile.login(account)
        if not self._slots.acquire(timeout=CLIENT_WAIT_S):
            raise StorageUnavailable(f"{CLIENTS_MAX} calls have been running for {CLIENT_WAIT_S:.0f} s")
        client: Client | None = None
        try:
            with self._lock:
                if self._closed:
                    raise StorageUnavailable("the database handle is closed")
                free = self._free.get(login)
                client = free.pop() if free else None
            client = client or self._connect(login)
            yield client
        except (ClickHouseError, RuntimeError) as error:  # chdb raises bare RuntimeErrors
            raise translated(error, self.profile) from error
        finally:
            if client is not None:
                self._give_back(login, client)
            self._slots.release()

    def _give_back(self, login: Login, client: Client) -> None:
        with self._lock:
            if not self._closed:
                self._free.setdefault(login, []).append(client)
                return
        client.close()

    def _connect(self, login: Login) -> Client:
        logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)  # its warnings repeat what our errors say
        profile = self.profile
        if profile.kind == "chdb":
            client = clickhouse_connect.get_client(
                interface="chdb", path=str(profile.path), show_clickhouse_errors="scrub"
            )
        else:
            where = urlsplit(profile.url or "")
            client = clickhouse_connect.get_client(
                interface=where.scheme,
                host=where.hostname,
                port=where.port or (8443 if where.scheme == "https" else 8123),
                username=login.user,
                password=login.password,
                proxy_path=where.path,
                connect_timeout=max(1, round(profile.connect_timeout_s)),
                send_receive_timeout=HTTP_TIMEOUT_S,
                autogenerate_session_id=False,  # calls share nothing, so that any replica may answer
                compress=False,  # parts are sealed and compressed already
                show_clickhouse_errors="scrub",  # the whole message would hold the address with its parameters
                query_retries=0,  # the callers retry, with their own backoff and their own reading back
            )
        client.database = profile.database  # set afterwards: it need not exist before it is migrated
        return client


def translated(error: Exception, profile: Profile) -> Exception:
    """Our error for one of the driver's: later, or never."""
    text = " ".join(str(error).split())[:500]
    if error.__cause__ is not None:  # of the transport; its own text holds the address with its parameters
        text += f" ({getattr(error.__cause__, 'reason', type(error.__cause__).__name__)})"
    if isinstance(error, DatabaseError) and error.code is not None:
        if error.code in _LATER:
            return StorageUnavailable(f"ClickHouse: {text}")
        if error.code == _UNKNOWN_DATABASE:
            return NothingRecorded(f"nothing is recorded yet: ClickHouse has no database {profile.database}")
        if error.code == _ACCESS_DENIED:
            return QueryError(
                f"ClickHouse: {text}",
                code="access_denied",
                advice="Have the accounts and grants made that `answerable migrate --print-sql` prints.",
            )
        return QueryError(f"ClickHouse: {text}")
    if profile.kind == "chdb" and "Unable to open the chdb engine" in text:
        return StorageUnavailable(  # chdb gives no reason: most often a second process
            f"{profile.path} cannot be opened, or is open elsewhere: {text}",
            advice="Embedded ClickHouse allows one process at a time: talk to the running keeper; else check the disk.",
        )
    if isinstance(error, ProgrammingError):  # the driver itself refuses, say to change a setting that is read-only
        return QueryError(f"ClickHouse: {text}")
    if isinstance(error, OperationalError | InterfaceError) or profile.kind != "chdb":
        return StorageUnavailable(f"ClickHouse does not answer: {text}")
    return QueryError(f"ClickHouse: {text}")
