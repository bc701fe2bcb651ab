"""Profiles: which kind of ClickHouse, as whom it is spoken to, and what each kind is told with every call (pure).

Reading back decides whether rows are there, so a read must see every insert that was acknowledged:

| profile | how |
|---|---|
| chdb, server | one server: what it acknowledged it shows |
| cluster | an insert waits for `insert_quorum` replicas, one at a time in each table (`insert_quorum_parallel = 0`) |
| | and for the shards (`distributed_foreground_insert`); a read takes no replica that lacks one of them |
| cloud | storage is shared; a read first fetches the newest metadata (`select_sequential_consistency`) |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from config.database import Storage

Kind = Literal["chdb", "server", "cluster", "cloud"]
QUORUM_TIMEOUT_MS: Final = 60_000  # below the HTTP timeout, so that the server says first what it misses


class Account(StrEnum):
    """What a call is for, and so as whom it is made; accounts.py has the grants."""

    WRITER = "writer"  # inserts evidence and reads it back
    READER = "reader"  # every other read
    PROJECTOR = "projector"  # the typed tables
    MIGRATOR = "migrator"  # the schema
    ERASER = "eraser"  # deletes keys and typed rows
    PRUNER = "pruner"  # deletes entries whose time is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user of the database, with the password revealed."""

    user: str = "default"
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the database is, of which kind, and as whom it is spoken to; accounts that are not there: the writer's."""

    kind: Kind
    database: str
    path: Path | None = None
    url: str | None = None
    writer: Login = Login()
    accounts: Mapping[Account, Login] = field(default_factory=dict)
    cluster: str | None = None
    insert_quorum: str = "auto"
    allow_broad_grants: bool = False
    connect_timeout_s: float = 5

    @classmethod
    def of(cls, storage: Storage, *, data: Path, passwords: Mapping[str, str] | None = None) -> Profile:
        """The profile that the configuration asks for; `passwords` have been revealed, by the account's purpose."""
        revealed = passwords or {}
        logins = {
            Account(name): Login(user=login.user, password=revealed.get(name, ""))
            for name, login in storage.logins().items()
        }
        return cls(
            kind=storage.profile,
            database=storage.database,
            path=data / "clickhouse" if storage.profile == "chdb" else None,
            url=None if storage.url is None else str(storage.url),
            writer=logins.pop(Account.WRITER),
            accounts=logins,
            cluster=storage.cluster,
            insert_quorum=str(storage.insert_quorum),
            allow_broad_grants=storage.allow_broad_grants,
            connect_timeout_s=storage.connect_timeout_s,
        )

    def login(self, account: Account) -> Login:
        """As whom to make a call of `account`."""
        return self.accounts.get(account, self.writer)

    def insert_settings(self) -> dict[str, Any]:
        """What every insert is told."""
        settings: dict[str, Any] = {"async_insert": 0}  # 1 is the default since 26.x: it acknowledges too early
        if self.kind == "cluster":
            settings |= {
                "insert_quorum": self.insert_quorum,
                "insert_quorum_parallel": 0,  # else select_sequential_consistency means nothing
                "insert_quorum_timeout": QUORUM_TIMEOUT_MS,
                "distributed_foreground_insert": 1,  # else the initiator acknowledges what no shard has yet
            }
        return settings

    def read_settings(self) -> dict[str, Any]:
        """What every read is told, beside its caps."""
        if self.kind == "cluster":
            return {
                "select_sequential_consistency": 1,
                "skip_unavailable_shards": 0,  # a shard that is away is no shard without rows
                "distributed_product_mode": "global",  # a subquery is over the whole table, too
            }
        return {"select_sequential_consistency": 1} if self.kind == "cloud" else {}
