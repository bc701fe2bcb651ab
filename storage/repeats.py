"""First calls under their `Idempotency-Key`, for their repeats: the only file that opens SQLite.

One database in WAL mode for all workers of a host, `DATA/idempotency/repeats.sqlite`. A claim is one INSERT under a
key's hash, so that of any number of repeats in any number of processes exactly one runs. It is durable when it
returns (`synchronous = FULL`): a power cut does not let the model run twice either. Keys and bodies stand here as keyed
hashes only; answers are sealed under the key of the day (`daykeys.py`). All of it blocks: never called on a loop.
"""

from __future__ import annotations

import contextlib
import hmac
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from storage import durable
from storage.daykeys import DayKeys
from storage.firsts import ANSWER_BYTES_MAX, KEPT_S, NS, Asking, First, State, framed

DIRECTORY = "idempotency"
NAME = "repeats.sqlite"
VERSION = 1
BUSY_S = 2.0  # another worker's transaction takes milliseconds; whoever waits longer is refused
PAGE_BYTES = 4096
DATABASE_BYTES_MAX = 4 * 1024**3  # some two million short answers; it must not eat the journal's room
EXPIRE_ROWS_MAX = 1000  # in one transaction, so that nobody waits long behind it

_SCHEMA = """
CREATE TABLE IF NOT EXISTS firsts (
  key BLOB PRIMARY KEY,      -- HMAC of tenant, actor and key
  content BLOB,              -- HMAC of method, target and body; NULL: erased
  decision TEXT NOT NULL,
  state TEXT NOT NULL,
  shard TEXT NOT NULL,       -- who runs it …
  incarnation BLOB NOT NULL, -- … in which of its lives
  lease_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  status INTEGER,
  day TEXT,                  -- whose key sealed the answer
  answer BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS firsts_decision ON firsts (decision);
CREATE INDEX IF NOT EXISTS firsts_expires ON firsts (expires_ns);
CREATE INDEX IF NOT EXISTS firsts_running ON firsts (shard) WHERE state = 'running';
"""


class Repeats:
    """The table of one host, used by one thread of one process."""

    def __init__(self, connection: sqlite3.Connection, keys: DayKeys, *, shard: str, incarnation: bytes) -> None:
        self._connection = connection
        self._keys = keys
        self._shard = shard
        self._incarnation = incarnation

    @classmethod
    def open(cls, data: Path, *, shard: str, incarnation: bytes) -> Self:
        """Open it, made where missing, and state as lost what earlier lives of this shard left running.

        Who opens holds the shard's lock: nobody else lives under its name. Raises sqlite3.Error, OSError, StorageError.
        """
        directory = data / DIRECTORY
        keys = DayKeys(directory)
        connection = _connect(directory / NAME)
        try:
            table = cls(connection, keys, shard=shard, incarnation=incarnation)
            with table.transaction():
                connection.execute(
                    "UPDATE firsts SET state = 'lost' WHERE state = 'running' AND shard = ? AND incarnation <> ?",
                    (shard, incarnation),
                )
        except BaseException:
            connection.close()
            raise
        return table

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done inside is durable on return, or none of it is."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled it back already
                self._connection.execute("ROLLBACK")
            raise

    def claim(self, asking: Asking) -> First | None:
        """None: the key is this call's now; else the call that has it."""
        key, content = self._hash(b"key", asking.scope), self._hash(b"content", asking.content)
        execute = self._connection.execute
        execute("DELETE FROM firsts WHERE key = ? AND expires_ns <= ?", (key, asking.now_ns))
        made = execute(
            "INSERT INTO firsts (key, content, decision, state, shard, incarnation, lease_ns, expires_ns)"
            " VALUES (?, ?, ?, 'running', ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            (
                *(key, content, asking.decision, self._shard, self._incarnation),
                *(asking.lease_ns, asking.now_ns + KEPT_S * NS),
            ),
        )
        if made.rowcount == 1:
            return None
        found = execute(
            "SELECT decision, state, content, lease_ns, status, day, answer FROM firsts WHERE key = ?", (key,)
        ).fetchone()
        return self._first(found, content)

    def keep(self, decision: str, status: int, head: bytes, body: bytes, *, now_ns: int) -> None:
        """The answer of a running call is kept; one that is too large is stated so."""
        if len(head) + len(body) > ANSWER_BYTES_MAX:
            self.settle(decision, "too_large")
            return
        day, sealed = self._keys.seal(b"%d:%b%b" % (len(head), head, body), decision.encode(), now_ns=now_ns)
        self._connection.execute(
            "UPDATE firsts SET state = 'kept', status = ?, day = ?, answer = ?"
            " WHERE decision = ? AND state = 'running'",
            (status, day, sealed, decision),
        )

    def settle(self, decision: str, state: State) -> None:
        """A running call has ended without an answer that could be repeated."""
        self._connection.execute(
            "UPDATE firsts SET state = ? WHERE decision = ? AND state = 'running'", (state, decision)
        )

    def release(self, decision: str) -> None:
        """A running call never reached the model: its key is free again."""
        self._connection.execute("DELETE FROM firsts WHERE decision = ? AND state = 'running'", (decision,))

    def expire(self, *, now_ns: int) -> int:
        """Delete rows of more than 24 h and keys of days that nothing needs; returns the number of rows."""
        gone = self._connection.execute(
            "DELETE FROM firsts WHERE key IN (SELECT key FROM firsts WHERE expires_ns <= ? LIMIT ?)",
            (now_ns, EXPIRE_ROWS_MAX),
        ).rowcount
        self._keys.expire(now_ns=now_ns)
        return gone

    def _first(self, found: tuple[str, State, bytes | None, int, int | None, str, bytes], content: bytes) -> First:
        decision, state, asked, lease_ns, status, day, answer = found
        same = None if asked is None else hmac.compare_digest(asked, content)
        head = body = b""
        if state == "kept" and same:
            plain = self._keys.open(day, answer, decision.encode())
            if plain is None:
                state = "unkept"
            else:
                digits, _, rest = plain.partition(b":")
                head, body = rest[: int(digits)], rest[int(digits) :]
        return First(
            decision=decision, state=state, same=same, lease_ns=lease_ns, status=status or 0, head=head, body=body
        )

    def _hash(self, kind: bytes, values: Iterable[bytes]) -> bytes:
        text = framed((b"answerable/idempotency/v1", kind, *values))
        return hmac.digest(self._keys.secret, text, "sha256")


def erase(data: Path, decisions: Iterable[str]) -> int:
    """Erase the answers to these calls (by Decision-Id), and what was asked; returns how many were found.

    The key's hash and the Decision-Id stay until they expire: else a repeat would run the model again. On return
    neither the database nor its log holds the bytes (`secure_delete`, and the log is cut), unless another process reads
    it at this very moment: then the log goes with its next checkpoint, and the bytes in it are ciphertext.

    Raises:
        sqlite3.Error: it cannot be done now.
    """
    path = data / DIRECTORY / NAME
    if not path.exists():
        return 0
    connection = _connect(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        count = 0
        for decision in decisions:
            count += connection.execute(
                "UPDATE firsts SET state = 'erased', content = NULL, status = NULL, day = NULL, answer = NULL"
                " WHERE decision = ?",
                (decision,),
            ).rowcount
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return count


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        durable.create_file(path, b"")  # 0600, which its log inherits; an empty file is an empty database
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA max_page_count = {DATABASE_BYTES_MAX // PAGE_BYTES}")
        _make_table(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_table(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise sqlite3.DatabaseError(f"the repeats are of version {version}, and this reads {VERSION}")
